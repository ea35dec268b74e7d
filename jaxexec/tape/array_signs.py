"""Sign rules on arrays in memory, block by block, so that nothing leaves the processor's caches between two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxexec.tape.errors import InputError
from jaxexec.tape.reading import require_choice
from jaxexec.tape.sign_rules import SIGN_RULES, tick_test

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BLOCK = 1 << 17
# Rules multiply prices by ten and add two of them.
_WIDEST, _WIDEST_32 = 2**53 // 20, (2**31 - 1) // 20


def sign_arrays(
    ticks: ArrayLike, bid: ArrayLike, ask: ArrayLike, *, first: ArrayLike | None = None, rule: str = "lee-ready"
) -> np.ndarray:
    """Who initiated each trade, from prices in integer ticks that lie in arrays side by side.

    Args:
        ticks: Price of each trade in ticks, in order of time, integers (trades,).
        bid, ask: Best quotes before each trade in ticks, bid below ask, integers (trades,). Any pair where bid is
            not below ask is taken as it stands.
        first: True where a new series (symbol and date) begins, so that the tick test does not look back across it,
            (trades,); None is one series.
        rule: "lee-ready", "quote", "tick", "emo" or "clnv", as in `sign`.

    Returns:
        +1 buyer-initiated, −1 seller-initiated, 0 undecided, int8 (trades,). No rounding takes part, so a trade at the
        exact midpoint is always seen as one.

    Raises:
        InputError: arrays of different lengths, of prices that are not integers, or of prices beyond 4.5e14 ticks.
        ValueError: an unknown rule.
    """
    require_choice("rule", rule, tuple(SIGN_RULES))
    columns = {name: _integers(name, x) for name, x in (("ticks", ticks), ("bid", bid), ("ask", ask))}
    count = len(columns["ticks"])
    starts = np.zeros(count, bool) if first is None else np.asarray(first, bool)
    for name, column in (*columns.items(), ("first", starts)):
        if column.shape != (count,):
            raise InputError(name, f"must have shape ({count},) like ticks, got {column.shape}")
    signs, by_tick = np.empty(count, np.int8), None
    for begin in range(0, count, BLOCK):
        block = slice(begin, min(begin + BLOCK, count))
        price, low, high = (_narrow(name, x[block], begin) for name, x in columns.items())
        before = None if by_tick is None else (columns["ticks"][begin - 1], by_tick[-1])
        by_tick = tick_test(price, starts[block], before)
        signs[block] = SIGN_RULES[rule](price, low, high, by_tick)
    return signs


def _integers(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise InputError(
            name, f"must be integers (ticks), got {array.dtype}: multiply by the ticks of a unit and round"
        )
    if array.ndim != 1:
        raise InputError(name, f"must have shape (trades,), got {array.shape}")
    if array.dtype == np.uint64 and array.max(initial=0) > _WIDEST:  # would wrap round
        row = int(np.argmax(array > _WIDEST))
        raise InputError(name, f"{array[row]} ticks is beyond {_WIDEST}", index=row)
    return array if array.dtype in (np.int32, np.int64) else array.astype(np.int64)


def _narrow(name: str, prices: np.ndarray, begin: int) -> np.ndarray:
    """Prices in a type in which the rules' sums cannot overflow."""
    most = max(int(prices.max(initial=0)), -int(prices.min(initial=0)))
    if prices.dtype == np.int32:
        return prices if most <= _WIDEST_32 else prices.astype(np.int64)
    if most > _WIDEST:
        row = int(np.argmax((prices > _WIDEST) | (prices < -_WIDEST)))
        raise InputError(name, f"{prices[row]} ticks is beyond {_WIDEST}", index=begin + row)
    return prices
