"""Opening files that the user did not make: sizes are checked before contents, and damage is a typed error.

Such files are opened with pyarrow only, because hostile Parquet makes other readers abort the process.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxexec.tape.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_PARQUET = (".parquet", ".pq")
SUFFIXES = (*_PARQUET, ".csv", ".csv.gz", ".txt", ".txt.gz")
_TAQ_NAME = re.compile(r"[A-Z]+_US_ALL_[A-Z_]*\d{8}(\.gz)?")
"""As NYSE names its files, "EQY_US_ALL_TRADE_20240701", often without a suffix."""
MAX_BYTES = 32 * 2**30
"""Default budget of uncompressed bytes a file."""
_MAX_ROWS = 2**40
_BATCH = 1 << 18
"""Rows of a Parquet file that are unpacked at a time."""
_DELIMITERS = ",|;\t"


def tape_files(source: str | os.PathLike[str]) -> list[Path]:
    """The regular files of a folder in the order of their names, or the one file that `source` is.

    A file that is listed twice (by hard or symbolic link) is read once; names that begin with "." or "_" are
    left out, as the writers of partitioned folders mean them to be.

    Raises:
        InputError: nothing is there, or a folder holds no tape files.
    """
    path = Path(source)
    if not stat.S_ISDIR(_status(path).st_mode):
        return [path]
    seen: set[tuple[int, int]] = set()
    files = []
    for file in sorted(path.iterdir()):
        known = file.name.lower().endswith(SUFFIXES) or _TAQ_NAME.fullmatch(file.name)
        if file.name.startswith((".", "_")) or not known:
            continue
        identity = _status(file)
        if (identity.st_dev, identity.st_ino) not in seen:
            seen.add((identity.st_dev, identity.st_ino))
            files.append(file)
    if not files:
        raise InputError("source", f"the folder holds no file ending in {', '.join(SUFFIXES)}", path=path)
    return files


class RowGroup(NamedTuple):
    """One row group of a Parquet file: its rows, and bounds on its symbols where the file tells them."""

    rows: int
    low: str | None
    high: str | None


def is_parquet(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith(_PARQUET)


def row_groups(path: Path, column: str) -> list[RowGroup]:
    """The row groups of a Parquet file, with the least and greatest entry of one text column.

    Raises:
        InputError: as `read_table`.
    """
    import pyarrow.parquet as pq

    _require_regular(path)
    with _typed_errors(path), pq.ParquetFile(path) as file:
        meta, place = file.metadata, file.schema_arrow.names.index(column)
        found = []
        for i in range(meta.num_row_groups):
            group = meta.row_group(i)
            about = group.column(place).statistics
            bounds = None, None
            if about is not None and about.has_min_max and isinstance(about.min, str):
                bounds = about.min, about.max
            found.append(RowGroup(group.num_rows, *bounds))
        return found


def read_table(
    path: Path,
    choose: Callable[[Sequence[str]], Sequence[str]],
    max_bytes: int = MAX_BYTES,
    groups: Sequence[int] | None = None,
) -> tuple[pa.Table, dict[str, str]]:
    """Read chosen columns of one Parquet or CSV file.

    Args:
        path: a regular file; CSV may be compressed with gzip and delimited by comma, bar, semicolon or tab.
        choose: header -> the columns to read.
        max_bytes: refuse files that unpack to more bytes.
        groups: row groups of a Parquet file to read; None reads all.

    Returns:
        The table, and the whole header as name -> type (for CSV, where types are guesses, "text").

    Raises:
        InputError: no regular file, empty, damaged, not of the format that its name says, over the budget, or
            changed while it was read.
    """
    with _unchanged(path):
        if is_parquet(path):
            table, header = _read_parquet(path, choose, max_bytes, groups)
        else:
            table, header = _read_csv(path, choose, max_bytes)
        table.validate(full=True)
    return table, header


def read_headless(path: Path, columns: int, max_bytes: int = MAX_BYTES) -> pa.Table:
    """Read the first columns of a CSV file that has no header, as text.

    Raises:
        InputError: as `read_table`; fewer columns.
    """
    with _unchanged(path):
        fields = len(_csv_header(path)[1])
        if fields < columns:
            raise InputError("source", f"has {fields} columns, not {columns} or more", path=path)
        names = [f"f{i}" for i in range(fields)]
        table = _csv_table(path, ",", names[:columns], max_bytes, names)
        table.validate(full=True)
    return table


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Refuse what is no regular file, what is empty, and what changes in the meantime; damage is a typed error."""
    before = _require_regular(path)
    with _typed_errors(path):
        yield
    after = _status(path)
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    ):
        raise InputError("source", "the file changed while it was read; read it again", path=path)


