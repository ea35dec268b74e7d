"""How a tape is laid out for its regressions: segments cut into pieces that ride side by side as vector lanes.

A tape has many stocks of wildly different length. Each segment (one stock on one date) is cut into equal pieces; a
piece, with the few real trades before it that its lags reach (the halo), stands alone and becomes one lane of a chunk:

        lane 0  1  2 …  255          time runs down, lanes run across: lag j of all lanes is one contiguous
    halo  ·  ·  ·  ·  ·  ·           slice, and 256 pieces advance together whatever stock they belong to
    0     ·  ·  ·  ·  ·  ·
    ⋮     ·  ·  ·  ·  ·  ·           lanes of a chunk differ by less than SPREAD Newey–West lags, so that the
    T−1   ·  ·  ·  ·  ·  ·           scores that leave their windows lie in so many contiguous slices

Chunks have one of few shapes, `LENGTHS` by `WIDTH`, so few programs are ever compiled, whatever the tape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

TICK = 1e-4  # currency per price tick
LENGTHS = (64, 512)
WIDTH = 256
SPREAD = 4
TILE = 32  # steps a loop body handles: in blocks of TILE x WIDTH the compiler neither recomputes nor leaves the cache


class Cuts(Protocol):
    """Where the segments (one stock on one date) of a tape begin, as `SignedTape.segments()` says."""

    @property
    def symbols(self) -> Sequence[str]: ...
    @property
    def stock(self) -> np.ndarray: ...
    @property
    def offsets(self) -> np.ndarray: ...


class Segments(Cuts, Protocol):
    """Signed trades of many stocks, one after the other, as `SignedTape.segments()` gives them."""

    @property
    def ticks(self) -> np.ndarray: ...
    @property
    def size(self) -> np.ndarray: ...
    @property
    def sign(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Lanes:
    """Where the pieces lie. All fields are (lanes,) arrays but the last two.

    Attributes:
        first: Trade at step 0 of the piece, an index into the flat tape.
        low: First step, counted from the start of the halo, that is a row of the regressions.
        high: One past the last such step.
        owned: Steps that belong to the piece; the rest of its length is padding.
        stock: Stock of the piece.
        lags: Newey–West lags of that stock.
        chunks: Slices of lanes that are computed together, with the length of their pieces.
        reach: Steps before a piece that its windows look back on; a multiple of TILE.
    """

    first: np.ndarray
    low: np.ndarray
    high: np.ndarray
    owned: np.ndarray
    stock: np.ndarray
    lags: np.ndarray
    chunks: list[tuple[slice, int]]
    reach: int


def cut(segments: Segments, lags: np.ndarray, order: int, trailing: bool) -> Lanes:
    """Cut every segment into pieces and sort the pieces into chunks.

    Args:
        lags: Newey–West lags of each stock, (stocks,).
        trailing: Whether steps after the last trade are wanted, for the windows that still hold its score.
    """
    length = np.diff(segments.offsets).astype(np.int64)
    lag = lags[segments.stock]
    steps = np.where(length > order, length - order + (lag if trailing else 0), 0)
    reach = TILE * max(1, -(-int(lags.max(initial=0)) // TILE))
    pieces = -(-steps[:, None] // np.array(LENGTHS))
    choice = np.argmin(pieces * (np.array(LENGTHS) + order + reach), axis=1)
    count = np.take_along_axis(pieces, choice[:, None], 1)[:, 0].astype(np.int64)
    share = -(-steps // np.maximum(count, 1))
    segment = np.repeat(np.arange(len(length)), count)
    rank = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    begin = order + rank * share[segment]
    halo = order + reach
    columns = {
        "first": segments.offsets[:-1][segment] + begin,
        "low": order - begin + halo,
        "high": length[segment] - begin + halo,
        "owned": np.minimum(share[segment], order + steps[segment] - begin),
        "stock": segments.stock[segment],
        "lags": lag[segment],
    }
    chosen = choice[segment]
    by_shape = np.lexsort((columns["lags"], chosen))
    columns = {name: column[by_shape] for name, column in columns.items()}
    return Lanes(**columns, chunks=_chunks(chosen[by_shape], columns["lags"]), reach=reach)


def _chunks(choice: np.ndarray, lags: np.ndarray) -> list[tuple[slice, int]]:
    """At most WIDTH lanes each, all of one length, with lags between two multiples of SPREAD."""
    edges = np.flatnonzero(np.diff(choice) | np.diff(lags // SPREAD)) + 1
    bounds = [0, *edges.tolist(), len(choice)]
    # A tape without a single row still makes one empty chunk, so that its sums have their shapes.
    if not len(choice):
        return [(slice(0, 0), LENGTHS[0])]
    return [
        (slice(at, min(at + WIDTH, end)), LENGTHS[choice[at]])
        for start, end in pairwise(bounds)
        for at in range(start, end, WIDTH)
    ]


class Chunk(NamedTuple):
    """Trades of WIDTH lanes, lane first as they lie in memory, and where they belong.

    Attributes:
        flow: Signed size, (lanes, halo + length), int32 where that is lossless.
        change: Price change in ticks, the same shape.
        low, high, end: First step that is a row, one past the last, one past the last owned, (lanes,) int32.
        lags: Newey–West lags, (lanes,) int32.
    """

    flow: np.ndarray
    change: np.ndarray
    low: np.ndarray
    high: np.ndarray
    end: np.ndarray
    lags: np.ndarray


class FlatTape:
    """Signed sizes and price changes of all trades, one after the other, and windows into them.

    Attributes:
        mean, sign_mean: Mean signed size and mean sign of each stock, (stocks,).
        head, tail: The first and last `order` signed sizes of every segment, about the mean, (segments, order); zero
            where a segment has no row.
    """

    def __init__(self, segments: Segments, order: int, reach: int):
        self.halo = order + reach
        offsets, stocks = np.asarray(segments.offsets, np.int64), len(segments.symbols)
        signed = np.multiply(segments.size, segments.sign, dtype=np.int64)
        self.flow = self._flat(signed)
        # The change into a segment's first trade crosses two segments; it is never a row.
        self.change = self._flat(np.diff(segments.ticks, prepend=segments.ticks[:1]))
        length = np.diff(offsets)
        trades = np.maximum(np.bincount(segments.stock, length, stocks), 1)
        totals = (_segment_sums(x, offsets) for x in (signed, segments.sign))
        self.mean, self.sign_mean = (add_up(segments.stock, x, stocks) / trades for x in totals)
        step = np.arange(order)
        long = (length > order)[:, None]
        first = np.where(long, offsets[:-1, None] + step, 0)
        last = np.where(long, offsets[1:, None] - order + step, 0)
        centre = self.mean[segments.stock][:, None]
        self.head, self.tail = (np.where(long, _at(signed, i) - centre, 0) for i in (first, last))

    def _flat(self, values: np.ndarray) -> np.ndarray:
        """With room for the halo of the first piece and the padding of the last; int32 where that is lossless."""
        limit = np.iinfo(np.int32).max
        small = not len(values) or (values.max() <= limit and values.min() >= -limit)
        flat = np.zeros(self.halo + len(values) + max(LENGTHS), np.int32 if small else np.float64)
        flat[self.halo : self.halo + len(values)] = values
        return flat

    def chunk(self, lanes: Lanes, where: slice, length: int) -> Chunk:
        """The windows of some lanes; lanes that are missing to WIDTH own nothing."""
        missing = WIDTH - (where.stop - where.start)
        columns = (lanes.low, lanes.high, lanes.owned + self.halo, lanes.lags)
        low, high, end, lags = (np.pad(x[where].astype(np.int32), (0, missing)) for x in columns)
        first = np.pad(lanes.first[where], (0, missing))
        flow, change = (
            np.lib.stride_tricks.sliding_window_view(x, self.halo + length)[first] for x in (self.flow, self.change)
        )
        return Chunk(flow, change, low, high, end, lags)


def add_up(stock: np.ndarray, values: np.ndarray, stocks: int) -> np.ndarray:
    """Σ of the values of each stock, in their order; float64 also where there are none (`bincount` gives integers)."""
    return np.bincount(stock, values, stocks).astype(np.float64)


def _segment_sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Σ of each segment in 64-bit integers; segments may be empty."""
    sums = np.zeros(len(offsets) - 1, np.int64)
    filled = np.diff(offsets) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(values, offsets[:-1][filled], dtype=np.int64)
    return sums


def _at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return values[index] if len(values) else np.zeros(index.shape)
