"""One run at a time in an output folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jaxexec.storage.atomic import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from jaxexec.storage.errors import FileError, file_error
from jaxexec.storage.system import backend

LOCK_NAME = ".jaxexec.lock"


@contextlib.contextmanager
def output_folder(path: str | Path) -> Iterator[Path]:
    """Make an output folder where there is none, and hold it for this process.

    The lock belongs to the process and goes with it, so a run that was killed leaves nothing to clean up by
    hand; the temporary files it may have left are removed here. Where the system or the disk has no such
    locks, the folder is used without one. A folder that was made here and in which a failure left nothing is removed.

    Raises:
        FileError: The folder cannot be made, or another run holds it.
    """
    path = Path(path)
    new = not path.exists()
    try:
        backend.make_folder(path)
    except OSError as error:
        raise file_error(path, error) from error
    try:
        with _held(path / LOCK_NAME):
            _sweep(path)
            yield path
    except BaseException:
        if new:
            with contextlib.suppress(OSError):  # it holds something, or is gone
                path.rmdir()
        raise


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[None]:
    descriptor = _lock(lock)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                lock.unlink()
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock; None where locks are not to be had."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise file_error(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            reason = f"another run (process {holder}) is writing here"
            raise FileError(path.parent, reason, "Wait for it, or choose another --out.") from None
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file is still the one of that name (its last holder removes it)."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove temporary files of a run that was killed; only the holder of the lock does this."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            backend.remove(leftover)
