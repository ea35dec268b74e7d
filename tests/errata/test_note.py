"""Errata of the concept note: what is printed fails, what is right holds. `docs/errata.md` explains them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import jaxexec as jx
from tests.errata.paper import DAYS, ETA, KAPPA, PSI, SHARES, SIGMA, STEPS, VOLUME, order

SLICES = 20


def unit_order(convention="almgren-chriss"):
    """One share over one day of unit volatility in twenty slices."""
    market = jx.Market(jx.TimeGrid.uniform(1.0, SLICES), volatility=1.0, volume=1.0)
    return jx.Liquidation(1.0, market, jx.QuadraticCost(1.0), risk_aversion=1.0, convention=convention)


@jax.jit
@jax.vmap
def by_weight(weight):
    """Almgren and Chriss's optimum for λ."""
    return jx.almgren_chriss(
        SHARES,
        DAYS,
        STEPS,
        volatility=SIGMA,
        temporary_impact=ETA,
        permanent_impact=KAPPA,
        half_spread=PSI,
        variance_weight=weight,
    )


# ---- 5: the mini-project --------------------------------------------------------------------------------------------

NOTE = {"X": 100_000, "sigma": 0.02, "temporary": 1e-4, "permanent": 5e-5, "risk": 1000}


def printed_cost(slices):
    """The note's total cost of N slices, in its own terms: permanent, temporary, risk."""
    permanent = NOTE["permanent"] * NOTE["X"] / 2
    temporary = NOTE["temporary"] * (NOTE["X"] / slices) * slices
    return permanent, temporary, NOTE["risk"] * 0.5 * NOTE["sigma"] ** 2 / slices


@jax.jit
@jax.vmap
def equal_slices(horizon):
    """Expected cost and variance of selling at an even pace, in continuous time, at the paper's impact."""
    return jx.gueant_quadratic(
        1e5,
        jnp.zeros(1),
        horizon=horizon,
        volatility=1.0,
        volume=VOLUME,
        eta=ETA * VOLUME,
        psi=0.005,
        permanent_impact=KAPPA,
    )


def test_E25_the_total_cost_of_the_code_has_no_minimum():
    """Printed: a U-shape, an optimal N inside. Right: it falls in N to the end of the range; time makes a U."""
    parts = np.array([printed_cost(n) for n in range(1, 1001)])
    total = parts.sum(1)
    assert np.all(np.diff(total) < 0) and np.argmin(total) == total.size - 1
    np.testing.assert_allclose(parts[:, 1], parts[0, 1], rtol=1e-12)  # impact that knows no number of slices
    # The package's permanent cost is ½κX², X times what the code has.
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 1.0, VOLUME, permanent_impact=NOTE["permanent"])
    free = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 1.0, VOLUME)
    with_it, without = (jx.Liquidation(NOTE["X"], m, jx.QuadraticCost(0.1), 0.0) for m in (market, free))
    permanent = jx.expected_cost(with_it, jx.twap(with_it)) - jx.expected_cost(without, jx.twap(without))
    np.testing.assert_allclose(permanent, NOTE["X"] * parts[0, 0], rtol=1e-9)
    # Of equal slices it is the horizon that has a best value, inside of any range around it.
    horizons = np.geomspace(0.3, 30, 41)
    costs = equal_slices(horizons)
    cost = costs.expected_cost + 1e-6 * costs.variance
    assert 0 < np.argmin(cost) < horizons.size - 1 and np.sum(np.diff(np.sign(np.diff(cost))) != 0) == 1


def test_E25_seconds_of_a_slice():
    """Printed: 252 · 6.5/N 'seconds'. Right: a trading day of 6.5 hours has 23,400 of them."""
    grid = jx.TimeGrid.uniform(1.0, 1000)
    np.testing.assert_allclose(grid.durations[0] * 6.5 * 3600, 23.4, rtol=1e-9)
    np.testing.assert_allclose(252 * 6.5 / 1000, 1.638, rtol=1e-12)
    assert grid.durations[0] * 6.5 * 3600 > 14 * 252 * 6.5 / 1000


