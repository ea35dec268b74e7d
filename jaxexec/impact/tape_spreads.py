"""Spreads of all stocks of a tape: which midpoint prevailed later, and how long each quote did."""

from __future__ import annotations

import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from jaxexec.impact.lanes import TICK, segments_of
from jaxexec.impact.measured import Lags, check_choice, check_lags
from jaxexec.impact.measures import Measures
from jaxexec.impact.roll import ROLL, roll_spread_arrays
from jaxexec.impact.spreads import SPREADS, quoted_spread_arrays, spread_measures_arrays
from jaxexec.impact.stock_batches import measure_stocks
from jaxexec.tape.clock import nanoseconds, time_of_day
from jaxexec.tape.matching import match
from jaxexec.tape.signed_tape import Segments

if TYPE_CHECKING:
    import polars as pl

_QUOTE_COLUMNS = ("symbol", "date", "time", "sequence", "bid_ticks", "ask_ticks")
_AT_ONCE = 16_384  # segments whose times share one int64 axis
_DAYS = 4 * 86_400 * 10**9


class QuotedTape(Protocol):
    """What spreads need of a `jaxexec.tape.SignedTape`."""

    @property
    def trades(self) -> pl.DataFrame: ...
    @property
    def hours(self) -> tuple[int, int] | None: ...
    def segments(self) -> Segments: ...


class PricedTape(Protocol):
    """What Roll's spread needs of a `jaxexec.tape.SignedTape`."""

    def segments(self) -> Segments: ...


class _Cuts(NamedTuple):
    symbols: list[str]
    stock: np.ndarray
    offsets: np.ndarray


def spread_measures(
    tape: QuotedTape,
    after: str | int | datetime.timedelta = "5min",
    *,
    quotes: pl.DataFrame | None = None,
    weighting: Literal["trades", "shares"] = "trades",
    relative: bool = False,
    lags: Lags = None,
) -> Measures:
    """Quoted, effective and realised spread and price impact of every stock; see `spread_measures_arrays`.

    Args:
        tape: A `jaxexec.tape.SignedTape` whose trades carry quotes: signed with quotes, from files or from tables in
            memory, or `SignedTape.from_frames` with bid_ticks and ask_ticks.
        after: How much later the midpoint of realised spread and impact is taken.
        quotes: The cleaned quotes (`jaxexec.tape.clean(...).quotes`), for the midpoint at that very time. Without them
            it is the one that prevailed at the first trade from then on, which is what the tape itself knows. Trades
            for which the day ends before, or that quote is crossed, have no later midpoint.
        weighting: Means over trades, or over shares.
        relative: In units of the midpoint instead of currency.
        lags: Newey–West lags; None for ⌊4 (n/100)^{2/9}⌋ of each stock's trades n, or as many trades as come, in the
            mean, before the later midpoint where these are more: over that time realised spreads share their news.

    Returns:
        `Measures`. Trades without a quote, or with a crossed one, are left out.

    Raises:
        ValueError: The tape carries no quotes, or an option is none of the above.
    """
    check_choice("weighting", weighting, ("trades", "shares"))
    number, wait = check_lags(lags), nanoseconds(after, "after")
    segments = segments_of(tape)
    bid, ask = quotes_at_trades(tape)
    usable = ask >= bid
    if quotes is None:
        later = _later_at_trades(segments, np.where(usable, bid + ask, np.nan), wait)
    else:
        later = _later(tape, segments, quotes, wait)
    weight = segments.size if weighting == "shares" else np.ones(len(bid))
    overlap = _overlap(segments, wait) if number is None else np.zeros(len(segments.symbols), np.int64)
    each = np.repeat(overlap[segments.stock], np.diff(segments.offsets))
    columns = [segments.ticks * TICK, bid * TICK, ask * TICK, segments.sign, later * (TICK / 2), weight, usable, each]

    def measure(price, bid, ask, sign, later, weight, usable, each, mask):
        options: dict = {"relative": relative, "overlap": each.max(1).astype(np.int32), "lags": number}
        return spread_measures_arrays(price, bid, ask, sign, later, weight, mask & (usable > 0), **options)

    estimates = measure_stocks(measure, segments, columns, number, reach=overlap)
    source = "at the first trade from then on" if quotes is None else "from the quotes"
    one = {"trades": "trade", "shares": "share"}[weighting]
    convention = f"Full spreads, means over each {one}; the later midpoint is {_text(wait)} on, {source}."
    unit = "of the midpoint" if relative else "currency"
    return Measures("Spreads", tuple(segments.symbols), estimates, (unit,) * len(SPREADS), convention)


