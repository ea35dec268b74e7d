"""Inverse control: the risk aversion that explains a schedule, and what schedules cannot tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxexec as jx
from jaxexec.calibration import observed_preferences
from tests.calibration.coverage import REPLICATIONS, assert_covers

GRID = jx.TimeGrid.uniform(1.0, 10)
VOLUME = 4e6 * (1 + 0.5 * (2 * (np.arange(10) + 0.5) / 10 - 1) ** 2)


COST = jx.PowerLawCost(0.1, 0.75, 0.004)


def order(shares=2e5, risk_aversion=1e-5, cost=COST):
    return jx.Liquidation(shares, jx.Market(GRID, 0.6, VOLUME), cost, risk_aversion)


@jax.jit
def trades_of(problem):
    return jx.solve(problem).trades


@jax.jit
def of_many(problems, trades):
    return observed_preferences(problems, trades, covariance="classical")


def test_schedules_return_their_risk_aversion():
    gamma = np.exp(np.random.default_rng(1).uniform(np.log(1e-6), np.log(1e-4), REPLICATIONS))
    shares = np.random.default_rng(2).uniform(-4e5, 4e5, REPLICATIONS)
    seen = jax.vmap(trades_of)(jax.vmap(order)(shares, gamma))
    found = of_many(jax.vmap(order)(shares), seen)
    np.testing.assert_array_equal(found.status, jx.Status.OK)
    np.testing.assert_allclose(found["risk_aversion"], gamma, rtol=1e-8)


def test_intervals_cover_and_a_bad_schedule_fails_alone():
    """Deviations of inventory, independent from node to node."""
    seen = trades_of(order())
    noise = 0.01 * 2e5 * np.random.default_rng(4).standard_normal((REPLICATIONS, 9))
    moved = np.diff(np.pad(noise, ((0, 0), (1, 1))), axis=1)
    problems = jax.vmap(order)(np.full(REPLICATIONS, 2e5))
    found = of_many(problems, seen[None] - moved)
    assert np.all(np.asarray(found.status) == jx.Status.OK)
    assert_covers(found.intervals(free=True), np.array([1e-5]))
    spoilt = of_many(problems, (seen[None] - moved).at[7, 3].set(jnp.nan))
    assert int(spoilt.status[7]) == jx.Status.NONFINITE_INPUT
    np.testing.assert_array_equal(np.delete(spoilt.values, 7, 0), np.delete(found.values, 7, 0))


def test_no_schedules_are_no_fits():
    none = jax.tree.map(lambda x: x[:0], jax.vmap(order)(np.full(1, 2e5)))
    found = observed_preferences(none, np.zeros((0, none.grid.times.shape[-1] - 1)))
    assert found.values.shape == (0, 1) and found.status.shape == (0,)


def test_a_schedule_returns_risk_aversion_and_exponent_from_any_start():
    rng = np.random.default_rng(3)
    seen = jnp.tile(trades_of(order())[None], (20, 1))
    start = {"risk_aversion": np.exp(rng.uniform(np.log(1e-6), np.log(1e-4), 20)), "phi": rng.uniform(0.4, 1.3, 20)}
    found = observed_preferences(order(), seen, ("risk_aversion", "phi"), start=start)
    np.testing.assert_array_equal(found.status, jx.Status.OK)
    np.testing.assert_allclose(found.values, np.tile([1e-5, 0.75], (20, 1)), rtol=1e-8)


def test_only_the_ratio_to_the_cost_shows():
    """Fault 29."""
    found = observed_preferences(order(), trades_of(order()), ("risk_aversion", "eta"))
    assert int(found.status) == jx.Status.RANK_DEFICIENT
    assert np.isinf(found.std_errors).all()
    assert found.null_directions() == ["log risk_aversion + log eta"]


def test_one_risk_aversion_for_a_desk():
    """Against SciPy around the same solve."""
    rng = np.random.default_rng(5)
    shares = jnp.asarray([1e5, 2e5, 3e5])
    held = jax.vmap(lambda x: jx.solve(order(x)).inventory)(shares)
    held = held.at[:, 1:-1].add(0.02 * shares[:, None] * rng.standard_normal((3, 9)))
    found = observed_preferences(jax.vmap(order)(shares), held[:, :-1] - held[:, 1:], common=True)
    assert found.values.shape == (1,)
    assert int(found.n) == 27
    best = jax.jit(jax.vmap(lambda x, g: jx.solve(order(x, g)).inventory, in_axes=(0, None)))

    def distance(log_gamma):
        return float((((best(shares, np.exp(log_gamma)) - held) / shares[:, None]) ** 2).sum())

    peer = scipy.optimize.minimize_scalar(distance, bracket=(-13, -10), tol=1e-9)
    np.testing.assert_allclose(np.log(found["risk_aversion"]), peer.x, atol=1e-6)


def test_derivative_by_the_schedule():
    quadratic = order(cost=jx.QuadraticCost(0.1, 0.004))
    seen = trades_of(quadratic) * (1 + 0.05 * np.random.default_rng(6).standard_normal(10))
    seen = seen * 2e5 / seen.sum()

    @jax.jit
    def answer(trades):
        return jnp.log(observed_preferences(quadratic, trades)["risk_aversion"])

    step = jnp.zeros(10).at[2].set(1.0)
    expected = (answer(seen + step) - answer(seen - step)) / 2
    np.testing.assert_allclose(jax.grad(answer)(seen)[2], expected, rtol=1e-6)


def test_what_is_refused():
    seen = trades_of(order())
    with pytest.raises(ValueError, match="volatility"):
        observed_preferences(order(), seen, ("volatility",))
    with pytest.raises(ValueError, match="trades must have shape"):
        observed_preferences(order(), seen[:-1])
    with pytest.raises(ValueError, match=r"trades\[3\]"):
        observed_preferences(order(), seen.at[3].set(jnp.nan))
