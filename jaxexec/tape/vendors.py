"""What vendors do beside naming columns: trailers, spaces in symbols, integer prices, codes of sides and actions."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

from jaxexec.tape.errors import FilePath, InputError

if TYPE_CHECKING:
    import polars as pl

    from jaxexec.tape.schema import Kind

    Parts = dict[str, pl.Series]

_NANO = 1_000_000_000
_UNDEFINED_PRICE = 2**63 - 1
_DATE_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d{2})-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])(?!\d)")


def plain_parts(parts: Mapping[str, pl.Series], form: str, kind: Kind, path: FilePath) -> tuple[Parts, int | None]:
    """The columns of one source in the terms of `canonical_frame`.

    Args:
        parts: canonical name -> the source's own column.
        form: name of the format, as `resolve_mapping` gives it.
        kind: "trades" or "quotes".
        path: named in errors.

    Returns:
        The columns, with `is_trade` (Boolean) in place of `action` among trades, and the units in one unit of
        currency where prices are integers, else None.

    Raises:
        InputError: the source cannot serve as `kind`, or a column has lost its digits.
    """
    if form.startswith("taq-"):
        return _taq(parts, path), None
    if form.startswith("databento"):
        return _databento(parts, kind, path), _NANO
    if form.startswith("lobster"):
        return _lobster(parts, path), 10_000
    return dict(parts), None


def date_in_name(path: FilePath) -> datetime.date | None:
    """The one date in a file's name ("EQY_US_ALL_TRADE_20240701.gz", "2024-07-01"), or None."""
    found = [] if path is None else _DATE_IN_NAME.findall(PurePath(path).name)
    try:
        return datetime.date(*map(int, found[0])) if len(found) == 1 else None
    except ValueError:
        return None


def _taq(parts: Mapping[str, pl.Series], path: FilePath) -> Parts:
    """Raw NYSE Daily TAQ: the last record is a trailer, "END|date|count", and "BRK B" is a root and a suffix."""
    import polars as pl

    if parts["time"].dtype != pl.String:
        raise InputError(
            "time",
            "raw TAQ writes HHMMSSxxxxxxxxx, whose leading zero a number loses: read this column as text",
            path=path,
        )
    record = parts["time"] != "END"
    out = {name: column.filter(record.fill_null(True)) for name, column in parts.items()}
    out["symbol"] = out["symbol"].cast(pl.String).str.strip_chars().str.replace(r" +", ".")
    return out


def _databento(parts: Mapping[str, pl.Series], kind: Kind, path: FilePath) -> Parts:
    """Databento trades, tbbo and mbp-1: times since the epoch, prices in 1e-9 unless they have a decimal point,
    side B for a buyer who initiates and A for a seller, action T for a trade.
    """
    import polars as pl

    out = dict(parts)
    out["time"] = _whole_numbers(parts["time"])
    for name in ("price", "bid", "ask"):
        if name in parts:
            price = _whole_numbers(parts[name])
            if price.dtype.is_integer():
                price = pl.select(pl.when(price != _UNDEFINED_PRICE).then(price)).to_series()
            out[name] = price
    action = out.pop("action", None)
    trade = None if action is None else action.cast(pl.String).str.strip_chars().fill_null("") == "T"
    if kind == "quotes" and trade is not None and len(trade) and trade.all():
        raise InputError(
            "action",
            "all rows are trades: such a file (tbbo, trades) has the quote before each trade, not every quote. "
            "Give it as trades alone, whose quotes are then used, or read quotes from mbp-1",
            path=path,
        )
    if kind == "trades" and trade is not None:
        out["is_trade"] = trade
    if "side" in out:
        code = out["side"].cast(pl.String).str.strip_chars()
        out["side"] = code.replace({"A": "S"})
    return out


def _lobster(parts: Mapping[str, pl.Series], path: FilePath) -> Parts:
    """LOBSTER: seconds since midnight, prices in 1e-4, direction of the resting order, executions of type 4
    (visible) and 5 (hidden).
    """
    out = dict(parts)
    out["time"] = _nanoseconds_of_seconds(parts["time"], path)
    for name in ("price", "bid", "ask"):
        if name in parts:
            out[name] = _require_whole(parts[name], name, path)
    if "action" in out:
        out["is_trade"] = out.pop("action").str.strip_chars().is_in(["4", "5"])
    if "side" in out:  # that of the resting order, which the other side took
        out["side"] = -_require_whole(parts["side"], "side", path)
    return out


def _nanoseconds_of_seconds(time: pl.Series, path: FilePath) -> pl.Series:
    """Nanoseconds of "34200.017459617", digit by digit."""
    import polars as pl

    groups = time.str.strip_chars().str.extract_groups(r"^(?<s>\d{1,6})(?:\.(?<f>\d{1,9})0*)?$").struct
    fraction = groups.field("f").fill_null("").str.pad_end(9, "0").cast(pl.Int64)
    parsed = groups.field("s").cast(pl.Int64) * _NANO + fraction
    bad = parsed.is_null()
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError("time", f"{time[row]!r} is no number of seconds", index=row, path=path)
    return parsed


def _require_whole(column: pl.Series, field: str, path: FilePath) -> pl.Series:
    import polars as pl

    whole = column.str.strip_chars().cast(pl.Int64, strict=False)
    bad = whole.is_null()
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(field, f"{column[row]!r} is no integer", index=row, path=path)
    return whole


def _whole_numbers(column: pl.Series) -> pl.Series:
    """Text that is nothing but integers as Int64 (blanks are null), unsigned integers as signed; else the column."""
    import polars as pl

    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    if column.dtype != pl.String:
        return column
    text = column.str.strip_chars()
    text = pl.select(pl.when(text != "").then(text)).to_series()
    whole = bool(text.drop_nulls().str.contains(r"^-?\d{1,19}$").all()) and text.null_count() < text.len()
    return text.cast(pl.Int64, strict=False) if whole else column
