"""What an input is worth: derivatives of cost, risk and schedule, by gradient and by the envelope theorem.

At an optimum the schedule's own response does not move the objective, so that dU/dγ = Var/2 and dU/dη is the execution
cost per unit of η, at the schedule as it is. The expected cost alone has no such theorem: its derivative carries the
response of the schedule, through the optimality conditions.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

SHARES, ETA, PHI, SPREAD, GAMMA, SIGMA = 2e5, 0.1, 0.6, 0.004, 1e-6, 0.6


@jax.jit
def solved(inputs: dict) -> jx.Schedule:
    market = jx.Market(jx.TimeGrid.uniform(1.0, 78), inputs["volatility"], inputs["volume"])
    cost = jx.PowerLawCost(inputs["eta"], inputs["phi"], inputs["psi"])
    return jx.solve(jx.Liquidation(inputs["shares"], market, cost, inputs["risk_aversion"]))


inputs = {
    "shares": SHARES,
    "volatility": SIGMA,
    "volume": 4e6,
    "eta": ETA,
    "phi": PHI,
    "psi": SPREAD,
    "risk_aversion": GAMMA,
}
base = solved(inputs)
# One reverse pass for each of the two, compiled together.


@jax.jit
@jax.jacrev
def derivatives(p):
    s = solved(p)
    return {"objective": s.objective, "expected_cost": s.expected_cost}


slopes = derivatives(inputs)
objective, expected = slopes["objective"], slopes["expected_cost"]

print(f"U = {base.objective:,.2f}, E = {base.expected_cost:,.2f}; what one per cent more of an input adds to them:")
for name, value in inputs.items():
    print(f"  {name:14} {0.01 * value * objective[name]:10.4f} {0.01 * value * expected[name]:10.4f}")

# The envelope theorem, with nothing differentiated.
np.testing.assert_allclose(objective["risk_aversion"], base.variance / 2, rtol=1e-9)
np.testing.assert_allclose(objective["psi"], SHARES, rtol=1e-9)
np.testing.assert_allclose(objective["volatility"], GAMMA * base.variance / SIGMA, rtol=1e-9)
np.testing.assert_allclose(objective["shares"], -base.costate[0] + GAMMA * SIGMA**2 / 78 * SHARES / 2, rtol=1e-6)

# Finite differences agree, for E too.
for name, value in inputs.items():
    step = 1e-5 * value
    up, down = (solved({**inputs, name: value + s}) for s in (step, -step))
    np.testing.assert_allclose(expected[name], (up.expected_cost - down.expected_cost) / (2 * step), rtol=1e-5)

# A whole curve at once: which five minutes' volume is worth most? The first, when the position is largest.
flat = {**inputs, "volume": jnp.full(78, 4e6)}
worth = derivatives(flat)["objective"]["volume"]
assert worth.shape == (78,) and np.all(worth < 0) and np.argmin(worth) == 0
