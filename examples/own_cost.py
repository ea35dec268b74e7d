"""An execution cost of your own in three lines: solved, certified, and differentiated in its parameters.

A book that thins out: L(ρ) = 2η (cosh kρ − 1)/k² is ηρ² for small rates and grows exponentially beyond 1/k. It is
written with sinh, which keeps its digits near rest, where cosh kρ − 1 loses them.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)


def thinning(rate, book):
    return book["eta"] * (2 / book["k"] * jnp.sinh(book["k"] * rate / 2)) ** 2


MARKET = jx.Market(jx.TimeGrid.uniform(horizon=1.0, steps=13), volatility=0.6, volume=4e6)


def solved(book):
    return jx.solve(jx.Liquidation(4e5, MARKET, jx.CustomCost(thinning, book, psi=0.004), risk_aversion=1e-6))


book = {"eta": 0.1, "k": 10.0}
schedule = jax.jit(solved)(book)
assert schedule.status == jx.Status.OK and schedule.relative_gap < 1e-10

# As k → 0 it is the quadratic cost, whose Hamiltonian is a closed form: another road to the same answer.
quadratic = jx.solve(jx.Liquidation(4e5, MARKET, jx.QuadraticCost(0.1, 0.004), risk_aversion=1e-6))
np.testing.assert_allclose(jax.jit(solved)({"eta": 0.1, "k": 1e-4}).trades, quadratic.trades, rtol=1e-7)
# A book that thins out is not rushed: the first trade is smaller.
assert schedule.trades[0] < quadratic.trades[0]


# Derivatives with respect to whatever the function takes.
@jax.jit
@jax.jacrev
def slopes(book):
    s = solved(book)
    return {"objective": s.objective, "first": s.trades[0]}


slope = slopes(book)
print(f"U = {schedule.objective:,.2f}, relative gap {schedule.relative_gap:.0e}")
for name, value in book.items():
    print(f"one per cent more {name}: U {0.01 * value * slope['objective'][name]:+.3f} currency, ", end="")
    print(f"first trade {0.01 * value * slope['first'][name]:+.2f} shares")
    step = 1e-4 * value
    up, down = (jax.jit(solved)({**book, name: value + s}) for s in (step, -step))
    np.testing.assert_allclose(slope["objective"][name], (up.objective - down.objective) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(slope["first"][name], (up.trades[0] - down.trades[0]) / (2 * step), rtol=1e-5)
