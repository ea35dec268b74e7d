"""How a tape is laid out for its regressions: segments cut into pieces that ride side by side as vector lanes.

A tape has many stocks of wildly different length. Each segment (one stock on one date) is cut into equal pieces; a
piece, with the few real trades before it that its lags reach (the halo), stands alone and becomes one lane of a chunk:

        lane 0  1  2 …  255          time runs down, lanes run across: lag j of all lanes is one contiguous
    halo  ·  ·  ·  ·  ·  ·           slice, and 256 pieces advance together whatever stock they belong to
    0     ·  ·  ·  ·  ·  ·
    ⋮     ·  ·  ·  ·  ·  ·           all lanes of a chunk have the same number of Newey–West lags, so that the
    T−1   ·  ·  ·  ·  ·              scores that leave their windows lie side by side too

Chunks have one shape, and each says how many of its rows are in use: one program serves every tape. The pieces of all
stocks with as many lags are made so long that they fill their last chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

TICK = 1e-4  # currency per price tick
WIDTH = 256
TILE = 16  # steps a loop body handles: blocks of TILE x WIDTH stay in the nearest caches
LONGEST = 2048  # steps of a piece, a multiple of TILE
_CALL = 3  # tiles that could be walked in the time it takes to call a program
_REACH = 2 * TILE  # enough for the rule's lags up to a million trades


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


def segments_of(tape: Any) -> Any:
    """`tape.segments()`.

    Raises:
        ValueError: It is no signed tape.
    """
    if not callable(getattr(tape, "segments", None)):
        raise ValueError(
            f"tape must be a jaxexec.tape.SignedTape, got a {type(tape).__name__}: files become one by "
            "jaxexec.tape.sign, tables of signed trades by SignedTape.from_frames, days together by jaxexec.tape.pool"
        )
    return tape.segments()


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
        chunks: Slices of lanes that are computed together.
        reach: Steps before a piece that its windows look back on; a multiple of TILE.
    """

    first: np.ndarray
    low: np.ndarray
    high: np.ndarray
    owned: np.ndarray
    stock: np.ndarray
    lags: np.ndarray
    chunks: list[slice]
    reach: int