def read_header(path: Path) -> list[str]:
    """Column names of one file.

    Raises:
        InputError: as `read_table`.
    """
    import pyarrow.parquet as pq

    _require_regular(path)
    with _typed_errors(path):
        if is_parquet(path):
            return pq.read_schema(path).names
        return _csv_header(path)[1]


def _require_regular(path: Path) -> os.stat_result:
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError("source", "is not a regular file", path=path)
    if status.st_size == 0:
        raise InputError("source", "the file is empty", path=path)
    return status


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except (
        pa.ArrowException,
        OSError,
        UnicodeError,
        EOFError,
        ValueError,
        MemoryError,
        OverflowError,
    ) as error:
        raise InputError("source", f"cannot be read: {error}", path=path) from error


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        raise InputError("source", f"cannot be opened: {error}", path=str(path)) from error


def _read_parquet(
    path: Path, choose: Callable[[Sequence[str]], Sequence[str]], max_bytes: int, groups: Sequence[int] | None
) -> tuple[pa.Table, dict[str, str]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema, meta = file.schema_arrow, file.metadata
        header = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
        wanted = list(choose(schema.names))
        chosen = list(range(meta.num_row_groups) if groups is None else groups)
        unpacked = sum(meta.row_group(i).total_byte_size for i in chosen)
        if meta.num_rows > _MAX_ROWS or unpacked > max_bytes:
            reason = f"unpacks to {meta.num_rows:,} rows and {unpacked:,} bytes; max_bytes={max_bytes:,}"
            raise InputError("source", reason, path=path)
        # One entry may stand for any number of rows in few bytes: what counts is what comes out. Numbers have a width;
        # a text is no longer than its column; what has neither comes in batches.
        rows = sum(meta.row_group(i).num_rows for i in chosen)
        texts = [name for name in wanted if _is_text(schema.field(name).type)]
        widths = [_bit_width(schema.field(name).type) for name in wanted if name not in texts]
        if None in widths:
            return _in_batches(file, chosen, wanted, max_bytes, path), header
        _require_budget(rows * sum(w for w in widths if w) // 8, max_bytes, path)
        long = [name for name in texts if _most_text(meta, name, chosen) > max_bytes // len(wanted)]
        if not long:
            return file.read_row_groups(chosen, columns=wanted), header
    return _with_long_texts(path, meta, chosen, wanted, long, max_bytes), header


def _most_text(meta: pq.FileMetaData, name: str, groups: list[int]) -> int:
    """At most so many bytes has a text column once it is read."""
    chosen = [meta.row_group(i) for i in groups]
    if not chosen:
        return 0
    # Not by `meta.schema`: metadata and its schema hold each other, and the parts of a day would pile them up.
    places = {chosen[0].column(i).path_in_schema: i for i in range(meta.num_columns)}
    if name not in places:
        raise ValueError(f"the footer does not say where column {name!r} lies")
    place = places[name]
    return sum(group.num_rows * (8 + group.column(place).total_uncompressed_size) for group in chosen)


def _with_long_texts(
    path: Path, meta: pq.FileMetaData, groups: list[int], wanted: list[str], long: list[str], max_bytes: int
) -> pa.Table:
    """Some texts as indices into their entries, until their length is known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True, metadata=meta, read_dictionary=long) as file:
        table = file.read_row_groups(groups, columns=wanted)
    for name in long:
        column = table[name]
        _require_budget(table.nbytes + _text_bytes(column), max_bytes, path)
        table = table.set_column(table.schema.get_field_index(name), name, column.cast(pa.large_string()))
    return table


def _require_budget(unpacked: int, max_bytes: int, path: Path) -> None:
    if unpacked > max_bytes:
        raise InputError("source", f"unpacks to more than max_bytes={max_bytes:,}", path=path)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _bit_width(kind: pa.DataType) -> int | None:
    """Bits of a value; None where values differ."""
    try:
        return kind.bit_width
    except ValueError:
        return None


def _text_bytes(column: pa.ChunkedArray) -> int:
    """At most so many bytes has a column of indices once it is text."""
    import pyarrow.compute as pc

    def longest(entries: pa.Array) -> int:
        return pc.call_function("max", [pc.call_function("binary_length", [entries])]).as_py() or 0

    return sum((longest(chunk.dictionary) + 8) * len(chunk) for chunk in column.chunks)


def _in_batches(file: pq.ParquetFile, groups: list[int], wanted: list[str], max_bytes: int, path: Path) -> pa.Table:
    import pyarrow as pa

    batches, unpacked = [], 0
    for batch in file.iter_batches(_BATCH, groups, wanted):
        unpacked += batch.nbytes
        _require_budget(unpacked, max_bytes, path)
        batches.append(batch)
    of_wanted = pa.schema([file.schema_arrow.field(name) for name in wanted])
    return pa.Table.from_batches(batches, batches[0].schema if batches else of_wanted)


def _read_csv(
    path: Path, choose: Callable[[Sequence[str]], Sequence[str]], max_bytes: int
) -> tuple[pa.Table, dict[str, str]]:
    delimiter, names = _csv_header(path)
    return _csv_table(path, delimiter, choose(names), max_bytes), dict.fromkeys(names, "text")


def _csv_table(
    path: Path, delimiter: str, wanted: Sequence[str], max_bytes: int, names: Sequence[str] | None = None
) -> pa.Table:
    """The wanted columns as text; `names` are those of a file that has no header.

    All text: a type guessed from the first block would turn "00" into 0 and refuse a later "NaN".
    """
    import pyarrow as pa
    import pyarrow.csv as csv

    wanted = list(wanted)
    convert = csv.ConvertOptions(include_columns=wanted, column_types={name: pa.string() for name in wanted})
    batches, unpacked = [], 0
    # One thread, so that the error of a malformed line says which it is.
    options = csv.ReadOptions(use_threads=False, column_names=None if names is None else list(names))
    parse = csv.ParseOptions(delimiter=delimiter, invalid_row_handler=_trailer)
    reader = csv.open_csv(path, read_options=options, parse_options=parse, convert_options=convert)
    for batch in reader:
        unpacked += batch.nbytes
        if unpacked > max_bytes:
            raise InputError("source", f"unpacks to more than max_bytes={max_bytes:,}", path=path)
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema)


def _trailer(row: Any) -> str:
    """What to do with a line of another length: the trailer of raw TAQ, "END|date|count", is none of the records."""
    return "skip" if row.text is not None and row.text.startswith("END|") else "error"


def _csv_header(path: Path) -> tuple[str, list[str]]:
    """The delimiter that occurs most often in the first line, and the names between."""
    import csv as text

    import pyarrow as pa

    with pa.input_stream(str(path), compression="detect") as stream:
        line = stream.read(65_536).split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    if not line.strip():
        raise InputError("source", "the first line, which should name the columns, is empty", path=path)
    delimiter = max(_DELIMITERS, key=line.count)
    return delimiter, next(text.reader([line], delimiter=delimiter))