# ---- 4: the breakdown -----------------------------------------------------------------------------------------------


def test_E26_more_weight_on_risk_is_faster():
    """Printed: λ → 0 fast, λ → ∞ slow; fast has high variance and low impact. Right: all of it the other way."""
    s = by_weight(np.array([1e-9, 1e-8, 1e-7, 1e-6, 1e-5]))
    first = np.asarray(s.trades)[:, 0]
    assert np.all(np.diff(first) > 0) and np.all(np.diff(s.variance) < 0) and np.all(np.diff(s.expected_cost) > 0)
    np.testing.assert_allclose(first[0], SHARES / STEPS, rtol=3e-3)
    slow, fast = (jx.solve(order(weight=weight), throw=True) for weight in (1e-9, 1e-5))
    assert fast.variance < slow.variance and fast.expected_cost > slow.expected_cost


def test_E27_variance_of_equal_slices():
    """Printed: ½σ²Σ(N − i)Δt², days² and no shares. Right: σ²X²ΔtΣ((N − i)/N)²."""
    problem, i = unit_order(), np.arange(1, SLICES + 1)
    variance = jx.variance(problem, jx.twap(problem))
    np.testing.assert_allclose(variance, np.sum(((SLICES - i) / SLICES) ** 2) / SLICES, rtol=1e-12)
    np.testing.assert_allclose(variance, 0.30875, rtol=1e-12)
    printed = 0.5 * np.sum((SLICES - i) / SLICES**2)
    np.testing.assert_allclose(printed, 0.2375, rtol=1e-12)
    assert abs(printed / variance - 1) > 0.2
    # Twice the shares have four times the variance: the printed one cannot.
    twice = jx.Liquidation(2.0, problem.market, problem.cost, 1.0, convention="almgren-chriss")
    np.testing.assert_allclose(jx.variance(twice, jx.twap(twice)), 4 * variance, rtol=1e-12)


