"""Measures of liquidity and volatility of all stocks of a tape: what each array function takes is laid out here."""

from __future__ import annotations

import datetime
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from jaxexec.impact.intraday import REGULAR_SESSION
from jaxexec.impact.lanes import TICK, segments_of
from jaxexec.impact.measured import Lags, check_choice, check_lags
from jaxexec.impact.measures import Measures
from jaxexec.impact.price_on_flow import kyle_lambda_arrays
from jaxexec.impact.realised_variance import RealisedVariance, realised_variance_arrays
from jaxexec.impact.sign_surprise import madhavan_richardson_roomans_arrays
from jaxexec.impact.spread_components import Components, huang_stoll_arrays
from jaxexec.impact.stock_batches import measure_stocks
from jaxexec.impact.tape_spreads import PricedTape, QuotedTape, quotes_at_trades
from jaxexec.impact.vector_autoregression import hasbrouck_arrays
from jaxexec.numerics.status import Status
from jaxexec.tape.clock import nanoseconds, time_of_day
from jaxexec.tape.signed_tape import Segments

_LAGS = "Newey–West standard errors, products within a date."


def madhavan_richardson_roomans(tape: PricedTape, *, lags: Lags = None) -> Measures:
    """Madhavan, Richardson and Roomans's model of every stock; see `madhavan_richardson_roomans_arrays`.

    Args:
        tape: A `jaxexec.tape.SignedTape`, from files or from tables in memory (`SignedTape.from_frames`). Keep
            midpoint trades (`midpoint="keep"`): the model gives them sign 0.
        lags: Newey–West lags, None for ⌊4 (n/100)^{2/9}⌋ of each stock's rows n.

    Returns:
        `Measures`. A stock's dates are pooled; no difference crosses them.
    """
    function = partial(madhavan_richardson_roomans_arrays, lags=check_lags(lags))
    units = ("currency", "currency", "1", "1", "currency", "1")
    return _of_signs(tape, function, "Madhavan–Richardson–Roomans", units, lags)


def huang_stoll(tape: PricedTape, components: Components = "two", *, lags: Lags = None) -> Measures:
    """Huang and Stoll's components of the spread of every stock; see `huang_stoll_arrays`.

    Args:
        tape: A `jaxexec.tape.SignedTape`, from files or from tables in memory (`SignedTape.from_frames`).
        components: "two" or "three".
        lags: Newey–West lags, None for ⌊4 (n/100)^{2/9}⌋ of each stock's rows n.

    Returns:
        `Measures`. A stock's dates are pooled; no difference crosses them.
    """
    function = partial(huang_stoll_arrays, components=components, lags=check_lags(lags))
    check_choice("components", components, ("two", "three"))
    units = ("currency", *("1",) * (2 if components == "two" else 4))
    return _of_signs(tape, function, f"Huang–Stoll, {components} components", units, lags)


def _of_signs(tape: PricedTape, function, title: str, units: tuple[str, ...], lags: Lags) -> Measures:
    segments = segments_of(tape)
    columns = [segments.ticks * TICK, segments.sign]
    estimates = measure_stocks(function, segments, columns, check_lags(lags), reach=2)
    return Measures(title, tuple(segments.symbols), estimates, units, _LAGS)


class Bars(NamedTuple):
    """Bars of a tape that have a trade, and where the dates of each stock begin."""

    symbols: list[str]
    stock: np.ndarray
    offsets: np.ndarray
    change: np.ndarray
    flow: np.ndarray
    usable: np.ndarray


