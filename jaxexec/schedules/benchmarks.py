"""Schedules by rule: what an order is usually compared with. Trades of a problem's grid, in shares."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation
from jaxexec.numerics.arrays import as_float, check

_NEAR_ZERO = 1e-2  # below it (1 − e^{−z})/z is taken from its series, whose eighth term is then below rounding


def twap(problem: Liquidation) -> Float[Array, " steps"]:
    """Trades in proportion to time, (steps,) shares; they sum to shares − target. Steps without volume included."""
    durations = problem.grid.durations
    return _share_out(problem, durations / jnp.sum(durations))


def vwap(problem: Liquidation) -> Float[Array, " steps"]:
    """Trades in proportion to market volume, (steps,) shares: optimal at zero risk aversion. NaN without volume."""
    volume = _step_volume(problem)
    return _share_out(problem, volume / jnp.sum(volume))


def immediate(problem: Liquidation) -> Float[Array, " steps"]:
    """Everything in the first step, (steps,) shares."""
    first = jnp.arange(problem.grid.steps) == 0
    return _share_out(problem, first.astype(problem.shares.dtype))


def pov(problem: Liquidation, participation: ArrayLike) -> Float[Array, " steps"]:
    """A constant share of the market's volume until the order is done: n_k = min(ρ τ_k V_k, what is left).

    Args:
        participation: ρ, own volume over the others', ≥ 0; scalar. Of the whole market it is ρ/(1 + ρ).

    Returns:
        (steps,) shares. They sum to less than the order where the volume does not suffice; NaN for a traced ρ < 0.

    Raises:
        ValueError: `participation` is not a scalar, or concrete and negative or not finite.
    """
    rate = _scalar("participation", participation).astype(problem.shares.dtype)
    check("participation", rate, lambda v: v >= 0, "at least 0")
    span = problem.shares - problem.target
    wanted = jnp.where(rate >= 0, rate, jnp.nan) * jnp.cumsum(_step_volume(problem))
    done = jnp.minimum(wanted, jnp.abs(span))
    return jnp.sign(span) * jnp.diff(done, prepend=jnp.zeros_like(done[:1]))


def front_loaded(problem: Liquidation) -> Float[Array, " steps"]:
    """Linearly falling trades, (steps,) shares: n_k ∝ N + 1 − k in the k-th of N steps, whatever their lengths."""
    steps = problem.grid.steps
    weights = (steps - np.arange(steps)) * (2 / (steps * (steps + 1)))
    return _share_out(problem, jnp.asarray(weights, problem.shares.dtype))


def exponential(problem: Liquidation, decay: ArrayLike) -> Float[Array, " steps"]:
    """Inventory that decays exponentially, x(t) − target ∝ e^{−κt} − e^{−κT}; at κ = 0 it is TWAP.

    Args:
        decay: κ, per day; scalar. Negative for an order that speeds up.

    Returns:
        (steps,) shares; on equal steps n_k ∝ e^{−κτk}.

    Raises:
        ValueError: `decay` is not a scalar, or concrete and not finite.
    """
    kappa = _scalar("decay", decay).astype(problem.shares.dtype)
    times = problem.grid.times
    durations, horizon = problem.grid.durations, problem.grid.horizon
    part = durations * _mean_decay(kappa * durations) / (horizon * _mean_decay(kappa * horizon))
    return _share_out(problem, jnp.exp(-kappa * (times[:-1] - times[0])) * part)


def _mean_decay(z: Array) -> Array:
    """(1 − e^{−z})/z, one at zero, with exact derivatives there."""
    small = jnp.abs(z) < _NEAR_ZERO
    series = jnp.ones_like(z)
    for n in range(8, 1, -1):
        series = 1 - series * z / n
    apart = jnp.where(small, 1, z)
    return jnp.where(small, series, -jnp.expm1(-apart) / apart)


def _share_out(problem: Liquidation, weights: Array) -> Array:
    return (problem.shares - problem.target) * weights


def _step_volume(problem: Liquidation) -> Array:
    return jnp.broadcast_to(problem.market.step_volume, (problem.grid.steps,))


def _scalar(name: str, value: ArrayLike) -> Array:
    array = as_float(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for many")
    check(name, array, np.isfinite, "finite")
    return array
