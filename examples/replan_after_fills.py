"""A day that did not go to plan: take up what is left, and say what the deviations cost.

`resume` keeps all shapes, so nothing is compiled again; the schedule in force is the guess for the next one. At the
end `certify` bounds from below what any schedule could have cost, and so what this one left on the table.
"""

import jax
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

STEPS = 26
market = jx.Market(jx.TimeGrid.uniform(horizon=1.0, steps=STEPS), volatility=0.6, volume=4e6)
order = jx.Liquidation(2e5, market, jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.004), risk_aversion=2e-6)
plan = jx.solve(order)

# Fills as planned: what is left of the plan is the plan for what is left.
on_track = jx.solve(order.resume(plan.times[10], plan.inventory[10]), guess=plan)
assert on_track.status == jx.Status.OK
np.testing.assert_array_equal(on_track.trades[:10], 0)
np.testing.assert_allclose(on_track.trades[10:], plan.trades[10:], rtol=1e-6)

# Fills off plan, in the first ten steps and again after them.
rng = np.random.default_rng(0)
done, in_force = np.zeros(STEPS), plan
for step in range(STEPS - 1):
    done[step] = in_force.trades[step] * rng.uniform(0.5, 1.2)
    rest = order.resume(market.grid.times[step + 1], order.shares - done.sum())
    in_force = jx.solve(rest, guess=in_force)
    assert in_force.status == jx.Status.OK
done[-1] = order.shares - done.sum()

# What the deviations cost at most, in money: weak duality, with no other schedule to compare with.
bound = jx.certify(order, done)
assert bound.status == jx.Status.OK
assert bound.lower_bound <= plan.objective * (1 + 1e-12) <= bound.objective * (1 + 1e-12)
np.testing.assert_allclose(bound.objective, jx.objective(order, jax.numpy.asarray(done)), rtol=1e-12)

# At the optimum nothing is left on the table; a day at VWAP leaves more than one that was replanned.
assert jx.certify(order, plan.trades).relative_excess < 1e-10
at_vwap = jx.certify(order, jx.vwap(order))
assert bound.excess < at_vwap.excess
print(f"planned {plan.objective:,.2f}; done {bound.objective:,.2f}, at most {bound.excess:,.2f} above the best")
print(f"VWAP would have left {at_vwap.excess:,.2f}")
