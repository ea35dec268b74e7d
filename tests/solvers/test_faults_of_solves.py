"""Faults 13 to 31: costs that are no costs, kinks, caps, grids, guesses, batches, precision, users' functions."""

import inspect
import subprocess
import sys
import traceback

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.scale import solve_many
from tests.problems import one, random_batch
from tests.solvers.spoiled_orders import (
    BAD,
    GOOD,
    LANES,
    NUMBERS,
    OTHERS,
    STEPS,
    assert_one_lane_fails,
    careless_gradient,
    market,
    masked_gradient,
    order,
    solve_batch,
    spoiled,
)

# ---- costs of the user ----------------------------------------------------------------------------------------------


def cash(rates, bend):
    """Convex for bend ≥ 0."""
    return 0.1 * rates**2 + bend * rates**4


def of_user(function, parameters, psi=0.0, steps=STEPS, shares=2e5):
    grid = jx.TimeGrid.uniform(1.0, steps)
    return jx.Liquidation(shares, jx.Market(grid, 0.6, 4e6), jx.CustomCost(function, parameters, psi), 3e-6)


@jax.jit
@jax.vmap
def solve_cash(bend):
    return jx.solve(of_user(cash, bend))


@jax.jit
@jax.grad
def masked_cash(bends):
    s = jax.vmap(lambda b: jx.solve(of_user(cash, b)))(bends)
    return jnp.sum(jnp.where(s.status <= jx.Status.LOCAL, s.objective, 0))


def test_13_31_a_cost_that_is_not_convex_or_not_a_number():
    bends = jnp.asarray([0.0, 1.0, 2.0, 3.0])
    good = solve_cash(bends)
    assert np.all(np.asarray(good.status) == jx.Status.OK)
    slope = masked_cash(bends)
    for value, status in ((-50.0, jx.Status.NONCONVEX), (jnp.nan, jx.Status.NONFINITE_INPUT)):
        bad = solve_cash(bends.at[2].set(value))
        assert bad.status[2] == status
        assert np.all(np.isnan(np.asarray(bad.trades)[2]))
        for a, b in zip(jax.tree.leaves(good), jax.tree.leaves(bad), strict=True):
            np.testing.assert_array_equal(np.asarray(a)[[0, 1, 3]], np.asarray(b)[[0, 1, 3]])
        turned = masked_cash(bends.at[2].set(value))
        assert turned[2] == 0
        np.testing.assert_array_equal(np.asarray(turned)[[0, 1, 3]], np.asarray(slope)[[0, 1, 3]])


def test_31_a_function_that_raises():
    """The traceback leads to the user's own line."""

    def broken(rates, _):
        raise KeyError("no such curve")

    with pytest.raises(KeyError, match="no such curve") as caught:
        jx.CustomCost(broken)
    assert any(frame.name == "broken" for frame in traceback.extract_tb(caught.value.__traceback__))


def test_31_a_function_that_raises_later():
    def moody(rates, _):
        if rates.shape != (2,):
            raise ZeroDivisionError("only for two rates")
        return rates**2

    with pytest.raises(ZeroDivisionError, match="two rates") as caught:
        jx.solve(of_user(moody, (), steps=4))
    assert any(frame.name == "moody" for frame in traceback.extract_tb(caught.value.__traceback__))


@pytest.mark.parametrize(
    "function",
    [
        lambda rates, _: jnp.sum(rates**2),
        lambda rates, _: rates[:-1] ** 2,
        lambda rates, _: rates > 0,
        lambda rates, _: None,
        lambda rates, _: rates**2 + 1,
    ],
    ids=["sum", "shorter", "truth", "none", "not 0 at rest"],
)
def test_31_a_function_of_the_wrong_shape(function):
    with pytest.raises(ValueError, match="function"):
        jx.CustomCost(function)


def hole(rates, _):
    """Not a number from a rate of 0.02 on, below what the schedule would like to trade at."""
    return jnp.where(jnp.abs(rates) < 0.02, 0.1 * rates**2, jnp.nan)


