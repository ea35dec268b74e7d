"""The stocks of a tape as padded batches of few shapes, so that few programmes are compiled whatever the tape."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from jaxexec.impact.lanes import Cuts
from jaxexec.numerics.moments import most_newey_west_lags

_SHORTEST = 256
_SLOTS = 1 << 17  # of a batch, padding included, unless one stock has more: what stays near the processor is faster
Result = TypeVar("Result")


class Layout(NamedTuple):
    """Where the trades of each stock lie in its lane: its segments one after the other, gaps between.

    Attributes:
        start, length, slot: First trade, trades and first slot of each segment, segments sorted by stock.
        first: First of these segments of each stock, (stocks + 1,).
        slots: Slots of each stock, gaps included, (stocks,).
    """

    start: np.ndarray
    length: np.ndarray
    slot: np.ndarray
    first: np.ndarray
    slots: np.ndarray


class Plan(NamedTuple):
    """A batch: its stocks, and its shape; lanes beyond the stocks are empty."""

    stocks: np.ndarray
    lanes: int
    slots: int


def measure_stocks(
    function: Callable[..., Result],
    cuts: Cuts,
    columns: Sequence[np.ndarray],
    lags: int | None = 0,
    reach: int | np.ndarray = 0,
) -> Result:
    """`function(*columns, mask=mask)` of all stocks, in float64 whatever JAX's 64-bit flag says.

    Args:
        function: From padded columns (lanes, trades) to a pytree with the lanes first.
        columns: Flat arrays over the trades of the tape.
        lags: Newey–West lags, None for the rule; between two dates of a stock as many slots stay empty.
        reach: Slots that stay empty at least, so that no lag of a regression crosses dates; of all stocks, or of each.

    Returns:
        The pytree with leading axis (stocks,), as NumPy arrays.
    """
    layout = lay_out(cuts, lags, reach)
    plans = batch_plans(layout.slots)

    def compute(plan: Plan):
        filled, mask = fill(layout, plan, columns)
        with jax.enable_x64(True):
            result = jax.tree.map(np.asarray, function(*filled, mask=mask))
        return jax.tree.map(lambda x: x[: len(plan.stocks)], result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(compute, plans))
    place = np.argsort(np.concatenate([plan.stocks for plan in plans]))
    return jax.tree.map(lambda *x: np.concatenate(x)[place], *parts)


def lay_out(cuts: Cuts, lags: int | None, reach: int | np.ndarray) -> Layout:
    """A lane a stock."""
    stocks, stock = len(cuts.symbols), np.asarray(cuts.stock, np.int64)
    order = np.argsort(stock, kind="stable")
    stock, start = stock[order], np.asarray(cuts.offsets[:-1], np.int64)[order]
    length = np.diff(cuts.offsets).astype(np.int64)[order]
    trades = np.bincount(stock, length, stocks).astype(np.int64)
    gap = np.array([most_newey_west_lags(int(n)) if lags is None else lags for n in trades], np.int64)
    gap = np.maximum(gap, reach)
    first = np.searchsorted(stock, np.arange(stocks + 1))
    ends = np.concatenate([[0], np.cumsum(length + gap[stock])])
    slot = ends[:-1] - ends[first[stock]]
    return Layout(start, length, slot, first, ends[first[1:]] - ends[first[:-1]])


def batch_plans(slots: np.ndarray) -> list[Plan]:
    """Stocks whose padded lengths are one power of two together; one empty batch of a tape without stocks."""
    padded = np.array([max(_SHORTEST, 1 << max(int(n) - 1, 0).bit_length()) for n in slots], np.int64)
    plans = []
    for size in np.unique(padded).tolist():
        members = np.flatnonzero(padded == size)
        lanes = min(max(_SLOTS // size, 1), 1 << (len(members) - 1).bit_length())
        plans += [Plan(members[at : at + lanes], lanes, size) for at in range(0, len(members), lanes)]
    return plans or [Plan(np.zeros(0, np.int64), 1, _SHORTEST)]


def fill(layout: Layout, plan: Plan, columns: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The padded columns of a batch, zero where there is no trade, and its mask; (lanes, slots) each."""
    lane, segment = _ragged(layout.first[plan.stocks], layout.first[plan.stocks + 1] - layout.first[plan.stocks])
    row, source = _ragged(layout.start[segment], layout.length[segment])
    step = source - layout.start[segment][row]
    target = lane[row] * plan.slots + layout.slot[segment][row] + step
    shape = (plan.lanes, plan.slots)
    mask = np.zeros(plan.lanes * plan.slots, bool)
    mask[target] = True
    filled = []
    for column in columns:
        flat = np.zeros(plan.lanes * plan.slots)
        flat[target] = column[source]
        filled.append(flat.reshape(shape))
    return filled, mask.reshape(shape)


def _ragged(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers start_i, start_i + 1, … of ranges of `count` each, one range after the other, and the i of each."""
    owner = np.repeat(np.arange(len(start)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, start[owner] + step if len(owner) else step
