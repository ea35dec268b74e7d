"""What is raised when a file cannot be read or written."""

import errno
from pathlib import Path


class FileError(Exception):
    """A file that cannot be read or written, with the reason and what to do about it.

    Attributes:
        path: The file as it was asked for.
        reason: What is wrong, as half a sentence.
        remedy: What the user can do.
    """

    def __init__(self, path: str | Path, reason: str, remedy: str):
        self.path = Path(path)
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{str(path)!r}: {reason}. {remedy}")

    def __reduce__(self):
        return type(self), (self.path, self.reason, self.remedy)


_REMEDIES = {
    errno.ENOSPC: "Free some space, or choose another folder.",
    errno.EDQUOT: "Free some of your quota, or choose another folder.",
    errno.EROFS: "Choose a folder on a disk that can be written.",
    errno.EACCES: "Choose a folder that you may write, or change its permissions.",
    errno.EPERM: "Choose a folder that you may write, or change its permissions.",
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "A part of the path is a file: choose another path.",
    errno.EISDIR: "This is a folder: name a file.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "The path goes through a symbolic link that is not followed: name the file itself.",
    errno.EIO: "The disk reports a failure: check it, and run again on another one.",
}


def file_error(path: str | Path, error: OSError) -> FileError:
    """The `FileError` that says what an `OSError` of the system means for a user."""
    reason = (error.strerror or type(error).__name__).lower()
    remedy = _REMEDIES.get(error.errno or 0, "Check the path and the disk, and run again.")
    return FileError(path, reason, remedy)
