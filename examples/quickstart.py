"""Five lines from a market to a certified schedule, and what can be asked of it."""

import jax

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

market = jx.Market(jx.TimeGrid.uniform(horizon=1.0, steps=78), volatility=0.6, volume=4e6)
cost = jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.004)
order = jx.Liquidation(shares=200_000, market=market, cost=cost, risk_aversion=1e-6)
schedule = jx.solve(order)
print(schedule.summary())

# The schedule sells everything, and the certificate says how much better any other schedule could be: nothing.
assert schedule.status == jx.Status.OK
assert schedule.inventory[0] == 200_000 and schedule.inventory[-1] == 0
assert schedule.duality_gap < 1e-6 * schedule.objective

# Benchmarks cost more than the optimum, by the measure that the optimum is the least of.
for rival in (jx.twap(order), jx.immediate(order)):
    assert jx.objective(order, rival) > schedule.objective

# A buy is the same with all signs turned.
buy = jx.solve(jx.Liquidation(shares=-200_000, market=market, cost=cost, risk_aversion=1e-6))
assert abs(buy.inventory + schedule.inventory).max() < 1e-6
