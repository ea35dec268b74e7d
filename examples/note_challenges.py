"""The concept note's five challenges, each answered and checked: the straight line, volatility, the night, the book, λ.

Give a folder to save the pictures: python examples/note_challenges.py docs/assets
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from jaxexec import presentation

jax.config.update("jax_enable_x64", True)

SHARES, DAYS, STEPS = 1e6, 5.0, 5
SIGMA, ETA, GAMMA, SPREAD, WEIGHT = 0.95, 2.5e-6, 2.5e-7, 0.0625, 1e-6
VOLUME = 4e6


@jax.jit
@jax.vmap
def discrete(weight: jax.Array, sigma: jax.Array):
    """Almgren and Chriss's five days."""
    return jx.almgren_chriss(
        SHARES,
        DAYS,
        STEPS,
        volatility=sigma,
        temporary_impact=ETA,
        permanent_impact=GAMMA,
        half_spread=SPREAD,
        variance_weight=weight,
    )


# ---- 1: the linear schedule is the optimum as λ → 0 -----------------------------------------------------------------

weights = np.array([0.0, 1e-9, 1e-8, 1e-7, 3e-7, 1e-6])
by_weight = discrete(weights, np.full(6, SIGMA))
line = SHARES * (1 - np.arange(STEPS + 1) / STEPS)
np.testing.assert_allclose(by_weight.inventory[0], line, rtol=1e-12, atol=1e-9)
bent = np.max(np.abs(by_weight.inventory - line), axis=1)
np.testing.assert_allclose(bent[2] / bent[1], 10, rtol=0.02)  # the bend grows in proportion to λ
# The straight line costs E + λ Var with E and Var fixed; what it leaves on the table grows only with λ².
straight = by_weight.expected_cost[0] + weights * by_weight.variance[0]
np.testing.assert_allclose(by_weight.expected_cost[0], 662_500, rtol=1e-12)
np.testing.assert_allclose(by_weight.variance[0], 1.083e12, rtol=1e-12)
left = straight - np.asarray(by_weight.objective)
np.testing.assert_allclose(left[2] / left[1], 100, rtol=0.02)
print(f"1. λ = 0 is a straight line; λ = 1e-9 bends it by {bent[1]:,.0f} of {SHARES:,.0f} shares")

# ---- 2: twice the volatility, half the time -------------------------------------------------------------------------


def half_time(kappa: jax.Array) -> jax.Array:
    """When half is sold: sinh κ(T − t) = ½ sinh κT."""
    return DAYS - jnp.arcsinh(jnp.sinh(kappa * DAYS) / 2) / kappa


sigmas = SIGMA * np.array([1.0, 2.0])
in_steps = discrete(np.full(2, WEIGHT), sigmas)
smooth = [
    jx.gueant_quadratic(
        SHARES,
        jnp.zeros(1),
        horizon=DAYS,
        volatility=sigma,
        volume=VOLUME,
        eta=ETA * VOLUME,
        risk_aversion=2 * WEIGHT,
    )
    for sigma in sigmas
]
kappas = np.array([float(s.kappa) for s in smooth])
np.testing.assert_allclose(kappas[1], 2 * kappas[0], rtol=1e-12)
continuous_half, discrete_half = np.asarray(half_time(jnp.asarray(kappas))), np.asarray(half_time(in_steps.kappa))
np.testing.assert_allclose(continuous_half, (1.1415, 0.5768), atol=6e-5)
np.testing.assert_allclose(discrete_half, (1.1305, 0.5946), atol=6e-5)
# In steps of a day κ does not quite double, and at λ = 1e-6 it is the horizon that makes ln 2/κ too long.
assert 1.9 < in_steps.kappa[1] / in_steps.kappa[0] < 2 and np.all(continuous_half < np.log(2) / kappas)
print(f"2. half is sold after {continuous_half[0]:.4f} days, at 2σ after {continuous_half[1]:.4f}")
print(f"   in steps of a day, between the steps: {discrete_half[0]:.4f} and {discrete_half[1]:.4f}")

# ---- 3: the night ---------------------------------------------------------------------------------------------------