def test_31_not_a_number_in_the_middle_of_a_solve():
    with pytest.raises(ValueError, match="cost must be strictly convex"):
        of_user(hole, ())
    s = solve_with_a_hole(2e5)
    assert s.status > jx.Status.LOCAL
    assert np.all(np.isnan(np.asarray(s.trades)))


def test_31_not_a_number_leaves_gap_and_iterations_finite():
    s = solve_with_a_hole(2e5)
    assert all(np.isfinite(float(getattr(s, name))) for name in NUMBERS)


@jax.jit
def solve_with_a_hole(shares):
    return jx.solve(of_user(hole, (), shares=shares))


# ---- kinks, dead cores, volume and caps -----------------------------------------------------------------------------


def test_14_kinks():
    """At an optimum with a spread y ∈ ∂L(ρ): |y| ≤ ψ where nothing is traded, y = L'(ρ) where something is."""
    batch = random_batch(19, LANES, STEPS, (-1.0, 1.0), drift=True, target=True, uneven_spread=True)
    s = solve_batch(batch)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    y, trades, psi = -np.asarray(s.costate), np.asarray(s.trades), np.asarray(batch.cost.psi)
    room = np.asarray(jax.vmap(lambda p: p.market.step_volume)(batch))
    still = np.abs(trades) <= 1e-9 * np.max(np.abs(np.asarray(s.inventory)), 1, keepdims=True)
    marginal = np.asarray(jax.vmap(lambda p, r: p.cost.marginal(r))(batch, trades / np.where(room > 0, room, 1)))
    unit = np.max(np.abs(y), 1, keepdims=True)
    assert (still & (psi > 0) & (room > 0)).any()
    assert np.all((np.abs(y) - psi)[still & (room > 0)] <= (1e-3 * unit * np.ones_like(y))[still & (room > 0)])
    moving = ~still & (room > 0)
    assert np.max((np.abs(y - marginal) / unit)[moving]) <= 1e-7
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(careless_gradient(batch)))


def test_15_dead_core():
    """φ = 2: the order is finished long before its horizon, and stays so."""
    batch = eqx.tree_at(lambda p: p.cost.phi, random_batch(20, LANES, STEPS, (1.0, 2.5)), jnp.full(LANES, 2.0))
    s, slope = solve_batch(batch), careless_gradient(batch)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    inventory = np.asarray(s.inventory)
    assert np.all(inventory >= 0) and np.all(np.asarray(s.trades) >= 0)
    assert np.sum(inventory[:, 2 * STEPS // 3] < 1e-9 * inventory[:, 0]) > LANES // 3
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(slope))


def test_16_no_volume(clean):
    """No trade in a step without volume, infeasible without any."""
    shut = (np.arange(STEPS) % 3 == 1)[None]
    batch = eqx.tree_at(lambda p: p.market.volume, GOOD, jnp.where(shut, 0, GOOD.market.volume))
    s = solve_batch(batch)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert np.all(np.asarray(s.trades)[:, shut[0]] == 0)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(careless_gradient(batch)))
    assert_one_lane_fails(clean, spoiled(lambda p: p.market.volume, 0.0), jx.Status.INFEASIBLE)


def test_17_negative_volume(clean):
    with pytest.raises(ValueError, match=r"volume\[3\] must be at least 0, got -1"):
        market(volume=[1, 1, 1, -1])
    batch = eqx.tree_at(lambda p: p.market.volume, GOOD, GOOD.market.volume.at[BAD, 3].set(-1.0))
    assert_one_lane_fails(clean, batch, jx.Status.NONFINITE_INPUT)


@jax.jit
@jax.vmap
def solve_capped(cap):
    problem = order(shares=4e5, cost=jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.001), cap))
    return jx.solve(problem)


@jax.jit
@jax.vmap
@jax.grad
def capped_slope(cap):
    problem = order(shares=4e5, cost=jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.001), cap))
    return jx.solve(problem).objective


