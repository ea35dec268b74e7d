"""The concept note's cost curve, as it should be: cost against the time an order takes, and against its slices.

The note's code has no minimum (its cost falls in the number of slices, for ever). What has one is the cost of an even
pace against its horizon, J(T) = ½γX² + εX + ηX²/T + λσ²X²T/3, least at T* = √(3η/λσ²). Of the optimal schedule it has
none: more time is never worse.
Give a folder to save the pictures: python examples/cost_curve.py docs/assets
"""

import sys
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import jaxexec as jx
from jaxexec import presentation
from jaxexec.pricing import slices_curve, twap_horizons

jax.config.update("jax_enable_x64", True)

SHARES, SIGMA, ETA, WEIGHT, SPREAD, GAMMA = 1e5, 1.0, 2.5e-6, 1e-6, 0.005, 2.5e-7
VOLUME = 4e6
SLICE = 1 / 26  # days: a quarter of an hour
FACTS = {
    "temporary_impact": ETA,
    "variance_weight": WEIGHT,
    "half_spread": SPREAD,
    "permanent_impact": GAMMA,
}

# The best horizon of an even pace, and that it is the best: no slope there.
horizons = np.geomspace(0.3, 30, 61)
even = twap_horizons(SHARES, horizons, volatility=SIGMA, **FACTS)
best, least = float(even.best_horizon), float(even.best_objective)
print(f"an even pace is cheapest over T* = {best:.6f} days, J* = {least:,.6f}")
np.testing.assert_allclose((best, least), (2.738612787526, 20007.4185835), rtol=1e-10)
np.testing.assert_allclose(best, np.sqrt(3 * ETA / (WEIGHT * SIGMA**2)), rtol=1e-12)
slope = jax.grad(lambda t: twap_horizons(SHARES, t[None], volatility=SIGMA, **FACTS).objective[0])
assert abs(slope(even.best_horizon)) < 1e-9 * least
shorter = jax.grad(lambda s: twap_horizons(SHARES, horizons, volatility=s, **FACTS).best_horizon)(SIGMA)
np.testing.assert_allclose(shorter, -best / SIGMA, rtol=1e-12)  # one per cent more volatility, one per cent less time


@jax.jit
@jax.vmap
def optimal(horizon: jax.Array) -> jax.Array:
    """E + λ Var of the optimal schedule."""
    return jx.gueant_quadratic(
        SHARES,
        horizon[None],
        horizon=horizon,
        volatility=SIGMA,
        volume=VOLUME,
        eta=ETA * VOLUME,
        psi=SPREAD,
        permanent_impact=GAMMA,
        risk_aversion=2 * WEIGHT,
    ).objective


# The optimal schedule has no best horizon: its cost falls to the price of a block without a deadline.
total, at_its_best = np.asarray(even.objective), np.asarray(optimal(horizons))
assert 0 < np.argmin(total) < horizons.size - 1
assert np.all(np.diff(at_its_best) <= 0) and np.all(at_its_best < total)
endless = GAMMA * SHARES**2 / 2 + SPREAD * SHARES + SHARES**2 * np.sqrt(ETA * WEIGHT) * SIGMA
np.testing.assert_allclose(at_its_best[-1], endless, rtol=1e-9)

# Slices of a quarter of an hour each: more of them is more time, and the U-shape is back, least at 71.
counts = np.arange(1.0, 201.0)
discrete_model = "almgren-chriss"
timed = slices_curve(SHARES, counts, spacing=SLICE, volatility=SIGMA, convention=discrete_model, **FACTS)
print(f"{timed.best:.0f} slices of a quarter of an hour; the rule says {timed.optimum:.2f}")
assert timed.best == 71 and np.argmin(timed.objective) == 70 and abs(timed.optimum - 71.14) < 0.005
cost = jx.QuadraticCost(ETA * VOLUME, SPREAD)
market = jx.Market(jx.TimeGrid.uniform(71 * SLICE, 71), SIGMA, VOLUME, permanent_impact=GAMMA)
order = jx.Liquidation(SHARES, market, cost, 2 * WEIGHT, convention=discrete_model)
np.testing.assert_allclose(jx.objective(order, jx.twap(order)), timed.objective[70], rtol=1e-12)

# At a fixed horizon more slices have no best number: the cost goes one way, to the same limit under either
# convention. A fee for each slice gives them one.
FEE = 10.0


def over_best(fee: float = 0.0, convention: Literal["continuous", "almgren-chriss"] = "continuous"):
    return slices_curve(SHARES, counts, horizon=best, volatility=SIGMA, fee=fee, convention=convention, **FACTS)


discrete, continuous = over_best(convention=discrete_model).objective, over_best().objective
assert np.all(np.diff(discrete) > 0) and np.all(np.diff(continuous) < 0)
np.testing.assert_allclose((discrete[-1], continuous[-1]), least, rtol=5e-3)
with_fee = over_best(FEE)
print(f"with a fee of {FEE:g} a slice, {with_fee.best:.0f} of them over T*")
assert with_fee.best == counts[np.argmin(with_fee.objective)]

if len(sys.argv) > 1:
    thousand = 1e3
    lines = {
        "15 minutes a slice": timed.objective,
        "over T*, discrete": discrete,
        "over T*, continuous": continuous,
        f"over T*, {FEE:g} a slice": with_fee.objective,
    }
    figures = {
        "cost_curve": presentation.curves(
            horizons,
            {
                "even pace, E + λ Var": total / thousand,
                "its expected cost E": np.asarray(even.expected_cost) / thousand,
                "its risk λ Var": WEIGHT * np.asarray(even.variance) / thousand,
                "optimal schedule, E + λ Var": at_its_best / thousand,
            },
            "An even pace has a best horizon, the optimal schedule needs none",
            "horizon T (trading days)",
            "cost (thousand currency)",
            log_x=True,
        ),
        "cost_curve_slices": presentation.curves(
            counts,
            {name: np.where(y < 23 * thousand, y, np.nan) / thousand for name, y in lines.items()},
            "Slices have a best number where they take time, or cost a fee",
            "slices N",
            "E + λ Var (thousand currency)",
        ),
    }
    for name, figure in figures.items():
        (Path(sys.argv[1]) / f"{name}.svg").write_bytes(presentation.to_svg(figure))
