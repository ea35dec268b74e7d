"""Glosten–Harris of whole tapes by the traced function, for methods that sums over pieces of a stock cannot serve."""

from functools import partial

import numpy as np

from jaxexec.impact.estimates import ImpactEstimates, Model, estimate_lanes
from jaxexec.impact.lanes import TICK, Segments
from jaxexec.impact.stock_batches import measure_stocks


def estimate_in_batches(segments: Segments, model: Model) -> ImpactEstimates:
    """Estimates of all stocks of a tape, in float64 whatever JAX's 64-bit flag says.

    The days of a stock are parted by an empty slot, which nothing serial crosses.

    Returns:
        `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.
    """
    columns = (_prices(segments), np.asarray(segments.size, float), np.asarray(segments.sign, float))
    return measure_stocks(partial(_estimated, model=model), segments, columns, reach=1)


def _estimated(price: np.ndarray, size: np.ndarray, sign: np.ndarray, *, mask: np.ndarray, model: Model):
    return estimate_lanes(price, size, sign, mask, model)


def _prices(segments: Segments) -> np.ndarray:
    """Prices about the first of the stock, currency, (trades,): only changes matter, and they keep all their digits."""
    offsets, stock = np.asarray(segments.offsets), np.asarray(segments.stock)
    ticks = np.asarray(segments.ticks, np.int64)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    named, first = np.unique(stock[filled], return_index=True)
    opening = np.zeros(len(segments.symbols), np.int64)
    opening[named] = ticks[offsets[:-1][filled[first]]]
    return (ticks - np.repeat(opening[stock], np.diff(offsets))) * TICK


__all__ = ["estimate_in_batches"]
