"""What an order may cost: the distribution behind two numbers, with random volatility and volume, and its derivatives.

Give a file name to save the picture: python examples/what_it_may_cost.py cost.svg
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

market = jx.Market(jx.TimeGrid.uniform(horizon=1.0, steps=26), volatility=0.6, volume=4e6, permanent_impact=2e-8)
order = jx.Liquidation(2e5, market, jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.004), risk_aversion=1e-6)
best, even = jx.solve(order), jx.twap(order)

# The same shocks for both: their difference is known far better than either.
plain = jx.simulate(order, best, paths=16_384)
assert abs(plain.mean - best.expected_cost) < 4 * plain.mean_error
assert abs(plain.variance - best.variance) < 4 * plain.variance_error

stressed = jx.PriceProcess(
    "geometric",
    initial_price=20.0,
    variance_noise=jx.MeanReverting(deviation=0.8, speed=2.0, correlation=-0.4),
    volume_noise=jx.MeanReverting(deviation=0.4, speed=5.0),
)
tail = jx.simulate(order, best, stressed, paths=16_384)
assert tail.conditional_value_at_risk[-1] > plain.conditional_value_at_risk[-1]
print(tail.summary())

# A few quasi-random paths know the mean of a fixed schedule better than many pseudo-random ones.
quick = jx.simulate(order, best, paths=1024, sampling="quasi")
assert quick.mean_error < 0.01 * plain.mean_error


def worst_cases(volatility, trades):
    """Mean of the worst 5 % at another volatility."""
    market = jx.Market(order.grid, volatility, 4e6, 2e-8)
    problem = jx.Liquidation(2e5, market, order.cost, 1e-6)
    return jx.simulate(problem, trades, stressed, paths=4096, levels=(0.95,)).conditional_value_at_risk[0]


slope = jax.grad(worst_cases)
for name, trades in (("best", best.trades), ("even", even)):
    print(f"{name}: one cent more of volatility adds {0.01 * slope(0.6, trades):,.0f} to the mean of the worst 5 %")
assert slope(0.6, best.trades) < slope(0.6, even)
difference = (worst_cases(0.6005, even) - worst_cases(0.5995, even)) / 0.001
assert jnp.abs(slope(0.6, even) / difference - 1) < 0.01

figure = tail.plot()
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_bytes(jx.presentation.to_svg(figure))
