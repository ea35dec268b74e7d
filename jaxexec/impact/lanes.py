"""Impact estimates of whole tapes: segments cut into rows that ride side by side as vector lanes.

A tape has many stocks of wildly different length. Each segment (one stock on one date) is cut into equal pieces; a
piece, with the few real trades before it that its lags reach (the halo), stands alone and becomes one lane of a chunk:

        lane 0  1  2 …  255          time runs down, lanes run across: lag j of all lanes is one contiguous
    halo  ·  ·  ·  ·  ·  ·           slice, and 256 pieces advance together whatever stock they belong to
    0     ·  ·  ·  ·  ·  ·
    ⋮     ·  ·  ·  ·  ·  ·           lanes of a chunk share their number of Newey–West lags, so that the
    T−1   ·  ·  ·  ·  ·  ·           score that leaves a window is a contiguous slice as well

A chunk is one call of a compiled pass. Its shape is one of `LENGTHS` by `WIDTH`, so few programs are ever compiled,
whatever the tape; sums of lanes are added up by stock on the host, in float64 and in a fixed order.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxexec.impact import passes
from jaxexec.impact.estimates import ImpactEstimates, conclude
from jaxexec.impact.passes import Block, Covariance, Form, OrderFlow, ScoreSums
from jaxexec.numerics.moments import Fit, Moments, least_squares, most_newey_west_lags

LENGTHS = (64, 512)
WIDTH = 256
TILE = 8  # steps a loop body handles: enough to amortise it, few enough to stay in the first-level cache
TICK = 1e-4  # currency per price tick


class Segments(Protocol):
    """Signed trades of many stocks, one after the other, as `SignedTape.segments()` gives them."""

    symbols: Any
    stock: np.ndarray
    offsets: np.ndarray
    ticks: np.ndarray
    size: np.ndarray
    sign: np.ndarray


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


def estimate_tape(
    segments: Segments, *, form: Form, covariance: Covariance, lags: int | None, order: int = 5
) -> ImpactEstimates:
    """Estimates of all stocks of a tape, in float64 whatever JAX's 64-bit flag says.

    Returns:
        `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.
    """
    stocks = len(segments.symbols)
    rows = np.bincount(segments.stock, np.maximum(np.diff(segments.offsets) - order, 0), stocks).astype(np.int64)
    if covariance != "hac":
        used = np.zeros(stocks, np.int64)
    else:
        used = np.array([most_newey_west_lags(int(n)) for n in rows], np.int64) if lags is None else np.full(stocks, lags)
    # A stock that is refused for having no more rows than lags must not size the halo of the others.
    used_lanes = np.where(rows > used, used, 0)
    with jax.enable_x64(True):
        runner = _Runner(segments, used_lanes, rows, order, covariance)
        result = runner.run(form, used)
        return jax.tree.map(np.asarray, result)


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
    """At most WIDTH lanes each, all of one length and one number of lags."""
    edges = np.flatnonzero(np.diff(choice) | np.diff(lags)) + 1
    bounds = [0, *edges.tolist(), len(choice)]
    return [
        (slice(at, min(at + WIDTH, end)), LENGTHS[choice[at]])
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
        for at in range(start, end, WIDTH)
    ]


class _Runner:
    """The flat tape, its pieces, and the three passes over them."""

    def __init__(self, segments: Segments, lags: np.ndarray, rows: np.ndarray, order: int, covariance: Covariance):
        self.stocks, self.rows, self.order, self.covariance = len(segments.symbols), rows, order, covariance
        self.lanes = cut(segments, lags, order, covariance == "hac")
        self.halo = order + self.lanes.reach
        signed = segments.size.astype(np.int64) * segments.sign
        trade_stock = np.repeat(segments.stock, np.diff(segments.offsets))
        trades = np.maximum(np.bincount(trade_stock, minlength=self.stocks), 1)
        self.mean = np.bincount(trade_stock, signed, self.stocks) / trades
        self.sign_mean = np.bincount(trade_stock, segments.sign, self.stocks) / trades
        self.flow = self._flat(signed)
        # The change into a segment's first trade crosses two segments; it is never a row.
        self.change = self._flat(np.diff(segments.ticks, prepend=segments.ticks[:1]))

    def _flat(self, values: np.ndarray) -> np.ndarray:
        """With room for the halo of the first piece and the padding of the last; int32 where that is lossless."""
        small = np.abs(values).max(initial=0) < np.iinfo(np.int32).max
        return np.pad(values.astype(np.int32 if small else np.float64), (self.halo, max(LENGTHS)))

    def run(self, form: Form, lags: np.ndarray) -> ImpactEstimates:
        products = self._by_stock(partial(_pass_one, order=self.order, halo=self.halo), self.mean)
        flow_fit: OrderFlow = _fit_flow(*self._padded(products, self.mean, self.sign_mean))
        products = self._by_stock(partial(_pass_two, form=form, halo=self.halo), flow_fit)
        moments, fit = _fit_impact(*self._padded(products))
        sums = self._by_stock(
            partial(_pass_three, form=form, covariance=self.covariance, reach=self.lanes.reach),
            (flow_fit, moments, fit),
        )
        (sums,) = self._padded(sums)
        result = _finish(flow_fit, moments, fit, sums, *self._padded(lags.astype(np.int32)), form, self.covariance)
        return jax.tree.map(lambda x: x[: self.stocks], result)

    def _padded(self, *trees) -> list:
        """Stocks, the last axis, padded to a power of two, so that the fits compile for few shapes."""
        room = max(8, 1 << (self.stocks - 1).bit_length()) if self.stocks else 8
        return [
            jax.tree.map(lambda x: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, room - x.shape[-1])]), tree)
            for tree in trees
        ]

    def _by_stock(self, program: Callable, coefficients: Any) -> Any:
        """Sums over the lanes of each stock, (..., stocks)."""
        host = jax.tree.map(np.asarray, coefficients)

        def compute(chunk):
            with jax.enable_x64(True):
                return jax.tree.map(np.asarray, program(*self._chunk(chunk, host)))

        lanes = self.lanes
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = list(pool.map(compute, lanes.chunks))
        if not parts:
            shape = jax.eval_shape(program, *self._chunk((slice(0, 0), LENGTHS[0]), host))
            return jax.tree.map(lambda x: np.zeros((*x.shape[:-1], self.stocks)), shape)
        widths = [chunk.stop - chunk.start for chunk, _ in lanes.chunks]

        def total(*sums):
            joined = np.concatenate([x[..., :w] for x, w in zip(sums, widths, strict=True)], -1)
            flat = joined.reshape(-1, joined.shape[-1])
            stocks = np.stack([np.bincount(lanes.stock, row, self.stocks) for row in flat])
            return stocks.reshape(*joined.shape[:-1], self.stocks)

        return jax.tree.map(total, *parts)

    def _chunk(self, chunk: tuple[slice, int], coefficients: Any) -> Iterator:
        """Arguments of a pass: the lanes' trades (lane first, as they lie in memory), bounds and coefficients."""
        where, length = chunk
        lanes, missing = self.lanes, WIDTH - (where.stop - where.start)

        def take(column, fill):
            return np.pad(column[where], (0, missing), constant_values=fill)

        first = take(lanes.first, 0)
        window = self.halo + length
        flow = np.lib.stride_tricks.sliding_window_view(self.flow, window)[first]
        change = np.lib.stride_tricks.sliding_window_view(self.change, window)[first]
        bounds = tuple(
            take(column, 0).astype(np.int32) for column in (lanes.low, lanes.high, lanes.owned + self.halo)
        )
        lags = lanes.lags[where][:1].sum().astype(np.int32)
        stock = take(lanes.stock, 0)
        return iter((flow, change, *bounds, lags, jax.tree.map(lambda x: x[..., stock], coefficients)))


def _tile(flow, change, low, high, start, order: int) -> Block:
    """TILE steps from `start` on, with the trades their lags reach."""
    size = (TILE + order, flow.shape[1])
    begin = start - order
    signed = lax.dynamic_slice(flow, (begin, jnp.zeros_like(begin)), size)
    moved = lax.dynamic_slice(change, (begin, jnp.zeros_like(begin)), size).astype(jnp.float64) * TICK
    step = (begin + jnp.arange(size[0], dtype=jnp.int32))[:, None]
    row = (step >= low[None]) & (step < high[None])
    return Block(signed.astype(jnp.float64), jnp.sign(signed).astype(jnp.float64), moved, row, order)


def _starts(begin: int, end: int):
    return jnp.arange(begin, end, TILE, dtype=jnp.int32)


@partial(jax.jit, static_argnames=("order", "halo"))
def _pass_one(flow, change, low, high, end, lags, mean, *, order: int, halo: int):
    flow, change, high = flow.T, change.T, jnp.minimum(high, end)

    def body(total, start):
        return total + passes.flow_products(_tile(flow, change, low, high, start, order), mean, order), None

    shape = (order + 2, order + 2, flow.shape[1])
    return lax.scan(body, jnp.zeros(shape), _starts(halo, flow.shape[0]))[0]


@partial(jax.jit, static_argnames=("form", "halo"))
def _pass_two(flow, change, low, high, end, lags, flow_fit: OrderFlow, *, form: Form, halo: int):
    order = flow_fit.coefficients.shape[0]
    flow, change, high = flow.T, change.T, jnp.minimum(high, end)

    def body(total, start):
        return total + passes.impact_products(_tile(flow, change, low, high, start, order), flow_fit, form), None

    return lax.scan(body, jnp.zeros((6, 6, flow.shape[1])), _starts(halo, flow.shape[0]))[0]


@partial(jax.jit, static_argnames=("form", "covariance", "reach"))
def _pass_three(flow, change, low, high, end, lags, fits, *, form: Form, covariance: Covariance, reach: int):
    """Residuals, scores and windows; a window loses the score that is `lags` + 1 steps old."""
    flow_fit, moments, fit = fits
    order, width = flow_fit.coefficients.shape[0], flow.shape[0]
    flow, change = flow.T, change.T
    halo = order + reach
    scores = jnp.zeros((reach + TILE + flow.shape[0] - order, 4, width))

    def body(carry, start):
        sums, window, last, scores = carry
        block = _tile(flow, change, low, high, start, order)
        step = (start + jnp.arange(TILE, dtype=jnp.int32))[:, None]
        owned = (step >= halo) & (step < end[None])
        residual, score = passes.residual_scores(block, flow_fit, moments, fit, form, order)
        # `scores` begins reach + TILE steps before the first tile.
        at = start - order + reach + TILE
        zero = jnp.zeros_like(at)
        scores = lax.dynamic_update_slice(scores, score, (at, zero, zero))
        old = lax.dynamic_slice(scores, (at - lags - 1, zero, zero), score.shape)
        windows = []
        for step in range(TILE):
            window = window + score[step] - old[step]
            windows.append(window)
        held = jnp.where(owned[:, None], jnp.stack(windows), 0)
        previous = jnp.concatenate([last[None], residual[:-1]])
        row, before = block.row[order:] & owned, block.row[order - 1 : -1]
        part = passes.collect(residual, previous, score, held, row, row & before, covariance)
        return (jax.tree.map(jnp.add, sums, part), window, residual[-1], scores), None

    nothing = ScoreSums(jnp.zeros((4, width)), jnp.zeros(width), jnp.zeros(width), jnp.zeros((4, 4, width)))
    first = (nothing, jnp.zeros((4, width)), jnp.zeros(width), scores)
    return lax.scan(body, first, _starts(order, flow.shape[0]))[0][0]


@jax.jit
def _fit_flow(products, mean, sign_mean) -> OrderFlow:
    return passes.fit_order_flow(products, mean, sign_mean)


@jax.jit
def _fit_impact(products) -> tuple[Moments, Fit]:
    moments = Moments.from_gram(products)
    return moments, least_squares(moments)


@partial(jax.jit, static_argnames=("form", "covariance"))
def _finish(flow_fit, moments, fit, sums, lags, form: Form, covariance: Covariance) -> ImpactEstimates:
    bad = jnp.zeros(lags.shape, bool)
    return conclude(flow_fit, moments, fit, sums, lags, bad, form=form, covariance=covariance)
