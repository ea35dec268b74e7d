"""One nonlinear least-squares fit a lane: search, derivative, errors and verdict, chunk by chunk of lanes.

Lanes come first outside of this file and last within a chunk. A chunk's rows stay in cache on a CPU, and its loop ends
when its own slowest lane has: a lane's numbers depend neither on its chunk nor on its neighbours.
"""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.calibration.lane_chunks import over_chunks
from jaxexec.calibration.objective import Bundle, Loss, Objective, Residuals, attach, products, robust_scale
from jaxexec.calibration.transforms import Bound, is_inside, slope, to_free, to_natural, unit_of
from jaxexec.numerics.levenberg_marquardt import Minimum, levenberg_marquardt, scaled
from jaxexec.numerics.moments import inverse_definite, sandwich, sum_time
from jaxexec.numerics.status import Status
from jaxexec.numerics.symmetric_eigen import symmetric_eigen

Covariance = Literal["classical", "robust"]
_CHUNK_NUMBERS, _LEAST_CHUNK, _CHUNK_ELSEWHERE = 1 << 13, 8, 1 << 14
_HUBER_ROUNDS = 3
_MOST_SHRINKING = 40


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a fit is made; every field is static.

    Attributes:
        names: Fitted parameters.
        bounds: One a parameter.
        loss: "squares" or "huber".
        threshold: Huber's k, in robust standard deviations.
        covariance: "classical" (errors alike and independent) or "robust" (of unequal variance: the sandwich).
        max_steps: Points that a search may try.
        elementwise: See `Objective`.
    """

    names: tuple[str, ...]
    bounds: tuple[Bound, ...]
    loss: Loss = "squares"
    threshold: float = 1.345
    covariance: Covariance = "classical"
    max_steps: int = 100
    elementwise: bool = False

    def __post_init__(self):
        for field, allowed in {"loss": ("squares", "huber"), "covariance": ("classical", "robust")}.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {allowed}, got {getattr(self, field)!r}")
        if not self.threshold > 0:
            raise ValueError(f"threshold must be positive, got {self.threshold}")
        if isinstance(self.max_steps, bool) or not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"max_steps must be a positive integer, got {self.max_steps!r}")


class LaneFit(eqx.Module):
    """Fits of many lanes, lanes first; finite placeholders in failed ones.

    Attributes:
        values, covariance: natural parameters, (lanes, p) and (lanes, p, p).
        free, free_covariance: the same of the parameters without bounds.
        identified: parameters that no null direction touches, (lanes, p).
        singular_values: of the Jacobian with columns of unit length, increasing, (lanes, p).
        directions: row k is the direction in the free parameters that belongs to singular value k, largest entry ±1.
        residual_std: √(Σr²/(n − p)), (lanes,).
        n: rows, (lanes,).
        agreeing: starts that found this optimum, (lanes,).
        steps: points tried from all starts, (lanes,).
        status: (lanes,).
    """

    values: Float[Array, "lanes p"]
    covariance: Float[Array, "lanes p p"]
    free: Float[Array, "lanes p"]
    free_covariance: Float[Array, "lanes p p"]
    identified: Bool[Array, "lanes p"]
    singular_values: Float[Array, "lanes p"]
    directions: Float[Array, "lanes p p"]
    residual_std: Float[Array, " lanes"]
    n: Int[Array, " lanes"]
    agreeing: Int[Array, " lanes"]
    steps: Int[Array, " lanes"]
    status: Int[Array, " lanes"]


def fit_lanes(
    residuals: Residuals,
    settings: Settings,
    starts: Float[Array, "starts lanes p"],
    data: Any,
    fixed: dict[str, Float[Array, " lanes"]],
    row: Bool[Array, "lanes rows"],
    bad: Bool[Array, " lanes"],
    n: Int[Array, " lanes"] | None = None,
    begun: Minimum | None = None,
) -> LaneFit:
    """One fit a lane.

    Args:
        residuals: (parameters by name, each (1, lanes); data with lanes last) → (rows, lanes), of one sign and unit.
        starts: natural values, strictly within the bounds.
        data: pytree of arrays with the lanes first; harmless numbers where is no row.
        row: rows of the residuals that count.
        bad: lanes with an input that is not finite; harmless numbers stand in for it.
        n: how many rows of data the residuals stand for, where these are a summary of them; None means their number.
        begun: minima that a search of another kind found from a single start; lanes first.
    """
    lanes = row.shape[0]
    n = row.sum(1, dtype=jnp.int32) if n is None else n

    def work(inputs: tuple) -> LaneFit:
        starts, data, fixed, row, bad, n, begun = inputs
        bundle = Bundle(data, {name: x[None] for name, x in fixed.items()}, row, jnp.ones_like(starts[0, 0]))
        return _fit(residuals, settings, starts, bundle, bad, n, begun)

    # (starts, lanes, p) come as (lanes, starts, p) and go in as (starts, p, lanes).
    inputs = (jnp.moveaxis(starts, 1, 0), data, fixed, row, bad, n, begun)
    return over_chunks(work, inputs, _chunk(lanes, row.shape[1]))


def _chunk(lanes: int, rows: int) -> int:
    if jax.default_backend() != "cpu":
        return min(lanes, _CHUNK_ELSEWHERE)
    # Whole vectors of lanes, and enough of them to be worth a loop's turn.
    return min(lanes, max(_LEAST_CHUNK, _CHUNK_NUMBERS // max(rows, 1) // 8 * 8))


def _fit(
    residuals: Residuals,
    settings: Settings,
    starts: Array,
    bundle: Bundle,
    bad: Array,
    n: Array,
    begun: Minimum | None,
) -> LaneFit:
    """Fits with all lanes last: data, starts (starts, p, lanes) and results."""
    names, bounds = settings.names, settings.bounds
    inside = jnp.stack([is_inside(starts[:, i], b) for i, b in enumerate(bounds)], 1)
    free = jnp.stack([to_free(starts[:, i], b) for i, b in enumerate(bounds)], 1)
    free = lax.stop_gradient(jnp.where(inside, free, 0))
    bad = bad | ~inside.all((0, 1))
    objective = Objective(residuals, names, bounds, settings.elementwise)
    u, best, agreeing, steps = _searched(objective, bundle, free, settings, begun)
    if settings.loss == "huber":
        robust = dataclasses.replace(objective, threshold=settings.threshold)
        u, more = _down_to_size(objective, robust, bundle, u, free[0], settings)
        steps = steps + more
        for _ in range(_HUBER_ROUNDS):
            bundle = _in_scale_at(objective, bundle, u)
            u, best, _, more = _searched(robust, bundle, lax.stop_gradient(u)[None], settings)
            steps = steps + more
        objective = robust
    return _concluded(objective, bundle, settings, u, best, bad, n, agreeing, steps)


def _in_scale_at(objective: Objective, bundle: Bundle, u: Array) -> Bundle:
    """Residuals counted in the robust scale that they have at u."""
    unscaled = eqx.tree_at(lambda b: b.scale, bundle, jnp.ones_like(bundle.scale))
    return eqx.tree_at(lambda b: b.scale, bundle, robust_scale(objective.at(u, unscaled), bundle.row))


def _down_to_size(
    objective: Objective, robust: Objective, bundle: Bundle, u: Array, start: Array, settings: Settings
) -> tuple[Array, Array]:
    """Where Huber's rounds begin, and the points it took: an outlier as large as it likes spoils the first scales, and
    each round takes but a part of that away. Least squares may also have run off to serve it alone: most rows are then
    nearer to where the search started from."""
    bundle, u = lax.stop_gradient((bundle, u))
    here, there = (_in_scale_at(objective, bundle, x).scale for x in (u, start))
    u = jnp.where((there < here)[None], start, u)

    def go_on(carry: tuple) -> Array:
        return jnp.any(carry[2]) & (carry[4] < _MOST_SHRINKING)

    def shrunk(carry: tuple) -> tuple:
        u, bundle, shrinks, steps, turn = carry
        new, _, _, more = _searched(robust, bundle, u[None], settings)
        after = _in_scale_at(objective, bundle, new)
        u = jnp.where(shrinks[None], new, u)
        kept = eqx.tree_at(lambda b: b.scale, bundle, jnp.where(shrinks, after.scale, bundle.scale))
        return u, kept, shrinks & (after.scale < bundle.scale / 2), steps + jnp.where(shrinks, more, 0), turn + 1

    lanes = u.shape[1:]
    none = jnp.zeros((), jnp.int32)
    first = (u, _in_scale_at(objective, bundle, u), jnp.ones(lanes, bool), jnp.zeros(lanes, jnp.int32), none)
    u, _, _, steps, _ = lax.while_loop(go_on, shrunk, first)
    return u, steps


def _searched(
    objective: Objective, bundle: Bundle, starts: Array, settings: Settings, begun: Minimum | None = None
) -> tuple[Array, Minimum, Array, Array]:
    """The best minimum over the starts with its derivative attached, where it was found, and how often."""
    known = lax.stop_gradient(bundle)
    unit = jnp.asarray([unit_of(b) for b in settings.bounds], starts.dtype)

    def search(start: Array) -> Minimum:
        def normal(u: Array):
            return objective.normal(known, u)

        return levenberg_marquardt(normal, start, max_steps=settings.max_steps, unit=unit, begun=begun)

    if starts.shape[0] == 1:
        best = search(starts[0])
        return attach(objective, bundle, best.parameters), best, best.converged.astype(jnp.int32), best.steps

    def better(best: Minimum, start: Array) -> tuple[Minimum, tuple[Array, Array]]:
        found = search(start)
        lower = found.converged & (~best.converged | (found.objective < best.objective))
        kept = jax.tree.map(lambda a, b: jnp.where(lower.reshape((1,) * (a.ndim - 1) + lower.shape), a, b), found, best)
        return kept, (jnp.where(found.converged, found.objective, jnp.inf), found.steps)

    lanes = starts.shape[2:]
    nothing = Minimum(
        starts[0],
        jnp.full(lanes, jnp.inf, starts.dtype),
        jnp.ones(lanes, starts.dtype),
        jnp.zeros(lanes, bool),
        jnp.zeros(lanes, jnp.int32),
    )
    best, (objectives, steps) = lax.scan(better, nothing, starts)
    eps = float(jnp.finfo(starts.dtype).eps)
    size = sum_time(objective.at(jnp.zeros_like(starts[0]), known) ** 2)
    close = objectives <= best.objective[None] * (1 + eps**0.4) + eps * jnp.where(jnp.isfinite(size), size, 0)[None]
    agreeing = (close & jnp.isfinite(objectives)).sum(0, dtype=jnp.int32)
    return attach(objective, bundle, best.parameters), best, agreeing, steps.sum(0, dtype=jnp.int32)


def _concluded(
    objective: Objective,
    bundle: Bundle,
    settings: Settings,
    u: Float[Array, "p lanes"],
    best: Minimum,
    bad: Array,
    n: Array,
    agreeing: Array,
    steps: Array,
) -> LaneFit:
    """Errors at the optimum, and what may be believed of them."""
    p, lanes = u.shape
    eps = float(jnp.finfo(u.dtype).eps)
    r, columns = objective.with_columns(u, bundle)
    *columns, r = lax.optimization_barrier([*columns, r])
    few = n <= p
    left = jnp.where(few, 1, n - p).astype(u.dtype)
    score, inside = objective.score(r), objective.inside(r).astype(u.dtype)
    matrix = products(columns, [inside * c for c in columns])
    square = jnp.stack([matrix[i, i] for i in range(p)])
    spread = sum_time(score**2)
    # A change of a bounded parameter by its own unit that moves the model by nothing beside the errors.
    bounded = jnp.asarray([unit_of(b) for b in settings.bounds], u.dtype)[:, None] > 0
    faded = bounded & (square <= eps * spread[None])
    unit, length = scaled(jnp.where((faded[:, None] | faded[None]), 0, matrix))
    broken = ~jnp.isfinite(unit).all((0, 1))
    unit = jnp.where(broken[None, None], _identity(p, u), unit)
    values, vectors = symmetric_eigen(unit)
    null = values <= 50 * p * eps
    identified = (jnp.where(null[None], jnp.abs(vectors), 0) <= 1e-5).all(1)
    # With a one in each null direction the inverse is that of the others, where no null direction is.
    filled = unit + jnp.where(null[None, None], vectors[:, None] * vectors[None], 0).sum(2)
    inverse, _ = inverse_definite(filled)
    if settings.covariance == "robust":
        middle = products(columns, [score**2 * c for c in columns]) / (length[:, None] * length[None])
        factor = n.astype(u.dtype) / left
    else:
        plain = unit if objective.threshold == float("inf") else None
        middle = products(columns, columns) / (length[:, None] * length[None]) if plain is None else plain
        factor = spread / left
    covariance = factor[None, None] * sandwich(inverse, middle) / (length[:, None] * length[None])
    natural = jnp.stack([to_natural(u[i], b) for i, b in enumerate(settings.bounds)])
    by_free = jnp.stack([slope(u[i], b) for i, b in enumerate(settings.bounds)])
    along = vectors / length[:, None]
    along = along / jnp.abs(along).max(0)[None]
    condition = jnp.sqrt(values[-1] / jnp.maximum(values[0], eps**2))
    # At a perfect fit the cosine is that of rounding: the search said what it thinks.
    causes = {
        Status.NONFINITE_INPUT: bad,
        Status.INSUFFICIENT_DATA: few,
        Status.NONFINITE_INTERNAL: broken | ~jnp.isfinite(best.objective) | ~jnp.isfinite(natural).all(0),
        Status.RANK_DEFICIENT: null.any(0),
        Status.MAX_STEPS: ~best.converged,
        Status.ILL_CONDITIONED: condition > eps**-0.42,
        Status.OK_INACCURATE: condition > eps**-0.3,
    }
    status = jnp.select(
        list(causes.values()), [jnp.full(lanes, c, jnp.int32) for c in causes], jnp.full(lanes, Status.OK, jnp.int32)
    )
    return LaneFit(
        natural,
        covariance * by_free[:, None] * by_free[None],
        u,
        covariance,
        identified,
        jnp.sqrt(jnp.maximum(values, 0)),
        lax.stop_gradient(jnp.swapaxes(along, 0, 1)),
        root(spread / left) * bundle.scale,
        n,
        agreeing,
        steps,
        status,
    )


def root(x: Array) -> Array:
    """√x for x ≥ 0, with the derivative zero at zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _identity(p: int, like: Array) -> Array:
    return jnp.eye(p, dtype=like.dtype)[..., None]
