"""Relations that hold for every order: derivatives, batches, starts.

36: a schedule does not depend on its batch, the order of it, its padding, chunks or neighbours. 37: derivatives in
both modes. 38: the start does not matter.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.scale import solve_many
from tests.solvers.random_orders import (
    CURVES,
    LANES,
    STEPS,
    assert_related,
    build,
    draw,
    factors,
    few,
    market_of,
    objective_gradient,
    of,
    random_orders,
    size_of,
    solve_batch,
    solved,
)

# ---- derivatives ----------------------------------------------------------------------------------------------------


@jax.jit
@functools.partial(jax.grad, argnums=0)
def fixed_path_gradient(batch, trades):
    return jnp.sum(jax.vmap(jx.objective)(batch, trades))


@few
@random_orders
def test_16_envelope(seed):
    data = draw(seed, "spread") | {"permanent_impact": 1e-8 * factors(seed)}
    problem = build(data)
    s = solved(problem)
    moved, fixed = objective_gradient(problem), fixed_path_gradient(problem, s.trades)
    np.testing.assert_allclose(moved.risk_aversion, s.variance / 2, rtol=1e-9)
    ends = eqx.tree_at(lambda p: (p.shares, p.target), moved, (fixed.shares, fixed.target))
    for leaf, a, b in zip(*(jax.tree.leaves(tree) for tree in (problem, ends, fixed)), strict=True):
        weight = np.asarray(leaf)
        error = np.abs(np.asarray(a - b) * weight).reshape(LANES, -1).max(1)
        assert np.max(error / size_of(data, s)) <= 1e-9


def _directions(problem, seed):
    """Random relative changes of every leaf; times keep their order."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x * (0.1 * rng.uniform(-1, 1, x.shape)), problem)


def all_trades(batch):
    return jax.vmap(jx.solve)(batch).trades / jnp.abs(batch.shares)[:, None]


@jax.jit
def transposed(batch, change, weights):
    forward = jax.jvp(all_trades, (batch,), (change,))[1]
    (reverse,) = jax.vjp(all_trades, batch)[1](weights)
    return forward, reverse


@few
@random_orders
def test_37_transpose_and_differences(seed):
    data = draw(seed, "spread", "target") | {"permanent_impact": 1e-8 * factors(seed)}
    problem = build(data)
    change = _directions(problem, seed)
    weights = jnp.asarray(np.random.default_rng(seed).normal(size=(LANES, STEPS)))
    forward, reverse = transposed(problem, change, weights)
    ahead = np.sum(np.asarray(weights * forward), 1)
    back = sum(
        np.sum(np.asarray(x * y).reshape(LANES, -1), 1)
        for x, y in zip(jax.tree.leaves(reverse), jax.tree.leaves(change), strict=True)
    )
    unit = np.sum(np.abs(np.asarray(weights * forward)), 1)
    assert np.max(np.abs(ahead - back) / unit) <= 1e-9
    errors = []
    for h in (4e-2, 2e-2, 1e-2):
        ends = [solve_batch(jax.tree.map(lambda x, d, e=e: x + e * d, problem, change)) for e in (h, -h)]
        slope = (ends[0].trades - ends[1].trades) / (2 * h) / np.abs(of(data["shares"]))
        if not np.all(data["target"] * data["shares"] <= 0):
            break
        errors.append(np.max(np.abs(np.asarray(slope) - np.asarray(forward)), 1) / np.max(np.abs(forward), 1))
    if errors:
        assert np.median(errors[1] / errors[2]) > 3.5
        assert np.median(errors[2]) < 1e-4


@few
@random_orders
def test_37_gradient_of_a_batch(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    together = objective_gradient(problem)
    apart = gradient_of_each(problem)
    for leaf, a, b in zip(*(jax.tree.leaves(tree) for tree in (problem, together, apart)), strict=True):
        scale = np.asarray(jnp.max(jnp.abs(b.reshape(LANES, -1)), 1)).reshape((LANES,) + (1,) * (leaf.ndim - 1))
        assert np.all(np.abs(np.asarray(a - b)) <= 1e-12 * scale)


@jax.jit
@jax.vmap
@jax.grad
def gradient_of_each(problem):
    return jx.solve(problem).objective


@jax.jit
def curvature(batch, change, other):
    """<other, H change> for every lane's objective over its shares."""
    scale = jax.lax.stop_gradient(jax.vmap(jx.solve)(batch).objective)

    def total(b):
        return jnp.sum(jax.vmap(jx.solve)(b).objective / scale)

    bent = jax.jvp(jax.grad(total), (batch,), (change,))[1]
    parts = jax.tree.map(lambda h, o: jnp.sum((h * o).reshape(LANES, -1), 1), bent, other)
    return functools.reduce(jnp.add, jax.tree.leaves(parts))


@few
@random_orders
def test_37_hessian_is_symmetric(seed):
    problem = build(draw(seed, "spread", "target"))
    one, two = _directions(problem, seed), _directions(problem, seed + 1)
    a, b = curvature(problem, one, two), curvature(problem, two, one)
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * float(jnp.max(jnp.abs(a))))


