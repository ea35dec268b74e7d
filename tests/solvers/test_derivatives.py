"""Forward = reverse = finite difference, for every float leaf of the problem; the envelope theorem; second order."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from tests.problems import KINDS, one

WEIGHTS = np.random.default_rng(5).normal(size=12)
# What a change of one unit in each leaf should be measured in, where the leaf itself is zero.
SCALES = {"drift": 0.3, "target": 1e4, "gap_variance": 0.01, "permanent_impact": 1e-7, "psi": 0.004}


def best_objective(problem):
    return jx.solve(problem).objective


def a_trade_mix(problem):
    return jnp.sum(jnp.asarray(WEIGHTS) * jx.solve(problem).trades)


def names(problem):
    return [jax.tree_util.keystr(k).split(".")[-1] for k, _ in jax.tree_util.tree_leaves_with_path(problem)]


@functools.cache
def compiled(transform, function):
    return jax.jit(transform(function) if transform else function)


def differences(function, problem):
    """Fourth-order central differences in every entry of every leaf."""
    function = compiled(None, function)
    leaves, structure = jax.tree.flatten(problem)
    gradients = []
    for i, (name, leaf) in enumerate(zip(names(problem), leaves, strict=True)):
        leaf = np.asarray(leaf)
        slope = np.full(leaf.shape, np.nan)
        for index in np.ndindex(leaf.shape):
            if name in ("volume", "elapsed") and leaf[index] == 0:
                continue  # nothing negative to step to
            step = 1e-5 if name == "times" else 3e-4 * (abs(leaf[index]) or SCALES[name])

            def at(k, i=i, leaf=leaf, index=index, step=step):
                moved = leaf.copy()
                moved[index] += k * step
                return float(
                    function(jax.tree.unflatten(structure, [*leaves[:i], jnp.asarray(moved), *leaves[i + 1 :]]))
                )

            slope[index] = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
        gradients.append(slope)
    return gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [best_objective, a_trade_mix], ids=["objective", "trades"])
def test_gradient(kind, function):
    problem = one(kind)
    reverse = jax.tree.leaves(compiled(jax.grad, function)(problem))
    forward = jax.tree.leaves(compiled(jax.jacfwd, function)(problem))
    scale = float(jnp.abs(compiled(None, function)(problem)))
    for name, leaf, r, f, d in zip(
        names(problem), jax.tree.leaves(problem), reverse, forward, differences(function, problem), strict=True
    ):
        unit = np.abs(np.asarray(leaf)) + SCALES.get(name, 0.0) * (np.asarray(leaf) == 0)
        seen = ~np.isnan(d)
        # Elasticities: each derivative weighed by the size of what it is taken with respect to.
        reverse_e, forward_e, d_e = (np.asarray(x)[seen] * np.broadcast_to(unit, d.shape)[seen] for x in (r, f, d))
        np.testing.assert_allclose(reverse_e, forward_e, atol=1e-9 * scale, err_msg=name)
        np.testing.assert_allclose(reverse_e, d_e, rtol=1e-6, atol=1e-6 * scale, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_envelope(kind):
    """The derivative of the optimum is the derivative of the cost of the optimal schedule, held fixed."""
    problem = one(kind)
    s = jx.solve(problem)
    optimal = compiled(jax.grad, best_objective)(problem)
    fixed = jax.jit(jax.grad(jx.objective))(problem, s.trades)
    market, held = optimal.market, fixed.market
    pairs = {
        "volatility": (market.volatility, held.volatility),
        "permanent_impact": (market.permanent_impact, held.permanent_impact),
        "drift": (market.drift, held.drift),
        "gap_variance": (market.gap_variance, held.gap_variance),
        "eta": (optimal.cost.eta, fixed.cost.eta),
        "psi": (optimal.cost.psi, fixed.cost.psi),
        "risk_aversion": (optimal.risk_aversion, fixed.risk_aversion),
    }
    for name, (a, b) in pairs.items():
        size = float(jnp.max(jnp.abs(b))) or 1.0
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * size, err_msg=name)
    np.testing.assert_allclose(optimal.risk_aversion, s.variance / 2, rtol=1e-9)
    open_ = np.asarray(problem.market.step_volume) > 0
    if "discrete" not in kind:
        np.testing.assert_allclose(
            np.asarray(market.volume)[open_], np.asarray(held.volume)[open_], rtol=1e-8, atol=1e-9 * 1e-3
        )


def test_first_marginal_cost_is_the_price_of_one_share_more():
    """dU/dX = −p_0 + (γ/2) s_1 x_0 under the continuous convention: the initial costate, plus half a step of risk."""
    problem = one("")
    s = jx.solve(problem)
    slope = compiled(jax.grad, best_objective)(problem).shares
    market = problem.market
    half_step = problem.risk_aversion / 2 * market.step_variance[0] * problem.shares
    permanent = market.permanent_impact * problem.shares
    np.testing.assert_allclose(slope, -s.costate[0] + half_step + permanent, rtol=1e-9)


@pytest.mark.parametrize("kind", ["", "drift"])
def test_hessian_is_symmetric_and_equals_differences(kind):
    problem = one(kind)

    def of(parameters):
        moved = eqx.tree_at(lambda p: (p.shares, p.risk_aversion, p.cost.eta, p.cost.phi), problem, tuple(parameters))
        return best_objective(moved)

    at = jnp.asarray([problem.shares, problem.risk_aversion, problem.cost.eta, problem.cost.phi])
    forward_over_reverse = jax.jit(jax.jacfwd(jax.grad(of)))(at) * at[:, None] * at[None, :]
    reverse_over_reverse = jax.jit(jax.jacrev(jax.grad(of)))(at) * at[:, None] * at[None, :]
    gradient = jax.jit(jax.grad(of))
    steps = 1e-5 * np.asarray(at)
    columns = [(gradient(at.at[i].add(h)) - gradient(at.at[i].add(-h))) / (2 * h) for i, h in enumerate(steps)]
    numeric = np.stack(columns, 1) * np.asarray(at)[:, None] * np.asarray(at)[None, :]
    scale = np.max(np.abs(numeric))
    np.testing.assert_allclose(forward_over_reverse, forward_over_reverse.T, atol=1e-9 * scale)
    np.testing.assert_allclose(forward_over_reverse, reverse_over_reverse, atol=1e-9 * scale)
    np.testing.assert_allclose(forward_over_reverse, numeric, atol=1e-6 * scale)


def test_gradients_under_vmap():
    problems = [one("", seed=i) for i in range(3)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    together = jax.jit(jax.vmap(jax.grad(a_trade_mix)))(batch)
    scale = abs(float(a_trade_mix(problems[0])))
    for i, problem in enumerate(problems):
        alone = compiled(jax.grad, a_trade_mix)(problem)
        for leaf, a, b in zip(*(jax.tree.leaves(t) for t in (problem, alone, together)), strict=True):
            np.testing.assert_allclose(a * leaf, b[i] * leaf, rtol=1e-9, atol=1e-10 * scale)


def test_float32_gradient():
    single = jax.tree.map(lambda x: x.astype(jnp.float32), one(""))
    gradient32, gradient64 = (compiled(jax.grad, best_objective)(p) for p in (single, one("")))
    for a, b in zip(jax.tree.leaves(gradient32), jax.tree.leaves(gradient64), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * float(jnp.max(jnp.abs(b))))


def test_gradient_of_a_closed_step_is_finite():
    """More volume where there is none lowers the cost at the rate H(y), one-sided."""
    slope = compiled(jax.grad, best_objective)(one("closed")).market.volume
    assert np.all(np.isfinite(np.asarray(slope)))
    assert float(slope[4]) < 0
