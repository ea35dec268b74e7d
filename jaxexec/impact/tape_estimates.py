"""Impact estimates of whole tapes: the three passes over chunks of lanes, added up by stock.

A chunk is one call of a compiled pass; chunks run side by side in threads. The sums of lanes are added up by stock on
the host, in float64 and in a fixed order.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxexec.impact import lanes, passes
from jaxexec.impact.estimates import ImpactEstimates, Model, report
from jaxexec.impact.lanes import SPREAD, TICK, TILE, WIDTH, Chunk, FlatTape, Segments
from jaxexec.impact.passes import Block, OrderFlow, ScoreSums
from jaxexec.numerics.moments import Fit, Moments, least_squares, most_newey_west_lags, sandwich
from jaxexec.numerics.regression import LaneFit, Method, small_sample_factor

# XLA keeps to 256-bit vectors by default; this lets it use wider ones where the processor has them.
_OPTIONS = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_use_fusion_emitters": False}


def adds_up(method: Method) -> bool:
    """Whether all a method needs are sums over rows, so that a tape can be taken in pieces."""
    serial = method.covariance == "hac"
    fixed = method.lags == "newey-west-fixed" or isinstance(method.lags, int)
    plain = not serial or (fixed and not method.prewhiten)
    return method.estimator == "ols" and method.covariance in ("hac", "ols", "hc0", "hc1") and plain


def estimate_tape(segments: Segments, model: Model) -> ImpactEstimates:
    """Estimates of all stocks of a tape, in float64 whatever JAX's 64-bit flag says; for methods that add up.

    Returns:
        `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.
    """
    order, stocks = model.order, len(segments.symbols)
    rows = np.bincount(segments.stock, np.maximum(np.diff(segments.offsets) - order, 0), stocks).astype(np.int64)
    used = lags_of(rows, model.method)
    # A stock that is refused for having no more rows than lags must not size the halo of the others.
    pieces = lanes.cut(segments, np.where(rows > used, used, 0), order, model.method.covariance == "hac")
    flat = FlatTape(segments, order, pieces.reach)
    means = padded((flat.mean, flat.sign_mean))
    with jax.enable_x64(True):
        sums = by_stock(flat, pieces, partial(pass_one, order=order, halo=flat.halo), means[0])
        flow_fit = fit_flow(padded(flow_products(sums, flat, segments.stock, rows)), *means)
        sums = by_stock(flat, pieces, partial(pass_two, model=model, halo=flat.halo), flow_fit)
        moments, fit = fit_impact(padded(sums))
        last = partial(pass_three, model=model, reach=pieces.reach)
        sums = padded(by_stock(flat, pieces, last, (flow_fit, moments, fit)))
        result = finish(flow_fit, moments, fit, sums, padded(used.astype(np.int32)), model)
        return jax.tree.map(lambda x: np.asarray(x)[:stocks], result)


def lags_of(rows: np.ndarray, method: Method) -> np.ndarray:
    """Newey–West lags of stocks with so many rows, for methods that add up, int64 (stocks,)."""
    used = np.zeros(len(rows), np.int64)
    if method.covariance == "hac":
        lags = method.lags
        used[:] = lags if isinstance(lags, int) else [most_newey_west_lags(int(n)) for n in rows]
    return used


def padded(tree: Any) -> Any:
    """Stocks, the last axis, padded to a power of two, so that the fits compile for few shapes."""

    def pad(x):
        room = max(8, 1 << max(x.shape[-1] - 1, 0).bit_length())
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, room - x.shape[-1])])

    return jax.tree.map(pad, tree)


def by_stock(flat: FlatTape, pieces: lanes.Lanes, program: Callable, coefficients: Any) -> Any:
    """Sums over the lanes of each stock, (..., stocks)."""
    stocks = len(flat.mean)
    host = jax.tree.map(np.asarray, coefficients)

    def compute(chunk):
        where, length = chunk
        stock = np.pad(pieces.stock[where], (0, WIDTH - (where.stop - where.start)))
        with jax.enable_x64(True):
            sums = program(flat.chunk(pieces, where, length), jax.tree.map(lambda x: x[..., stock], host))
            return jax.tree.map(lambda x: np.asarray(x)[..., : where.stop - where.start], sums)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(compute, pieces.chunks))

    def total(*sums):
        joined = np.concatenate(sums, -1)
        flattened = joined.reshape(math.prod(joined.shape[:-1]), joined.shape[-1])
        added = [lanes.add_up(pieces.stock, row, stocks) for row in flattened]
        return np.stack(added).reshape(*joined.shape[:-1], stocks)

    return jax.tree.map(total, *parts)


def flow_products(sums: np.ndarray, flat: FlatTape, stock: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Gram matrix of (1, DV_{t−1}, …, DV_{t−order}, DV_t) from Σ DV_t and Σ DV_t DV_{t−d} alone, (k, k, stocks).

    Over the rows t of a segment, Σ x_{t−j} x_{t−j−d} is Σ x_t x_{t−d} with the window moved back by j: what enters at
    the head of the segment is added and what leaves at its tail taken off.
    """
    order, stocks = flat.head.shape[1], len(rows)

    def moved(lag: int, distance: int | None) -> np.ndarray:
        ends = []
        for edge in (flat.head, flat.tail):
            x = edge[:, order - lag :]
            ends.append((x if distance is None else x * edge[:, order - lag - distance : order - distance]).sum(1))
        return sums[0 if distance is None else distance + 1] + lanes.add_up(stock, ends[0] - ends[1], stocks)

    places = (*range(1, order + 1), 0)
    gram = np.empty((order + 2, order + 2, stocks))
    gram[0, 0] = rows
    for a, j in enumerate(places, 1):
        gram[0, a] = gram[a, 0] = moved(j, None)
        for b, k in enumerate(places, 1):
            gram[a, b] = moved(min(j, k), abs(j - k))
    return gram


def _tile(chunk: Chunk, start, order: int) -> Block:
    """TILE steps from `start` on, with the trades their lags reach; the chunk is time first here."""
    begin, zero = start - order, jnp.zeros_like(start)
    size = (TILE + order, WIDTH)
    signed, change = (lax.dynamic_slice(x, (begin, zero), size) for x in (chunk.flow, chunk.change))
    step = (begin + jnp.arange(size[0], dtype=jnp.int32))[:, None]
    row = (step >= chunk.low[None]) & (step < chunk.high[None])
    flow = signed.astype(jnp.float64)
    return Block(flow, jnp.sign(signed).astype(jnp.float64), change.astype(jnp.float64) * TICK, row, order)


def _time_first(chunk: Chunk) -> Chunk:
    return chunk._replace(flow=chunk.flow.T, change=chunk.change.T)


def _starts(begin: int, chunk: Chunk):
    return jnp.arange(begin, chunk.flow.shape[0], TILE, dtype=jnp.int32)


@partial(jax.jit, static_argnames=("order", "halo"), compiler_options=_OPTIONS)
def pass_one(chunk: Chunk, mean, *, order: int, halo: int):
    """Σ DV_t and Σ DV_t DV_{t−d} for d = 0 … order over the rows a lane owns, flows about `mean`."""
    chunk = _time_first(chunk)._replace(high=jnp.minimum(chunk.high, chunk.end))

    def body(total, start):
        block = _tile(chunk, start, order)
        flow = block.flow - mean[None]
        own = jnp.where(block.row[order:], flow[order:], 0)
        lagged = [own * flow[order - d : flow.shape[0] - d] for d in range(order + 1)]
        return total + jnp.stack([x.sum(0) for x in (own, *lagged)]), None

    return lax.scan(body, jnp.zeros((order + 2, WIDTH)), _starts(halo, chunk))[0]


@partial(jax.jit, static_argnames=("model", "halo"), compiler_options=_OPTIONS)
def pass_two(chunk: Chunk, flow_fit: OrderFlow, *, model: Model, halo: int):
    """Products of the columns over the rows a lane owns."""
    order = flow_fit.coefficients.shape[0]
    chunk = _time_first(chunk)._replace(high=jnp.minimum(chunk.high, chunk.end))

    def body(total, start):
        return total + passes.impact_products(_tile(chunk, start, order), flow_fit, model.form, model.terms), None

    k = len(model.terms) + 2
    return lax.scan(body, jnp.zeros((k, k, WIDTH)), _starts(halo, chunk))[0]


@partial(jax.jit, static_argnames=("model", "reach"), compiler_options=_OPTIONS)
def pass_three(chunk: Chunk, fits, *, model: Model, reach: int) -> ScoreSums:
    """Residuals, scores and windows; a window loses the score that is `lags` + 1 steps old."""
    flow_fit, moments, fit = fits
    covariance, k = model.method.covariance, len(model.terms)
    order = flow_fit.coefficients.shape[0]
    chunk = _time_first(chunk)
    fewest = chunk.lags.max() // SPREAD * SPREAD
    # Scores are kept from reach + TILE steps before the first tile on, so that the oldest is always at hand.
    history = jnp.zeros((reach + TILE + chunk.flow.shape[0] - order, k, WIDTH))

    def body(carry, start):
        sums, window, last, history = carry
        block = _tile(chunk, start, order)
        step = (start + jnp.arange(TILE, dtype=jnp.int32))[:, None]
        owned = (step >= order + reach) & (step < chunk.end[None])
        residual, scores = passes.residual_scores(block, flow_fit, moments, fit, model.form, model.terms, order)
        windows = scores
        if covariance == "hac":
            at, zero = start - order + reach + TILE, jnp.zeros_like(start)
            history = lax.dynamic_update_slice(history, scores, (at, zero, zero))
            leaving = [
                lax.dynamic_slice(history, (at - fewest - j - 1, zero, zero), scores.shape) for j in range(SPREAD)
            ]
            old = leaving[0]
            for j in range(1, SPREAD):
                old = jnp.where(chunk.lags[None, None] == fewest + j, leaving[j], old)
            window, windows = lax.scan(lambda w, x: (w + x, w + x), window, scores - old)
            windows = jnp.where(owned[:, None], windows, 0)
        previous = jnp.concatenate([last[None], residual[:-1]])
        row, before = block.row[order:] & owned, block.row[order - 1 : -1]
        part = passes.collect(residual, previous, scores, windows, row, row & before, covariance)
        return (jax.tree.map(jnp.add, sums, part), window, residual[-1], history), None

    zero = jnp.zeros(WIDTH)
    nothing = ScoreSums(jnp.zeros((k, WIDTH)), zero, zero, jnp.zeros((k, k, WIDTH)))
    first = (nothing, jnp.zeros((k, WIDTH)), zero, history)
    return lax.scan(body, first, _starts(order, chunk))[0][0]


@jax.jit
def fit_flow(products, mean, sign_mean) -> OrderFlow:
    """The autoregressions."""
    return passes.fit_order_flow(products, mean, sign_mean)


@jax.jit
def fit_impact(products) -> tuple[Moments, Fit]:
    """The regressions, not yet refined."""
    moments = Moments.from_gram(products)
    return moments, least_squares(moments)


@partial(jax.jit, static_argnames=("model",))
def finish(flow_fit: OrderFlow, moments: Moments, fit: Fit, sums: ScoreSums, lags, model: Model) -> ImpactEstimates:
    """The report, from the sums of the three passes."""
    k = len(model.terms)
    correction = (fit.inverse * sums.gradient[None]).sum(1)
    slopes = fit.slopes + correction
    squares = jnp.maximum(sums.squares - (correction * sums.gradient).sum(0), 0)
    width = (lags + 1).astype(squares.dtype)
    if model.method.covariance == "ols":
        matrix = fit.inverse * (squares / jnp.maximum(moments.count - k - 1, 1))[None, None]
    else:
        matrix = sandwich(fit.inverse, sums.meat / width[None, None])
        matrix = matrix * small_sample_factor(model.method, moments.count, k + 1)[None, None]
    total = moments.comoment[k, k]
    nothing, never = jnp.zeros_like(squares), jnp.zeros(lags.shape, bool)
    found = LaneFit(
        coefficients=slopes,
        covariance=matrix,
        residual_sum=squares,
        r2=1 - squares / jnp.where(total > 0, total, 1),
        durbin_watson=sums.neighbours / jnp.where(sums.squares > 0, sums.squares, 1),
        condition=fit.condition,
        rows=flow_fit.rows,
        lags=lags,
        bandwidth=width,
        rho=nothing,
        iterations=jnp.zeros_like(lags),
        deficient=fit.deficient,
        few=(flow_fit.rows <= k + 1) | (flow_fit.rows <= lags),
        unfinished=never,
        broken=never,
    )
    intercept = moments.mean[k] - (slopes * moments.mean[:k]).sum(0)
    return report(flow_fit, found, intercept, never, model)
