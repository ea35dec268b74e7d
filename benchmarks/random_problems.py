"""Random orders with every feature mixed, for the reliability sweep, its slice in the tests, and the mixed benchmark.

Dimensionless ranges: κT over given decades (5 % at γ = 0), φ from 0.1 to 1.5 (a fifth at 1), flat and U-shaped noisy
volume, a fifth of the day dead in 30 %, caps from 1 % above VWAP to ten times it in half, spreads from 1 % to ten times
the impact at VWAP in half, drift that asks for round trips in half, overnight gaps, targets, buys.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx

SHARES, VOLUME, VOLATILITY, ETA = 2e5, 4e6, 0.6, 0.1
COSTS = ("capped power law", "user's own", "two-sided", "sum")


def custom_impact(rate: Any, parameters: Any) -> Any:
    """η(|ρ|^{1+φ} + ρ²): an impact that no closed form inverts."""
    size = jnp.abs(rate)
    return parameters["eta"] * (jnp.exp((1 + parameters["phi"]) * jnp.log(size)) + size**2)


def mixed(
    seed: int,
    orders: int,
    steps: int = 160,
    decades: tuple[float, float] = (-3.0, 3.0),
    cost: str = COSTS[0],
    dtype: type = np.float64,
) -> jx.Liquidation:
    """A batch of random orders of one kind of cost."""
    rng = np.random.default_rng(seed)
    t = (np.arange(steps) + 0.5) / steps
    column = (orders, 1)

    def some(share: float, shape: Any = column) -> np.ndarray:
        return rng.random(shape) < share

    volume = np.where(some(0.5), 1, 1 + rng.uniform(0, 3, column) * (2 * t - 1) ** 2)
    volume = volume * np.exp(0.3 * rng.standard_normal((orders, steps)) * some(0.5))
    dead = rng.uniform(0, 0.8, column)
    volume = volume * np.where(some(0.3) & (t > dead) & (t < dead + 0.2), 0, 1)
    phi = np.where(some(0.2, orders), 1, rng.uniform(0.1, 1.5, orders))
    stiffness = np.where(some(0.05, orders), 0, 10 ** rng.uniform(*decades, orders))
    spread = np.where(some(0.5, orders), 10 ** rng.uniform(-2, 1, orders), 0)
    wave = np.sin(2 * np.pi * t * rng.integers(1, 4, column) + rng.uniform(0, 6, column))
    drift = np.where(some(0.5), 10 ** rng.uniform(-1, 1.5, column), 0) * wave
    gap = np.where(some(0.2), some(0.02, (orders, steps)) * 0.3, 0)
    volume = np.where(gap > 0, 0, volume)
    left = np.where(some(0.2, orders), rng.uniform(-0.5, 0.8, orders), 0)
    vwap = (1 - left) * SHARES / (VOLUME * volume.sum(1) / steps)
    cap = vwap * np.where(some(0.5, orders), 1 + 10 ** rng.uniform(-2, 1, orders), 1e6)
    side = np.where(some(0.3, orders), -1, 1)
    parts = (volume, phi, stiffness, cap, spread, drift, gap, left, side)
    return jax.vmap(functools.partial(_one, steps=steps, kind=cost))(*(jnp.asarray(p.astype(dtype)) for p in parts))


def _one(volume, phi, stiffness, cap, spread, drift, gap, left, side, *, steps: int, kind: str) -> jx.Liquidation:
    price = ETA * (1 + phi) * (SHARES / VOLUME) ** phi
    gamma = stiffness**2 * price / (SHARES * VOLATILITY**2)
    market = jx.Market(
        jx.TimeGrid.uniform(1.0, steps),
        VOLATILITY,
        volume * VOLUME,
        drift=drift * price * side,
        gap_variance=gap * VOLATILITY**2,
    )
    cost = jx.ParticipationCap(_cost(kind, phi, spread * price), cap)
    return jx.Liquidation(side * SHARES, market, cost, gamma, target=side * left * SHARES)


def _cost(kind: str, phi, psi) -> jx.ExecutionCost:
    if kind == "user's own":
        return jx.CustomCost(custom_impact, {"eta": jnp.full_like(phi, ETA), "phi": phi}, psi)
    power = jx.PowerLawCost(jnp.full_like(phi, ETA), phi, psi)
    if kind == "two-sided":
        return jx.TwoSidedCost(power, jx.PowerLawCost(jnp.full_like(phi, 2 * ETA), phi, 1.5 * psi))
    if kind == "sum":
        return power + jx.QuadraticCost(jnp.full_like(phi, ETA))
    return power


jitted = jax.jit(jax.vmap(jx.solve))
