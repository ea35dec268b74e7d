"""The bank of problems shared by tests and benchmarks: smooth, stiff, kinked, closed, drifting, two-signed."""

import jax.numpy as jnp
import numpy as np

import jaxexec as jx

SHARES, VOLUME, VOLATILITY, ETA = 2e5, 4e6, 0.6, 0.1


def one(kind: str = "", steps: int = 12, seed: int = 0) -> jx.Liquidation:
    """One realistic order over a U-shaped day on an uneven grid. `kind` names features, separated by blanks:
    quadratic, discrete, drift, target, uneven-spread, closed (a step without volume), buy. Shapes do not depend on it,
    so that one compiled programme serves all."""
    rng = np.random.default_rng(seed)
    words = kind.split()
    times = np.cumsum(np.r_[0, rng.uniform(0.5, 1.5, steps)])
    times = times / times[-1]
    middle = (times[1:] + times[:-1]) / 2
    volume = VOLUME * (1 + 1.5 * (2 * middle - 1) ** 2)
    if "closed" in words:
        volume[steps // 3] = 0
    discrete = "discrete" in words
    market = jx.Market(
        jx.TimeGrid(times),
        volatility=VOLATILITY * (1 + 0.2 * rng.uniform(size=steps)),
        volume=volume,
        permanent_impact=1e-8 if discrete else 1e-7,
        drift=0.3 * np.sin(7 * times[1:]) * ("drift" in words),
        gap_variance=0.01 * rng.uniform(size=steps),
    )
    psi = 0.004 * (1 + rng.uniform(size=steps) * ("uneven-spread" in words))
    quadratic = discrete or "quadratic" in words
    cost = jx.QuadraticCost(ETA, psi) if quadratic else jx.PowerLawCost(ETA, 0.6, psi)
    return jx.Liquidation(
        -SHARES if "buy" in words else SHARES,
        market,
        cost,
        risk_aversion=3e-6,
        target=5e4 if "target" in words else 0.0,
        convention="almgren-chriss" if discrete else "continuous",
    )


KINDS = (
    "",
    "buy",
    "quadratic",
    "quadratic discrete",
    "quadratic discrete drift",
    "drift",
    "target",
    "uneven-spread",
    "closed",
)


def random_batch(
    seed: int,
    orders: int,
    steps: int = 96,
    decades: tuple[float, float] = (-3.0, 3.0),
    *,
    drift: bool = False,
    target: bool = False,
    uneven_spread: bool = False,
    dtype: type = np.float64,
) -> jx.Liquidation:
    """A batch of random orders: φ from 0.1 to 1.5, κT over `decades`, noisy U-shaped or flat days, dead volume."""
    rng = np.random.default_rng(seed)
    t = (np.arange(steps) + 0.5) / steps
    column = (orders, 1)
    volume = np.where(rng.random(column) < 0.5, 1, 1 + rng.uniform(0, 3, column) * (2 * t - 1) ** 2)
    volume = volume * np.exp(0.3 * rng.standard_normal((orders, steps)) * (rng.random(column) < 0.5))
    dead = rng.uniform(0, 0.8, column)
    volume = volume * np.where((rng.random(column) < 0.3) & (t > dead) & (t < dead + 0.2), 0, 1)
    phi = np.where(rng.random(orders) < 0.2, 1, rng.uniform(0.1, 1.5, orders))
    stiffness = 10 ** rng.uniform(*decades, orders)
    urgency = np.where(rng.random(orders) < 0.05, 0, stiffness**2)
    spread = np.where(rng.random(orders) < 0.5, 10 ** rng.uniform(-2, 1, orders), 0)
    spread = spread[:, None] * (1 + uneven_spread * rng.uniform(0, 1, (orders, steps)))
    size = np.where(rng.random(column) < 0.7, 10 ** rng.uniform(-1, 1.5, column), 0)
    wave = np.sin(2 * np.pi * t * rng.integers(1, 4, column) + rng.uniform(0, 6, column))
    left = np.where(rng.random(orders) < 0.5, rng.uniform(-1, 1.5, orders), 0)
    parts = (volume, phi, urgency, spread, drift * size * wave, target * left)

    def build(volume, phi, urgency, spread, alpha, left):
        grid = jx.TimeGrid.uniform(1.0, steps)
        market = jx.Market(grid, VOLATILITY, volume * VOLUME, drift=alpha * ETA * 0.1)
        cost = jx.PowerLawCost(ETA, phi, spread * ETA * 0.05)
        gamma = urgency * (ETA * 0.05 / (SHARES * VOLATILITY**2))
        return jx.Liquidation(SHARES, market, cost, gamma, target=left * SHARES)

    import jax

    return jax.vmap(build)(*(jnp.asarray(p.astype(dtype)) for p in parts))
