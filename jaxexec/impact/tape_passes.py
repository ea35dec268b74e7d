"""The three passes over a chunk of tape, and what they hand on.

    pass 1   order-flow products              →  autoregression, expected flow, σ_ε
    pass 2   products of the columns          →  coefficients
    pass 3   residuals and score windows      →  refinement, R², Durbin–Watson, covariance

Each walks down its chunk in tiles small enough for the nearest cache. Within a tile the work goes in stages, each a
short loop of its own: left to itself the compiler would merge a stage into all of its readers and compute it once for
each. Sums over the steps of a tile are written as sums of rows, which become one stream of multiply-adds.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxexec.impact import passes
from jaxexec.impact.lanes import TICK, TILE, WIDTH, Chunk
from jaxexec.impact.normal_flow import expected_sign
from jaxexec.impact.passes import Form, Lagged, OrderFlow, Term
from jaxexec.numerics.regression import Covariance

STEPS = 8  # of a stage at once; a loop that runs once would be merged after all, so fewer than TILE
# XLA keeps to 256-bit vectors by default; this lets it use wider ones where the processor has them.
_OPTIONS = {"xla_cpu_prefer_vector_width": 512}


class ScoreSums(NamedTuple):
    """What pass 3 returns, summed over the rows of a lane.

    Attributes:
        gradient: Σ u_t z_t with z centred, (terms, lanes); `width` times that for "hac".
        squares: Σ u_t², (lanes,).
        neighbours: Σ (u_t − u_{t−1})² over rows whose predecessor is a row of the same segment, (lanes,).
        meat: Σ W_t W_tᵀ of windows, not yet divided by lags + 1 ("hac"), or Σ s_t s_tᵀ of scores ("hc0", "hc1"), or
            zero ("ols"), (terms, terms, lanes).
    """

    gradient: Float[Array, "k lanes"]
    squares: Float[Array, " lanes"]
    neighbours: Float[Array, " lanes"]
    meat: Float[Array, "k k lanes"]


@partial(jax.jit, static_argnames=("order", "halo"), compiler_options=_OPTIONS)
def flow_sums(chunk: Chunk, mean, *, order: int, halo: int) -> Float[Array, "k lanes"]:
    """Pass 1: Σ DV_t and Σ DV_t DV_{t−d} for d = 0 … order over the rows a lane owns, flows about `mean`."""
    high = jnp.minimum(chunk.high, chunk.end)
    front = -(-order // STEPS) * STEPS  # rows of the tile before that are kept

    def centred(row, count: int):
        return _rows(chunk.flow, row, count).astype(mean.dtype) - mean[None]

    def body(tile, carry):
        sums, flow = carry
        start = halo + tile * TILE
        flow = lax.dynamic_update_slice(flow, flow[TILE:], (0, 0))
        (flow,) = _stage(lambda at: [centred(start + at, STEPS)], [flow], below=front)
        step = _steps(start, TILE)
        own = jnp.where((step >= chunk.low[None]) & (step < high[None]), flow[front:], 0)
        found = [_total(own), *(_total(own, flow[front - d : front - d + TILE]) for d in range(order + 1))]
        return [total + x for total, x in zip(sums, found, strict=True)], flow

    before = centred(_index(halo - order), order)
    flow = lax.dynamic_update_slice(_zeros(front + TILE, mean), before, (front + TILE - order, 0))
    first = ([_zeros(1, mean)] * (order + 2), flow)
    return jnp.concatenate(lax.fori_loop(_index(0), chunk.tiles, body, first)[0])


@partial(jax.jit, static_argnames=("form", "terms", "halo"), compiler_options=_OPTIONS)
def column_products(
    chunk: Chunk, flow_fit: OrderFlow, *, form: Form, terms: tuple[Term, ...], halo: int
) -> Float[Array, "k k lanes"]:
    """Pass 2: Gram matrix of (1, regressors, Δp) over the rows a lane owns."""
    order, high = flow_fit.coefficients.shape[0], jnp.minimum(chunk.high, chunk.end)
    pairs = [(i, j) for i in range(len(terms) + 1) for j in range(i, len(terms) + 1)]
    tile_of_zeros = _zeros(TILE, flow_fit.mean)

    def body(tile, carry):
        sums, expected, columns = carry
        start = halo + tile * TILE
        expected = _expectations(chunk, flow_fit, start, terms, expected)

        def masked(at):
            step = _steps(start + at, STEPS)
            row = (step >= chunk.low[None]) & (step < high[None])
            made = _columns(chunk, flow_fit, expected, start, at, order, form, terms)
            return [jnp.where(row, x, 0) for x in made]

        columns = _stage(masked, columns)
        step = _steps(start, TILE)
        row = ((step >= chunk.low[None]) & (step < high[None])).astype(flow_fit.mean.dtype)
        found = [_total(row), *(_total(x) for x in columns), *(_total(columns[i], columns[j]) for i, j in pairs)]
        return [total + x for total, x in zip(sums, found, strict=True)], expected, columns

    k = len(terms) + 1
    first = ([_zeros(1, flow_fit.mean)] * (1 + k + len(pairs)), [tile_of_zeros] * 2, [tile_of_zeros] * k)
    sums = lax.fori_loop(_index(0), chunk.tiles, body, first)[0]
    upper = {(0, j): sums[j] for j in range(k + 1)} | {
        (i + 1, j + 1): x for (i, j), x in zip(pairs, sums[1 + k :], strict=True)
    }
    return _symmetric(upper, k + 1)


class Line(NamedTuple):
    """Coefficients of the impact equation.

    Attributes:
        slopes: (terms, lanes).
        centre: Means of the regressors and of Δp, (terms + 1, lanes).
    """

    slopes: Float[Array, "k lanes"]
    centre: Float[Array, "k1 lanes"]


class _Walk(NamedTuple):
    """What pass 3 carries from tile to tile; residuals have the last of the tile before in front."""

    expected: list[Array]
    residuals: list[Array]
    ring: Array
    window: Array
    windows: Array


@partial(jax.jit, static_argnames=("form", "terms", "covariance", "reach"), compiler_options=_OPTIONS)
def score_sums(
    chunk: Chunk,
    flow_fit: OrderFlow,
    line: Line,
    *,
    form: Form,
    terms: tuple[Term, ...],
    covariance: Covariance,
    reach: int,
) -> ScoreSums:
    """Pass 3. Scores are kept in a ring; a window gains the newest and loses the one that is `lags` + 1 steps old.

    The intercept needs no score: about their means the regressors are orthogonal to it, so the slopes' covariance is
    the sandwich of the centred columns alone.
    """
    k, order = len(terms), flow_fit.coefficients.shape[0]
    halo, slots = order + reach, reach + 2 * TILE
    hac = covariance == "hac"
    end = jnp.tile(chunk.end, k)[None]
    pairs = [(i, j) for i in range(k) for j in range(i, k) if covariance != "ols"]

    def fill(tile, walk: _Walk) -> _Walk:
        start = halo + tile * TILE
        here = lax.rem(start - order, _index(slots))
        expected = _expectations(chunk, flow_fit, start, terms, walk.expected)

        def residual(at):
            *columns, change = _columns(chunk, flow_fit, expected, start, at, order, form, terms)
            fitted = line.centre[k][None]
            for i, column in enumerate(columns):
                fitted = fitted + line.slopes[i][None] * (column - line.centre[i][None])
            step = _steps(start + at, STEPS)
            return [jnp.where((step >= chunk.low[None]) & (step < chunk.high[None]), change - fitted, 0)]

        (residuals,) = walk.residuals
        residuals = _stage(residual, [lax.dynamic_update_slice(residuals, residuals[TILE:], (0, 0))], below=1)

        def score(part, ring):
            at = part * STEPS
            columns = _columns(chunk, flow_fit, expected, start, at, order, form, terms)[:k]
            u = _rows(residuals[0], at + 1, STEPS)
            for i, column in enumerate(columns):
                where = (here + at, _index(i * WIDTH))
                ring = lax.dynamic_update_slice(ring, (column - line.centre[i][None]) * u, where)
            return ring

        ring = lax.fori_loop(_index(0), _index(TILE // STEPS), score, walk.ring)
        window, windows = walk.window, walk.windows
        if hac:
            gone = lax.rem(here - chunk.lags - 1 + slots, _index(slots))

            def slide(at, carry):
                window, windows = carry
                oldest = lax.rem(gone + at, _index(slots))
                window = window + _rows(ring, here + at, 1) - _rows(ring, oldest, 1)
                own = (start + at >= halo) & (start + at < end)
                return window, lax.dynamic_update_slice(windows, jnp.where(own, window, 0), (at, _index(0)))

            window, windows = lax.fori_loop(_index(0), _index(TILE), slide, (window, windows))
        else:
            step = _steps(start, TILE)
            windows = jnp.where((step >= halo) & (step < end), _rows(ring, here, TILE), 0)
        return _Walk(expected, residuals, ring, window, windows)

    def body(tile, carry):
        sums, walk = carry
        walk = fill(tile, walk)
        step = _steps(halo + tile * TILE, TILE)
        own = (step >= halo) & (step < jnp.minimum(chunk.high, chunk.end)[None])
        residuals = walk.residuals[0]
        mine = jnp.where(own, residuals[1:], 0)
        change = jnp.where(own & (step > chunk.low[None]), residuals[1:] - residuals[:-1], 0)
        columns = [walk.windows[:, i * WIDTH : (i + 1) * WIDTH] for i in range(k)]
        found = [_total(x) for x in columns]
        found += [_total(mine, mine), _total(change, change), *(_total(columns[i], columns[j]) for i, j in pairs)]
        return [total + x for total, x in zip(sums, found, strict=True)], walk

    like = flow_fit.mean
    nothing = [_zeros(1, like)] * (k + 2 + len(pairs))
    walk = _Walk(
        expected=[_zeros(TILE, like)] * 2,
        residuals=[_zeros(TILE + 1, like)],
        ring=jnp.zeros((slots, k * WIDTH), like.dtype),
        window=jnp.zeros((1, k * WIDTH), like.dtype),
        windows=jnp.zeros((TILE, k * WIDTH), like.dtype),
    )
    # Windows need the scores before the first row, and Durbin–Watson the residual before it.
    warm = lax.max((chunk.lags + TILE - 1) // TILE, _index(1)) if hac else _index(1)
    sums = lax.fori_loop(-warm, chunk.tiles, body, (nothing, walk))[0]
    meat = (
        _symmetric(dict(zip(pairs, sums[k + 2 :], strict=True)), k) if pairs else jnp.zeros((k, k, WIDTH), like.dtype)
    )
    return ScoreSums(jnp.concatenate(sums[:k]), sums[k][0], sums[k + 1][0], meat)


def _expectations(chunk: Chunk, flow_fit: OrderFlow, start, terms: tuple[Term, ...], room: list[Array]) -> list[Array]:
    """E[DV] and E[D] of a tile, where they are wanted."""
    if not passes.has_permanent(terms):
        return room
    order = flow_fit.coefficients.shape[0]
    flow = _stage(lambda at: [passes.expected_flow(_lagged(chunk, start + at, order), flow_fit)], room[:1])
    std = flow_fit.residual_std[None]
    return flow + _stage(lambda at: [expected_sign(_rows(flow[0], at, STEPS), std)], room[1:])


def _columns(chunk: Chunk, flow_fit: OrderFlow, expected, start, at, order: int, form: Form, terms) -> list[Array]:
    """Regressors and Δp of STEPS steps of the tile at `start`."""
    here = (_rows(expected[0], at, STEPS), _rows(expected[1], at, STEPS)) if passes.has_permanent(terms) else None
    return passes.regressors(_lagged(chunk, start + at, order), here, flow_fit, form, terms)


def _lagged(chunk: Chunk, start, order: int) -> Lagged:
    """STEPS trades from `start` on, each lag read where it lies."""
    signed = [_rows(chunk.flow, start - lag, STEPS) for lag in range(order + 1)]
    change = _rows(chunk.change, start, STEPS).astype(jnp.float64) * TICK
    sign = [jnp.sign(x).astype(jnp.float64) for x in signed[:2]]
    return Lagged([x.astype(jnp.float64) for x in signed], sign, change)


def _stage(compute: Callable[[Array], Sequence[Array]], room: Sequence[Array], below: int = 0) -> list[Array]:
    """Fill the rows of a tile behind the first `below` from `compute(at)`, STEPS rows of each array from `at` on."""

    def one(part, filled):
        at = part * STEPS
        made = compute(at)
        return [lax.dynamic_update_slice(x, y, (at + below, _index(0))) for x, y in zip(filled, made, strict=True)]

    return lax.fori_loop(_index(0), _index(TILE // STEPS), one, list(room))


def _total(x: Array, y: Array | None = None) -> Float[Array, "1 lanes"]:
    """Σ x or Σ x y over the steps of a tile, row by row."""
    rows = [x[i : i + 1] if y is None else x[i : i + 1] * y[i : i + 1] for i in range(TILE)]
    return sum(rows[1:], rows[0])


def _symmetric(upper: dict[tuple[int, int], Array], k: int) -> Float[Array, "k k lanes"]:
    return jnp.stack([jnp.concatenate([upper[min(i, j), max(i, j)] for j in range(k)]) for i in range(k)])


def _rows(x: Array | np.ndarray, start, count: int) -> Array:
    return lax.dynamic_slice(x, (start, _index(0)), (count, x.shape[1]))


def _steps(start, count: int) -> Int[Array, "steps 1"]:
    return (start + jnp.arange(count, dtype=jnp.int32))[:, None]


def _zeros(rows: int, like: Array) -> Array:
    return jnp.zeros((rows, WIDTH), like.dtype)


def _index(value: int) -> Int[Array, ""]:
    return jnp.asarray(value, jnp.int32)
