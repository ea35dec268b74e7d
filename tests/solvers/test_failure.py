"""What cannot be solved says so: errors on concrete values, statuses in traced lanes, neighbours untouched."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from tests.problems import one, random_batch
from tests.solvers.spoiled_orders import careless_gradient, masked_gradient

solve_batch = jax.jit(jax.vmap(jx.solve))
GOOD = random_batch(7, 4, steps=12)
BAD = 1

SPOILERS = {
    "shares nan": (lambda p: p.shares, jnp.nan, jx.Status.NONFINITE_INPUT),
    "shares infinite": (lambda p: p.shares, jnp.inf, jx.Status.NONFINITE_INPUT),
    "target nan": (lambda p: p.target, jnp.nan, jx.Status.NONFINITE_INPUT),
    "risk aversion nan": (lambda p: p.risk_aversion, jnp.nan, jx.Status.NONFINITE_INPUT),
    "risk aversion infinite": (lambda p: p.risk_aversion, jnp.inf, jx.Status.NONFINITE_INPUT),
    "risk aversion negative": (lambda p: p.risk_aversion, -1e-6, jx.Status.NONCONVEX),
    "volatility nan": (lambda p: p.market.volatility, jnp.nan, jx.Status.NONFINITE_INPUT),
    "volatility negative": (lambda p: p.market.volatility, -0.1, jx.Status.NONFINITE_INPUT),
    "volume nan": (lambda p: p.market.volume, jnp.nan, jx.Status.NONFINITE_INPUT),
    "volume negative": (lambda p: p.market.volume, -1.0, jx.Status.NONFINITE_INPUT),
    "no volume": (lambda p: p.market.volume, 0.0, jx.Status.INFEASIBLE),
    "drift nan": (lambda p: p.market.drift, jnp.nan, jx.Status.NONFINITE_INPUT),
    "gap variance negative": (lambda p: p.market.gap_variance, -1.0, jx.Status.NONFINITE_INPUT),
    "permanent impact nan": (lambda p: p.market.permanent_impact, jnp.nan, jx.Status.NONFINITE_INPUT),
    "times nan": (lambda p: p.grid.times, jnp.nan, jx.Status.NONFINITE_INPUT),
    "no time": (lambda p: p.grid.times, 0.0, jx.Status.NONFINITE_INPUT),
    "permanent impact negative": (lambda p: p.market.permanent_impact, -1e-7, jx.Status.NONFINITE_INPUT),
    "eta nan": (lambda p: p.cost.eta, jnp.nan, jx.Status.NONFINITE_INPUT),
    "eta zero": (lambda p: p.cost.eta, 0.0, jx.Status.NONCONVEX),
    "eta negative": (lambda p: p.cost.eta, -0.1, jx.Status.NONCONVEX),
    "phi zero": (lambda p: p.cost.phi, 0.0, jx.Status.NONCONVEX),
    "psi negative": (lambda p: p.cost.psi, -0.1, jx.Status.NONCONVEX),
}


def spoiled(where, value):
    return eqx.tree_at(where, GOOD, where(GOOD).at[BAD].set(value))


@pytest.mark.parametrize("name", SPOILERS)
def test_a_bad_lane_fails_alone(name):
    where, value, status = SPOILERS[name]
    clean, s = solve_batch(GOOD), solve_batch(spoiled(where, value))
    assert s.status[BAD] == status
    for field in ("times", "inventory", "trades", "costate", "expected_cost", "variance", "objective"):
        assert np.all(np.isnan(np.asarray(getattr(s, field))[BAD])), field
    for field in ("duality_gap", "relative_gap", "residual", "iterations"):
        assert np.all(np.isfinite(np.asarray(getattr(s, field))[BAD])), field
    others = np.arange(4) != BAD
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(s), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])


@pytest.mark.parametrize(
    "name", ["volatility nan", "volume negative", "eta zero", "no volume", "times nan", "shares infinite"]
)
def test_gradient_of_a_bad_lane_is_zero_where_masked_and_nan_where_not(name):
    where, value, _ = SPOILERS[name]
    batch = spoiled(where, value)
    clean = masked_gradient(GOOD)
    others = np.arange(4) != BAD
    for a, b in zip(jax.tree.leaves(masked_gradient(batch)), jax.tree.leaves(clean), strict=True):
        assert np.all(np.asarray(a)[BAD] == 0)
        np.testing.assert_allclose(np.asarray(a)[others], np.asarray(b)[others], rtol=1e-12)
    careless = careless_gradient(batch)
    assert np.isnan(np.asarray(careless.shares)[BAD])
    assert np.all(np.isnan(np.asarray(careless.market.volatility)[BAD]))
    assert np.all(np.isfinite(np.asarray(careless.shares)[others]))


def test_too_few_steps_is_a_status():
    stiff = jax.tree.map(lambda x: x[0], random_batch(5, 1, steps=12, decades=(2.5, 3.0), drift=True))
    hard = eqx.tree_at(lambda p: p.cost.phi, stiff, jnp.asarray(0.1))
    failed = jx.solve(hard, jx.LadderNewton(max_steps=1))
    assert failed.status == jx.Status.MAX_STEPS
    assert np.all(np.isnan(np.asarray(failed.trades)))
    assert np.isfinite(float(failed.relative_gap))
    with pytest.raises(RuntimeError, match=r"MAX_STEPS.*max_steps"):
        jx.solve(hard, jx.LadderNewton(max_steps=1), throw=True)


def test_throw_names_the_problem_of_a_batch_and_refuses_tracers():
    with pytest.raises(ValueError, match="concrete"):
        jax.vmap(lambda p: jx.solve(p, throw=True))(GOOD)
    closed = eqx.tree_at(lambda p: p.market.volume, one(""), jnp.zeros(12))
    with pytest.raises(RuntimeError, match=r"INFEASIBLE.*volume"):
        jx.solve(closed, throw=True)


def test_refuses_what_is_no_problem():
    with pytest.raises(ValueError, match="Liquidation"):
        jx.solve(3.0)  # pyright: ignore


@pytest.mark.parametrize("lanes", [0, 1])
def test_empty_and_single_batches(lanes):
    batch = jax.tree.map(lambda x: x[:lanes], GOOD)
    s = jax.vmap(jx.solve)(batch)
    assert s.trades.shape == (lanes, 12)
    assert s.status.shape == (lanes,)


def test_best_iterate_on_request():
    problem = jax.tree.map(lambda x: x[0], random_batch(5, 1, steps=12, decades=(2.5, 3.0), drift=True))
    hard = eqx.tree_at(lambda p: p.cost.phi, problem, jnp.asarray(0.1))
    best = jx.solve(hard, jx.LadderNewton(max_steps=1), on_failure="best")
    assert best.status == jx.Status.MAX_STEPS
    np.testing.assert_allclose(jnp.sum(best.trades), hard.shares - hard.target, rtol=1e-9)
    optimum = jx.solve(hard, throw=True).objective
    assert optimum <= best.objective <= optimum + best.duality_gap * (1 + 1e-9)
    refused = jx.solve(eqx.tree_at(lambda p: p.market.volume, hard, jnp.zeros(12)), on_failure="best")
    assert np.all(np.isnan(np.asarray(refused.trades)))
    with pytest.raises(ValueError, match="on_failure"):
        jx.solve(hard, on_failure="raise")  # pyright: ignore
