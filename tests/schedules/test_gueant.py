"""The continuous sinh solution against the solver's limit, against quadrature, and its derivatives."""

import jax
import numpy as np
import pytest

import jaxexec as jx

FIXED = {"horizon": 1.0, "volatility": 0.6, "volume": 4e6, "eta": 0.1, "psi": 0.004}


def closed(gamma, times=(0.0, 0.25, 0.5, 1.0), shares=2e5, **changes):
    return jx.gueant_quadratic(shares, np.asarray(times), risk_aversion=gamma, **(FIXED | changes))


@pytest.mark.parametrize("gamma", [0.0, 1e-9, 1.3e-7, 1.5e-7, 1e-6, 1e-4, 1e-2])
def test_costs_are_integrals_of_the_path(gamma):
    """On both sides of (κT)² = 1, where series give way to exponentials."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    s = closed(gamma, (nodes + 1) / 2)
    path, rate = np.asarray(s.inventory), np.asarray(s.rate)
    np.testing.assert_allclose(s.variance, 0.36 * np.sum(weights / 2 * path**2), rtol=1e-11)
    np.testing.assert_allclose(s.expected_cost, 800 + 0.1 / 4e6 * np.sum(weights / 2 * rate**2), rtol=1e-11)
    np.testing.assert_allclose(s.objective, s.expected_cost + gamma / 2 * s.variance, rtol=1e-14)


def test_the_solver_tends_to_it():
    exact = closed(1e-6)
    market = jx.Market(jx.TimeGrid.uniform(1.0, 2000), 0.6, 4e6)
    fine = jx.solve(jx.Liquidation(2e5, market, jx.QuadraticCost(0.1, 0.004), 1e-6), throw=True)
    np.testing.assert_allclose(fine.inventory[::500], np.insert(exact.inventory, 3, fine.inventory[1500]), atol=0.01)
    np.testing.assert_allclose(fine.objective, exact.objective, rtol=1e-6)
    np.testing.assert_allclose((fine.costate[999] + fine.costate[1000]) / 2, exact.costate[2], rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1e-8, 1e-6, 1e-4])
def test_derivatives(gamma):
    def of(g, sigma, eta):
        return closed(g, volatility=sigma, eta=eta).objective

    point = (gamma, 0.6, 0.1)
    reverse, forward = (mode(of, argnums=(0, 1, 2))(*point) for mode in (jax.grad, jax.jacfwd))
    np.testing.assert_allclose(reverse, forward, rtol=1e-12)
    np.testing.assert_allclose(reverse[0], closed(gamma).variance / 2, rtol=1e-11)  # envelope theorem
    for i, step in ((1, 1e-5), (2, 1e-6)):
        up, down = (tuple(x + s * step * (j == i) for j, x in enumerate(point)) for s in (1, -1))
        np.testing.assert_allclose(reverse[i], (of(*up) - of(*down)) / (2 * step), rtol=1e-6, atol=1e-6)


def test_both_sides_stiff_and_bad():
    sale, purchase = closed(1e-6), closed(1e-6, shares=-2e5)
    np.testing.assert_allclose(purchase.inventory, -sale.inventory)
    np.testing.assert_allclose(purchase.costate, -sale.costate)
    stiff = closed(1e6)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(stiff))
    single = jax.jit(lambda g: closed(g))(-1.0)
    assert single.status == jx.Status.NONFINITE_INPUT
    assert np.isnan(single.objective)
    with pytest.raises(ValueError, match="risk_aversion must be at least 0"):
        closed(-1.0)
    with pytest.raises(ValueError, match="volume must be positive"):
        closed(1e-6, volume=0.0)


@pytest.mark.parametrize("which", ["gueant", "infinite"])
def test_a_failed_lane_spoils_its_own_derivatives_alone(which):
    def of(sigma):
        if which == "gueant":
            return closed(1e-6, volatility=sigma).variance
        found = jx.infinite_horizon(
            1e6, np.array([1.0]), volatility=sigma, impact=2.5e-6, exponent=0.6, variance_weight=1e-6
        )
        return found.variance

    sigmas = np.array([0.6, np.nan, -1.0])
    keep = np.array([True, False, False])
    masked = jax.grad(lambda s: jax.numpy.sum(jax.numpy.where(keep, jax.vmap(of)(s), 0)))(jax.numpy.asarray(sigmas))
    assert np.isfinite(masked[0]) and masked[0] != 0
    assert masked[1:].tolist() == [0, 0]
    whole = jax.grad(lambda s: jax.numpy.sum(jax.vmap(of)(s)))(jax.numpy.asarray(sigmas))
    assert np.isnan(whole).tolist() == [False, True, True]
