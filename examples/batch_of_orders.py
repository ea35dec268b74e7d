"""A thousand orders in one call, each with its certificate, and a bad one among them that harms no other."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
shares = 10 ** rng.uniform(3.5, 5.5, 1000) * rng.choice([-1.0, 1.0], 1000)
volatility = rng.uniform(0.2, 1.5, 1000)
horizon = rng.uniform(0.1, 1.0, 1000)


@jax.jit
@jax.vmap
def schedule(x, sigma, days):
    market = jx.Market(jx.TimeGrid.uniform(days, 26), volatility=sigma, volume=4e6)
    return jx.solve(jx.Liquidation(x, market, jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.004), risk_aversion=1e-6))


found = schedule(shares, volatility, horizon)
print(f"{found.trades.shape[0]:,} schedules, largest relative duality gap {found.relative_gap.max():.1e}")
assert np.all(found.status == jx.Status.OK)
assert found.relative_gap.max() < 1e-10

# One order without a number: its status says so, its values are NaN, the others are the same to the last bit.
spoilt = schedule(np.where(np.arange(1000) == 7, np.nan, shares), volatility, horizon)
assert spoilt.status[7] == jx.Status.NONFINITE_INPUT and np.all(np.isnan(spoilt.trades[7]))
rest = np.arange(1000) != 7
assert np.array_equal(spoilt.inventory[rest], found.inventory[rest])


# A loss that masks the failed order trains on: its gradient is zero there and unchanged elsewhere.
def total(sigma, x):
    s = schedule(x, sigma, horizon)
    return jnp.sum(jnp.where(s.status == jx.Status.OK, s.objective, 0.0))


slope = jax.grad(total)(volatility, np.where(np.arange(1000) == 7, np.nan, shares))
assert slope[7] == 0 and np.all(np.isfinite(slope)) and np.all(slope[rest] > 0)