def kyle_lambda(
    tape: PricedTape,
    width: str | int | datetime.timedelta = "5min",
    *,
    flow: Literal["shares", "root"] = "shares",
    lags: Lags = None,
) -> Measures:
    """Kyle's λ of every stock on bars of equal time; see `kyle_lambda_arrays`.

    The price change of a bar runs from the last trade of the bar before to its own last trade, so that the first bar of
    a date is not used, and bars without a trade do not count.

    Args:
        tape: A `jaxexec.tape.SignedTape`, from files or from tables in memory (`SignedTape.from_frames`).
        width: Of a bar, counted from midnight.
        flow: "shares", Σ D V, or "root", Σ D √V (Hasbrouck 2009).
        lags: Newey–West lags, None for ⌊4 (n/100)^{2/9}⌋ of each stock's bars n.

    Returns:
        `Measures`.

    Raises:
        ValueError: `width` or `flow` is none of the above.
    """
    check_choice("flow", flow, ("shares", "root"))
    number, step = check_lags(lags), nanoseconds(width, "width")
    if step == 0:
        raise ValueError("width must be longer than 0")
    bars = _bars(segments_of(tape), step, flow == "root")

    def measure(change, flow, usable, mask):
        return kyle_lambda_arrays(change, flow, mask & (usable > 0), lags=number)

    estimates = measure_stocks(measure, bars, [bars.change, bars.flow, bars.usable], number)
    units = ({"shares": "currency per share", "root": "currency per √share"}[flow], "currency", "1")
    convention = f"Price changes of bars of {step / 1e9:g} seconds on signed {flow}. {_LAGS}"
    return Measures("Kyle's lambda", tuple(bars.symbols), estimates, units, convention)


def _bars(segments: Segments, width: int, root: bool) -> Bars:
    offsets, trades = segments.offsets, len(segments.time)
    bar = segments.time // width
    new = np.diff(bar, prepend=-1) != 0
    new[offsets[:-1][np.diff(offsets) > 0]] = True
    first = np.flatnonzero(new)
    signed = segments.sign * (np.sqrt(segments.size) if root else segments.size.astype(np.float64))
    flow = np.add.reduceat(signed, first) if trades else np.zeros(0)
    close = segments.ticks[np.append(first[1:], trades) - 1] if trades else np.zeros(0, np.int64)
    change = np.diff(close, prepend=close[:1]) * TICK
    cuts = np.searchsorted(first, offsets)
    usable = np.ones(len(first))
    usable[cuts[:-1][np.diff(cuts) > 0]] = 0
    return Bars(list(segments.symbols), segments.stock, cuts, change, flow, usable)


def hasbrouck(
    tape: QuotedTape,
    order: int = 5,
    *,
    price: Literal["midpoint", "trade"] = "midpoint",
    flow: Literal["sign", "shares"] = "sign",
    lags: Lags = None,
) -> Measures:
    """Hasbrouck's permanent response and information share of every stock; see `hasbrouck_arrays`.

    Args:
        tape: A `jaxexec.tape.SignedTape`, from files or from tables in memory, with quotes for price="midpoint".
        order: Lags of the autoregression.
        price: "midpoint": its change from before a trade to before the next (Hasbrouck's own choice), or "trade": the
            change of trade prices, whose bounce counts as a transitory response.
        flow: "sign", or "shares" for signed size.
        lags: Newey–West lags, None for ⌊4 (n/100)^{2/9}⌋ of each stock's rows n.

    Returns:
        `Measures`. A stock's dates are pooled; no lag crosses them.

    Raises:
        ValueError: An option is none of the above, or the tape carries no quotes where they are needed.
    """
    check_choice("price", price, ("midpoint", "trade"))
    check_choice("flow", flow, ("sign", "shares"))
    number, segments = check_lags(lags), segments_of(tape)
    filled = np.diff(segments.offsets) > 0
    edges = np.ones(len(segments.ticks))
    if price == "midpoint":
        bid, ask = quotes_at_trades(tape)
        good = ask >= bid
        change = np.diff(bid + ask, append=0) * (TICK / 2)
        edges[segments.offsets[1:][filled] - 1] = 0
        edges[~(good & np.append(good[1:], True))] = 0
    else:
        change = np.diff(segments.ticks, prepend=0) * TICK
        edges[segments.offsets[:-1][filled]] = 0
    signed = segments.sign * (segments.size.astype(np.float64) if flow == "shares" else 1.0)

    def measure(change, flow, usable, mask):
        return hasbrouck_arrays(change, flow, mask & (usable > 0), order=order, horizon=0, lags=number).measured

    estimates = measure_stocks(measure, segments, [change, signed, edges], number, reach=order)
    unit = {"sign": "currency", "shares": "currency per share"}[flow]
    convention = f"Vector autoregression of order {order} of {price} changes and {flow}. {_LAGS}"
    units = (unit, unit, "1", "currency per √trade")
    return Measures("Hasbrouck", tuple(segments.symbols), estimates, units, convention)


