"""The efficient frontier of one order: convex, and its slope is what the risk aversion says it is.

Give a file name to save the picture: python examples/efficient_frontier.py frontier.svg
"""

import sys
from pathlib import Path

import jax
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

market = jx.Market(jx.TimeGrid.uniform(horizon=1.0, steps=78), volatility=0.6, volume=4e6)
order = jx.Liquidation(2e5, market, jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.004), risk_aversion=0.0)
gammas = np.concatenate([[0.0], np.geomspace(1e-8, 1e-5, 61)])
frontier = jx.efficient_frontier(order, gammas)

cost, variance = np.asarray(frontier.expected_cost), np.asarray(frontier.variance)
assert np.all(frontier.status == jx.Status.OK)
assert np.all(np.diff(cost) > 0) and np.all(np.diff(variance) < 0)

# dE/dVar = −γ/2, and a chord's slope lies between those of its ends.
slope = np.diff(cost) / np.diff(variance)
assert np.all((-gammas[1:] / 2 < slope) & (slope < -gammas[:-1] / 2))

# γ = 0 is VWAP, here the cheapest and the riskiest.
np.testing.assert_allclose(frontier.schedules.trades[0], jx.vwap(order), rtol=1e-9)

print(f"expected cost {cost[0]:,.0f} to {cost[-1]:,.0f}, risk {variance[0] ** 0.5:,.0f} to {variance[-1] ** 0.5:,.0f}")
figure = frontier.plot()
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_bytes(jx.presentation.to_svg(figure))
