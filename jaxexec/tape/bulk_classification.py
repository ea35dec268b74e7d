"""Bulk volume classification: the share of each bar's volume that buyers initiated, from the change of price alone.

It signs no single trade and needs no quotes, so that it is no rule of `sign`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxexec.numerics.distributions import normal_cdf, student_cdf
from jaxexec.tape.clock import nanoseconds
from jaxexec.tape.errors import InputError
from jaxexec.tape.reading import require_choice

if TYPE_CHECKING:
    import polars as pl

_MOST_BARS = 100_000_000


class _Bars(NamedTuple):
    """Bars of one symbol on one date: number, row of the trade that ends each, volume, change of price in ticks."""

    number: np.ndarray
    last: np.ndarray
    volume: np.ndarray
    change: np.ndarray


def bulk_volume(
    trades: pl.DataFrame,
    *,
    volume: int | None = None,
    time: str | int | datetime.timedelta | None = None,
    distribution: Literal["normal", "student"] = "normal",
    degrees_of_freedom: float = 0.25,
) -> pl.DataFrame:
    """Share of buyer-initiated volume of each bar, Z(ΔP/σ).

    ΔP is the change of price from the last trade of the bar before to the last trade of this one (of the first
    bar of a day, from its first trade), σ the standard deviation of ΔP over all bars of the symbol that are given
    (divisor n − 1; it looks ahead), Z a distribution function. Bars begin anew with each symbol and date.

    Bars of volume hold exactly `volume` shares: a trade that does not fit is cut, and its rest goes on in the next
    bar. The last bar of a day holds what is left. Bars of time without trades are left out.

    Args:
        trades: cleaned canonical trades, as `clean` gives them or a signed tape's `cleaned`.
        volume: shares a bar; give this or `time`. Easley, López de Prado and O'Hara suggest a fiftieth of the
            average daily volume (quoted from memory).
        time: length of a bar, such as "1min", counted from midnight.
        distribution: Z, "normal" or "student".
        degrees_of_freedom: of Student's distribution; 0.25 is the authors' choice (quoted from memory).

    Returns:
        A row a bar: symbol, date, bar (its number within the day, from 0; of bars of time, counted from midnight),
        time (of its last trade, ns since local midnight), ticks (its last price), change (ΔP in ticks), volume
        (shares), buy_fraction (null where the symbol has one bar only, so that σ is not known; where σ is 0, 1, ½
        or 0 by the sign of ΔP).

    Raises:
        InputError: both or none of `volume` and `time`, a price or size that is missing or a size of zero, more than
            1e8 bars.

    Source: Easley, López de Prado and O'Hara (2012), Flow toxicity and liquidity in a high-frequency world, Review
    of Financial Studies 25.
    """
    import polars as pl

    require_choice("distribution", distribution, ("normal", "student"))
    if not degrees_of_freedom > 0:
        raise InputError("degrees_of_freedom", f"{degrees_of_freedom} is not positive")
    length = _length(volume, time)
    keys = [name for name in ("symbol", "date", "time", "sequence") if name in trades.columns]
    ordered = trades.sort(keys, maintain_order=True)
    for name, bad in (("ticks", trades["ticks"].is_null()), ("size", (trades["size"] <= 0).fill_null(True))):
        if bad.any():
            raise InputError(name, "is missing or not positive: give cleaned trades", index=int(bad.arg_true()[0]))
    cut = _bars_of_volume if volume is not None else _bars_of_time
    parts = list(_by_day(ordered, cut, length))
    bars = _Bars(*(np.concatenate([part[k] for part in parts]) if parts else np.zeros(0, np.int64) for k in range(4)))
    table = ordered.select("symbol", "date", "time", "ticks")[bars.last]
    table = table.with_columns(bar=pl.Series(bars.number), change=pl.Series(bars.change), volume=pl.Series(bars.volume))
    deviation = pl.col("change").std(ddof=1).over("symbol")
    scaled = table.select((pl.col("change") / deviation).fill_nan(0.0))  # 0/0: a price that never moved
    z = scaled.to_series().to_numpy()
    share = normal_cdf(z) if distribution == "normal" else student_cdf(z, degrees_of_freedom)
    table = table.with_columns(buy_fraction=pl.Series(share).fill_nan(None))
    return table.select("symbol", "date", "bar", "time", "ticks", "change", "volume", "buy_fraction")


def _length(volume: int | None, time: str | int | datetime.timedelta | None) -> int:
    if (volume is None) == (time is None):
        raise InputError("volume", "give either volume (shares a bar) or time (length of a bar)")
    length = int(volume) if time is None else nanoseconds(time, "time")  # pyright: ignore[reportArgumentType]
    if length < 1:
        raise InputError("volume" if time is None else "time", f"{length} is not positive")
    return length


def _by_day(ordered: pl.DataFrame, cut, length: int) -> Iterator[_Bars]:
    counts = ordered.group_by("symbol", "date", maintain_order=True).len()["len"].to_numpy()
    time, ticks, size = (ordered[name].to_numpy() for name in ("time", "ticks", "size"))
    start = bars = 0
    for count in counts.tolist():
        day = slice(start, start + count)
        number, last, volume = cut(time[day], size[day], length)
        price = ticks[day][last]
        yield _Bars(number, start + last, volume, np.diff(price, prepend=ticks[start]))
        start, bars = start + count, bars + len(number)
        if bars > _MOST_BARS:
            raise InputError("volume", f"makes more than {_MOST_BARS:,} bars")


def _bars_of_volume(time: np.ndarray, size: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    traded = np.cumsum(size, dtype=np.int64)
    total = int(traded[-1])
    count = -(-total // length)
    if count > _MOST_BARS:
        raise InputError("volume", f"makes more than {_MOST_BARS:,} bars")
    number = np.arange(count)
    ends = np.minimum((number + 1) * length, total)
    return number, np.searchsorted(traded, ends, side="left"), np.diff(ends, prepend=0)


def _bars_of_time(time: np.ndarray, size: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bar = time // length
    first = np.flatnonzero(np.diff(bar, prepend=bar[0] - 1))
    return bar[first], np.append(first[1:], len(bar)) - 1, np.add.reduceat(size.astype(np.int64), first)
