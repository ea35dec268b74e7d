"""After the trade: where the shortfall of one order went, and what three hundred orders say about broker and model.

The paper portfolio trades all shares at the decision price, free of charge. What the real one lost against it is taken
apart: delay, spread, own impact as the model expects it, timing, opportunity, fees. The regret is what a better
schedule of the same shares would have saved.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

STEPS = 13
rng = np.random.default_rng(0)
market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), volatility=0.6, volume=4e6, permanent_impact=1e-7)
cost = jx.PowerLawCost(eta=0.1, phi=0.6, psi=0.004)


def plan(shares) -> jx.Liquidation:
    return jx.Liquidation(shares, market, cost, risk_aversion=2e-6)


# One order: nine tenths of it were sold evenly, a fill in the middle of each half hour.
order_of_the_day = plan(2e5)
trades = 0.9 * np.asarray(jx.twap(order_of_the_day))
middles = (np.arange(STEPS) + 0.5) / STEPS
noise = np.cumsum(rng.normal(size=STEPS + 1)) * 0.6 / np.sqrt(STEPS)
own = 1e-7 * (np.cumsum(trades) - trades / 2) + 0.1 * (trades * STEPS / 4e6) ** 0.6  # permanent and temporary impact
mids = 50.0 + noise[:-1] - own
fills = jx.Fills(mids - 0.004, trades, fees=2.0, mids=mids, times=middles)
order = jx.ParentOrder(2e5, decision_price=50.05, arrival_price=50.0, end_price=50.0 + noise[-1] - 1e-7 * trades.sum())
s = jx.implementation_shortfall(order, fills, order_of_the_day)
print(s.summary())

# The parts sum to the total, which is paper less real: what was paid for, with nothing left over.
paper, real = 2e5 * 50.05, np.sum((mids - 0.004) * trades) + (2e5 - trades.sum()) * float(order.end_price) - 2.0 * STEPS
np.testing.assert_allclose(s.total, paper - real, rtol=1e-9)
np.testing.assert_allclose(sum(s.parts.values()), s.total, rtol=1e-12)
# What the model does not explain is the noise that was put in.
np.testing.assert_allclose(s.parts["timing"], -np.sum(trades * noise[:-1]), rtol=1e-9)

# A month of orders in frames, sales and purchases, filled by two brokers of whom one pays a wider spread.
count = 300
side = rng.choice([1.0, -1.0], count)
shares = np.round(side * 10 ** rng.uniform(4, 5.5, count), -2)
broker = rng.choice(["north", "south"], count)
sold = shares[:, None] / STEPS * np.ones(STEPS)
path = np.cumsum(rng.normal(size=(count, STEPS)), axis=1) * 0.6 / np.sqrt(STEPS)
own = 1e-7 * (np.cumsum(sold, axis=1) - sold / 2) + side[:, None] * 0.1 * np.abs(sold * STEPS / 4e6) ** 0.6
mid = 50.0 + path - own
paid = np.where(broker == "north", 0.003, 0.009)
rows = np.repeat(np.arange(count), STEPS)
orders = {
    "order_id": np.arange(count),
    "shares": shares,
    "decision_price": np.full(count, 50.0),
    "arrival_price": np.full(count, 50.0),
    "arrival_time": np.zeros(count),
    "broker": broker,
}
log = {
    "order_id": rows,
    "price": (mid - side[:, None] * paid[:, None]).ravel(),
    "size": np.abs(sold).ravel(),
    "time": np.tile(middles, count),
    "mid": mid.ravel(),
}
analysis = jx.analyse(orders, log, problems=jax.vmap(plan)(jnp.asarray(shares)))
assert analysis.failed == 0
print(analysis.table().text())

# Better schedules of the same shares would have saved so much in cost and risk, proved from both sides.
least, most = (np.asarray(analysis.columns[f"regret_at_{bound}_bps"]) for bound in ("least", "most"))
assert np.all((least > 0) & (least <= most) & (most <= least * (1 + 1e-6)))

# The brokers' spreads are found, in basis points; without the noise of prices a few orders would do.
spread = analysis.aggregate("broker", measures=["spread_bps"])
np.testing.assert_allclose(spread["mean"], [1e4 * 0.003 / 50, 1e4 * 0.009 / 50], rtol=1e-6)

# The scores say whether the model is right: here it is, but for the spread, so they are about N(0, 1).
score = np.asarray(analysis.columns["z_score"])
assert abs(score.mean()) < 4 / np.sqrt(count) and 0.85 < score.std() < 1.15

# A fill that cannot be fails its order, and no other.
log["size"][STEPS * 7] *= 100
faulty = jx.analyse(orders, log)
assert faulty.failed == 1 and np.isnan(faulty.columns["total"][7])
np.testing.assert_array_equal(np.delete(faulty.columns["total"], 7), np.delete(analysis.columns["total"], 7))
print(faulty.columns["fault"][7])
