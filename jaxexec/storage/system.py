"""The one place where files are opened for writing, written, flushed to the disk, renamed and removed.

Everything that is written goes through the object `backend`, so that a test can make the k-th call fail,
for every k, and look at what is left behind.
"""

import os
from pathlib import Path

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Backend:
    """System calls that change the disk, one method each. They raise `OSError` as the system does."""

    def create(self, path: Path) -> int:
        """Descriptor of a new file; never an existing file, never through a symbolic link."""
        return os.open(path, _NEW_FILE, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Number of bytes of `data` that were taken, which may be fewer than there are."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Return when the file is on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor from `create`."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename within a folder, in one indivisible step."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is no error."""
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it; one that is there is no error."""
        path.mkdir(parents=True, exist_ok=True)

    def fsync_folder(self, path: Path) -> None:
        """Return when the names in a folder are on the disk (on POSIX; elsewhere there is nothing to do)."""
        if os.name != "posix":
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


backend = Backend()
