"""Reading trades and quotes of any vendor into canonical columns, with prices as exact integer ticks."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxexec.tape.canonical import Conventions, canonical_frame
from jaxexec.tape.errors import FilePath, InputError
from jaxexec.tape.files import MAX_BYTES, read_header, read_table, tape_files
from jaxexec.tape.lobster import lobster_files, lobster_mapping, lobster_name, read_lobster
from jaxexec.tape.schema import REQUIRED, ColumnMapping, Kind, resolve_mapping
from jaxexec.tape.vendors import date_in_name, plain_parts

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    Source = str | os.PathLike[str] | pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table


def read(
    source: Source,
    kind: Kind = "trades",
    *,
    columns: Mapping[str, str] | None = None,
    timezone: str | None = None,
    naive_timezone: str | None = None,
    unsorted: Literal["refuse", "sort"] = "refuse",
    off_tick: Literal["refuse", "drop"] = "refuse",
    round_lot: int = 1,
    date: datetime.date | None = None,
    max_bytes: int = MAX_BYTES,
) -> pl.DataFrame:
    """Read trades or quotes into canonical columns. Every row that is read comes out; `clean` drops and
    counts.

    Canonical trades: `symbol` (text; root and suffix joined by "."), `date`, `time` (Int64, nanoseconds since
    local midnight), `sequence` (Int64; the row's place where the source has none), `exchange`, `price`
    (Float64, currency), `ticks` (Int64, units of 1e-4 currency, exact), `size` (Int64, shares), `condition`,
    `correction` (text), `fault` (why the row cannot be used, null where it can). Canonical quotes: `symbol`,
    `date`, `time`, `sequence`, `exchange`, `bid`, `ask`, `bid_ticks`, `ask_ticks`, `bid_size`, `ask_size`,
    `fault`.

    Trades have, beside these, where their source has them: `side` (Int8; +1 where the buyer initiated the trade,
    −1 where the seller did, null where the source does not know) and the quote that prevailed at the trade,
    `bid`, `ask`, `bid_ticks`, `ask_ticks`. Of a source that mixes trades with other events (LOBSTER, Databento
    mbp-1) the others come out too, with the fault `not_a_trade`.

    A format is recognised by the header (`detected_mapping` says which). LOBSTER files, which have
    none, are known by their names, `AAPL_2012-06-21_34200000_57600000_message_5.csv`, unless `columns` is given;
    quotes are read from the message file's twin `…_orderbook_…` in the same folder.

    Times are kept as they stand, the float dust of some vendors (10:01:21.479000092) included.

    Args:
        source: a Parquet, CSV or gzipped CSV file, a folder of them, or a polars, pandas or Arrow table.
        kind: "trades" or "quotes".
        columns: canonical name -> name in the source, where the header is of no known format.
        timezone: the exchange's zone; needed where times are universal. Naive times are taken to be local.
        naive_timezone: the zone in which naive times were written, where it is not the exchange's.
        unsorted: what to do where times go back within a symbol and date: refuse, or sort (stable; by date,
            time and sequence within the symbol).
        off_tick: what to do with a price that is no multiple of 1e-4: refuse, or drop the row with that
            reason.
        round_lot: factor from quoted sizes to shares; 100 for older TAQ quotes, whose sizes are in round
            lots.
        date: the day, where times of day have no date column. Raw TAQ files have it in their names,
            "EQY_US_ALL_TRADE_20240701"; this one wins.
        max_bytes: refuse files that unpack to more bytes.

    Raises:
        InputError: a missing column, an unknown format, an empty, damaged or irregular file, files of one
            folder that differ in columns, times out of order, a price that 1e-4 ticks cannot carry.
    """
    import polars as pl

    require_choice("unsorted", unsorted, ("refuse", "sort"))
    require_choice("off_tick", off_tick, ("refuse", "drop"))
    conventions = Conventions(timezone, naive_timezone, off_tick, round_lot, date)
    frames: list[pl.DataFrame] = []
    rows = 0
    for raw, mapping, path in _raw_frames(source, kind, columns, max_bytes):
        parts = {key: raw[name] for key, name in mapping.columns.items()}
        if "fault" in parts:  # our own columns, perhaps from a CSV file where everything is text
            parts["time"] = parts["time"].cast(pl.Int64)
        parts, scale = plain_parts(parts, mapping.format, kind, path)
        settled = replace(conventions, date=_day(date, mapping, path), price_scale=scale)
        frame = canonical_frame(parts, kind, settled, rows, path)
        if unsorted == "refuse":
            _require_sorted(frame, path)
        rows += frame.height
        frames.append(frame)
    tape = frames[0] if len(frames) == 1 else pl.concat(frames)
    if unsorted == "sort":
        return tape.sort("symbol", "date", "time", "sequence", maintain_order=True)
    if len(frames) > 1:
        _require_sorted(tape, path_of(source))
    return tape


def detected_mapping(source: Source, kind: Kind = "trades", columns: Mapping[str, str] | None = None) -> ColumnMapping:
    """The format that `read` would recognise and the column that it would take for each part; reads no rows.

    Raises:
        InputError: as `read`, for what the header can tell.
    """
    path = path_of(source)
    if path is None:
        return resolve_mapping(as_polars(source).columns, kind, columns)
    file = _files(path, kind, columns)[0]
    if not columns and lobster_name(file):
        return lobster_mapping(kind)
    return resolve_mapping(read_header(file), kind, columns, file)


def _raw_frames(source: Source, kind: Kind, columns: Mapping[str, str] | None, max_bytes: int):
    """Yield (frame of the mapped columns, mapping, path) for each file, all of one header."""
    import polars as pl

    folder = path_of(source)
    if folder is None:
        frame = as_polars(source)
        yield frame, resolve_mapping(frame.columns, kind, columns), None
        return
    mappings: list[ColumnMapping] = []
    first: dict[str, str] = {}
    for path in _files(folder, kind, columns):
        if not columns and lobster_name(path):
            first = first or dict.fromkeys(lobster_mapping(kind).columns.values(), "text")
            require_same_header(first, dict.fromkeys(lobster_mapping(kind).columns.values(), "text"), path)
            yield read_lobster(path, kind, max_bytes), lobster_mapping(kind), path
            continue

        def choose(header, path=path):
            mappings.append(resolve_mapping(header, kind, columns, path))
            return list(dict.fromkeys(mappings[-1].columns.values()))

        table, header = read_table(path, choose, max_bytes)
        first = first or header
        require_same_header(first, header, path)
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        yield frame, mappings[-1], path


def _day(date: datetime.date | None, mapping: ColumnMapping, path: FilePath) -> datetime.date | None:
    """The day of times of day that have no date column: as given, or of raw TAQ from the name of the file."""
    if date is not None or not mapping.format.startswith("taq-") or "date" in mapping.columns:
        return date
    day = date_in_name(path)
    if day is None:
        raise InputError("date", "raw TAQ has no date column, and the name says none: give date=", path=path)
    return day


def _files(source: str | os.PathLike[str], kind: Kind, columns: Mapping[str, str] | None) -> list[Path]:
    """The files that hold `kind`; with a mapping of columns, all as they are named."""
    if kind not in REQUIRED:
        raise InputError("kind", f"{kind!r} is not 'trades' or 'quotes'", path=source)
    files = tape_files(source)
    return files if columns else lobster_files(files, kind)


def require_same_header(first: Mapping[str, str], header: Mapping[str, str], path: os.PathLike[str]) -> None:
    for name in {**first, **header}:
        if first.get(name) != header.get(name):
            raise InputError(
                name,
                f"is {header.get(name, 'absent')} here, {first.get(name, 'absent')} in the folder's first file; "
                "read files of different form one by one",
                path=path,
            )


def _require_sorted(frame: pl.DataFrame, path: FilePath) -> None:
    """Refuse times that go back within a symbol and date, wherever the rows of that symbol and date stand."""
    import polars as pl

    stamped = frame.select("symbol", "date", "time").with_row_index("row").drop_nulls()
    starts = pl.any_horizontal(pl.col(key) != pl.col(key).shift() for key in ("symbol", "date")).fill_null(True)
    new = stamped.select(starts).to_series()
    runs = stamped.filter(new)
    if runs.select("symbol", "date").is_duplicated().any():  # interleaved symbols: each has to be compared alone
        steps = stamped.select(pl.col("time").diff().over("symbol", "date")).to_series()
        back = (steps < 0).fill_null(False)
    else:
        back = (stamped["time"].diff() < 0).fill_null(False) & ~new
    if back.any():
        row = int(stamped["row"].filter(back)[0])
        reason = "goes back within its symbol and date; unsorted='sort' sorts (stably)"
        raise InputError("time", reason, index=row, path=path)


def as_polars(source: Any) -> pl.DataFrame:
    """A table in memory as a polars frame.

    Raises:
        InputError: it is no polars, pandas or Arrow table.
    """
    import polars as pl

    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if type(source).__module__.partition(".")[0] == "pandas":
        return pl.from_pandas(source)
    if hasattr(source, "__arrow_c_stream__"):
        frame = pl.from_arrow(source)
        assert isinstance(frame, pl.DataFrame)
        return frame
    raise InputError("source", f"a {type(source).__name__} is no path and no polars, pandas or Arrow table")


def path_of(source: Any) -> FilePath:
    """The path that a source is, or None for a table in memory."""
    return source if isinstance(source, str | os.PathLike) else None


def require_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise an `InputError` unless the option `field` has one of its values."""
    if value not in choices:
        raise InputError(field, f"{value!r} is not one of {', '.join(map(repr, choices))}")