def cut(segments: Cuts, lags: np.ndarray, order: int, trailing: bool) -> Lanes:
    """Cut every segment into pieces and sort the pieces into chunks.

    Args:
        lags: Newey–West lags of each stock, (stocks,).
        trailing: Whether steps after the last trade are wanted, for the windows that still hold its score.
    """
    length = np.diff(segments.offsets).astype(np.int64)
    lag = lags[segments.stock]
    steps = np.where(length > order, length - order + (lag if trailing else 0), 0)
    most = int(lags.max(initial=0))
    reach = max(_REACH, TILE << max(0, (-(-most // TILE) - 1).bit_length()))
    piece = np.ones(len(length), np.int64)
    for lags_of_group in np.unique(lag[steps > 0]):
        group = (lag == lags_of_group) & (steps > 0)
        piece[group] = _piece_length(steps[group], int(lags_of_group))
    count = -(-steps // piece)
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
    alike = np.lexsort((columns["owned"], columns["lags"]))
    columns = {name: column[alike] for name, column in columns.items()}
    return Lanes(**columns, chunks=_chunks(columns["lags"]), reach=reach)


def _piece_length(steps: np.ndarray, lags: int) -> int:
    """Steps of a piece, a multiple of TILE, for which the segments make the fewest tiles, halos included.

    Args:
        steps: Steps of the segments, (segments,).
    """
    choices = np.arange(TILE, LONGEST + 1, TILE)
    # Segments of a day's tape are many and alike, so the pieces are counted for lengths, not for segments.
    length, alike = np.unique(steps, return_counts=True)
    pieces = (-(-length[:, None] // choices) * alike[:, None]).sum(0)
    tiles = choices // TILE + max(1, -(-lags // TILE)) + _CALL
    return int(choices[np.argmin(-(-pieces // WIDTH) * tiles)])


def _chunks(lags: np.ndarray) -> list[slice]:
    """At most WIDTH lanes each, all with the same lags."""
    # A tape without a single row still makes one empty chunk, so that its sums have their shapes.
    if not len(lags):
        return [slice(0, 0)]
    bounds = [0, *(np.flatnonzero(np.diff(lags)) + 1).tolist(), len(lags)]
    return [slice(at, min(at + WIDTH, end)) for start, end in pairwise(bounds) for at in range(start, end, WIDTH)]


class Chunk(NamedTuple):
    """Trades of WIDTH lanes, time first, and where they belong.

    Attributes:
        flow: Signed size, (halo + LONGEST, lanes), int32 where that is lossless.
        change: Price change in ticks, the same shape.
        low, high, end: First step that is a row, one past the last, one past the last owned, (lanes,) int32.
        lags: Newey–West lags of all lanes, () int32.
        tiles: Tiles behind the halo that hold owned steps, () int32.
    """

    flow: np.ndarray
    change: np.ndarray
    low: np.ndarray
    high: np.ndarray
    end: np.ndarray
    lags: np.int32
    tiles: np.int32


class Edges(NamedTuple):
    """Means, and what lies at the ends of segments.

    Attributes:
        mean, sign_mean: Mean signed size and mean sign of each stock, (stocks,).
        head, tail: The first and last `order` signed sizes of every segment, about the mean, (segments, order); zero
            where a segment has no row.
    """

    mean: np.ndarray
    sign_mean: np.ndarray
    head: np.ndarray
    tail: np.ndarray


def find_edges(segments: Segments, order: int) -> Edges:
    """The `Edges` of a tape."""
    offsets, stocks = np.asarray(segments.offsets, np.int64), len(segments.symbols)
    signed = np.multiply(segments.size, segments.sign, dtype=np.int64)
    length = np.diff(offsets)
    trades = np.maximum(np.bincount(segments.stock, length, stocks), 1)
    totals = (_segment_sums(x, offsets) for x in (signed, segments.sign))
    mean, sign_mean = (add_up(segments.stock, x, stocks) / trades for x in totals)
    step = np.arange(order)
    long = (length > order)[:, None]
    first = np.where(long, offsets[:-1, None] + step, 0)
    last = np.where(long, offsets[1:, None] - order + step, 0)
    centre = mean[segments.stock][:, None]
    head, tail = (np.where(long, _at(signed, i) - centre, 0) for i in (first, last))
    return Edges(mean, sign_mean, head, tail)


def lay_out(segments: Segments, lanes: Lanes, order: int) -> Iterator[Chunk]:
    """The chunks of a tape, one after the other."""
    halo = order + lanes.reach
    flat = _flat_flow(segments, halo), _flat_change(segments, halo)
    for where in lanes.chunks:
        missing = WIDTH - (where.stop - where.start)
        columns = (lanes.low, lanes.high, lanes.owned + halo)
        low, high, end = (np.pad(x[where].astype(np.int32), (0, missing)) for x in columns)
        # Lanes that are missing to WIDTH own nothing.
        first = np.pad(lanes.first[where], (0, missing))
        tiles = -(-int(lanes.owned[where].max(initial=0)) // TILE)
        flow, change = (_time_first(x, first, halo + tiles * TILE, halo + LONGEST) for x in flat)
        lags = lanes.lags[where].max(initial=0)
        yield Chunk(flow, change, low, high, end, np.int32(lags), np.int32(tiles))


def _flat_flow(segments: Segments, halo: int) -> np.ndarray:
    """Signed sizes, with room for the halo of the first piece and the padding of the last."""
    flat, middle = _room(segments.size, _largest(segments.size), halo)
    np.multiply(segments.size, segments.sign, out=middle, casting="unsafe")
    return flat


def _flat_change(segments: Segments, halo: int) -> np.ndarray:
    """Changes of the price in ticks, as `_flat_flow`; that into a segment's first trade is never a row."""
    ticks = segments.ticks
    flat, middle = _room(ticks, 2 * _largest(ticks), halo)
    np.subtract(ticks[1:], ticks[:-1], out=middle[1:], casting="unsafe")
    return flat


def _largest(values: np.ndarray) -> int:
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def _room(values: np.ndarray, largest: int, halo: int) -> tuple[np.ndarray, np.ndarray]:
    """Zeros, and of them where `values` belong; int32 where that is lossless."""
    kind = np.int32 if largest <= np.iinfo(np.int32).max else np.float64
    flat = np.zeros(halo + len(values) + LONGEST, kind)
    return flat, flat[halo : halo + len(values)]


def _time_first(flat: np.ndarray, first: np.ndarray, rows: int, room: int) -> np.ndarray:
    """`rows` values from each of `first` on, as columns of an array with `room` rows; the rest is never read."""
    columns = np.zeros((room, len(first)), flat.dtype)
    columns[:rows] = np.lib.stride_tricks.sliding_window_view(flat, rows)[first].T
    return columns


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
