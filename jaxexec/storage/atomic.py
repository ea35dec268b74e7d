"""Whole files or none: every write goes to a temporary file beside the target, which is then renamed.

    temporary file in the same folder → write → fsync → rename over the target → fsync of the folder

Whoever looks sees the old file or the new one, never a part, whatever fails and whenever the power goes.
"""

import contextlib
import io
import json
import math
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from jaxexec.storage.errors import file_error
from jaxexec.storage.system import backend

if TYPE_CHECKING:
    import polars as pl

TEMPORARY_PREFIX = ".jaxexec-"
TEMPORARY_SUFFIX = ".part"


class _Sink(io.RawIOBase):
    """A file object that writes to a descriptor through the backend, every byte or an error."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        total = len(view)
        while view:
            view = view[backend.write(self._descriptor, view) :]
        self._position += total
        return total


def _fill(temporary: Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Create `temporary`, write `content` and see it to the disk."""
    descriptor = backend.create(temporary)
    try:
        sink = _Sink(descriptor)
        if callable(content):
            content(cast(BinaryIO, sink))
        else:
            sink.write(content)
        backend.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            backend.close(descriptor)
        raise
    backend.close(descriptor)


def write_atomic(path: str | Path, content: bytes | Callable[[BinaryIO], None]) -> Path:
    """Write a whole file or nothing.

    Args:
        path: The target; its folder must exist. A file of that name is replaced; a symbolic link of that
            name is replaced too, never followed.
        content: The bytes, or a function that writes them to the binary file it is given.

    Returns:
        The path.

    Raises:
        FileError: The system refused a step (disk full, no permission, …). The target is then as it was
            before, or already complete when only the last flush of the folder failed; the temporary file is
            gone.
    """
    path = Path(path)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        try:
            _fill(temporary, content)
            backend.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                backend.remove(temporary)
            raise
        backend.fsync_folder(path.parent)
    except OSError as error:
        raise file_error(path, error) from error
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write text as UTF-8 with `\\n` line ends, whatever the locale; otherwise as `write_atomic`."""
    return write_atomic(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: str | Path, value: Any) -> Path:
    """Write a JSON document (see `to_json`); otherwise as `write_atomic`."""
    return write_text(path, to_json(value) + "\n")


def to_json(value: Any) -> str:
    """Strict JSON, the same for the same value: sorted keys, NaN and infinities as null.

    Raises:
        TypeError: A value has no meaning in JSON.
    """
    return json.dumps(_plain(value), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=True)


def _plain(value: Any) -> Any:
    """`value` made of what JSON knows."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy and JAX
        return _plain(value.tolist())
    raise TypeError(f"no JSON for a {type(value).__name__}: turn it into numbers or text first")


def write_parquet(path: str | Path, frame: "pl.DataFrame") -> Path:
    """Write a Polars frame as Parquet (zstd, a checksum on every page); otherwise as `write_atomic`."""
    import pyarrow.parquet as pq

    table = frame.to_arrow()

    def write(sink: BinaryIO) -> None:
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)

    return write_atomic(path, write)
