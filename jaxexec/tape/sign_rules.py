"""Who initiated each trade: the sign rules, each a pure function on integer arrays.

A rule takes the price p of a trade, the prevailing bid b and ask a (integer ticks below 2^53, b < a), and the
tick test's sign of that trade. The comparisons are made between integers, so that no rounding decides a sign.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SignRule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def quote_test(ticks: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Sign of 2p − b − a, int8 (trades,): +1 above the midpoint, −1 below it, 0 at it."""
    return _sign(2 * ticks - bid - ask)


def tick_test(ticks: np.ndarray, first: np.ndarray, before: tuple[np.integer, np.int8] | None = None) -> np.ndarray:
    """Sign of the last change of price, int8 (trades,); 0 where the price has not changed since the series
    began.

    Args:
        ticks: prices of trades in order, (trades,).
        first: True where a new series (symbol and date) begins, (trades,).
        before: price and tick test of the trade before these; None if there is none.
    """
    if not len(ticks):
        return np.zeros(0, np.int8)
    price, sign = (ticks[0], np.int8(0)) if before is None else before
    change = np.empty(len(ticks), np.int8)
    change[1:] = _sign(ticks[1:] - ticks[:-1])
    change[0] = np.sign(ticks[0] - price) or sign or _STOP
    starts = np.flatnonzero(first)
    change[starts] = _STOP
    # Every unchanged price takes what stands 1, 2, 4, … places before it: all are reached once the reach is as long as
    # the longest run, and bytes are cheap.
    reach = 1
    while reach < len(change):
        open_places = change[reach:] == 0
        if not open_places.any():
            break
        change[reach:] += change[:-reach] * open_places.view(np.int8)
        reach *= 2
    if len(starts) or change[0] == _STOP:
        change[change == _STOP] = 0
    return change


_STOP = np.int8(2)  # where a series begins: nothing before it counts


def _sign(x: np.ndarray) -> np.ndarray:
    return (x > 0).view(np.int8) - (x < 0).view(np.int8)


def quote_rule(ticks: np.ndarray, bid: np.ndarray, ask: np.ndarray, by_tick: np.ndarray) -> np.ndarray:
    """The quote test alone, int8 (trades,); 0 at the midpoint."""
    return quote_test(ticks, bid, ask)


def tick_rule(ticks: np.ndarray, bid: np.ndarray, ask: np.ndarray, by_tick: np.ndarray) -> np.ndarray:
    """The tick test alone, int8 (trades,)."""
    return by_tick


def lee_ready(ticks: np.ndarray, bid: np.ndarray, ask: np.ndarray, by_tick: np.ndarray) -> np.ndarray:
    """The quote test, and the tick test at the midpoint, int8 (trades,).

    Source: Lee and Ready (1991), Inferring trade direction from intraday data, Journal of Finance 46.
    """
    by_quote = quote_test(ticks, bid, ask)
    return by_quote + by_tick * (by_quote == 0)


def ellis_michaely_ohara(ticks: np.ndarray, bid: np.ndarray, ask: np.ndarray, by_tick: np.ndarray) -> np.ndarray:
    """+1 at p = a, −1 at p = b, the tick test at every other price, int8 (trades,).

    Source: Ellis, Michaely and O'Hara (2000), The accuracy of trade classification rules: evidence from Nasdaq,
    Journal of Financial and Quantitative Analysis 35.
    """
    at_a_quote = (ticks == ask) ^ (ticks == bid)
    return np.where(at_a_quote, quote_test(ticks, bid, ask), by_tick)


def chakrabarty_li_nguyen_van_ness(
    ticks: np.ndarray, bid: np.ndarray, ask: np.ndarray, by_tick: np.ndarray
) -> np.ndarray:
    """+1 in the upper three tenths of the spread, −1 in the lower three, the tick test in the middle four and
    outside the quotes, int8 (trades,).

    The bands, bounds included: 7a + 3b <= 10p <= 10a and 10b <= 10p <= 7b + 3a. (That a price on a bound belongs
    to its band is quoted from memory of the papers that apply the rule.)

    Source: Chakrabarty, Li, Nguyen and Van Ness (2007), Trade classification algorithms for electronic
    communications network trades, Journal of Banking and Finance 31.
    """
    upper = (10 * ticks >= 7 * ask + 3 * bid) & (ticks <= ask)
    lower = (10 * ticks <= 7 * bid + 3 * ask) & (ticks >= bid)
    return np.where(upper ^ lower, quote_test(ticks, bid, ask), by_tick)


SIGN_RULES: dict[str, SignRule] = {
    "lee-ready": lee_ready,
    "quote": quote_rule,
    "tick": tick_rule,
    "emo": ellis_michaely_ohara,
    "clnv": chakrabarty_li_nguyen_van_ness,
}
"""Name -> rule. A new rule is a function here and an entry; `sign` needs no change."""
