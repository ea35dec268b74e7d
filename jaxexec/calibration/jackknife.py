"""Errors that hold whatever the variance of each row is, and however rows of one group depend on each other.

When group g is left out, the estimate moves by d_g = (A − A_g)⁻¹ s_g to first order, with A = JᵀJ over all rows, and
A_g, s_g = J_gᵀ r_g over those of the group. The covariance is Σ_g d_g d_gᵀ: with groups of one row HC3 (MacKinnon and
White, J. Econometrics 29, 1985), with larger ones CV3 (Bell and McCaffrey, Survey Methodology 28, 2002), which is
counted with (G − 1)/G. Rows that bend the fit towards themselves are thereby made up for, which the plain sandwich does
not.

Such a sum of squares is as uncertain as its largest terms are few. Its degrees of freedom are Satterthwaite's, with the
variance of each d_g² estimated from d_g⁴, three times its square under normal errors: 3 (Σ d_g²)² / Σ d_g⁴.
"""

import dataclasses
import functools
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxexec.calibration.lane_fit import Covariance, Settings
from jaxexec.calibration.objective import Bundle, Objective, Residuals, products, robust_scale
from jaxexec.calibration.parameter_fit import ParameterFit, with_errors
from jaxexec.numerics.moments import inverse_and_pivots, times
from jaxexec.numerics.status import is_usable

Errors = Literal["classical", "robust", "hc3"]
_NUMBERS_AT_ONCE = 1 << 17


def in_the_search(covariance: str, allowed: tuple[str, ...] = get_args(Errors)) -> Covariance:
    """What the search itself computes of a kind of errors; the rest is `jackknifed`.

    Raises:
        ValueError: a kind that is none.
    """
    if covariance not in allowed:
        raise ValueError(f"covariance must be one of {allowed}, got {covariance!r}")
    return "robust" if covariance == "robust" else "classical"


@functools.partial(jax.jit, static_argnums=(1, 2, 6))
def jackknifed(
    found: ParameterFit,
    residuals: Residuals,
    settings: Settings,
    data: Any,
    fixed: dict[str, Float[Array, " lanes"]],
    row: Bool[Array, "lanes rows"],
    size: int = 1,
) -> ParameterFit:
    """The fit with errors from leaving out `size` consecutive rows at a time.

    Args:
        found: one fit, or one a lane.
        residuals, settings, data, fixed, row: those of the fit, lanes first.

    Returns:
        The same estimates; errors are infinite where the rest does not tell a parameter without one of the groups.
    """
    single = found.status.ndim == 0
    lanes_first = jax.tree.map(lambda x: x[None], found) if single else found
    objective = Objective(residuals, settings.names, settings.bounds, settings.elementwise)
    usable = is_usable(lanes_first.status)
    free = jnp.where(usable[:, None], lanes_first.free_values, 0)

    def work(inputs: tuple) -> tuple[Array, Array]:
        u, *rest = jax.tree.map(lambda x: x[..., None], inputs)
        bundle = Bundle(rest[0], {name: x[None] for name, x in rest[1].items()}, rest[2], jnp.ones_like(u[0]))
        return _without_each(objective, settings, u, bundle, size)

    at_once = max(1, _NUMBERS_AT_ONCE // max(row.shape[1], 1))
    covariance, degrees = lax.map(work, (free, data, fixed, row), batch_size=min(at_once, row.shape[0]))
    changed = with_errors(lanes_first, covariance, degrees)
    return jax.tree.map(lambda x: x[0], changed) if single else changed


def _without_each(objective: Objective, settings: Settings, u: Array, bundle: Bundle, size: int):
    """Covariance (p, p) and degrees of freedom (p,) of one lane."""
    if settings.loss == "huber":
        objective = dataclasses.replace(objective, threshold=settings.threshold)
        plain = dataclasses.replace(objective, threshold=float("inf"))
        bundle = eqx.tree_at(lambda b: b.scale, bundle, robust_scale(plain.at(u, bundle), bundle.row))
    residuals, columns = objective.with_columns(u, bundle)
    p, n = len(columns), bundle.row.sum(dtype=jnp.int32)
    length = lax.stop_gradient(jnp.stack([jnp.sqrt(jnp.sum(c**2)) for c in columns]))
    length = jnp.where(length > 0, length, 1)
    score, inside = objective.score(residuals), objective.inside(residuals).astype(u.dtype)
    # (size, groups): sums over a group are sums over the first axis.
    unit = [(c / length[i]).reshape(-1, size).T for i, c in enumerate(columns)]
    score, inside = score.reshape(-1, size).T, inside.reshape(-1, size).T
    own = products(unit, [inside * c for c in unit])
    inverse, pivots = inverse_and_pivots(own.sum(2, keepdims=True) - own)
    moved = times(inverse, jnp.stack([(c * score).sum(0) for c in unit]))
    groups = bundle.row.reshape(-1, size).any(1).sum(dtype=jnp.int32).astype(u.dtype)
    factor = 1 if size == 1 else (groups - 1) / jnp.maximum(groups, 1)
    covariance = factor * (moved[:, None] * moved[None]).sum(2) / (length[:, None] * length[None])
    told = pivots.min() > 50 * p * jnp.finfo(u.dtype).eps
    square, fourth = (moved**2).sum(1), (moved**4).sum(1)
    most = jnp.maximum(jnp.minimum((n - p).astype(u.dtype), groups - 1), 1)
    degrees = 3 * square**2 / jnp.where(fourth > 0, fourth, 1)
    degrees = jnp.where(fourth > 0, jnp.clip(degrees, 1, most), most)
    return jnp.where(told, covariance, jnp.inf), lax.stop_gradient(degrees)
