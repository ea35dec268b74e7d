"""Block prices against references, against the solver's long orders, for capped and summed costs; derivatives."""

import jax
import jax.numpy as jnp
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
    """Of everything, the cost's own parameters included, in a random direction; and the marginal price is that in q."""

    def of(inputs):
        (q, sigma, gamma, volume), cost = inputs
        return jx.block_price(q, cost, volatility=sigma, volume=volume, risk_aversion=gamma).premium

    rng, inputs = np.random.default_rng(0), jax.tree.map(jnp.asarray, ((2e5, 0.6, 1e-6, 4e6), COSTS[name]))
    bounds = ("rho_min", "rho_max")

    def direction(path, x):
        fixed = getattr(path[-1], "name", "") in bounds and np.isinf(x)
        return jnp.zeros_like(x) if fixed else x * rng.normal()

    along = jax.tree_util.tree_map_with_path(direction, inputs)
    both = jax.jit(lambda p: (*jax.value_and_grad(of)(p), jax.jvp(of, (p,), (along,))[1]))
    _, slopes, forward = both(inputs)
    reverse = sum(float(jnp.sum(g * v)) for g, v in zip(jax.tree.leaves(slopes), jax.tree.leaves(along), strict=True))
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    rough = name == "capped"  # a kink in what is integrated
    marginal = jx.block_price(2e5, COSTS[name], **MARKET).marginal
    np.testing.assert_allclose(slopes[0][0], marginal, rtol=1e-4 if rough else 1e-9)
    up, down = (both(jax.tree.map(lambda x, v, s=s: x + s * v, inputs, along))[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(reverse, (up - down) / 2e-5, rtol=1e-3 if rough else 1e-7)


def test_both_sides_and_bad_input():
    sale, purchase = (jx.block_price(q, COSTS["power"], **MARKET) for q in (2e5, -2e5))
    np.testing.assert_allclose(sale.premium, purchase.premium)
    assert jx.block_price(0.0, COSTS["power"], **MARKET).premium == 0
    with pytest.raises(ValueError, match="risk_aversion must be positive"):
        jx.block_price(1.0, COSTS["power"], volatility=1.0, volume=1.0, risk_aversion=0.0)
    with pytest.raises(ValueError, match="scalar parameters"):
        jx.block_price(1.0, jx.PowerLawCost(np.ones(3), 0.5), **MARKET)
    bad = jax.jit(lambda g: jx.block_price(1.0, COSTS["power"], volatility=1.0, volume=1.0, risk_aversion=g))(-1.0)
    assert bad.status == jx.Status.NONFINITE_INPUT
    assert np.isnan(bad.premium)
    slope = jax.grad(lambda g: jx.block_price(1.0, COSTS["power"], volatility=1.0, volume=1.0, risk_aversion=g).premium)
    assert np.isnan(jax.jit(slope)(-1.0))
    closed = jx.block_price(1.0, jx.ParticipationCap(COSTS["quadratic"], 0.0), **MARKET)
    assert closed.status == jx.Status.INFEASIBLE
    assert np.isnan(closed.premium)