def test_18_a_cap_that_is_too_tight():
    """At the cap of 0.1 the order just fits; multipliers stay finite as it gets there."""
    caps = jnp.asarray([0.0, 0.0999, 0.1, 0.1001, 0.12, 0.5])
    s = solve_capped(caps)
    assert list(np.asarray(s.status)) == [jx.Status.INFEASIBLE] * 2 + [jx.Status.OK] * 4
    assert np.all(np.isnan(np.asarray(s.trades)[:2]))
    np.testing.assert_allclose(s.trades[2], np.full(4, 1e5), rtol=1e-9)
    assert np.all(np.diff(np.asarray(s.objective)[2:]) <= 1e-9)
    slope = np.asarray(capped_slope(caps))
    assert np.all(np.isnan(slope[:2]))
    assert np.all(np.isfinite(slope[2:]))
    assert np.all(slope[2:] <= 1e-9 * abs(float(s.objective[2])))
    with pytest.raises(RuntimeError, match=r"INFEASIBLE.*cap is too tight"):
        jx.solve(order(shares=4e5, cost=jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.001), 0.05)), throw=True)


def test_19_contradictory_bounds():
    quadratic = jx.QuadraticCost(0.1)
    with pytest.raises(ValueError, match=r"rho_min\[1\] must be at most"):
        jx.ParticipationCap(quadratic, 0.1, [-0.1, 0.2])
    with pytest.raises(ValueError, match=r"rho_max\[1\] must be at least 0, got -0.2"):
        jx.ParticipationCap(quadratic, [0.1, -0.2])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jx.TimeGrid([0.0]), "at least 2 nodes"),
        (lambda: jx.TimeGrid([]), "at least 2 nodes"),
        (lambda: jx.TimeGrid([0.0, 0.5, 0.5, 1.0]), r"times\[2\] = 0.5 is not after times\[1\]"),
        (lambda: jx.TimeGrid([0.0, 0.7, 0.5]), r"times\[2\] = 0.5 is not after times\[1\] = 0.7"),
        (lambda: jx.TimeGrid.uniform(1.0, 0), "steps must be a positive integer"),
        (lambda: jx.TimeGrid.uniform(1.0, True), "steps must be a positive integer"),
    ],
)
def test_20_grid(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_20_grid_where_traced(clean):
    for i, value in ((4, GOOD.grid.times[BAD, 3]), (4, GOOD.grid.times[BAD, 6])):
        batch = eqx.tree_at(lambda p: p.grid.times, GOOD, GOOD.grid.times.at[BAD, i].set(value))
        assert_one_lane_fails(clean, batch, jx.Status.NONFINITE_INPUT)


def test_21_uneven_grid():
    """Steps whose lengths differ by 10⁸, at the start, in the middle and at the end."""
    long = np.ones((LANES, STEPS))
    for i in range(LANES):
        long[i, (3 * i) % STEPS : (3 * i) % STEPS + 8] = np.geomspace(1e-8, 1, STEPS - (3 * i) % STEPS)[:8]
    times = np.concatenate([np.zeros((LANES, 1)), np.cumsum(long, 1)], 1)
    s = solve_batch(eqx.tree_at(lambda p: p.grid.times, GOOD, jnp.asarray(times / times[:, -1:])))
    assert np.all(np.asarray(s.status) <= jx.Status.OK_INACCURATE)
    assert np.all(np.isfinite(np.asarray(s.relative_gap)))
    assert np.median(np.asarray(s.relative_gap)) < 1e-10


# ---- iterations, guesses and batches --------------------------------------------------------------------------------


in_one_step = jax.jit(jax.vmap(lambda p: jx.solve(p, jx.LadderNewton(max_steps=1))))


@jax.jit
@jax.grad
def gradient_in_one_step(batch):
    return jnp.sum(jax.vmap(lambda p: jx.solve(p, jx.LadderNewton(max_steps=1)))(batch).trades ** 2)


def test_22_too_few_steps():
    hard = eqx.tree_at(lambda p: p.cost.phi, random_batch(5, LANES, STEPS, (2.5, 3.0)), jnp.full(LANES, 0.1))
    s, slope = in_one_step(hard), gradient_in_one_step(hard)
    failed = np.asarray(s.status) == jx.Status.MAX_STEPS
    assert failed.sum() > LANES // 2
    assert np.all(np.isnan(np.asarray(s.trades)[failed]))
    assert np.all(np.isfinite(np.asarray(s.relative_gap)))
    assert np.all(np.isnan(np.asarray(slope.shares)[failed]))
    usable = np.asarray(s.status) <= jx.Status.LOCAL
    assert np.all(np.isfinite(np.asarray(slope.shares)[usable]))


solve_from = jax.jit(jax.vmap(lambda p, g: jx.solve(p, guess=g)))


def test_23_bad_guesses(clean):
    """A guess that is not a number is left aside, and says so; a wild one only costs time."""
    for bad in (jnp.nan, -jnp.inf):
        guess = jnp.asarray(clean.costate).at[BAD, 3].set(bad)
        s = solve_from(GOOD, guess)
        assert s.flags[BAD] == jx.Flag.GUESS_IGNORED
        assert np.all(np.asarray(s.flags)[OTHERS] == 0)
        assert np.all(np.asarray(s.status) == jx.Status.OK)
        np.testing.assert_allclose(s.trades, clean.trades, atol=1e-9 * float(jnp.max(GOOD.shares)))
        np.testing.assert_allclose(s.objective, clean.objective, rtol=1e-12)
    wild = solve_from(GOOD, 1e6 * jnp.asarray(clean.costate))
    assert np.all(np.asarray(wild.status) == jx.Status.OK) and np.all(np.asarray(wild.flags) == 0)
    np.testing.assert_allclose(wild.trades, clean.trades, atol=1e-9 * float(jnp.max(GOOD.shares)))
    with pytest.raises(ValueError, match=r"guess must have shape \(4,\)"):
        jx.solve(order(), guess=jnp.zeros(5))


def test_24_one_bad_lane_of_many():
    """No other lane changes by a bit, in its numbers or in its number of iterations."""
    many = random_batch(23, 3000, STEPS, (-1.0, 2.0))
    bad = 1234
    a, b = solve_batch(many), solve_batch(eqx.tree_at(lambda p: p.cost.eta, many, many.cost.eta.at[bad].set(jnp.nan)))
    assert b.status[bad] == jx.Status.NONFINITE_INPUT
    others = np.arange(3000) != bad
    np.testing.assert_array_equal(np.asarray(a.iterations)[others], np.asarray(b.iterations)[others])
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x)[others], np.asarray(y)[others])