# ---- batches and starts ---------------------------------------------------------------------------------------------


def lane(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def assert_same_lanes(s, other, rtol=1e-12):
    unit = np.max(np.abs(np.asarray(s.inventory)), -1, keepdims=True)
    assert np.max(np.abs(np.asarray(other.trades) - np.asarray(s.trades)) / unit) <= rtol
    np.testing.assert_allclose(other.objective, s.objective, rtol=rtol, atol=rtol * float(np.max(np.abs(s.objective))))
    np.testing.assert_array_equal(other.status, s.status)


@few
@random_orders
def test_36_batch_equals_each(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    s = solved(problem)
    for i in (0, 7, 15):
        assert_same_lanes(lane(s, i), jx.solve(lane(problem, i)))


@few
@random_orders
def test_36_permutation(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    order = np.random.default_rng(seed).permutation(LANES)
    s, mixed = solved(problem), solved(lane(problem, order))
    for a, b in zip(jax.tree.leaves(s), jax.tree.leaves(mixed), strict=True):
        np.testing.assert_array_equal(a[order], b)


@few
@random_orders
def test_36_chunk_size(seed):
    problem = build(draw(seed, "uneven-spread", "target", "dead", "drift"))
    s = solved(problem)
    assert_same_lanes(s, in_fives(problem))


in_fives = jax.jit(jax.vmap(functools.partial(jx.solve, solver=jx.LadderNewton(chunk=5))))


def test_36_padding():
    """Orders of three lengths share two calls, and come out as they would alone."""
    data = draw(11, "uneven-spread", "dead", "drift")
    orders = []
    for i, steps in enumerate((48, 33, 41, 48, 40)):
        cut = {name: x[i][:steps] if name in CURVES else x[i] for name, x in data.items()}
        cut["times"] = cut["times"][: steps + 1]
        cost = jx.PowerLawCost(cut["eta"], cut["phi"], cut["psi"])
        orders.append(jx.Liquidation(cut["shares"], market_of(cut), cost, cut["risk_aversion"]))
    answers = solve_many(orders)
    for order, s in zip(orders[:2], answers[:2], strict=True):
        assert_same_lanes(jx.solve(order, throw=True), s)


def test_36_without_jit():
    grid = jx.TimeGrid.uniform(1.0, 3)
    problem = jx.Liquidation(1e5, jx.Market(grid, 0.6, 4e6), jx.QuadraticCost(0.1, 0.002), 3e-6)
    s = jx.solve(problem, throw=True)
    with jax.disable_jit():
        slow = jx.solve(problem)
    assert_same_lanes(s, slow)


POISON = [lambda p: p.shares, lambda p: p.market.volume, lambda p: p.grid.times, lambda p: p.cost.phi]


@pytest.mark.parametrize("many", [1, 38], ids=["16 lanes", "608 lanes"])
def test_36_poison_stays_in_its_lane(many):
    """In a batch of one chunk and in one of several; the bad lane changes the order in which lanes are worked on."""
    batches = [build(draw(seed, "uneven-spread", "target", "dead", "drift")) for seed in range(many)]
    problem = jax.tree.map(lambda *xs: jnp.concatenate(xs), *batches)
    clean = solve_batch(problem)
    assert np.all(np.asarray(clean.status) == jx.Status.OK)
    for where, bad in zip(POISON, (3, 8, 15, 0), strict=True):
        bad = bad * many
        s = solve_batch(eqx.tree_at(where, problem, where(problem).at[bad].set(jnp.nan)))
        assert s.status[bad] == jx.Status.NONFINITE_INPUT
        others = np.arange(LANES * many) != bad
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(s), strict=True):
            np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])


@jax.jit
@jax.vmap
def solve_from(problem, guess):
    return jx.solve(problem, guess=guess)


@few
@random_orders
def test_38_start_invariance(seed):
    data = draw(seed, "uneven-spread", "target", "dead", "drift")
    problem = build(data)
    s = solved(problem)
    rng = np.random.default_rng(seed)
    unit = of(np.max(np.abs(s.costate), 1))
    for guess in (
        s.costate,
        s.costate * (1 + 0.1 * rng.normal(size=s.costate.shape)),
        0 * s.costate,
        -s.costate,
        unit * rng.normal(size=s.costate.shape) * 10,
    ):
        other = solve_from(problem, guess)
        assert np.all(np.asarray(other.status) == jx.Status.OK)
        assert np.all(np.asarray(other.flags) == 0)
        assert_related(data, s, jax.tree.map(np.asarray, other))
