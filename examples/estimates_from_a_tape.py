"""From trades and quotes to impact estimates, a market and a schedule, on a synthetic tape whose truth is known."""

import jax
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

made = jx.tape.synthetic.generate(stocks=40, trades=2000, seed=0)
# The midpoint trades of this tape belong to neither side: keep them, with sign 0.
tape = jx.tape.sign(made.trades, made.quotes, rule="lee-ready", midpoint="keep")
assert tape.ledger.balanced
panel = jx.impact.glosten_harris(tape, form="difference")
print(panel.summary())

# The truth lies within the errors that are claimed: z is a standard normal variable, near enough.
estimate, error = panel.estimates.coefficients, panel.estimates.std_errors
truth = made.truth.select(jx.impact.COEFFICIENTS).to_numpy()
z = (estimate - truth) / error
print(f"z of {z.size} estimates: mean {z.mean():+.2f}, standard deviation {z.std():.2f}")
assert np.all(panel.usable)
assert abs(z.mean()) < 0.4 and 0.75 < z.std() < 1.25 and np.mean(np.abs(z) < 2) > 0.85

# A market and a cost for one stock. η is a prior, and says so: the regression knows nothing about speed.
calibration = jx.calibrate(panel, jx.impact.activity(tape), symbol="S00000")
print(calibration.summary())
assert any("assumed" in line or "Almgren" in line for line in calibration.warnings)

day = float(np.mean(calibration.market.volume))
order = jx.Liquidation(0.05 * day, calibration.market, calibration.cost, risk_aversion=1e-5)
schedule = jx.solve(order)
assert schedule.status == jx.Status.OK
print(f"5 % of the day's volume: expected cost {schedule.expected_cost:,.2f}, relative gap {schedule.relative_gap:.0e}")