def test_E28_linear_weights():
    """Printed: i/(N(N + 1)/2) as front-loaded. Right: 2(N + 1 − i)/(N(N + 1)); the printed ones rise."""
    problem, i = unit_order(), np.arange(1, SLICES + 1)
    printed, right = 2 * i / (SLICES * (SLICES + 1)), np.asarray(jx.front_loaded(problem))
    np.testing.assert_allclose(right, printed[::-1], rtol=1e-12)
    assert np.all(np.diff(printed) > 0) and printed[: SLICES // 2].sum() < 0.27 < 0.73 < right[: SLICES // 2].sum()
    assert jx.variance(problem, printed) > 2.5 * jx.variance(problem, right)


def test_E29_exponential_schedule():
    """Printed: (1 − e^{−κi})/(1 − e^{−κN}) as the trade of slice i. Right: it is what has been sold by then."""
    problem, i, kappa = unit_order(), np.arange(1, SLICES + 1), 0.3
    printed = (1 - np.exp(-kappa * i)) / (1 - np.exp(-kappa * SLICES))
    right = np.asarray(jx.exponential(problem, kappa * SLICES))  # per day, a slice being 1/20
    np.testing.assert_allclose(np.cumsum(right), printed, rtol=1e-12)
    np.testing.assert_allclose(right.sum(), 1, rtol=1e-12)
    assert printed.sum() > 10


def test_E30_size_of_a_price_move():
    """Printed: E|dP| ≈ σ√(T/N). Right: √(2/π) of that."""
    mean, _ = quad(lambda z: 2 * z * norm.pdf(z), 0, np.inf)
    np.testing.assert_allclose(mean, np.sqrt(2 / np.pi), rtol=1e-9)
    assert 1 / mean > 1.25


def test_E30_noise_is_not_scaled_twice():
    """Printed: dP = σ dW √dt, whose variance vanishes as slices get finer. Right: dP = σ dW, that of the horizon."""
    problem = unit_order()
    for parts in (1, 4):
        fine = problem.refine(parts)
        held = np.zeros(fine.grid.steps)
        held[-1] = 1.0  # everything at the end
        step = 1 / fine.grid.steps
        np.testing.assert_allclose(jx.variance(fine, held), 1 - step, rtol=1e-12)
        printed = np.sum(np.full(fine.grid.steps, step) * step)
        np.testing.assert_allclose(printed, step, rtol=1e-12)


def test_E30_nothing_is_lost_by_waiting():
    """Printed: E[loss] ≈ ½σ²T, quadratic in time. Right: 0 without drift; variance e^{σ²T} − 1, at first linear."""
    sigma = 0.2
    for horizon in (0.5, 1.0):

        def moment(power, horizon=horizon):
            def at(z):
                price = np.exp(sigma * np.sqrt(horizon) * z - sigma**2 * horizon / 2)
                return (1 - price) ** power * norm.pdf(z)

            return quad(at, -12, 12, epsabs=1e-13)[0]

        assert abs(moment(1)) < 1e-12 < 1e-3 < sigma**2 * horizon / 2
        np.testing.assert_allclose(moment(2), np.expm1(sigma**2 * horizon), rtol=1e-9)
    # Arithmetic prices have exactly linear variance; to hold on costs nothing on average.
    held = jnp.zeros(SLICES).at[-1].set(1.0)
    costs = []
    for horizon in (1.0, 2.0):
        market = jx.Market(jx.TimeGrid.uniform(horizon, SLICES), volatility=sigma, volume=1.0)
        problem = jx.Liquidation(1.0, market, jx.QuadraticCost(0.1), 1.0, convention="almgren-chriss")
        costs.append((jx.expected_cost(problem, held), jx.variance(problem, held)))
    np.testing.assert_allclose(costs[1][1], 2 * costs[0][1], rtol=1e-12)
    np.testing.assert_allclose(costs[1][0], costs[0][0] / 2, rtol=1e-12)  # impact alone, in steps twice as long


def test_E30_arithmetic_prices_are_not_geometric():
    """Printed: dP = μ dt + σ dW beside the solution of dP = μP dt + σP dW. The first falls below 0, the other not."""
    start, sigma, horizon = 1.0, 0.6, 1.0
    shock = np.linspace(-8, 8, 1001) * np.sqrt(horizon)
    arithmetic = start + sigma * shock
    geometric = start * np.exp(sigma * shock - sigma**2 * horizon / 2)
    assert np.all(geometric > 0)
    np.testing.assert_allclose(norm.cdf(-start / sigma), norm.cdf(np.max(shock[arithmetic < 0])), atol=3e-3)
    assert norm.cdf(-start / sigma) > 0.04


@pytest.mark.parametrize("method", ["solver", "closed form"])
def test_E31_the_spread_moves_no_trade(method):
    """Printed: a wider spread, a slower execution. Right: ε adds ε|X| to every sale; it is η that slows."""

    def best(psi, eta=ETA):
        if method == "solver":
            problem = order(psi=psi)
            return jx.solve(
                jx.Liquidation(
                    SHARES,
                    problem.market,
                    jx.QuadraticCost(eta * VOLUME, psi),
                    problem.risk_aversion,
                    convention="almgren-chriss",
                ),
                throw=True,
            )
        return jx.almgren_chriss(
            SHARES,
            DAYS,
            STEPS,
            volatility=SIGMA,
            temporary_impact=eta,
            permanent_impact=KAPPA,
            half_spread=psi,
            variance_weight=2e-6,
        )

    narrow, wide, dear = best(0.0), best(1.0), best(0.0, 2 * ETA)
    np.testing.assert_allclose(wide.trades, narrow.trades, rtol=1e-9)
    np.testing.assert_allclose(wide.expected_cost - narrow.expected_cost, SHARES, rtol=1e-9)
    assert dear.trades[0] < 0.9 * narrow.trades[0]
