"""Whole tapes by the traced function, for methods that sums over pieces of a stock cannot serve.

Stocks of about one length are padded to the next power of two and go side by side; their days are parted by an empty
slot, which nothing serial crosses. There are few shapes, whatever the tape.
"""

from collections.abc import Iterator

import jax
import numpy as np

from jaxexec.impact.estimates import ImpactEstimates, Model, estimate_lanes
from jaxexec.impact.lanes import Segments

TICK = 1e-4  # currency per price tick
_SHORTEST = 256
_CELLS = 1 << 18  # slots of a batch: about a hundred megabytes while it is computed


def estimate_in_batches(segments: Segments, model: Model) -> ImpactEstimates:
    """Estimates of all stocks of a tape, in float64 whatever JAX's 64-bit flag says.

    Returns:
        `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.
    """
    stocks = len(segments.symbols)
    length = np.diff(segments.offsets)
    slots = np.bincount(segments.stock, length + 1, stocks).astype(np.int64)
    result = None
    with jax.enable_x64(True):
        for members, shape in _batches(slots):
            arrays = _padded(segments, members, shape)
            part = jax.tree.map(np.asarray, estimate_lanes(*arrays, model))
            if result is None:
                result = jax.tree.map(lambda x: np.zeros((stocks, *x.shape[1:]), x.dtype), part)
            for whole, piece in zip(jax.tree.leaves(result), jax.tree.leaves(part), strict=True):
                whole[members] = piece[: len(members)]
    assert result is not None
    return result


def _batches(slots: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Stocks of a batch, and its (lanes, slots); at least one batch, so that an empty tape has its shapes too."""
    room = 1 << np.ceil(np.log2(np.maximum(slots, _SHORTEST))).astype(np.int64)
    for size in np.unique(room).tolist() or [_SHORTEST]:
        group = np.flatnonzero(room == size)
        most = max(_CELLS // size, 1)
        lanes = min(most, 1 << max(len(group) - 1, 0).bit_length())
        for at in range(0, max(len(group), 1), lanes):
            yield group[at : at + lanes], (lanes, size)


def _padded(segments: Segments, members: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Price (about the first of the stock), size, sign and mask of some stocks."""
    price, size, sign = (np.zeros(shape) for _ in range(3))
    mask = np.zeros(shape, bool)
    stock = np.asarray(segments.stock)
    order = np.argsort(stock, kind="stable")
    edges = np.searchsorted(stock[order], np.stack([members, members + 1]))
    for lane, (first, last) in enumerate(edges.T):
        at, opening = 0, None
        for segment in order[first:last]:
            trades = slice(*segments.offsets[segment : segment + 2])
            ticks = np.asarray(segments.ticks[trades], np.int64)
            if not len(ticks):
                continue
            opening = ticks[0] if opening is None else opening
            here = slice(at, at + len(ticks))
            price[lane, here] = (ticks - opening) * TICK
            size[lane, here] = segments.size[trades]
            sign[lane, here] = segments.sign[trades]
            mask[lane, here] = True
            at += len(ticks) + 1
    return price, size, sign, mask
