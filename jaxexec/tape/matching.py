"""Each trade and the quote that prevailed before it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxexec.tape.clock import DAY, nanoseconds
from jaxexec.tape.errors import InputError
from jaxexec.tape.series import KEYS, series_numbers, series_starts

if TYPE_CHECKING:
    import polars as pl

_GROUPS_A_BLOCK = (2**63 - 1) // (4 * DAY)


Duration = str | int | datetime.timedelta


def match(
    trades: pl.DataFrame,
    quotes: pl.DataFrame,
    lag: Duration = "0s",
    *,
    interpolate: Duration | None = None,
) -> pl.DataFrame:
    """Join to each trade the last quote of its symbol and date with quote time < trade time − lag, strictly.

    Strictly, because a quote that carries the trade's own time stamp is often the trade's consequence. Quotes
    with equal times are ordered by sequence number, then by their place. No quote is carried over from
    another date.

    Where time stamps have a resolution of only a second or a millisecond, `interpolate` says which. Of the I
    trades of one symbol in one unit of time, in the order of their sequence numbers, the i-th is taken to stand
    (2i − 1)/(2I) of the way through it; quotes alike (Holden and Jacobsen 2014, Liquidity measurement problems
    in fast, competitive markets, Journal of Finance 69). These times are compared as fractions, exactly; the
    times that come out are those of the tape.

    Args:
        trades: canonical trades; sorted or not.
        quotes: canonical quotes; sorted or not.
        lag: duration >= 0, such as "0s" or "5s" (Lee and Ready 1991, Journal of Finance 46, used five
            seconds).
        interpolate: the unit in which times are counted, such as "1s" or "1ms", of which the lag must then be a
            whole multiple; None takes times as they stand.

    Returns:
        The trades, in their order, with `bid_ticks`, `ask_ticks` and `quote_time` (Int64): null where no
        quote precedes the trade.

    Raises:
        InputError: `lag` or `interpolate` is no duration; a time or the lag is no multiple of the unit.
    """
    import polars as pl

    ahead = nanoseconds(lag)
    known = trades.filter(series_starts(trades)).select(KEYS).unique().sort(KEYS)
    book = quotes.select("symbol", "date", "time", "sequence", "bid_ticks", "ask_ticks").drop_nulls("time")
    group = pl.Series("group", series_numbers(book, known))
    book = book.drop(KEYS).with_columns(group).filter(group >= 0)
    if not _in_order(book):
        book = book.sort("group", "time", "sequence", maintain_order=True)
    keys = _Keys(book["group"].to_numpy(), book["time"].to_numpy())
    wanted = _Keys(series_numbers(trades, known), trades["time"].fill_null(-DAY).to_numpy() - ahead)
    if interpolate is None:
        place = _last_before(*keys, *wanted)
    else:
        unit = _unit(interpolate, ahead, trades, book)
        order = trades["sequence"].fill_null(0).to_numpy() if "sequence" in trades.columns else None
        place = _last_before_interpolated(keys, wanted, unit, order)
    at = pl.Series(place, dtype=pl.Int64)
    at = at.set(at < 0, None)
    found = book.select("bid_ticks", "ask_ticks", quote_time="time")
    trades = trades.drop(*found.columns, strict=False)
    return trades.hstack([found[name].gather(at).alias(name) for name in found.columns])


class _Keys(NamedTuple):
    """Symbol and date as a number, and nanoseconds since midnight."""

    group: np.ndarray
    time: np.ndarray


def _unit(interpolate: Duration, ahead: int, trades: pl.DataFrame, book: pl.DataFrame) -> int:
    """The unit of time in nanoseconds, of which all times must be whole multiples."""
    unit = nanoseconds(interpolate, "interpolate")
    if unit == 0:
        raise InputError("interpolate", "the unit of time must be positive")
    if ahead % unit:
        raise InputError("lag", f"must be a whole multiple of the unit {interpolate!r} in which times are counted")
    for table, frame in (("trades", trades), ("quotes", book)):
        finer = (frame["time"] % unit != 0).fill_null(False)
        if finer.any():
            row = int(finer.arg_true()[0])
            reason = (
                f"{table} have times finer than {interpolate!r}, such as {frame['time'][row]} ns: do not interpolate"
            )
            raise InputError("interpolate", reason, index=row if table == "trades" else None)
    return unit


def _last_before_interpolated(book: _Keys, wanted: _Keys, unit: int, order: np.ndarray | None) -> np.ndarray:
    """As `_last_before`, with the times of each unit spread evenly within it.

    Of the J quotes of a unit those before the i-th of I trades are the j with (2j − 1)/(2J) < (2i − 1)/(2I); there
    are ⌈((2i − 1) J + I)/(2I)⌉ − 1 of them.
    """
    i, trades = _places_in_unit(wanted, order)
    first = np.searchsorted(book.group, wanted.group, side="left")
    before, through = (_last_before(*book, wanted.group, wanted.time + later) for later in (0, unit))
    before, through = (np.where(at < 0, first - 1, at) for at in (before, through))
    quotes = through - before
    place = before + -(-((2 * i - 1) * quotes + trades) // (2 * trades)) - 1
    return np.where(place >= first, place, -1)


def _places_in_unit(keys: _Keys, order: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The place i = 1..I of each row among the I rows of its key, and I."""
    rows = np.arange(len(keys.time))
    sequence = rows if order is None else order
    ranked = np.lexsort((rows, sequence, keys.time, keys.group))
    group, time = keys.group[ranked], keys.time[ranked]
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(group) != 0) | (np.diff(time) != 0)
    starts = np.flatnonzero(new)
    count = np.diff(starts, append=len(rows))
    place, total = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    place[ranked] = rows - np.repeat(starts, count) + 1
    total[ranked] = np.repeat(count, count)
    return place, total


def _in_order(book: pl.DataFrame) -> bool:
    group, time, sequence = (book[name].to_numpy() for name in ("group", "time", "sequence"))
    later = time[1:] > time[:-1]
    later |= (time[1:] == time[:-1]) & (sequence[1:] >= sequence[:-1])
    return bool(np.all((group[1:] > group[:-1]) | ((group[1:] == group[:-1]) & later)))


def _last_before(group: np.ndarray, time: np.ndarray, wanted_group: np.ndarray, wanted_time: np.ndarray) -> np.ndarray:
    """Index of the last of the sorted (group, time) in the wanted group before the wanted time, or −1.

    One binary search over the key group·4·DAY + time, in which times between −DAY and 2·DAY stay in their
    group; a block holds as many groups as an int64 has room for.
    """
    place = np.full(len(wanted_group), -1, np.int64)
    wanted_time = np.maximum(wanted_time, -DAY)
    for first in range(0, int(wanted_group.max(initial=-1)) + 1, _GROUPS_A_BLOCK):
        mine = np.flatnonzero((wanted_group >= first) & (wanted_group < first + _GROUPS_A_BLOCK))
        lo, hi = np.searchsorted(group, [first, first + _GROUPS_A_BLOCK])
        key = (group[lo:hi] - first) * (4 * DAY) + time[lo:hi]
        wanted = (wanted_group[mine] - first) * (4 * DAY) + wanted_time[mine]
        last = lo + np.searchsorted(key, wanted, side="left") - 1
        if hi > lo:
            same = (last >= lo) & (group[np.maximum(last, lo)] == wanted_group[mine])
            place[mine] = np.where(same, last, -1)
    return place