SESSION, NIGHT = 32, 0.5  # steps a session; variance of the price over night, currency² per share²
shut = np.arange(2 * SESSION + 1) == SESSION
day = np.arange(SESSION + 1) / SESSION
nodes = np.r_[day, 1 + 2.0**-20 + day]  # the closed step takes next to no time on the clock


@jax.jit
@jax.vmap
def two_sessions(night: jax.Array) -> jx.Schedule:
    market = jx.Market(
        jx.TimeGrid(nodes),
        volatility=np.where(shut, 0.0, SIGMA),
        volume=np.where(shut, 0.0, VOLUME),
        gap_variance=night * shut,
    )
    return jx.solve(jx.Liquidation(SHARES, market, jx.QuadraticCost(ETA * VOLUME), risk_aversion=2 * WEIGHT))


nights = np.array([0.0, NIGHT, 4 * NIGHT])
over_night = two_sessions(nights)
assert np.all(over_night.status == jx.Status.OK) and np.all(over_night.trades[:, SESSION] == 0)
carried = np.asarray(over_night.inventory)[:, SESSION]
# In continuous time: 2κ coth κ + λσ_on²/η takes the place of 2κ coth κ.
kappa = float(np.sqrt(WEIGHT / ETA)) * SIGMA
exact = SHARES * kappa / np.sinh(kappa) / (2 * kappa / np.tanh(kappa) + WEIGHT * nights / ETA)
np.testing.assert_allclose(exact[:2], (421_586.6510, 386_960.3609), rtol=1e-9)
np.testing.assert_allclose(carried, exact, rtol=2e-5)
print(f"3. carried over night: {carried[0]:,.0f} shares if it is calm, {carried[1]:,.0f} with a variance of {NIGHT:g}")

# ---- 4: impact from trades, and from the book -----------------------------------------------------------------------

made = jx.tape.synthetic.generate(stocks=1, trades=4000, seed=0)
tape = jx.tape.sign(made.trades, made.quotes, rule="lee-ready", midpoint="keep")
estimates = jx.impact.glosten_harris(tape).estimates
truth = made.truth.select(jx.impact.COEFFICIENTS).to_numpy()
assert np.all(np.abs(estimates.coefficients - truth) < 4 * estimates.std_errors)
print("4. Glosten and Harris: " + ", ".join(f"{x:.3g}" for x in np.ravel(estimates.coefficients)))

# A book whose depth grows with the distance from the midpoint, δ ∝ Q^½: walk it, and read k and its coefficient off.
rng = np.random.default_rng(0)
TICK, HALF_SPREAD, EXPONENT, SCALE = 0.01, 0.005, 0.5, 1e-3
levels = HALF_SPREAD + TICK * np.arange(400)
whole = ((levels - HALF_SPREAD + TICK / 2) / SCALE) ** (1 / EXPONENT)  # shares offered up to each level
depth = np.diff(whole, prepend=0.0) * rng.lognormal(0.0, 0.2, levels.size)


def walk(shares: float) -> float:
    """Mean distance from the midpoint at which a market order is filled, currency per share."""
    taken = np.diff(np.minimum(np.cumsum(depth), shares), prepend=0.0)
    return float(taken @ levels / shares)


sizes = np.geomspace(5e3, 5e5, 30)
assert sizes[-1] < depth.sum()
paid = np.array([walk(size) for size in sizes]) - HALF_SPREAD
k, log_c = np.polyfit(np.log(sizes), np.log(paid), 1)
c = float(np.exp(log_c))
# Filled along δ = SCALE Q^k the mean is SCALE Q^k/(1 + k).
fitted = c * sizes**k
np.testing.assert_allclose(k, EXPONENT, rtol=0.05)
np.testing.assert_allclose(fitted, SCALE / (1 + EXPONENT) * sizes**EXPONENT, rtol=0.1)
# One child a step: c n^k a share is L(ρ) = η ρ^{1+k} with η = c (τV)^k.
steps = 26
book_cost = jx.PowerLawCost(eta=c * (VOLUME / steps) ** k, phi=float(k), psi=HALF_SPREAD)
market = jx.Market(jx.TimeGrid.uniform(1.0, steps), SIGMA, VOLUME)
child = jx.solve(jx.Liquidation(2e5, market, book_cost, risk_aversion=1e-6))
each = c * np.asarray(child.trades) ** k + HALF_SPREAD
np.testing.assert_allclose(child.expected_cost, each @ child.trades, rtol=1e-9)
print(f"   the book: {c:.2e} · size^{k:.2f}; 200,000 shares in {steps} children cost {child.expected_cost:,.0f}")

