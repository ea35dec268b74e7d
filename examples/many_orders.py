"""Orders of different grids, costs and kinds in one call, on every device there is, and from the columns of a frame."""

import jax
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)  # before the first array; one simulated device a core is about right

rng = np.random.default_rng(0)


def order(i: int) -> jx.Liquidation:
    steps = int(rng.choice([9, 11, 13]))
    market = jx.Market(jx.TimeGrid.uniform(rng.uniform(0.2, 1.0), steps), 0.6, 4e6 * rng.uniform(0.5, 1.5, steps))
    cost = jx.PowerLawCost(0.1, rng.uniform(0.5, 1.0), 0.004)
    if i % 3 == 0:
        cost = jx.QuadraticCost(0.1, 0.004)
    return jx.Liquidation(10 ** rng.uniform(4, 5), market, cost, risk_aversion=1e-6)


orders = [order(i) for i in range(30)]
told = []
schedules = jx.solve_many(orders, progress=lambda done, total: told.append((done, total)))

# Grids of three sizes are padded to one with steps in which nothing happens: two programmes, one a kind of cost.
# The answers come in the order of the questions, each on its own grid, on the host.
assert told[-1] == (30, 30)
for question, answer in zip(orders, schedules, strict=True):
    assert answer.status == jx.Status.OK
    assert answer.trades.shape == (question.grid.steps,)
    np.testing.assert_allclose(answer.trades.sum(), question.shares, rtol=1e-12)

# Each is what `solve` gives for the order alone.
alone = jx.solve(orders[0])
np.testing.assert_allclose(schedules[0].inventory, alone.inventory, rtol=1e-6, atol=1e-6 * float(alone.inventory[0]))

# A frame (polars, pandas, or a mapping of columns): one row an order.
frame = {
    "shares": [50_000.0, -80_000.0],
    "horizon": [1.0, 0.5],
    "steps": [11, 9],
    "volatility": [0.6, 0.9],
    "volume": [4e6, 2e6],
    "eta": [0.1, 0.1],
    "phi": [0.6, 0.6],
    "psi": [0.004, 0.01],
    "risk_aversion": [1e-6, 1e-6],
}
sell, buy = jx.solve_many(frame, throw=True)
assert np.all(sell.trades > 0) and np.all(buy.trades < 0)
print(f"{len(schedules)} orders on {jax.device_count()} devices, calls of {np.diff([0, *[d for d, _ in told]])} orders")