def test_25_empty_and_single_batches(clean):
    none = jax.tree.map(lambda x: x[:0], GOOD)
    s = solve_batch(none)
    assert s.trades.shape == (0, STEPS) and s.status.shape == (0,)
    alone = jax.tree.map(lambda x: x[3:4], GOOD)
    np.testing.assert_allclose(solve_batch(alone).trades[0], clean.trades[3], atol=1e-7)


def test_25_many_empty_single_and_ragged_orders():
    none = jax.tree.map(lambda x: x[:0], GOOD)
    assert solve_many(none).inventory.shape == (0, STEPS + 1)
    assert solve_many([]) == []
    ragged = [one(steps=n) for n in (12, 7, 12, 9, 11)]
    answers = solve_many(ragged)
    assert [a.trades.shape for a in answers] == [(n,) for n in (12, 7, 12, 9, 11)]
    for problem, a in zip(ragged, answers, strict=True):
        assert a.status == jx.Status.OK
        np.testing.assert_allclose(np.sum(a.trades), problem.shares, rtol=1e-12)
    with pytest.raises(ValueError, match=r"problems\[1\] must be a jaxexec.Liquidation, got int"):
        solve_many([ragged[0], 3])
    spoiled_one = eqx.tree_at(lambda p: p.shares, ragged[1], jnp.asarray(jnp.nan))
    mixed = solve_many([ragged[0], spoiled_one, *ragged[2:]])
    assert mixed[1].status == jx.Status.NONFINITE_INPUT
    for i in (0, 2, 3, 4):
        for x, y in zip(jax.tree.leaves(mixed[i]), jax.tree.leaves(answers[i]), strict=True):
            np.testing.assert_array_equal(x, y)


