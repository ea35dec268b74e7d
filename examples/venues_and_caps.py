"""One order over a lit book and a dark pool, under a cap: how much where, and what the cap costs.

The lit book has a spread and room; the pool has no spread, a fifth of the volume, and a cap of its own. The order may
be at most 10 % of the whole market's volume, own shares included: ρ_max = 0.1/(1 − 0.1) of the others'.
"""

import jax
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

SHARES = 3e5
FRACTIONS = 0.8, 0.2
MARKET = jx.Market(jx.TimeGrid.uniform(horizon=1.0, steps=13), volatility=0.6, volume=4e6)

lit = jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.01)
pool = jx.ParticipationCap(jx.QuadraticCost(eta=0.2), rho_max=0.15)
venues = jx.VenueSplit([lit, pool], FRACTIONS)


@jax.jit
def solved(rho_max):
    return jx.solve(jx.Liquidation(SHARES, MARKET, jx.ParticipationCap(venues, rho_max), risk_aversion=3e-6))


limit = 0.1 / (1 - 0.1)
schedule = solved(limit)
assert schedule.status == jx.Status.OK
rate = schedule.trades / MARKET.step_volume
binding = np.isclose(rate, limit, rtol=1e-9)
assert np.all(rate <= limit * (1 + 1e-9)) and binding[0] and not binding[-1]

# Shares by venue and step: they add up to the order.
by_venue = venues.split(rate) * MARKET.step_volume
assert by_venue.shape == (2, 13)
np.testing.assert_allclose(by_venue.sum(0), schedule.trades, rtol=1e-9)
print("sent to the lit book:", np.round(by_venue[0]).astype(int))
print("sent to the pool:    ", np.round(by_venue[1]).astype(int))

# Every venue in use has the same marginal cost; one at its own cap has a smaller one; an unused one would cost more.
on_lit, in_pool = (by_venue[i] / (FRACTIONS[i] * MARKET.step_volume) for i in range(2))
price = venues.marginal(rate)
used = on_lit > 0
np.testing.assert_allclose(lit.marginal(on_lit)[used], price[used], rtol=1e-6)
assert np.all(price[~used] <= 0.01 * (1 + 1e-9))
free = in_pool < 0.15 * (1 - 1e-9)
np.testing.assert_allclose(pool.marginal(in_pool)[free], price[free], rtol=1e-6)

# What the cap costs: where it binds, one share more would cost less than it is worth by y − L'(c), y = −costate.
held = jax.numpy.asarray(limit)
shadow = np.sum(MARKET.step_volume * np.where(binding, -schedule.costate - venues.marginal(held), 0))
step = 1e-5 * limit
saved = solved(limit - step).objective - solved(limit + step).objective
np.testing.assert_allclose(shadow, saved / (2 * step), rtol=1e-5)
print(f"one point more of participation saves {0.01 * shadow:,.2f} of {schedule.objective:,.2f}, to first order")

# A cap that is too tight for the order is no schedule and no number: Σ b ρ_max falls short of the order.
impossible = solved(0.9 * SHARES / float(np.sum(MARKET.step_volume * np.ones(13))))
assert impossible.status == jx.Status.INFEASIBLE and np.all(np.isnan(impossible.trades))
