"""One contract for every cost: convexity, conjugacy, tangents, derivatives. A new cost is one more entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

ALL_COSTS = {
    "quadratic": jx.QuadraticCost(0.1),
    "quadratic with spread": jx.QuadraticCost(0.1, 0.02),
    "power 0.3": jx.PowerLawCost(0.1, 0.3),
    "power 0.6 with spread": jx.PowerLawCost(0.1, 0.6, 0.02),
    "power 1": jx.PowerLawCost(0.1, 1.0, 0.02),
    "power 2 with spread": jx.PowerLawCost(0.1, 2.0, 0.02),
}
each_cost = pytest.mark.parametrize("cost", ALL_COSTS.values(), ids=ALL_COSTS.keys())
RATES = jnp.asarray([-2.0, -0.3, -1e-3, 2e-3, 1e-2, 0.2, 5.0])


@each_cost
def test_marginal_and_optimal_rate_are_inverse(cost):
    np.testing.assert_allclose(cost.optimal_rate(cost.marginal(RATES)), RATES, rtol=1e-9)


@each_cost
def test_fenchel(cost):
    """H(p) + L(ρ) ≥ pρ, with equality at the optimum, and H' = the optimal rate."""
    p = cost.marginal(RATES)
    np.testing.assert_allclose(cost.hamiltonian(p) + cost.value(RATES), p * RATES, rtol=1e-12)
    everywhere = cost.hamiltonian(p)[:, None] + cost.value(RATES)[None, :] - p[:, None] * RATES[None, :]
    assert float(jnp.min(everywhere)) > -1e-15
    slope = jax.vmap(jax.grad(cost.hamiltonian))(p)
    np.testing.assert_allclose(slope, RATES, rtol=1e-9)
    curvature = jax.vmap(jax.grad(cost.optimal_rate))(p)
    np.testing.assert_allclose(cost.rate_slope(p), curvature, rtol=1e-9)


@each_cost
def test_marginal_is_the_derivative(cost):
    np.testing.assert_allclose(cost.marginal(RATES), jax.vmap(jax.grad(cost.value))(RATES), rtol=1e-9)


@each_cost
def test_strictly_convex_and_odd(cost):
    assert bool(jnp.all(cost.is_convex()))
    rates = jnp.linspace(-1, 1, 41)
    assert np.all(np.diff(np.asarray(cost.marginal(rates))) > 0)
    np.testing.assert_allclose(cost.value(-rates), cost.value(rates))
    np.testing.assert_allclose(cost.marginal(-rates), -cost.marginal(rates))
    assert cost.value(jnp.asarray(0.0)) == 0
    assert cost.optimal_rate(jnp.asarray(0.0)) == 0


@each_cost
def test_inside_the_spread_nothing_is_traded(cost):
    psi = float(cost.half_spread())
    inside = jnp.linspace(-1, 1, 5) * psi * 0.999
    assert np.all(np.asarray(cost.optimal_rate(inside)) == 0)
    assert np.all(np.asarray(cost.hamiltonian(inside)) == 0)
    if psi:
        assert np.all(np.asarray(cost.rate_slope(inside)) == 0)


@each_cost
@pytest.mark.parametrize("keep", [True, False])
def test_curve_point_is_a_tangent(cost, keep):
    marginal = cost.marginal(RATES)
    point = cost.curve_point(RATES, marginal, jnp.full(RATES.shape, keep))
    np.testing.assert_allclose(point.rate, RATES, rtol=1e-9)
    np.testing.assert_allclose(point.marginal, marginal, rtol=1e-12)
    np.testing.assert_allclose(point.slope, cost.rate_slope(marginal), rtol=1e-9)
    np.testing.assert_allclose(point.slope * point.marginal + point.intercept, RATES, rtol=1e-9, atol=1e-18)


@each_cost
def test_derivatives_are_finite_at_rest(cost):
    for function in (cost.value, cost.hamiltonian, cost.optimal_rate):
        assert np.isfinite(float(jax.grad(function)(0.0)))

        def of_parameters(c, name=function.__name__):
            return getattr(c, name)(jnp.asarray(0.0))

        assert all(bool(jnp.isfinite(g)) for g in jax.tree.leaves(jax.grad(of_parameters)(cost)))


@each_cost
def test_spread_comes_off(cost):
    bare = cost.less_spread(cost.half_spread())
    np.testing.assert_allclose(
        bare.value(RATES), cost.value(RATES) - cost.half_spread() * jnp.abs(RATES), rtol=1e-9, atol=1e-15
    )


def test_permanent_impact_comes_off_where_it_can():
    less, possible = jx.QuadraticCost(0.1, 0.02).less_permanent(jnp.asarray(0.06))
    assert bool(possible)
    np.testing.assert_allclose(less.value(RATES), 0.07 * RATES**2 + 0.02 * jnp.abs(RATES))
    _, possible = jx.PowerLawCost(0.1, 0.6).less_permanent(jnp.asarray(0.06))
    assert not bool(possible)


def test_power_law_at_one_is_quadratic():
    power, quadratic = jx.PowerLawCost(0.1, 1.0, 0.02), jx.QuadraticCost(0.1, 0.02)
    np.testing.assert_allclose(power.value(RATES), quadratic.value(RATES), rtol=1e-14)
    np.testing.assert_allclose(power.hamiltonian(RATES), quadratic.hamiltonian(RATES), rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jx.QuadraticCost(0.0), "eta must be positive"),
        (lambda: jx.QuadraticCost(float("nan")), "eta must be finite"),
        (lambda: jx.QuadraticCost([0.1, -0.1]), r"eta\[1\] must be positive"),
        (lambda: jx.QuadraticCost(0.1, -0.01), "psi must be at least 0"),
        (lambda: jx.PowerLawCost(0.1, 0.0), "phi must be positive"),
        (lambda: jx.PowerLawCost(0.1, np.inf), "phi must be finite"),
        (lambda: jx.PowerLawCost([[0.1]], 0.5), "scalar or have shape"),
        (lambda: jx.PowerLawCost("0.1", 0.5), "eta must be a real number"),
        (lambda: jx.PowerLawCost(1j, 0.5), "eta must be real"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
