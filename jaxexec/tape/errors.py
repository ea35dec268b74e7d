"""The one error that bad input raises: it says which field, which row, which file, and what to do."""

from __future__ import annotations

import os

FilePath = str | os.PathLike[str] | None
"""A file that an error can name, or None where the input was in memory."""


class InputError(ValueError):
    """Input that cannot be used.

    Attributes:
        field: column, option or file property at fault.
        reason: what is wrong, and the remedy.
        index: row counted from 0 in the file or frame, where one row is at fault; else None.
        path: the file, where there is one; else None.
    """

    def __init__(self, field: str, reason: str, *, index: int | None = None, path: FilePath = None) -> None:
        self.field = field
        self.reason = reason
        self.index = index
        self.path = None if path is None else os.fspath(path)
        super().__init__(printable(self._message()))

    def _message(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        row = "" if self.index is None else f", row {self.index} (counted from 0)"
        return f"{where}{self.field}{row}: {self.reason}"


class TapeWarning(UserWarning):
    """Input that can be used, but hardly as it is meant: most trades outside the session, quotes of many venues."""


def printable(text: str) -> str:
    r"""`text` with control and bidirectional characters escaped (`\x1b`): data cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
