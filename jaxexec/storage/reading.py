"""Files that someone else made, opened with suspicion: a regular file, a bounded size, a typed error."""

import csv
import hashlib
import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jaxexec.storage.errors import FileError, file_error

if TYPE_CHECKING:
    import polars as pl

MAX_BYTES = 64 << 30
"""Default bound on the size of a table once decompressed, bytes."""

_BLOCK = 1 << 20


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; not a folder, a pipe or a device, which might never end.

    Raises:
        FileError: There is no such file, it may not be read, or it is not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise file_error(path, error) from error
    except ValueError as error:  # a NUL in the name
        raise FileError(path, "the name is not valid", "Check the path.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(path, "not a regular file", "Name a file, not a folder, a pipe or a device.")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, max_bytes: int = 64 << 20) -> bytes:
    """The bytes of a regular file.

    Raises:
        FileError: As `open_regular`, or the file is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FileError(path, f"larger than {max_bytes:,} bytes", "Check that this is the file you mean.")
    return data


def read_text(path: str | Path, max_bytes: int = 1 << 20) -> str:
    """The text of a UTF-8 file.

    Raises:
        FileError: As `read_bytes`, or the bytes are not UTF-8.
    """
    try:
        return read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(path, f"not UTF-8 text (byte {error.start:,})", "Save the file as UTF-8.") from error


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        FileError: As `open_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_parquet(path: str | Path, columns: Sequence[str] | None = None, max_bytes: int = MAX_BYTES) -> "pl.DataFrame":
    """Read a Parquet file into a Polars frame, with PyArrow, page checksums verified.

    Args:
        path: The file.
        columns: The columns wanted; all where None.
        max_bytes: Bound on the size once decompressed, as the file's own metadata give it; checked before
            any page is read.

    Raises:
        FileError: The file is missing, empty, cut short, damaged, not Parquet or too large, or a column is
            missing.
    """
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise FileError(path, "the file is empty", "Write it again.")
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            _check_parquet(path, parquet, columns, max_bytes)
            table = parquet.read(columns=None if columns is None else list(columns))
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = f"not a whole Parquet file ({_first_line(error)})"
            raise FileError(path, reason, "Write or download it again.") from error
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _check_parquet(path: str | Path, parquet, columns: Sequence[str] | None, max_bytes: int) -> None:
    """Refuse what is too large, and what lacks a column, by the metadata alone."""
    metadata = parquet.metadata
    declared = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if declared > max_bytes:
        reason = f"{declared:,} bytes once decompressed, more than the {max_bytes:,} allowed"
        raise FileError(path, reason, "Cut the file in parts, or raise max_bytes.")
    missing = sorted(set(columns or ()) - set(parquet.schema_arrow.names))
    if missing:
        raise FileError(path, f"no column {', '.join(map(repr, missing))}", "Check that this is the file you mean.")


def read_csv(path: str | Path, max_bytes: int = 4 << 30) -> "pl.DataFrame":
    """Read a CSV file with a header, plain or gzip, as text: every column a string, empty cells null.

    Nothing is guessed, so that a bad cell can be answered with the row it stands in.

    Raises:
        FileError: The file is missing, empty, too large, not UTF-8, its header repeats a name, or a row has
            another number of cells than the header.
    """
    import polars as pl
    import pyarrow as pa
    import pyarrow.csv as pc

    data = _decompressed(path, max_bytes)
    header = _csv_header(path, data)
    options = pc.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    parse = pc.ParseOptions(newlines_in_values=True)
    try:
        table = pc.read_csv(io.BytesIO(data), convert_options=options, parse_options=parse)
    except (pa.ArrowException, ValueError) as error:
        reason = f"not a CSV table ({_first_line(error)})"
        raise FileError(path, reason, "Every row needs as many cells as the header, in UTF-8.") from error
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _csv_header(path: str | Path, data: bytes) -> list[str]:
    """The column names; a `FileError` where they are missing, repeated or not text."""
    try:
        first = data[: 1 << 16].split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError as error:
        raise FileError(path, "not UTF-8 text", "Save the file as UTF-8.") from error
    header = next(csv.reader([first]), [])
    if not any(name.strip() for name in header):
        raise FileError(path, "the file has no header", "The first line must name the columns.")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise FileError(path, f"the header repeats {repeated[0]!r}", "Name every column once.")
    return header


def _decompressed(path: str | Path, max_bytes: int) -> bytes:
    """The bytes of a file, taken out of gzip where it is gzip, never more than `max_bytes`."""
    import gzip
    import zlib

    with open_regular(path) as file:
        head = file.read(2)
        file.seek(0)
        try:
            source = gzip.GzipFile(fileobj=file) if head == b"\x1f\x8b" else file
            data = source.read(max_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise FileError(path, f"not a whole gzip file ({_first_line(error)})", "Write it again.") from error
    if not data:
        raise FileError(path, "the file is empty", "Write it again.")
    if len(data) > max_bytes:
        raise FileError(path, f"more than {max_bytes:,} bytes once decompressed", "Cut the file in parts.")
    return data


def _first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
