"""Objectives of any schedule under both conventions, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

TRADES = np.array([3e4, 5e4, -1e4])
SHARES = 1e5
GRID = jx.TimeGrid([0.0, 0.25, 0.5, 1.0])
SIGMA, VOLUME, KAPPA, ALPHA, GAP = np.array([0.5, 0.6, 0.7]), np.array([4e6, 2e6, 3e6]), 1e-7, 0.2, 0.05


def problem(convention):
    market = jx.Market(GRID, SIGMA, VOLUME, permanent_impact=KAPPA, drift=ALPHA, gap_variance=GAP)
    return jx.Liquidation(SHARES, market, jx.QuadraticCost(0.1, 0.01), 2e-6, target=3e4, convention=convention)


@pytest.mark.parametrize("convention", ["continuous", "almgren-chriss"])
def test_objectives_by_hand(convention):
    tau = np.array([0.25, 0.25, 0.5])
    x = SHARES - np.r_[0, np.cumsum(TRADES)]
    execution = np.sum(0.1 * TRADES**2 / (tau * VOLUME) + 0.01 * np.abs(TRADES))
    step_variance = SIGMA**2 * tau + GAP
    if convention == "continuous":
        held, squared, within = (x[:-1] + x[1:]) / 2, (x[:-1] ** 2 + x[1:] ** 2) / 2, 0.0
    else:
        held, squared, within = x[1:], x[1:] ** 2, np.sum(TRADES**2)
    permanent = KAPPA / 2 * (x[0] ** 2 - x[-1] ** 2 - within)
    expected = execution + permanent - np.sum(ALPHA * tau * held)
    variance = np.sum(step_variance * squared)
    p = problem(convention)
    np.testing.assert_allclose(jx.expected_cost(p, TRADES), expected, rtol=1e-13)
    np.testing.assert_allclose(jx.variance(p, TRADES), variance, rtol=1e-13)
    np.testing.assert_allclose(jx.objective(p, TRADES), expected + 1e-6 * variance, rtol=1e-13)


def test_benchmark_schedules():
    p = problem("continuous")
    for schedule in (jx.twap(p), jx.vwap(p), jx.immediate(p)):
        np.testing.assert_allclose(jnp.sum(schedule), 7e4, rtol=1e-14)
    np.testing.assert_allclose(jx.twap(p), 7e4 * np.array([0.25, 0.25, 0.5]))
    np.testing.assert_allclose(jx.vwap(p) / p.market.step_volume, 7e4 / jnp.sum(p.market.step_volume))
    assert jx.immediate(p)[0] == 7e4
    participation = jx.vwap(p) / p.market.step_volume
    np.testing.assert_allclose(participation, participation[0])


def test_trading_without_volume_costs_infinitely_much():
    market = jx.Market(GRID, 0.6, np.array([4e6, 0.0, 3e6]))
    p = jx.Liquidation(SHARES, market, jx.QuadraticCost(0.1), 1e-6)
    assert jx.expected_cost(p, TRADES) == np.inf
    assert np.isfinite(float(jx.expected_cost(p, np.array([3e4, 0.0, 7e4]))))


def test_trades_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"trades must have shape \(3,\)"):
        jx.objective(problem("continuous"), np.zeros(4))


GOOD = jx.Market(GRID, 0.6, 4e6)
COST = jx.QuadraticCost(0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jx.Liquidation(np.nan, GOOD, COST, 1e-6), "shares must be finite"),
        (lambda: jx.Liquidation([1e5], GOOD, COST, 1e-6), "shares must be a scalar.*vmap"),
        (lambda: jx.Liquidation(1e5, GOOD, COST, -1e-6), "risk_aversion must be at least 0"),
        (lambda: jx.Liquidation(1e5, GOOD, COST, np.inf), "risk_aversion must be finite"),
        (lambda: jx.Liquidation(1e5, GOOD, COST, 1e-6, target=np.inf), "target must be finite"),
        (lambda: jx.Liquidation(1e5, GRID, COST, 1e-6), "market must be a jaxexec.Market"),
        (lambda: jx.Liquidation(1e5, GOOD, 0.1, 1e-6), "cost must be a jaxexec.ExecutionCost"),
        (lambda: jx.Liquidation(1e5, GOOD, COST, 1e-6, convention="guéant"), "convention must be one of"),
        (lambda: jx.Liquidation(1e5, GOOD, jx.QuadraticCost([0.1, 0.2]), 1e-6), r"cost.eta must be a scalar or"),
        (
            lambda: jx.Liquidation(
                1e5, jx.Market(GRID, 0.6, 4e6, permanent_impact=1e-6), COST, 1e-6, convention="almgren-chriss"
            ),
            "permanent_impact is too large",
        ),
        (
            lambda: jx.Liquidation(
                1e5,
                jx.Market(GRID, 0.6, 4e6, permanent_impact=1e-9),
                jx.PowerLawCost(0.1, 0.6),
                1e-6,
                convention="almgren-chriss",
            ),
            "QuadraticCost",
        ),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