def quoted_spread(
    quotes: pl.DataFrame, session: tuple[str | int, str | int] = ("09:30", "16:00"), *, lags: Lags = None
) -> Measures:
    """Time-weighted quoted spread of every stock: how wide the book was, whether anybody traded or not.

    A quote prevails until the next of its symbol and date, or until the session ends; of what came before the session
    only the last counts, from its start. The time of crossed quotes is left out.

    Args:
        quotes: Cleaned or canonical quotes, as `jaxexec.tape.clean(...).quotes` or `jaxexec.tape.read` give them.
        session: Start and end, such as ("09:30", "16:00") or nanoseconds since local midnight.
        lags: Newey–West lags, None for ⌊4 (n/100)^{2/9}⌋ of each stock's quotes n.

    Returns:
        `Measures` with "quoted_spread" in currency; `n` counts the quotes that prevailed within the session.

    Raises:
        ValueError: `quotes` is no such table, or `session` no pair of increasing times of day.
    """
    import polars as pl

    number = check_lags(lags)
    lacking = [name for name in _QUOTE_COLUMNS if name not in getattr(quotes, "columns", ())]
    if lacking:
        raise ValueError(
            f"quotes must be a table of cleaned quotes (jaxexec.tape.clean(...).quotes), got a {type(quotes).__name__} "
            f"without {', '.join(lacking)}"
        )
    start, end = (time_of_day(t) for t in session)
    if not 0 <= start < end:
        raise ValueError(f"session must be a pair of times of day, start < end, got {session!r}")
    book = quotes.drop_nulls(["symbol", "date", "time", "bid_ticks", "ask_ticks"])
    book = book.sort("symbol", "date", "time", "sequence", maintain_order=True)
    since = pl.col("time").clip(start, end)
    until = since.shift(-1).over("symbol", "date").fill_null(end)
    book = book.with_columns(duration=(until - since).cast(pl.Float64) * 1e-9)
    symbols = book["symbol"].unique().sort().to_list()
    book = book.filter((pl.col("duration") > 0) & (pl.col("ask_ticks") >= pl.col("bid_ticks")))
    cuts = book.group_by("symbol", "date", maintain_order=True).len()
    place = {symbol: i for i, symbol in enumerate(symbols)}
    stock = np.array([place[s] for s in cuts["symbol"]], np.int64)
    offsets = np.concatenate([[0], np.cumsum(cuts["len"].to_numpy())]).astype(np.int64)
    columns = [book[c].to_numpy() * scale for c, scale in (("bid_ticks", TICK), ("ask_ticks", TICK), ("duration", 1))]
    estimates = measure_stocks(
        partial(quoted_spread_arrays, lags=number), _Cuts(symbols, stock, offsets), columns, number
    )
    return Measures("Quoted spread", tuple(symbols), estimates, ("currency",), "Full spread, weighted by time.")


def roll_spread(tape: PricedTape, *, lags: Lags = None) -> Measures:
    """Roll's spread of every stock; see `roll_spread_arrays`.

    Args:
        tape: A `jaxexec.tape.SignedTape`; neither its signs nor its quotes are used.
        lags: Newey–West lags, None for ⌊4 (n/100)^{2/9}⌋ of each stock's rows n.

    Returns:
        `Measures`. No product of price changes crosses dates.
    """
    number, segments = check_lags(lags), segments_of(tape)
    estimates = measure_stocks(
        partial(roll_spread_arrays, lags=number), segments, [segments.ticks * TICK], number, reach=2
    )
    convention = "Full spread 2√(−cov) of consecutive price changes; negative where the covariance is positive."
    assert estimates.names == ROLL
    return Measures("Roll's spread", tuple(segments.symbols), estimates, ("currency", "currency²"), convention)


def quotes_at_trades(tape: QuotedTape) -> tuple[np.ndarray, np.ndarray]:
    """Bid and ask before each trade in ticks; where there is none the ask is below the bid.

    Raises:
        ValueError: The tape carries no quotes.
    """
    trades = tape.trades
    if not {"bid_ticks", "ask_ticks"} <= set(trades.columns) or trades["bid_ticks"].null_count() == trades.height:
        raise ValueError("the tape carries no quotes: sign it with quotes, or use roll_spread, which needs none")
    missing = (trades["bid_ticks"].is_null() | trades["ask_ticks"].is_null()).to_numpy()
    bid, ask = (trades[name].fill_null(0).to_numpy() for name in ("bid_ticks", "ask_ticks"))
    return np.where(missing, 1, bid), np.where(missing, 0, ask)


def _overlap(segments: Segments, wait: int) -> np.ndarray:
    """Mean number of trades within `wait` of a trade, rounded up, of each stock; int64 (stocks,)."""
    places = np.arange(len(segments.time), dtype=np.float64)
    later = _later_at_trades(segments, places, wait)
    stock = np.repeat(segments.stock, np.diff(segments.offsets))
    known, stocks = np.isfinite(later), len(segments.symbols)
    count = np.maximum(np.bincount(stock[known], minlength=stocks), 1)
    return np.ceil(np.bincount(stock[known], (later - places)[known], stocks) / count).astype(np.int64)


def _later_at_trades(segments: Segments, values: np.ndarray, wait: int) -> np.ndarray:
    """The value at the first trade of the segment from `wait` later on; NaN where there is none."""
    offsets, out = segments.offsets, np.full(len(segments.time), np.nan)
    length = np.diff(offsets)
    for first in range(0, len(length), _AT_ONCE):
        counts = length[first : first + _AT_ONCE]
        low, high = offsets[first], offsets[first] + counts.sum()
        axis = np.repeat(np.arange(len(counts)) * _DAYS, counts) + segments.time[low:high]
        found = low + np.searchsorted(axis, axis + wait)
        inside = found < np.repeat(offsets[first + 1 : first + 1 + len(counts)], counts)
        out[low:high][inside] = values[found[inside]]
    return out


def _later(tape: QuotedTape, segments: Segments, quotes: pl.DataFrame, wait: int) -> np.ndarray:
    """Twice the midpoint of the quotes `wait` later; NaN where the day has ended, or the quote is crossed."""
    import polars as pl

    moved = tape.trades.select("symbol", "date", time=pl.col("time") + wait)
    found = match(moved, quotes)
    last = np.repeat(segments.time[segments.offsets[1:] - 1], np.diff(segments.offsets))
    end = last if tape.hours is None else tape.hours[1]
    bid, ask = (found[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in ("bid_ticks", "ask_ticks"))
    return np.where((moved["time"].to_numpy() <= end) & (ask >= bid), bid + ask, np.nan)


def _text(wait: int) -> str:
    return f"{wait / 1e9:g} seconds"
