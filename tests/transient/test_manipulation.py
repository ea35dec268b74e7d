"""Price manipulation: kernels that are known to allow it, or not; witnesses that the cost itself confirms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

NODES = 9
EQUAL = np.linspace(0.0, 1.0, NODES)
UNEQUAL = np.array([0.0, 0.05, 0.2, 0.3, 0.45, 0.7, 0.75, 0.9, 1.0])


def family(lag, p):
    """By p: e^{−(2t)²}, positive definite and not convex; e^{−3t}; one that comes back too late; a constant."""
    shapes = [jnp.exp(-4 * lag**2), jnp.exp(-3 * lag), jnp.cosh(2 * lag), jnp.ones_like(lag)]
    return 2e-7 * sum(jnp.where(p == i, shape, 0) for i, shape in enumerate(shapes))


GRIDS = {"equal": EQUAL, "unequal": UNEQUAL}
TEST = {
    name: jax.jit(lambda p, times=times: jx.manipulation_test(jx.CustomKernel(family, p), times))
    for name, times in GRIDS.items()
}


def cost(trades, p, times):
    return float(jx.transient_cost(trades, times, jx.CustomKernel(family, p)).expected_cost)


@pytest.mark.parametrize("name", TEST)
def test_convex_kernels_allow_none(name):
    found = TEST[name](1.0)
    assert found.passed and found.is_convex and found.status == jx.Status.OK
    assert 0 < found.smallest_eigenvalue <= 1
    assert np.min(found.sale) > 0 and np.sum(found.sale) == pytest.approx(1, rel=1e-13)


@pytest.mark.parametrize("name", TEST)
def test_a_bell_makes_sales_buy(name):
    """Alfonsi, Schied and Slynko's example: no free round trip, and yet purchases on the way."""
    found = TEST[name](0.0)
    assert found.round_trips_cost and not found.sales_only_sell and not found.is_convex and not found.passed
    assert np.min(found.sale) < -1
    assert found.smallest_eigenvalue > 0


@pytest.mark.parametrize("name", TEST)
def test_a_kernel_that_pays(name):
    found = TEST[name](2.0)
    assert not found.round_trips_cost and not found.sales_only_sell and not found.is_convex
    assert found.status == jx.Status.NONCONVEX and np.isnan(found.sale).all()
    assert found.smallest_eigenvalue < 0
    trip = np.asarray(found.round_trip)
    assert abs(trip.sum()) < 1e-13 and np.max(np.abs(trip)) == pytest.approx(1)
    assert found.round_trip_cost < 0
    np.testing.assert_allclose(cost(trip, 2.0, GRIDS[name]), found.round_trip_cost, rtol=1e-8)


def test_the_eigenvalue_is_that_of_all_round_trips():
    """Against the dense matrix of holdings, and: no round trip of the same Σ x² costs less."""
    values = np.asarray(family(jnp.abs(UNEQUAL[:, None] - UNEQUAL[None, :]), 0.0))
    deal = np.eye(NODES, NODES - 1) - np.eye(NODES, NODES - 1, k=-1)
    whole = deal.T @ values @ deal
    exact = np.linalg.eigvalsh(whole)[0] / np.mean(np.diagonal(whole))
    np.testing.assert_allclose(TEST["unequal"](0.0).smallest_eigenvalue, exact, rtol=1e-7)


def test_permanent_impact_is_on_the_edge():
    """Every round trip is free: no manipulation, and no one best sale."""
    found = TEST["equal"](3.0)
    assert found.round_trips_cost and found.is_convex
    assert found.status == jx.Status.NONCONVEX and not found.sales_only_sell
    assert found.smallest_eigenvalue == 0 and found.round_trip_cost == 0


def test_random_convex_kernels_never_buy():
    """Sums of exponentials with random weights, in one batch: schedules of sales only, on an uneven grid."""
    rng = np.random.default_rng(5)

    def least(weight, decay):
        kernel = jx.SumKernel([jx.ExponentialKernel(weight[i], decay[i]) for i in range(3)])
        return jx.transient_schedule(1.0, UNEQUAL, kernel).trades.min()

    buys = jax.jit(jax.vmap(least))(rng.uniform(0.1, 1, (50, 3)), 10.0 ** rng.uniform(-1, 3, (50, 3)))
    assert np.min(buys) > 0


def test_traced_faults_and_bad_input():
    found = jax.jit(lambda k: jx.manipulation_test(jx.ExponentialKernel(k, 1.0), EQUAL))(-1.0)
    assert found.status == jx.Status.NONFINITE_INPUT and not found.passed and not found.is_convex
    assert np.isnan(found.smallest_eigenvalue) and np.isnan(found.round_trip).all() and np.isnan(found.sale).all()
    with pytest.raises(ValueError, match="kernel must be a jaxexec"):
        jx.manipulation_test(EQUAL, EQUAL)  # pyright: ignore
    assert jax.grad(lambda p: jx.manipulation_test(jx.ExponentialKernel(p, 1.0), EQUAL).smallest_eigenvalue)(1.0) == 0
