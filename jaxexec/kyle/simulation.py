"""Paths of the equilibrium, and of an insider who leaves it.

The market makers set prices by the equilibrium's rules whatever one insider does, so a strategy is worth what it earns
against these rules. No strategy earns more than the equilibrium's own.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.kyle.equilibrium import Equilibrium
from jaxexec.kyle.soundness import sound, spoilt
from jaxexec.numerics.arrays import as_float, check

Strategy = Callable[[Array, Array, Array], ArrayLike]


class EquilibriumPaths(eqx.Module):
    """Drawn paths, prices relative to p_0.

    Attributes:
        value: (paths,) v − p_0, currency.
        noise: (paths, periods) u_t, shares.
        trades: (paths, periods) x_t of one insider, shares.
        order_flow: (paths, periods) y_t = x_t + the other insiders' trades + u_t, shares.
        estimate: (paths, periods) p̂_t − p_0, what the market maker thinks v is, currency.
        price: (paths, periods) p_t − p_0 at which period t trades, currency.
        insider_profit: (paths,) Σ x_t (v − p_t) of the one, currency.
        market_maker_profit: (paths,) Σ y_t (p_t − v), currency.
        noise_profit: (paths,) Σ u_t (v − p_t), currency; a loss on average.
    """

    value: Float[Array, " paths"]
    noise: Float[Array, "paths periods"]
    trades: Float[Array, "paths periods"]
    order_flow: Float[Array, "paths periods"]
    estimate: Float[Array, "paths periods"]
    price: Float[Array, "paths periods"]
    insider_profit: Float[Array, " paths"]
    market_maker_profit: Float[Array, " paths"]
    noise_profit: Float[Array, " paths"]


def simulate(
    equilibrium: Equilibrium, paths: int = 10_000, seed: int | Array = 0, strategy: Strategy | None = None
) -> EquilibriumPaths:
    """Draw values and noise, and let everybody trade. Traced; differentiable with respect to the equilibrium.

    Args:
        equilibrium: one equilibrium, not a batch.
        paths: how many, ≥ 1.
        seed: an integer or a JAX key; the same seed gives the same draws whatever the strategy.
        strategy: (period, g, price) → shares that one insider buys: `period` counts from 0, g = v − p̂_{t−1} and
            p̂_{t−1} − p_0 have shape (paths,), and so has what it returns, or it is a scalar. None: β_t g.

    Raises:
        ValueError: `paths` is not a positive integer, `seed` neither an integer nor a key, a batch of equilibria, or
            the trades of `strategy` are none.
    """
    if equilibrium.price_impact.ndim != 1:
        raise ValueError(f"equilibrium must be one, got a batch {equilibrium.price_impact.shape[:-1]}; use jax.vmap")
    if isinstance(paths, bool) or not isinstance(paths, int | np.integer) or paths < 1:
        raise ValueError(f"paths must be a positive integer, got {paths!r}")
    return _simulate(equilibrium, int(paths), _key(seed), strategy)


def _key(seed: Any) -> Array:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer | jax.Array):
        raise ValueError(f"seed must be an integer or a JAX key, got {seed!r}")
    if isinstance(seed, jax.Array):
        return seed
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must be an integer of 64 bits, got {seed}")
    return jax.random.key(seed)


@functools.partial(jax.jit, static_argnums=(1, 3))
def _simulate(equilibrium: Equilibrium, paths: int, key: Array, strategy: Strategy | None) -> EquilibriumPaths:
    (e, failed), dtype = sound(equilibrium), equilibrium.price_impact.dtype
    of_value, of_noise = jax.random.split(key)
    value = jnp.sqrt(e.prior_variance) * jax.random.normal(of_value, (paths,), dtype)
    noise = jnp.sqrt(e.noise_variance)[:, None] * jax.random.normal(of_noise, (e.periods, paths), dtype)

    def trade(estimate: Array, row: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        period, beta, impact, passing, u = row
        gap = value - estimate
        usual = beta * gap
        x = usual if strategy is None else _trades(strategy(period, gap, estimate), usual)
        flow = x + (e.insiders - 1) * usual + u
        learnt = estimate + impact * flow
        return learnt, (x, flow, learnt, learnt + passing * flow)

    rows = (jnp.arange(e.periods), e.intensity, e.price_impact, e.transitory_impact, noise)
    _, (trades, flow, estimate, price) = lax.scan(trade, jnp.zeros_like(value), rows)
    margin = value[None] - price
    drawn = EquilibriumPaths(
        value=value,
        noise=noise.T,
        trades=trades.T,
        order_flow=flow.T,
        estimate=estimate.T,
        price=price.T,
        insider_profit=jnp.sum(trades * margin, axis=0),
        market_maker_profit=-jnp.sum(flow * margin, axis=0),
        noise_profit=jnp.sum(noise * margin, axis=0),
    )
    return spoilt(drawn, failed, equilibrium)


def _trades(chosen: Any, like: Array) -> Array:
    """What a strategy returned, shares of every path."""
    trades = as_float("strategy's trades", chosen)
    if trades.shape not in ((), like.shape):
        raise ValueError(f"strategy must return shares of shape {like.shape} or a scalar, got {trades.shape}")
    return jnp.broadcast_to(trades.astype(like.dtype), like.shape)


class Deviation(eqx.Module):
    """What an insider gets who trades other intensities, the market makers and the other insiders staying as they are.

    Attributes:
        value: ex ante, of the equilibrium's preference: A_1 Σ_0 + B_1 of this strategy, currency. −∞ where CARA has no
            expectation.
        expected_profit: currency.
    """

    value: Float[Array, ""]
    expected_profit: Float[Array, ""]


def deviate(equilibrium: Equilibrium, intensity: ArrayLike) -> Deviation:
    """The exact value of trading x_t = b_t (v − p̂_{t−1}), instead of β_t. Traced and differentiable.

    No b is worth more than the equilibrium's β, where the derivative vanishes.

    Args:
        equilibrium: one equilibrium.
        intensity: (periods,) b_t, shares per currency.

    Raises:
        ValueError: a batch of equilibria, or `intensity` has another shape or is concrete and not finite.
    """
    if equilibrium.price_impact.ndim != 1:
        raise ValueError(f"equilibrium must be one, got a batch {equilibrium.price_impact.shape[:-1]}; use jax.vmap")
    chosen = as_float("intensity", intensity)
    if chosen.shape != equilibrium.price_impact.shape:
        raise ValueError(f"intensity must have shape {equilibrium.price_impact.shape}, got {chosen.shape}")
    check("intensity", chosen, np.isfinite, "finite")
    chosen = chosen.astype(equilibrium.price_impact.dtype)
    e, failed = sound(equilibrium)
    weight = e.risk_aversion / 2

    def back(later: tuple[Array, ...], row: tuple[Array, ...]) -> tuple[tuple[Array, ...], None]:
        curvature, constant, profit, lucky = later
        b, beta, impact, passing, s = row
        whole, others = impact + passing, (e.insiders - 1) * beta
        earned = b * (1 - whole * (others + b))
        left = 1 - impact * (others + b)
        if e.preference == "local":
            now = earned - weight * (whole * b) ** 2 * s + curvature * left**2
            more = curvature * impact**2 * s
        else:
            scale = 1 + 4 * weight * curvature * impact**2 * s
            ruined = scale <= 0  # losses in the square of noise: the expectation does not exist
            scale = jnp.where(ruined, 1, scale)
            bent = whole * b + 2 * curvature * impact * left
            now = earned + curvature * left**2 - weight * s * bent**2 / scale
            safe = jnp.where(weight > 0, 4 * weight, 1)
            more = jnp.where(weight > 0, jnp.log(scale) / safe, curvature * impact**2 * s)
            more = jnp.where(ruined, -jnp.inf, more)
        return (now, constant + more, earned + profit * left**2, lucky + profit * impact**2 * s), None

    rows: Any = (chosen, e.intensity, e.price_impact, e.transitory_impact, e.noise_variance)
    nothing = jnp.zeros_like(e.prior_variance)
    (curvature, constant, profit, lucky), _ = lax.scan(back, (nothing,) * 4, rows, reverse=True)
    worth = Deviation(curvature * e.prior_variance + constant, profit * e.prior_variance + lucky)
    return spoilt(worth, failed, (equilibrium, chosen))
