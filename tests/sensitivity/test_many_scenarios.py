"""Robust schedules: many scenarios against SciPy, both modes against differences, float32, lanes that fail."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import jaxexec as jx
from jaxexec.sensitivity import robust_schedule
from jaxexec.sensitivity.minimax import _exchange
from tests.problems import one
from tests.sensitivity.test_wrong_forecasts import moved

STEPS, MANY = 6, 40


def stacked(orders):
    return jax.tree.map(lambda *x: jnp.stack(x), *orders)


@pytest.fixture(scope="module")
def many():
    rng, base = np.random.default_rng(0), one("quadratic", steps=STEPS)
    factors = np.exp(0.4 * rng.normal(size=(MANY, 2, STEPS)))
    return stacked([moved(base, f[0], f[1], np.exp(0.4 * rng.normal())) for f in factors])


@pytest.fixture(scope="module")
def worst():
    return jax.jit(lambda batch: robust_schedule(batch, criterion="worst"))


@pytest.fixture(scope="module")
def found(worst, many):
    return worst(many)


def least_by_slsqp(batch, start):
    """min t over t ≥ r_i(n), by SciPy over the inventories, in thousands."""
    best = jax.jit(jax.vmap(lambda p: jx.solve(p).objective))(batch)

    @jax.jit
    def regrets(inner):
        nodes = jnp.concatenate([start[:1], inner * 1e5, start[-1:]])
        costs = jax.vmap(lambda p: jx.objective(p, nodes[:-1] - nodes[1:]))(batch)
        return (costs - best) / 1e3

    slopes, count = jax.jit(jax.jacrev(regrets)), best.shape[0]
    above = {
        "type": "ineq",
        "fun": lambda z: z[0] - np.asarray(regrets(z[1:])),
        "jac": lambda z: np.hstack([np.ones((count, 1)), -np.asarray(slopes(z[1:]))]),
    }
    grad = np.eye(1, start.size - 1)[0]
    first = np.concatenate([[10.0], np.asarray(start[1:-1]) / 1e5])
    options = {"maxiter": 500, "ftol": 1e-14}
    done = minimize(lambda z: z[0], first, jac=lambda _: grad, constraints=[above], method="SLSQP", options=options)
    nodes = np.concatenate([start[:1], done.x[1:] * 1e5, start[-1:]])
    return done.fun * 1e3, nodes[:-1] - nodes[1:]


def test_least_worst_regret_over_more_scenarios_than_are_worked_on_at_a_time(found, many):
    assert int(found.status) == jx.Status.OK
    assert float(found.gap) < 1e-6 * float(found.worst_regret)
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-9)
    binding = np.asarray(found.weights > 1e-4)
    assert 2 <= binding.sum() <= STEPS
    np.testing.assert_allclose(found.regrets[binding], found.worst_regret, rtol=1e-5)
    best, trades = least_by_slsqp(many, np.asarray(jx.solve(one("quadratic", steps=STEPS)).inventory))
    np.testing.assert_allclose(found.worst_regret, best, rtol=1e-6)
    np.testing.assert_allclose(found.schedule.trades, trades, atol=20)


def test_order_of_the_scenarios_does_not_matter(worst, found, many):
    turned = np.random.default_rng(1).permutation(MANY)
    again = worst(jax.tree.map(lambda x: x[turned], many))
    np.testing.assert_allclose(again.worst_regret, found.worst_regret, rtol=1e-8)
    np.testing.assert_allclose(again.weights, found.weights[turned], atol=1e-5)


def test_both_modes_are_differences(many):
    few = jax.tree.map(lambda x: x[:4], many)
    path = jnp.linspace(-1.0, 1.0, STEPS)

    def of(k):
        volatility = few.market.volatility.at[0].multiply(k[0])
        batch = moved(few, eta=jnp.ones(4).at[2].set(k[1]))
        batch = eqx.tree_at(lambda b: b.market.volatility, batch, volatility)
        found = robust_schedule(batch, criterion="worst")
        return found.worst_regret + found.schedule.trades @ path / 100 + found.expected_regret

    at = jnp.array([1.0, 1.0])
    value, forward, reverse = jax.jit(lambda k: (of(k), jax.jacfwd(of)(k), jax.grad(of)(k)))(at)
    only = jax.jit(of)
    h = 1e-4
    numeric = [(only(at.at[i].add(h)) - only(at.at[i].add(-h))) / (2 * h) for i in range(2)]
    np.testing.assert_allclose(forward, reverse, rtol=1e-8)
    np.testing.assert_allclose(reverse, numeric, rtol=1e-5, atol=1e-5 * abs(float(value)))


def test_float32_and_a_failed_lane(many):
    few = jax.tree.map(lambda x: x[:3], many)
    narrow = jax.tree.map(lambda x: x.astype(jnp.float32), few)
    bad = moved(narrow, eta=jnp.asarray([1.0, -1.0, 1.0], jnp.float32))
    both = jax.jit(jax.vmap(lambda b: robust_schedule(b, criterion="worst")))
    good, mixed = both(stacked([narrow, narrow, narrow])), both(stacked([narrow, bad, narrow]))
    assert mixed.status.tolist()[1] == int(jx.Status.NONCONVEX)
    assert np.isnan(mixed.regrets[1]).all() and np.isnan(mixed.schedule.trades[1]).all()
    for name in ("regrets", "weights", "worst_regret"):
        np.testing.assert_array_equal(getattr(mixed, name)[::2], getattr(good, name)[::2])
    wide = robust_schedule(few, criterion="worst")
    assert good.worst_regret.dtype == jnp.float32 and int(good.status[0]) <= jx.Status.OK_INACCURATE
    np.testing.assert_allclose(good.worst_regret[0], wide.worst_regret, rtol=2e-3)
    np.testing.assert_allclose(good.schedule.trades[0], wide.schedule.trades, atol=2e-3 * 2e5)


def test_expected_regret_of_a_thousand_power_laws():
    """Their mean is a cost of its own: certified, and no schedule nearby is better."""
    rng, base = np.random.default_rng(2), one("", steps=STEPS)
    size = 1000

    def scenario(s, v, e, phi):
        market = jx.Market(base.grid, base.market.volatility * s, base.market.volume * v)
        return jx.Liquidation(base.shares, market, jx.PowerLawCost(0.1 * e, phi, 0.004), base.risk_aversion)

    draws = [jnp.asarray(np.exp(0.3 * rng.normal(size=size))) for _ in range(3)]
    batch = jax.vmap(scenario)(*draws, jnp.asarray(rng.uniform(0.5, 0.8, size)))
    found = jax.jit(robust_schedule)(batch)
    assert int(found.status) == jx.Status.OK and float(found.schedule.relative_gap) < 1e-8
    mean = jax.jit(lambda trades: jnp.mean(jax.vmap(lambda p: jx.objective(p, trades))(batch)))
    np.testing.assert_allclose(found.schedule.objective, mean(found.schedule.trades), rtol=1e-10)
    slope = jax.jit(jax.grad(mean))(found.schedule.trades)
    np.testing.assert_allclose(slope, jnp.mean(slope), rtol=1e-6)  # one marginal cost for all shares


def test_exchange_keeps_what_binds_and_lets_in_who_is_worse_off():
    places, weights = jnp.arange(4, dtype=jnp.int32), jnp.array([0.6, 0.0, 0.4, 1e-9])
    regrets = jnp.array([1.0, 0.2, 1.0, 0.3, 0.9, 3.0, 0.5, 2.0])
    assert sorted(_exchange(places, weights, regrets, jnp.asarray(1.0)).tolist()) == [0, 2, 5, 7]
    assert sorted(_exchange(places, weights, regrets, jnp.asarray(2.5)).tolist()) == [0, 2, 3, 5]
    assert _exchange(places, weights, regrets, jnp.asarray(4.0)).tolist() == [0, 1, 2, 3]