SINGLE = """
import numpy as np, jax.numpy as jnp, jaxexec as jx
grid = jx.TimeGrid.uniform(1, 12)
for build, field in (
    (lambda x: jx.TimeGrid(np.linspace(0, 1, 13)), "times"),
    (lambda x: jx.Market(grid, x, 4_000_000), "volatility"),
    (lambda x: jx.QuadraticCost(x), "eta"),
    (lambda x: jx.Liquidation(100_000, jx.Market(grid, 1, 4_000_000), jx.QuadraticCost(1), x), "risk_aversion"),
):
    try:
        build(np.full(12, 0.5) if field != "risk_aversion" else np.array(0.5))
    except ValueError as error:
        assert field in str(error) and "jax_enable_x64" in str(error), str(error)
    else:
        raise AssertionError(field)
market = jx.Market(grid, np.full(12, 0.6, np.float32), 4_000_000)
problem = jx.Liquidation(200_000, market, jx.PowerLawCost(0.1, 0.6), 3e-6)
s = jx.solve(problem, throw=True)
assert s.trades.dtype == s.objective.dtype == jnp.float32 and s.flags == jx.Flag.FLOAT32
assert s.relative_gap <= 1e-5
print(float(s.objective))
"""


def test_26_single_precision():
    """Without x64 float64 arrays are refused; numbers, integers and float32 give float32's tolerances, and say so."""
    done = subprocess.run([sys.executable, "-c", SINGLE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    grid = jx.TimeGrid.uniform(1, 12)
    problem = jx.Liquidation(200_000, jx.Market(grid, np.full(12, 0.6), 4_000_000), jx.PowerLawCost(0.1, 0.6), 3e-6)
    s = jx.solve(problem, throw=True)
    assert s.trades.dtype == jnp.float64 and s.flags == jx.Flag.NONE
    np.testing.assert_allclose(float(done.stdout), s.objective, rtol=1e-5)


def test_26_integers_are_promoted():
    grid = jx.TimeGrid.uniform(1, 4)
    problem = jx.Liquidation(100_000, jx.Market(grid, 1, np.full(4, 4_000_000)), jx.QuadraticCost(1), 0)
    assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(problem))
    np.testing.assert_allclose(jx.solve(problem, throw=True).trades, np.full(4, 25_000.0))


def test_27_derivatives_at_the_edge():
    """Nothing traded, nothing held, nothing feared: finite one by one and all at once."""
    edges = [
        (lambda p: p.shares, 0.0),
        (lambda p: p.risk_aversion, 0.0),
        (lambda p: p.market.volatility, 0.0),
        (lambda p: p.cost.psi, 0.0),
        (lambda p: p.target, GOOD.shares[BAD]),
    ]
    batch = GOOD
    for lane, (where, value) in enumerate(edges):
        batch = eqx.tree_at(where, batch, where(batch).at[lane].set(value))
        for shared in (LANES - 1,) if lane < 4 else ():
            batch = eqx.tree_at(where, batch, where(batch).at[shared].set(value))
    assert np.all(np.asarray(solve_batch(batch).status) == jx.Status.OK)
    for gradient in (masked_gradient, careless_gradient):
        for slope in jax.tree.leaves(gradient(batch)):
            assert np.all(np.isfinite(np.asarray(slope)))


def test_solve_says_how_it_fails():
    """The docstring promises what the tests above hold it to."""
    text = inspect.getdoc(jx.solve) or ""
    assert all(word in text for word in ("status", "NaN", "GUESS_IGNORED", "RuntimeError"))