# ---- 5: the frontier ------------------------------------------------------------------------------------------------

market = jx.Market(jx.TimeGrid.uniform(DAYS, STEPS), SIGMA, VOLUME, permanent_impact=GAMMA)
cost = jx.QuadraticCost(ETA * VOLUME, SPREAD)
order = jx.Liquidation(SHARES, market, cost, 0.0, convention="almgren-chriss")
gammas = np.concatenate([[0.0], np.geomspace(2e-8, 2e-4, 25)])
frontier = jx.efficient_frontier(order, gammas)
formula = discrete(gammas / 2, np.full(gammas.size, SIGMA))
np.testing.assert_allclose(frontier.expected_cost, formula.expected_cost, rtol=1e-10)
np.testing.assert_allclose(frontier.variance, formula.variance, rtol=1e-9)
assert np.all(np.diff(frontier.expected_cost) > 0) and np.all(np.diff(frontier.variance) < 0)
chord = np.diff(frontier.expected_cost) / np.diff(frontier.variance)
assert np.all((-gammas[1:] / 2 <= chord) & (chord <= -gammas[:-1] / 2))  # dE/dVar = −λ
print(f"5. from {frontier.expected_cost[0]:,.0f} at λ = 0 to {frontier.expected_cost[-1]:,.0f} at λ = 1e-4")

if len(sys.argv) > 1:
    thousand, million = 1e3, 1e6
    t = np.linspace(0, DAYS, 101)
    over_time = {
        name: SHARES * np.sinh(rate * (DAYS - t)) / np.sinh(rate * DAYS) / thousand
        for name, rate in zip(("σ = 0.95", "σ = 1.90"), kappas, strict=True)
    }
    bends = {"λ = 0": 0, "λ = 1e-7": 3, "λ = 3e-7": 4, "λ = 1e-6": 5}
    points = {
        name: (float(frontier.variance[i]) ** 0.5 / million, float(frontier.expected_cost[i]) / million)
        for name, i in (("λ = 0", 0), ("λ = 1e-7", 7), ("λ = 1e-6", 13), ("λ = 1e-5", 19))
    }
    figures = {
        "note_linear": presentation.trajectories(
            by_weight.times[0],
            {name: np.asarray(by_weight.inventory)[i] / thousand for name, i in bends.items()},
            "As the weight on risk vanishes the optimum becomes a straight line",
            ylabel="inventory (thousand shares)",
        ),
        "note_volatility": presentation.trajectories(
            t, over_time, "Twice the volatility, half the time", ylabel="inventory (thousand shares)"
        ),
        "note_night": presentation.trajectories(
            nodes,
            {
                f"night's variance {n:g}": x / thousand
                for n, x in zip(nights, np.asarray(over_night.inventory), strict=True)
            },
            "The riskier the night, the less is carried over it",
            "time (trading days)",
            "inventory (thousand shares)",
        ),
        "note_book": presentation.curves(
            sizes,
            {"walked": paid, "fitted power of the size": fitted},
            "What a market order pays beyond the half-spread, from the book",
            "size (shares)",
            "currency per share",
        ),
        "note_frontier": presentation.frontier(
            np.asarray(frontier.variance) ** 0.5 / million,
            np.asarray(frontier.expected_cost) / million,
            "The frontier across λ, one million shares in five days",
            "standard deviation of the shortfall (million currency)",
            "expected shortfall (million currency)",
            points=points,
        ),
    }
    for name, figure in figures.items():
        (Path(sys.argv[1]) / f"{name}.svg").write_bytes(presentation.to_svg(figure))
