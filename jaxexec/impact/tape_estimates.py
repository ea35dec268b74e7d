"""Impact estimates of whole tapes: the three passes over chunks of lanes, added up by stock.

A chunk is one call of a compiled pass; chunks run side by side in threads. The sums of lanes are added up by stock on
the host, in float64 and in a fixed order.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxexec.impact import lanes, passes
from jaxexec.impact.estimates import ImpactEstimates, Model, report
from jaxexec.impact.lanes import WIDTH, Chunk, Edges, Lanes, Segments
from jaxexec.impact.passes import OrderFlow
from jaxexec.impact.tape_passes import Line, ScoreSums, column_products, flow_sums, score_sums
from jaxexec.numerics.moments import Fit, Moments, least_squares, most_newey_west_lags, sandwich
from jaxexec.numerics.regression import LaneFit, Method, small_sample_factor


def adds_up(method: Method) -> bool:
    """Whether all a method needs are sums over rows, so that a tape can be taken in pieces."""
    serial = method.covariance == "hac"
    fixed = method.lags == "newey-west-fixed" or isinstance(method.lags, int)
    plain = not serial or (fixed and not method.prewhiten)
    return method.estimator == "ols" and method.covariance in ("hac", "ols", "hc0", "hc1") and plain


class Layout(NamedTuple):
    """A tape, ready for its passes.

    Attributes:
        segment_stock: Stock of each segment.
        rows: Rows of each stock's regressions, (stocks,).
        pieces: Where the pieces lie.
        chunks: Their trades, on the device.
        edges: Means, and what lies at the ends of segments.
    """

    segment_stock: np.ndarray
    rows: np.ndarray
    pieces: Lanes
    chunks: list[Chunk]
    edges: Edges


def estimate_tape(segments: Segments, model: Model) -> ImpactEstimates:
    """Estimates of all stocks of a tape, in float64 whatever JAX's 64-bit flag says; for methods that add up.

    Returns:
        `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.
    """
    with jax.enable_x64(True):
        return estimate_layout(lay_out_tape(segments, model), model)


def lay_out_tape(segments: Segments, model: Model) -> Layout:
    """A tape as vector lanes, 8 bytes a trade and a little padding, for a model that adds up."""
    rows = rows_of(segments, model.order)
    lags = lags_of(rows, model.method)
    # A stock that is refused for having no more rows than lags must not size the halo of the others.
    return lay_out(segments, np.where(rows > lags, lags, 0), model.order, model.method.covariance == "hac")


def lay_out(segments: Segments, lags: np.ndarray, order: int, trailing: bool) -> Layout:
    """A tape as vector lanes.

    Args:
        lags: Newey–West lags of each stock, (stocks,).
        trailing: Whether windows that still hold a stock's last score are wanted.
    """
    pieces = lanes.cut(segments, lags, order, trailing)
    chunks = [jax.device_put(chunk) for chunk in lanes.lay_out(segments, pieces, order)]
    edges = lanes.find_edges(segments, order)
    return Layout(np.asarray(segments.stock), rows_of(segments, order), pieces, chunks, edges)


def estimate_layout(tape: Layout, model: Model) -> ImpactEstimates:
    """`estimate_tape` of a tape that is laid out, under JAX's 64-bit flag."""
    lags, stocks = lags_of(tape.rows, model.method), len(tape.rows)
    means = padded((tape.edges.mean, tape.edges.sign_mean))
    flow_fit = fit_flow(padded(flow_products(tape, means[0], model.order)), *means)
    moments, fit = fit_impact(padded(impact_products(tape, flow_fit, model)))
    sums = padded(impact_scores(tape, flow_fit, moments, fit, model))
    result = finish(flow_fit, moments, fit, sums, padded(lags.astype(np.int32)), model)
    return jax.tree.map(lambda x: np.asarray(x)[:stocks], result)


def rows_of(segments: Segments, order: int) -> np.ndarray:
    """Rows of each stock's regressions, int64 (stocks,): the first `order` trades of a segment are none."""
    length = np.maximum(np.diff(segments.offsets) - order, 0)
    return lanes.add_up(segments.stock, length, len(segments.symbols)).astype(np.int64)


def lags_of(rows: np.ndarray, method: Method) -> np.ndarray:
    """Newey–West lags of stocks with so many rows, for methods that add up, int64 (stocks,)."""
    used = np.zeros(len(rows), np.int64)
    if method.covariance == "hac":
        lags = method.lags
        used[:] = lags if isinstance(lags, int) else [most_newey_west_lags(int(n)) for n in rows]
    return used


def impact_products(tape: Layout, flow_fit: OrderFlow, model: Model) -> np.ndarray:
    """Gram matrices of (1, regressors, Δp), (k, k, stocks); coefficients are padded, as `padded` does."""
    program = partial(column_products, form=model.form, terms=model.terms, halo=model.order + tape.pieces.reach)
    return _by_stock(tape, program, (flow_fit,))


def impact_scores(tape: Layout, flow_fit: OrderFlow, moments: Moments, fit: Fit, model: Model) -> ScoreSums:
    """What the covariance needs, (..., stocks); coefficients are padded, as `padded` does."""
    options: dict[str, Any] = {"form": model.form, "terms": model.terms, "covariance": model.method.covariance}
    program = partial(score_sums, **options, reach=tape.pieces.reach)
    return _by_stock(tape, program, (flow_fit, Line(fit.slopes, moments.mean)))


def padded(tree: Any) -> Any:
    """Stocks, the last axis, padded to a power of two, so that the fits compile for few shapes."""

    def pad(x):
        room = max(8, 1 << max(x.shape[-1] - 1, 0).bit_length())
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, room - x.shape[-1])])

    return jax.tree.map(pad, tree)


def _by_stock(tape: Layout, program: Callable, coefficients: tuple) -> Any:
    """Sums over the lanes of each stock, (..., stocks), of a pass that reads `coefficients` (..., stocks)."""
    pieces, stocks = tape.pieces, len(tape.rows)
    host = jax.tree.map(np.asarray, coefficients)

    def compute(where, chunk):
        stock = np.pad(pieces.stock[where], (0, WIDTH - (where.stop - where.start)))
        with jax.enable_x64(True):
            sums = program(chunk, *jax.tree.map(lambda x: x[..., stock], host))
            return jax.tree.map(lambda x: np.asarray(x)[..., : where.stop - where.start], sums)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(compute, pieces.chunks, tape.chunks))

    def total(*sums):
        joined = np.concatenate(sums, -1)
        flattened = joined.reshape(math.prod(joined.shape[:-1]), joined.shape[-1])
        added = [lanes.add_up(pieces.stock, row, stocks) for row in flattened]
        return np.stack(added).reshape(*joined.shape[:-1], stocks)

    return jax.tree.map(total, *parts)


def flow_products(tape: Layout, mean: np.ndarray, order: int) -> np.ndarray:
    """Gram matrix of (1, DV_{t−1}, …, DV_{t−order}, DV_t) about `mean` from Σ DV_t and Σ DV_t DV_{t−d} alone.

    Over the rows t of a segment, Σ x_{t−j} x_{t−j−d} is Σ x_t x_{t−d} with the window moved back by j: what enters at
    the head of the segment is added and what leaves at its tail taken off.
    """
    stocks = len(tape.rows)
    sums = _by_stock(tape, partial(flow_sums, order=order, halo=order + tape.pieces.reach), (mean,))

    def moved(lag: int, distance: int | None) -> np.ndarray:
        ends = []
        for edge in (tape.edges.head, tape.edges.tail):
            x = edge[:, order - lag :]
            ends.append((x if distance is None else x * edge[:, order - lag - distance : order - distance]).sum(1))
        return sums[0 if distance is None else distance + 1] + lanes.add_up(
            tape.segment_stock, ends[0] - ends[1], stocks
        )

    places = (*range(1, order + 1), 0)
    gram = np.empty((order + 2, order + 2, stocks))
    gram[0, 0] = tape.rows
    for a, j in enumerate(places, 1):
        gram[0, a] = gram[a, 0] = moved(j, None)
        for b, k in enumerate(places, 1):
            gram[a, b] = moved(min(j, k), abs(j - k))
    return gram


@jax.jit
def fit_flow(products, mean, sign_mean) -> OrderFlow:
    return passes.fit_order_flow(products, mean, sign_mean)


@jax.jit
def fit_impact(products) -> tuple[Moments, Fit]:
    moments = Moments.from_gram(products)
    return moments, least_squares(moments)


@partial(jax.jit, static_argnames=("model",))
def finish(flow_fit: OrderFlow, moments: Moments, fit: Fit, sums: ScoreSums, lags, model: Model) -> ImpactEstimates:
    """The report, from the sums of the three passes."""
    k = len(model.terms)
    width = (lags + 1).astype(sums.squares.dtype)
    gradient = sums.gradient / width[None]
    correction = (fit.inverse * gradient[None]).sum(1)
    slopes = fit.slopes + correction
    squares = jnp.maximum(sums.squares - (correction * gradient).sum(0), 0)
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
        dependent=fit.dependent,
        few=(flow_fit.rows <= k + 1) | (flow_fit.rows <= lags.astype(flow_fit.rows.dtype)),
        unfinished=never,
        broken=never,
    )
    intercept = moments.mean[k] - (slopes * moments.mean[:k]).sum(0)
    return report(flow_fit, found, intercept, never, model)
