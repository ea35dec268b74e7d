"""Block prices against references, against the solver's long orders, for capped and summed costs; derivatives."""

import jax
import numpy as np
import pytest

import jaxexec as jx

MARKET = {"volatility": 0.6, "volume": 4e6, "risk_aversion": 1e-6}


@pytest.mark.parametrize("name", ["phi1", "phi0.5", "phi2", "realistic"])
def test_block_references(references, name):
    wanted = references[f"gueant_block_{name}"]
    p = wanted["params"]
    cost = jx.PowerLawCost(p["eta"], p["phi"], p.get("psi", 0.0))
    market = {"volatility": p["sigma"], "volume": p["V"], "risk_aversion": p["gamma"]}
    np.testing.assert_allclose(jx.block_price(p["q0"], cost, **market).premium, wanted["ell_inf"], rtol=1e-12)


def test_pov_references(references):
    names = [name for name in references if name.startswith("gueant_pov")]
    assert names
    for name in names:
        wanted, p = references[name], references[name]["params"]
        market = {"volatility": p["sigma"], "volume": p["V"], "risk_aversion": p["gamma"]}
        best = jx.best_participation(p["q0"], jx.PowerLawCost(p["eta"], p["phi"]), **market)
        np.testing.assert_allclose(best.rate, wanted["rho_star"], rtol=1e-13)
        np.testing.assert_allclose(best.objective, wanted["J"], rtol=1e-13)


COSTS = {
    "power": jx.PowerLawCost(0.1, 0.6, 0.004),
    "quadratic": jx.QuadraticCost(0.1),
    "capped": jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.004), 0.03),
    "sum": jx.PowerLawCost(0.1, 0.6) + jx.QuadraticCost(0.3, 0.002),
}


@pytest.mark.parametrize("name", COSTS)
def test_long_orders_tend_to_it(name):
    """At most one constant rate more, and a deadline always costs: what `solve` finds comes down to the premium."""
    price = jx.block_price(2e5, COSTS[name], permanent_impact=1e-7, **MARKET)
    assert price.status == jx.Status.OK
    times = 8.0 * np.linspace(0, 1, 1201) ** 3
    market = jx.Market(jx.TimeGrid(times), 0.6, 4e6, permanent_impact=1e-7)
    s = jx.solve(jx.Liquidation(2e5, market, COSTS[name], 1e-6), throw=True)
    np.testing.assert_allclose(s.objective, price.discount, rtol=2e-4)
    np.testing.assert_allclose(price.discount - price.premium, 1e-7 / 2 * 2e5**2)


@pytest.mark.parametrize("name", COSTS)
def test_derivatives(name):
    def of(q, sigma, gamma):
        return jx.block_price(q, COSTS[name], volatility=sigma, volume=4e6, risk_aversion=gamma).premium

    point = (2e5, 0.6, 1e-6)
    reverse, forward = (mode(of, argnums=(0, 1, 2))(*point) for mode in (jax.grad, jax.jacfwd))
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    marginal = jx.block_price(2e5, COSTS[name], **MARKET).marginal
    np.testing.assert_allclose(reverse[0], marginal, rtol=1e-4 if name == "capped" else 1e-9)
    for i, x in enumerate(point):
        up, down = (tuple(v * (1 + s * 1e-5 * (j == i)) for j, v in enumerate(point)) for s in (1, -1))
        numeric = (of(*up) - of(*down)) / (2e-5 * x)
        np.testing.assert_allclose(reverse[i], numeric, rtol=1e-4 if name == "capped" else 1e-7)


def test_best_of_all_constant_rates():
    cost = jx.PowerLawCost(0.1, 0.6, 0.004)
    best = jx.best_participation(2e5, cost, **MARKET)

    def objective(rate):
        horizon = 2e5 / (rate * 4e6)
        return 0.1 * rate**0.6 * 2e5 + 800 + 1e-6 / 2 * 0.36 * 2e5**2 * horizon / 3

    np.testing.assert_allclose(objective(best.rate), best.objective, rtol=1e-13)
    assert abs(float(jax.grad(objective)(best.rate))) * float(best.rate) < 1e-9 * float(best.objective)
    assert best.objective > jx.block_price(2e5, cost, **MARKET).premium


def test_both_sides_and_bad_input():
    sale, purchase = (jx.block_price(q, COSTS["power"], **MARKET) for q in (2e5, -2e5))
    np.testing.assert_allclose(sale.premium, purchase.premium)
    assert jx.block_price(0.0, COSTS["power"], **MARKET).premium == 0
    with pytest.raises(ValueError, match="risk_aversion must be positive"):
        jx.block_price(1.0, COSTS["power"], volatility=1.0, volume=1.0, risk_aversion=0.0)
    with pytest.raises(ValueError, match="scalar parameters"):
        jx.block_price(1.0, jx.PowerLawCost(np.ones(3), 0.5), **MARKET)
    with pytest.raises(ValueError, match="PowerLawCost"):
        jx.best_participation(1.0, COSTS["quadratic"], **MARKET)  # pyright: ignore
    bad = jax.jit(lambda g: jx.block_price(1.0, COSTS["power"], volatility=1.0, volume=1.0, risk_aversion=g))(-1.0)
    assert bad.status == jx.Status.NONFINITE_INPUT
    assert np.isnan(bad.premium)
    closed = jx.block_price(1.0, jx.ParticipationCap(COSTS["quadratic"], 0.0), **MARKET)
    assert closed.status == jx.Status.INFEASIBLE
    assert np.isnan(closed.premium)
    nothing = jax.jit(lambda q: jx.best_participation(q, COSTS["power"], **MARKET))(0.0)
    assert nothing.status == jx.Status.NONFINITE_INPUT
    assert np.isnan(nothing.rate)
