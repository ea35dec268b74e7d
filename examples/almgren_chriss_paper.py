"""The example of Almgren and Chriss (2000): closed form, general solver, plain linear solve; three ways to one answer.

One million shares over five days in five steps; σ = 0.95, η = 2.5e-6, γ = 2.5e-7, ε = 0.0625 in the paper's units. The
paper weighs variance by λ, which is half of `risk_aversion`.
"""

import jax
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

SHARES, DAYS, STEPS = 1e6, 5.0, 5
SIGMA, ETA, GAMMA, SPREAD = 0.95, 2.5e-6, 2.5e-7, 0.0625
VOLUME = 5e6

# λ: E and Var by the paper's formulas, evaluated in 40-digit arithmetic.
EXACT = {
    2e-6: (1_140_715.1670497854, 201_931_287_150.52432),
    1e-6: (911_226.9863037935, 364_128_572_058.141),
    0.0: (662_500.0, 1_083_000_000_000.0),
}


def closed_form(variance_weight: float):
    return jx.almgren_chriss(
        SHARES,
        DAYS,
        STEPS,
        volatility=SIGMA,
        temporary_impact=ETA,
        permanent_impact=GAMMA,
        half_spread=SPREAD,
        variance_weight=variance_weight,
    )


def general_solver(variance_weight: float) -> jx.Schedule:
    """The same question asked of `solve`: η of a cost per share of market volume is the paper's times V."""
    market = jx.Market(jx.TimeGrid.uniform(DAYS, STEPS), SIGMA, VOLUME, permanent_impact=GAMMA)
    cost = jx.QuadraticCost(eta=ETA * VOLUME, psi=SPREAD)
    return jx.solve(jx.Liquidation(SHARES, market, cost, 2 * variance_weight, convention="almgren-chriss"))


def linear_solve(variance_weight: float) -> np.ndarray:
    """Inner inventories from the first-order conditions η̃(x_{k−1} − 2x_k + x_{k+1})/τ² = λσ² x_k."""
    tau = DAYS / STEPS
    curvature = (ETA - GAMMA * tau / 2) / tau**2
    neighbours = np.eye(STEPS - 1, k=1) + np.eye(STEPS - 1, k=-1)
    matrix = (2 * curvature + variance_weight * SIGMA**2) * np.eye(STEPS - 1) - curvature * neighbours
    right = np.zeros(STEPS - 1)
    right[0] = curvature * SHARES
    return np.linalg.solve(matrix, right)


for weight, (expected, variance) in EXACT.items():
    paper, solved = closed_form(weight), general_solver(weight)
    print(
        f"λ = {weight:g}: E = {paper.expected_cost:,.0f}, σ = {np.sqrt(paper.variance):,.0f}, κ = {paper.kappa:.4f}/day"
    )
    for answer in (paper, solved):
        np.testing.assert_allclose(answer.expected_cost, expected, rtol=1e-10)
        np.testing.assert_allclose(answer.variance, variance, rtol=1e-10)
        np.testing.assert_allclose(answer.inventory[1:-1], linear_solve(weight), rtol=1e-10)
    assert solved.status == jx.Status.OK

# What the paper calls the half-life is 1/κ, the time in which holdings fall by e on a long horizon.
urgent = closed_form(2e-6)
np.testing.assert_allclose(urgent.time_constant, 1.181618085696727, rtol=1e-12)
np.testing.assert_allclose(urgent.half_life, np.log(2) * urgent.time_constant, rtol=1e-12)
