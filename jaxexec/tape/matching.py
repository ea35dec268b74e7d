"""Each trade and the quote that prevailed before it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import numpy as np

from jaxexec.tape.clock import DAY, nanoseconds

if TYPE_CHECKING:
    import polars as pl

_GROUPS_A_BLOCK = (2**63 - 1) // (4 * DAY)


def match(trades: pl.DataFrame, quotes: pl.DataFrame, lag: str | int | datetime.timedelta = "0s") -> pl.DataFrame:
    """Join to each trade the last quote of its symbol and date with quote time < trade time − lag, strictly.

    Strictly, because a quote that carries the trade's own time stamp is often the trade's consequence. Quotes
    with equal times are ordered by sequence number, then by their place. No quote is carried over from
    another date.

    Args:
        trades: canonical trades; sorted or not.
        quotes: canonical quotes; sorted or not.
        lag: duration >= 0, such as "0s" or "5s" (Lee and Ready 1991, Journal of Finance 46, used five
            seconds).

    Returns:
        The trades, in their order, with `bid_ticks`, `ask_ticks` and `quote_time` (Int64): null where no
        quote precedes the trade.

    Raises:
        InputError: `lag` is no duration.
    """
    import polars as pl

    ahead = nanoseconds(lag)
    groups = trades.select("symbol", "date").unique().sort("symbol", "date").with_row_index("group")
    book = quotes.select("symbol", "date", "time", "sequence", "bid_ticks", "ask_ticks").drop_nulls("time")
    book = book.join(groups, on=["symbol", "date"], how="inner", maintain_order="left")
    if not _in_order(book):
        book = book.sort("group", "time", "sequence", maintain_order=True)
    group = trades.select("symbol", "date").join(groups, on=["symbol", "date"], how="left", maintain_order="left")
    place = _last_before(
        book["group"].cast(pl.Int64).to_numpy(),
        book["time"].to_numpy(),
        group["group"].cast(pl.Int64).fill_null(-1).to_numpy(),
        trades["time"].fill_null(-DAY).to_numpy() - ahead,
    )
    at = pl.Series(place, dtype=pl.Int64)
    at = at.set(at < 0, None)
    found = book.select("bid_ticks", "ask_ticks", quote_time="time")
    return trades.hstack([found[name].gather(at).alias(name) for name in found.columns])


def _in_order(book: pl.DataFrame) -> bool:
    group, time, sequence = (book[name].to_numpy().astype(np.int64) for name in ("group", "time", "sequence"))
    by_group, by_time, by_sequence = np.diff(group), np.diff(time), np.diff(sequence)
    later = (by_time > 0) | ((by_time == 0) & (by_sequence >= 0))
    return bool(np.all((by_group > 0) | ((by_group == 0) & later)))


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
