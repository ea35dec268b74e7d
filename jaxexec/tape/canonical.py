"""From one vendor's columns to canonical ones: symbols verbatim, exact ticks, whole sizes, faults by name."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxexec.tape.clock import DAY, SECOND, local_dates_and_times
from jaxexec.tape.errors import FilePath, InputError
from jaxexec.tape.schema import CANONICAL, CARRIED, TICKS_PER_UNIT, Kind

if TYPE_CHECKING:
    import polars as pl

_EXACT = float(2**53)
_BUYS, _SELLS, _UNKNOWN = ["b", "buy", "1", "+1", "1.0"], ["s", "sell", "-1", "-1.0"], ["n", "none", "0", "0.0", ""]

Fault = tuple[str, "pl.Series"]


@dataclass(frozen=True)
class Conventions:
    """How the numbers of a source are to be understood; the meanings are those of `read`.

    `price_scale` is the number of units in one unit of currency of prices that are integers; None for prices in
    currency.
    """

    timezone: str | None = None
    naive_timezone: str | None = None
    off_tick: str = "refuse"
    round_lot: int = 1
    date: datetime.date | None = None
    price_scale: int | None = None


def canonical_frame(
    columns: Mapping[str, pl.Series],
    kind: Kind,
    conventions: Conventions,
    first_row: int = 0,
    path: FilePath = None,
) -> pl.DataFrame:
    """The canonical frame of one source, with the first fault of each row by name.

    Args:
        columns: canonical name -> the source's own column.
        kind: "trades" or "quotes".
        conventions: zones, ticks, lots.
        first_row: number of the first row, which stands in for a sequence number where there is none.
        path: named in errors.

    Raises:
        InputError: text that is no number, date or time; a price off the tick grid; a useless type.
    """
    import polars as pl

    height = columns["symbol"].len()
    try:
        out, faults = _when(columns, conventions, path)
        sizes = ("size",) if kind == "trades" else ("bid_size", "ask_size")
        for name in ("price",) if kind == "trades" else ("bid", "ask"):
            faults += _price(columns, name, out, conventions, path)
        if kind == "trades" and {"bid", "ask"} <= columns.keys():
            for name in ("bid", "ask"):  # what is wrong with a quote makes no trade useless
                _price(columns, name, out, conventions, path)
        for name in sizes:
            out[name], bad = _sizes(columns.get(name), name, height, path)
            faults += bad
        out |= _labels(columns, height, first_row, path)
        if kind == "trades" and "side" in columns:
            out["side"] = _sides(columns["side"], path)
    except pl.exceptions.PolarsError as error:
        raise InputError("columns", f"a column has a type that cannot be used: {error}", path=path) from error
    if kind == "trades":
        faults.append(("missing_correction", out["correction"].is_null()))
        if "is_trade" in columns:
            faults.insert(0, ("not_a_trade", ~columns["is_trade"].fill_null(False)))
    if kind == "quotes" and "nbbo_indicator" in columns:
        faults.insert(0, ("not_the_nbbo", ~_is_the_nbbo(columns, path)))
        # The row stands for the whole market from here on.
        out["exchange"] = _text(None, height)
    if kind == "quotes" and "fault" not in columns:  # a canonical frame that is read again is in shares already
        out |= {name: out[name] * conventions.round_lot for name in sizes}
    out["fault"] = _first_fault(faults, columns.get("fault"), height)
    carried = [name for name in CARRIED if name in out and name not in CANONICAL[kind]]
    return pl.DataFrame({name: out[name] for name in (*CANONICAL[kind], *carried)})


def _when(
    columns: Mapping[str, pl.Series], conventions: Conventions, path: FilePath
) -> tuple[dict[str, Any], list[Fault]]:
    import polars as pl

    stamped = pl.DataFrame([columns[key].alias(key) for key in ("date", "time") if key in columns])
    if "date" not in columns and conventions.date is not None:
        stamped = stamped.with_columns(date=pl.lit(conventions.date))
    dates, times = local_dates_and_times(stamped, conventions.timezone, conventions.naive_timezone, path)
    if "nanoseconds" in columns:  # WRDS: what time_m leaves below a microsecond
        times = times // 1_000 * 1_000 + columns["nanoseconds"].cast(pl.Int64).fill_null(0)
    out = {"symbol": _symbols(columns), "date": dates, "time": times}
    faults = [(f"missing_{name}", series.is_null()) for name, series in out.items()]
    return out, [*faults, ("time_out_of_range", (times < 0) | (times >= DAY + SECOND))]


def _labels(columns: Mapping[str, pl.Series], height: int, first_row: int, path: FilePath) -> dict[str, pl.Series]:
    return {
        "exchange": _text(columns.get("exchange"), height),
        "condition": _text(columns.get("condition"), height),
        "correction": _corrections(columns.get("correction"), height),
        "sequence": _sequence(columns.get("sequence"), height, first_row, path),
    }


def _first_fault(faults: list[Fault], given: pl.Series | None, height: int) -> pl.Series:
    import polars as pl

    name = pl.Series([None], dtype=pl.String).new_from_index(0, height)
    if given is not None:
        text = given.cast(pl.String)
        name = pl.select(pl.when(text != "").then(text)).to_series()  # in a CSV file no fault is an empty one
    for reason, bad in reversed(faults if given is None else []):
        if bad.any():
            name = pl.select(pl.when(bad).then(pl.lit(reason)).otherwise(name)).to_series()
    return name


def _price(
    columns: Mapping[str, pl.Series], name: str, out: dict[str, Any], conventions: Conventions, path: FilePath
) -> list[Fault]:
    """Put the price and its ticks among the columns of `out`; what is wrong with it."""
    refuse, column = conventions.off_tick == "refuse", columns[name]
    if conventions.price_scale is not None and column.dtype.is_integer():
        price, ticks, faults = _scaled_ticks(column, name, conventions.price_scale, refuse, path)
    else:
        price = _numbers(column, name, path)
        ticks, faults = _ticks(price, name, refuse, path)
    out[name], out["ticks" if name == "price" else f"{name}_ticks"] = price, ticks
    return faults


def _scaled_ticks(
    units: pl.Series, field: str, scale: int, refuse: bool, path: FilePath
) -> tuple[pl.Series, pl.Series, list[Fault]]:
    """Prices in currency and integer ticks of integers that count 1/scale of a unit; no float is in between."""
    import polars as pl

    units = units.cast(pl.Int64)
    step = scale // TICKS_PER_UNIT  # the scales that occur, 1e4 and 1e9, are multiples
    ticks, off = units // step, (units % step != 0).fill_null(False)
    small = (ticks.abs() < _EXACT).fill_null(True)
    if refuse and off.any():
        row = int(off.arg_true()[0])
        reason = (
            f"price {units[row]}/{scale} is no multiple of 1e-4, so integer ticks would lose digits; "
            "off_tick='drop' leaves such rows out and counts them"
        )
        raise InputError(field, reason, index=row, path=path)
    exact = pl.select(pl.when(~off & small).then(ticks)).to_series()
    faults = [(f"missing_{field}", units.is_null()), (f"{field}_out_of_range", ~small), (f"{field}_off_tick", off)]
    return units / scale, exact, faults


def _is_the_nbbo(columns: Mapping[str, pl.Series], path: FilePath) -> pl.Series:
    """Whether a quote is the national best bid and offer on both sides: indicator 1 of CQS ("C"), 4 of UQDF ("N")."""
    import polars as pl

    if "feed" not in columns:
        reason = "the indicator means one thing in CQS and another in UQDF: name the column that says which"
        raise InputError("feed", reason, path=path)
    indicator, feed = (columns[name].cast(pl.String).str.strip_chars() for name in ("nbbo_indicator", "feed"))
    indicator = indicator.str.strip_suffix(".0")  # of numbers with gaps, which pandas makes floats
    return (((feed == "C") & (indicator == "1")) | ((feed == "N") & (indicator == "4"))).fill_null(False)


def _sides(side: pl.Series, path: FilePath) -> pl.Series:
    """+1 where the buyer initiated the trade, −1 where the seller did, null where the source does not know."""
    import polars as pl

    text = side.cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
    known = pl.when(text.is_in(_BUYS)).then(1).when(text.is_in(_SELLS)).then(-1)
    bad = ~text.is_in([*_BUYS, *_SELLS, *_UNKNOWN, "nan"])
    if bad.any():
        row = int(bad.arg_true()[0])
        reason = (
            f"{side[row]!r} is no side: write B, BUY or 1, S, SELL or -1, and N, 0 or nothing where it is not known"
        )
        raise InputError("side", reason, index=row, path=path)
    return pl.select(known.cast(pl.Int8)).to_series()


def _ticks(price: pl.Series, field: str, refuse: bool, path: FilePath) -> tuple[pl.Series, list[Fault]]:
    """Integer ticks, null where unusable; exact, since a double is within half an ulp of its decimal."""
    import polars as pl

    scaled = price * TICKS_PER_UNIT
    missing, finite = price.is_null() | price.is_nan().fill_null(True), price.is_finite().fill_null(False)
    small = scaled.abs() < _EXACT
    whole = scaled.round()
    lossless = (scaled - whole).abs() <= 1e-6 + 1e-15 * scaled.abs()
    off = finite & small & ~lossless
    if refuse and off.any():
        row = int(off.arg_true()[0])
        raise InputError(
            field,
            f"price {price[row]!r} is no multiple of 1e-4, so integer ticks would lose digits; "
            "off_tick='drop' leaves such rows out and counts them",
            index=row,
            path=path,
        )
    usable = finite & small & lossless
    ticks = pl.select(pl.when(usable).then(whole)).to_series().cast(pl.Int64)
    faults = [
        (f"missing_{field}", missing),
        (f"{field}_not_finite", ~finite),
        (f"{field}_out_of_range", ~small),
        (f"{field}_off_tick", off),
    ]
    return ticks, faults


def _sizes(size: pl.Series | None, field: str, height: int, path: FilePath) -> tuple[pl.Series, list[Fault]]:
    import polars as pl

    if size is None or (field != "size" and size.null_count() == height):
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, height), []
    value = _numbers(size, field, path)
    missing, finite = value.is_null() | value.is_nan().fill_null(True), value.is_finite().fill_null(False)
    small, whole = value.abs() < _EXACT, value == value.round()
    usable = finite & small & whole
    shares = pl.select(pl.when(usable).then(value)).to_series().cast(pl.Int64)
    faults = [
        (f"missing_{field}", missing),
        (f"{field}_not_finite", ~finite),
        (f"{field}_out_of_range", ~small),
        (f"{field}_not_whole", ~whole),
    ]
    return shares, faults


def _numbers(column: pl.Series, field: str, path: FilePath) -> pl.Series:
    """The column as Float64; blank text is null, other text that is no number is refused with its row."""
    import polars as pl

    if column.dtype != pl.String:
        return column.cast(pl.Float64)
    text = column.str.strip_chars()
    value = text.cast(pl.Float64, strict=False)
    bad = value.is_null() & text.is_not_null() & ~text.str.to_lowercase().is_in(["", "na", "null", "none"])
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError(field, f"{column[row]!r} is no number", index=row, path=path)
    return value


def _symbols(columns: Mapping[str, pl.Series]) -> pl.Series:
    """Symbols verbatim, root and suffix joined by a dot as in "BRK.B"."""
    import polars as pl

    root = columns["symbol"].cast(pl.String)
    if "suffix" not in columns or columns["suffix"].null_count() == root.len():
        return root
    suffix = columns["suffix"].cast(pl.String).fill_null("")
    return pl.select(pl.when(suffix.str.strip_chars() == "").then(root).otherwise(root + "." + suffix)).to_series()


def _text(column: pl.Series | None, height: int) -> pl.Series:
    import polars as pl

    if column is None:
        return pl.Series([""]).new_from_index(0, height)
    return column.cast(pl.String).fill_null("")


def _corrections(column: pl.Series | None, height: int) -> pl.Series:
    """Two digits as TAQ writes them; "00", never corrected, where the source says nothing of corrections."""
    import polars as pl

    if column is None:
        return pl.Series(["00"]).new_from_index(0, height)
    return column.cast(pl.String).str.strip_chars().str.pad_start(2, "0")


def _sequence(column: pl.Series | None, height: int, first_row: int, path: FilePath) -> pl.Series:
    """Sequence numbers; where the source has none, the place of the row."""
    import polars as pl

    if column is None:
        return pl.int_range(first_row, first_row + height, dtype=pl.Int64, eager=True)
    number = column.cast(pl.Int64, strict=False)
    bad = number.is_null() & column.is_not_null()
    if bad.any():
        row = int(bad.arg_true()[0])
        raise InputError("sequence", f"{column[row]!r} is no integer", index=row, path=path)
    return number.fill_null(0)
