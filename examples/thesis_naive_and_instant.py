"""The thesis's two simple strategies, equal slices and everything at once, with their costs put right.

In the case of Almgren and Chriss's paper: one million shares, five days, five steps. Equal slices cost
½γX² + εX + η̃X²/T = 662,500 with variance 1.083e12; everything at once costs εX + ηX²/τ = 2,562,500 without any.
Give a folder to save the pictures: python examples/thesis_naive_and_instant.py docs/assets
"""

import sys
from pathlib import Path

import jax
import numpy as np

import jaxexec as jx
from jaxexec import presentation

jax.config.update("jax_enable_x64", True)

SHARES, DAYS = 1e6, 5.0
SIGMA, ETA, GAMMA, SPREAD, WEIGHT = 0.95, 2.5e-6, 2.5e-7, 0.0625, 2e-6
VOLUME = 5e6


def order(steps: int) -> jx.Liquidation:
    market = jx.Market(jx.TimeGrid.uniform(DAYS, steps), SIGMA, VOLUME, permanent_impact=GAMMA)
    cost = jx.QuadraticCost(eta=ETA * VOLUME, psi=SPREAD)
    return jx.Liquidation(SHARES, market, cost, risk_aversion=2 * WEIGHT, convention="almgren-chriss")


def facts(problem: jx.Liquidation, trades: jax.Array) -> tuple[float, float]:
    """Expected cost and standard deviation, currency."""
    return float(jx.expected_cost(problem, trades)), float(jx.variance(problem, trades)) ** 0.5


paper = order(5)
slices, at_once = facts(paper, jx.twap(paper)), facts(paper, jx.immediate(paper))
np.testing.assert_allclose(slices, (662_500, 1.083e12**0.5), rtol=1e-12)
np.testing.assert_allclose(at_once, (2_562_500, 0), rtol=1e-12)

# The thesis has η̃X²/τ for equal slices. With τ = T/N that is the cost of selling at once, whatever N.
tau = DAYS / 5
fixed = GAMMA * SHARES**2 / 2 + SPREAD * SHARES
printed = fixed + (ETA - GAMMA * tau / 2) * SHARES**2 / tau
np.testing.assert_allclose(printed, at_once[0], rtol=1e-12)

# Both lie on the efficient frontier, at its two ends: no weight on risk, and nothing but weight on risk.
frontier = jx.efficient_frontier(paper, np.concatenate([[0.0], np.geomspace(1e-8, 1e-3, 60)]))
assert np.all(frontier.status == jx.Status.OK)
cost, risk = np.asarray(frontier.expected_cost), np.asarray(frontier.variance) ** 0.5
optimal = jx.solve(paper)
print(f"{'':24}{'expected cost':>15}{'deviation':>12}{'E + λ Var':>12}")
for name, (mean, deviation) in (
    ("equal slices", slices),
    ("everything at once", at_once),
    ("optimal at λ = 2e-6", (float(optimal.expected_cost), float(optimal.variance) ** 0.5)),
):
    objective = mean + WEIGHT * deviation**2
    print(f"{name:24}{mean:15,.0f}{deviation:12,.0f}{objective:12,.0f}")
    assert objective >= optimal.objective * (1 - 1e-12)
np.testing.assert_allclose((cost[0], risk[0]), slices, rtol=1e-9)
assert cost[-1] > 0.98 * at_once[0] and risk[-1] < 0.01 * risk[0]

# Ever more slices: the cost tends to ½γX² + εX + ηX²/T + λσ²TX²/3, as 1/N.
counts = np.array([5, 10, 20, 50, 100, 200, 500])
limit = fixed + ETA * SHARES**2 / DAYS + WEIGHT * SIGMA**2 * DAYS * SHARES**2 / 3
right = np.array([float(jx.objective(problem, jx.twap(problem))) for problem in map(order, counts.tolist())])
assert np.all(np.diff(np.abs(right / limit - 1)) < 0) and abs(right[-1] / limit - 1) < 0.003
steps = DAYS / counts
as_printed = fixed + (ETA - GAMMA * steps / 2) * SHARES**2 / steps
as_printed = as_printed + WEIGHT * SIGMA**2 * DAYS * SHARES**2 * (counts - 1) * (2 * counts - 1) / (6 * counts**2)
assert as_printed[-1] > 50 * limit

if len(sys.argv) > 1:
    million = 1e6
    figures = {
        "thesis_strategies": presentation.frontier(
            risk / million,
            cost / million,
            "The simple strategies are the two ends of the frontier",
            "standard deviation of the shortfall (million currency)",
            "expected shortfall (million currency)",
            points={
                "equal slices": (slices[1] / million, slices[0] / million),
                "everything at once": (at_once[1] / million, at_once[0] / million),
                "optimal at λ = 2e-6": (
                    float(optimal.variance) ** 0.5 / million,
                    float(optimal.expected_cost) / million,
                ),
            },
        ),
        "thesis_slices": presentation.curves(
            counts,
            {
                "limit of η̃X²/T": np.full(counts.size, limit / million),
                "with η̃X²/T": right / million,
                "as printed, η̃X²/τ": as_printed / million,
            },
            "What N equal slices cost, as it is and as printed",
            "slices N",
            "E + λ Var (million currency)",
            log_x=True,
            log_y=True,
        ),
    }
    for name, figure in figures.items():
        (Path(sys.argv[1]) / f"{name}.svg").write_bytes(presentation.to_svg(figure))
