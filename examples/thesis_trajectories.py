"""The thesis's third figure: which component of impact shapes a schedule, and which cannot.

40,000 shares in 50 periods, one child order a period, at zero risk aversion, one component at a time:

    transitory fixed ζ          ζX for every schedule that only sells           no preference
    permanent variable λ        ½λX² for every schedule (continuous time)       no preference
    permanent fixed C           for children of c shares as λ = C/c             no preference
    transitory variable ℓ       ℓ Σ n²                                          equal slices, and nothing else

So the figure's steep convex path under fixed costs is no optimum, and its straight lines under permanent impact are no
better than any other path. A convex path takes risk aversion, and ℓ to pay for it.
Give a folder to save the pictures: python examples/thesis_trajectories.py docs/assets
"""

import sys
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import jaxexec as jx
from jaxexec import presentation

jax.config.update("jax_enable_x64", True)

SHARES, PERIODS, VOLUME = 4e4, 50, 1e5  # time in periods, volume of the others a period
SLICE = SHARES / PERIODS
# The size of the thesis's Table 1. Its mean of ℓ, −0.19e-6, makes no problem at all: it is refused below.
FIXED_PERMANENT, VARIABLE_PERMANENT, FIXED_TRANSITORY, VARIABLE_TRANSITORY = 1e-3, 1.11e-6, 0.02, 5e-6
Convention = Literal["continuous", "almgren-chriss"]
GRID = jx.TimeGrid.uniform(float(PERIODS), PERIODS)


def order(
    convention: Convention = "continuous", *, fixed=0.0, permanent=0.0, variable=VARIABLE_TRANSITORY, risk_aversion=0.0
):
    """One child of n shares a period: half-spread ζ + ℓn, so that L = ℓVρ² + ζρ, and λ on the price that remains."""
    market = jx.Market(GRID, volatility=0.02, volume=VOLUME, permanent_impact=permanent)
    cost = jx.QuadraticCost(eta=variable * VOLUME, psi=fixed)
    return jx.Liquidation(SHARES, market, cost, risk_aversion, convention=convention)


bare = order()
# Paths from back-loaded to front-loaded, x ∝ e^{−κt} less its end, by κT; equal slices in the middle.
loads = np.linspace(-6, 6, 49)
paths = np.asarray(jax.vmap(lambda load: jx.exponential(bare, load / PERIODS))(loads))
np.testing.assert_allclose(paths[24], SLICE, rtol=1e-12)
np.testing.assert_allclose(paths.sum(1), SHARES, rtol=1e-12)


def costs(problem: jx.Liquidation) -> np.ndarray:
    return np.asarray(jax.vmap(lambda trades: jx.expected_cost(problem, trades))(paths))


variable = costs(bare)
components = {
    "transitory variable ℓ": variable,
    "transitory fixed ζ": costs(order(fixed=FIXED_TRANSITORY)) - variable,
    "permanent variable λ": costs(order(permanent=VARIABLE_PERMANENT)) - variable,
    "permanent fixed C": costs(order(permanent=FIXED_PERMANENT / SLICE)) - variable,
}
for name, exact in (
    ("transitory fixed ζ", FIXED_TRANSITORY * SHARES),
    ("permanent variable λ", VARIABLE_PERMANENT * SHARES**2 / 2),
    ("permanent fixed C", FIXED_PERMANENT * SHARES * PERIODS / 2),
):
    np.testing.assert_allclose(components[name], exact, rtol=1e-9)
    print(f"{name:22} {exact:8,.2f} for every path")
assert np.argmin(variable) == 24 and np.all(np.diff(variable[24:]) > 0) and np.all(np.diff(variable[:25]) < 0)
print(f"{'transitory variable ℓ':22} {variable[24]:8,.2f} for equal slices, up to {variable.max():,.2f}")
for problem in (bare, order(fixed=FIXED_TRANSITORY, permanent=VARIABLE_PERMANENT)):
    np.testing.assert_allclose(jx.solve(problem).trades, SLICE, rtol=1e-9)

# In Almgren and Chriss's discrete model a trade is made at the price before it, and permanent impact alone,
# ½λ(X² − Σn²), wants everything in one trade: a corner, and with the ℓ of the problem too small it is refused.
discrete = costs(order("almgren-chriss", permanent=VARIABLE_PERMANENT)) - costs(order("almgren-chriss"))
np.testing.assert_allclose(discrete, VARIABLE_PERMANENT / 2 * (SHARES**2 - np.sum(paths**2, 1)), rtol=1e-9)
assert np.argmax(discrete) == 24
for bad in ({"permanent": VARIABLE_PERMANENT, "variable": 1e-7}, {"variable": -0.19e-6}):
    try:
        order("almgren-chriss", **bad)
    except ValueError as error:
        print(f"refused: {error}"[:96] + "…")
    else:
        raise AssertionError("this problem has no optimum")

# What bends a path is risk aversion; how much depends on ℓ alone: γσ²/ℓ.
gammas = np.array([0.0, 1e-5, 1e-4, 1e-3])
risky = jx.efficient_frontier(order(fixed=FIXED_TRANSITORY, permanent=VARIABLE_PERMANENT), gammas).schedules
assert np.all(risky.status == jx.Status.OK)
convex = np.diff(risky.inventory, 2, axis=1)
assert np.all(convex[1:] > -1e-6) and np.all(np.diff(risky.inventory[:, PERIODS // 2]) < 0)
cheaper = jx.solve(order(variable=VARIABLE_TRANSITORY / 10, risk_aversion=1e-5))
np.testing.assert_allclose(cheaper.inventory, risky.inventory[2], atol=1e-6 * SHARES)

if len(sys.argv) > 1:
    names = ["γ = 0: equal slices", *(f"γ = {g:g}" for g in gammas[1:])]
    figures = {
        "thesis_components": presentation.curves(
            loads,
            components | {"λ, discrete": discrete},
            "At zero risk aversion only ℓ has an optimum, and it is equal slices",
            "front-loading κT (negative: back-loaded)",
            "expected cost (currency)",
        ),
        "thesis_trajectories": presentation.trajectories(
            GRID.times,
            dict(zip(names, np.asarray(risky.inventory) / 1e3, strict=True)),
            "What bends a schedule is risk aversion",
            "time (periods)",
            "inventory (thousand shares)",
        ),
    }
    for name, figure in figures.items():
        (Path(sys.argv[1]) / f"{name}.svg").write_bytes(presentation.to_svg(figure))
