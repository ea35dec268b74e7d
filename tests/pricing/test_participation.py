"""The best constant participation: references, the best of all rates, limits of time, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxexec as jx

MARKET = {"volatility": 0.6, "volume": 4e6, "risk_aversion": 1e-6}
COST = jx.PowerLawCost(0.1, 0.6, 0.004)


def test_references(references):
    names = [name for name in references if name.startswith("gueant_pov")]
    assert names
    for name in names:
        wanted, p = references[name], references[name]["params"]
        market = {"volatility": p["sigma"], "volume": p["V"], "risk_aversion": p["gamma"]}
        best = jx.best_participation(p["q0"], jx.PowerLawCost(p["eta"], p["phi"]), **market)
        np.testing.assert_allclose(best.rate, wanted["rho_star"], rtol=1e-13)
        np.testing.assert_allclose(best.horizon, wanted["T_star"], rtol=1e-13)
        np.testing.assert_allclose(best.objective, wanted["J"], rtol=1e-13)


@pytest.mark.parametrize("rent", [0.0, 3e4])
def test_best_of_all_constant_rates(rent):
    best = jx.best_participation(2e5, COST, cost_per_day=rent, **MARKET)

    def objective(rate):
        horizon = 2e5 / (rate * 4e6)
        return 0.1 * rate**0.6 * 2e5 + 800 + 1e-6 / 2 * 0.36 * 2e5**2 * horizon / 3 + rent * horizon

    np.testing.assert_allclose(objective(float(best.rate)), best.objective, rtol=1e-13)
    found = scipy.optimize.minimize_scalar(lambda x: objective(np.exp(x)), (-6, 3), options={"xtol": 1e-12})
    np.testing.assert_allclose(best.rate, np.exp(found.x), rtol=1e-6)
    assert best.objective <= found.fun * (1 + 1e-14)
    assert best.objective > jx.block_price(2e5, COST, **MARKET).premium


def test_a_deadline():
    """Of any length it is the horizon of equal trades; too short a one is met."""
    free = jx.best_participation(2e5, COST, **MARKET)
    late = jx.best_participation(2e5, COST, longest=2 * free.horizon, **MARKET)
    early = jx.best_participation(2e5, COST, longest=free.horizon / 2, **MARKET)
    np.testing.assert_allclose(late.rate, free.rate, rtol=1e-15)
    np.testing.assert_allclose([early.horizon, early.rate], [free.horizon / 2, 2 * free.rate], rtol=1e-14)
    assert early.objective > free.objective
    impact = {"temporary_impact": 0.1 / 4e6**0.6, "exponent": 0.6, "half_spread": 0.004}
    same = jx.twap_horizons(2e5, [1.0], volatility=0.6, variance_weight=0.5e-6, **impact)
    np.testing.assert_allclose([same.best_horizon, same.best_objective], [free.horizon, free.objective], rtol=1e-13)


def test_derivatives():
    def of(q, eta, phi, sigma, volume, gamma, rent):
        cost = jx.PowerLawCost(eta, phi, 0.004)
        best = jx.best_participation(
            q, cost, volatility=sigma, volume=volume, risk_aversion=gamma, cost_per_day=rent, longest=10.0
        )
        return jnp.log(jnp.stack([best.rate, best.objective]))

    point = (2e5, 0.1, 0.6, 0.6, 4e6, 1e-6, 100.0)
    every = tuple(range(7))
    slopes, forward = jax.jit(jax.jacrev(of, every))(*point), jax.jit(jax.jacfwd(of, every))(*point)
    for i, x in enumerate(point):
        up, down = (tuple(v * (1 + s * 1e-5 * (j == i)) for j, v in enumerate(point)) for s in (1, -1))
        np.testing.assert_allclose(slopes[i] * x, (of(*up) - of(*down)) / 2e-5, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(slopes[i], forward[i], rtol=1e-12, atol=1e-15)


def test_refuses():
    with pytest.raises(ValueError, match="PowerLawCost"):
        jx.best_participation(1.0, jx.QuadraticCost(0.1), **MARKET)  # pyright: ignore
    with pytest.raises(ValueError, match=r"risk_aversion \+ cost_per_day"):
        jx.best_participation(1.0, COST, volatility=1.0, volume=1.0, risk_aversion=0.0)
    with pytest.raises(ValueError, match="longest must be positive"):
        jx.best_participation(1.0, COST, longest=0.0, **MARKET)
    traced = jax.jit(jax.value_and_grad(lambda q, gamma: jx.best_participation(q, COST, **MARKET | gamma).objective))
    for q, gamma in ((0.0, 1e-6), (2e5, -1.0), (2e5, 0.0)):
        value, slope = traced(q, {"risk_aversion": gamma})
        assert np.isnan(value) and np.isnan(slope)
    assert jax.jit(lambda q: jx.best_participation(q, COST, **MARKET))(0.0).status == jx.Status.NONFINITE_INPUT