def realised_volatility(
    tape: QuotedTape,
    intervals: int = 78,
    session: tuple[str | int, str | int] | None = None,
    *,
    price: Literal["trade", "midpoint"] = "trade",
    subgrids: int | None = None,
) -> Measures:
    """Daily volatility of every stock: the root of the mean over its days of four realised variances.

    See `realised_variance_arrays`. The night is left out: a day is a session long.

    Args:
        tape: A `jaxexec.tape.SignedTape`, from files or from tables in memory (`SignedTape.from_frames`).
        intervals: Equal intervals a session; 78 are five minutes each of six and a half hours.
        session: Start and end, such as ("09:30", "16:00") or nanoseconds since local midnight; None is the session that
            the tape was cleaned to, or 09:30 to 16:00 where it does not say. Trades outside are not used.
        price: "trade" prices, or the "midpoint" before each trade.
        subgrids: Of the two-scale estimator; None chooses for each day.

    Returns:
        `Measures` in currency per share per √day, `n` the trades of the days used. A mean variance that is not positive
        has no root: NaN, and null in tables.

    Raises:
        ValueError: An option is none of the above, or the tape carries no quotes where they are needed.
    """
    check_choice("price", price, ("trade", "midpoint"))
    segments = segments_of(tape)
    start, end = (time_of_day(t) for t in (session or tape.hours or REGULAR_SESSION))
    if not 0 <= start < end:
        raise ValueError(f"session must be a pair of times of day, start < end, got {session!r}")
    elapsed = (segments.time - start) / (end - start)
    usable = (elapsed >= 0) & (elapsed <= 1)
    level = segments.ticks * TICK
    if price == "midpoint":
        bid, ask = quotes_at_trades(tape)
        usable &= ask >= bid
        level = (bid + ask) * (TICK / 2)

    def measure(level, elapsed, usable, mask):
        real = mask & (usable > 0)
        return realised_variance_arrays(level, elapsed, real, intervals=intervals, subgrids=subgrids)

    days = _Days([""] * len(segments.stock), np.arange(len(segments.stock)), segments.offsets)
    each = measure_stocks(measure, days, [level, elapsed, usable])
    estimates = _mean_over_days(each, segments.stock, len(segments.symbols))
    units = ("currency per share per √day",) * len(estimates.names)
    convention = f"Root of the mean realised variance of {price} prices, {intervals} intervals a day."
    return Measures("Realised volatility", tuple(segments.symbols), estimates, units, convention)


class _Days(NamedTuple):
    symbols: list[str]
    stock: np.ndarray
    offsets: np.ndarray


def _mean_over_days(each: RealisedVariance, stock: np.ndarray, stocks: int) -> RealisedVariance:
    """Volatilities of the stocks, with the errors of independent days."""
    good = np.asarray(each.status) <= Status.LOCAL
    stock = stock[good]
    days = np.maximum(np.bincount(stock, minlength=stocks), 1)[:, None]
    value, square = (
        np.stack([np.bincount(stock, column, stocks) for column in np.asarray(x)[good].T], 1)
        for x in (each.values, each.std_errors**2)
    )
    positive = value > 0
    volatility = np.sqrt(np.where(positive, value / days, np.nan))
    errors = np.sqrt(square) / days / (2 * volatility)
    n = np.bincount(stock, each.n[good], stocks).astype(np.int64)
    subgrids = np.bincount(stock, each.subgrids[good], stocks) / days[:, 0]
    status = np.where(np.bincount(stock, minlength=stocks) > 0, Status.OK, Status.INSUFFICIENT_DATA).astype(np.int32)
    fields: dict[str, Any] = {"values": volatility, "std_errors": errors, "n": n, "status": status}
    return RealisedVariance(**fields, subgrids=cast(Any, np.round(subgrids).astype(np.int32)))
