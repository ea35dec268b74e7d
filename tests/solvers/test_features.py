"""Benchmarks, soft ends, resuming, finer grids, caps, venues, users' costs and bounds of any schedule, solved.

Every kind of problem is checked against SciPy, for its certificate, and for its derivatives: forward = reverse =
central differences for every float leaf, of the objective and of a mix of trades.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

import jaxexec as jx
from jaxexec.solvers.bound import certify

STEPS = 8
WEIGHTS = np.random.default_rng(5).normal(size=STEPS)
TIMES = np.cumsum(np.r_[0, np.random.default_rng(1).uniform(0.5, 1.5, STEPS)])
TIMES = TIMES / TIMES[-1]
MIDDLE = (TIMES[1:] + TIMES[:-1]) / 2
SHARES = 2e5
WAVE = np.sin(7 * MIDDLE)


def market(drift=0.0, elapsed=0.0, permanent_impact=1e-7):
    rng = np.random.default_rng(2)
    return jx.Market(
        jx.TimeGrid(TIMES),
        volatility=0.6 * (1 + 0.2 * rng.uniform(size=STEPS)),
        volume=4e6 * (1 + 1.5 * (2 * MIDDLE - 1) ** 2),
        permanent_impact=permanent_impact,
        drift=drift * WAVE,
        gap_variance=0.01 * rng.uniform(size=STEPS),
        elapsed=elapsed,
    )


def smile(rates, parameters):
    """η|ρ|^1.5 + βρ⁴."""
    eta, beta = parameters
    return eta * jnp.abs(rates) ** 1.5 + beta * rates**4


POWER = jx.PowerLawCost(0.1, 0.6, 0.004)
CAPS = np.where(np.arange(STEPS) % 2, 0.03, 0.08)
TWAP = SHARES * (1 - TIMES)


def order(cost=POWER, *, drift=0.0, elapsed=0.0, **rest):
    return jx.Liquidation(SHARES, market(drift, elapsed), cost, **({"risk_aversion": 3e-6} | rest))


BUILD = {
    "plain": lambda: order(),
    "capped": lambda: order(jx.ParticipationCap(POWER, CAPS)),
    "capped, one number": lambda: order(jx.ParticipationCap(POWER, 0.045, -0.02), drift=0.3),
    "sell-only": lambda: order(jx.ParticipationCap(POWER, 0.2, 0.0), drift=2.0),
    "two-sided": lambda: order(jx.TwoSidedCost(jx.PowerLawCost(0.1, 0.6), jx.QuadraticCost(0.3)), drift=4.0),
    "sum": lambda: order(jx.SumCost((POWER, jx.QuadraticCost(0.3 * (1 + MIDDLE))))),
    "venues": lambda: order(jx.VenueSplit((POWER, jx.QuadraticCost(0.2, 0.003)), (0.7, 0.3))),
    "custom": lambda: order(jx.CustomCost(smile, (0.1 * (1 + MIDDLE), 30.0), 0.002)),
    "benchmark": lambda: order(jx.PowerLawCost(0.1, 0.6), benchmark=TWAP, risk_aversion=1e-5, drift=0.3),
    "soft end": lambda: order(terminal_penalty=2e-7, drift=0.1, target=2e4),
    "soft end and benchmark": lambda: order(terminal_penalty=2e-6, benchmark=TWAP),
    "elapsed": lambda: order(elapsed=0.3),
    "discrete, capped": lambda: order(
        jx.ParticipationCap(jx.QuadraticCost(0.5, 0.004), CAPS), convention="almgren-chriss"
    ),
}
KINDS = tuple(BUILD)


@functools.cache
def problem_of(kind):
    return BUILD[kind]()


@functools.cache
def of_flat(kind):
    """Objective and a mix of trades, and the schedule, as functions of all the numbers of the problem in a row."""
    flat, restored = ravel_pytree(problem_of(kind))

    def both(x):
        s = jx.solve(restored(x))
        return jnp.stack([s.objective, jnp.sum(jnp.asarray(WEIGHTS) * s.trades)]), s

    @jax.jit
    def everything(x):
        values, linear, s = jax.linearize(both, x, has_aux=True)
        reverse = jax.vmap(lambda u: jax.linear_transpose(linear, x)(u)[0])(jnp.eye(2))
        return values, jax.vmap(linear, out_axes=-1)(jnp.eye(x.size)), reverse, s

    return flat, jax.jit(jax.vmap(lambda x: both(x)[0])), everything


@functools.cache
def all_about(kind):
    flat, _, everything = of_flat(kind)
    return jax.tree.map(np.asarray, everything(flat))


def schedule_of(kind):
    s = all_about(kind)[3]
    assert s.status == jx.Status.OK
    return s


# ---- every kind -----------------------------------------------------------------------------------------------------


@jax.jit
@jax.value_and_grad
def cost_of(fractions, problem):
    return jx.objective(problem, SHARES * fractions)


def least_by_scipy(problem, start, *, tries=2):
    """The cheapest schedule that SLSQP finds, from starts around `start`: objective and trades."""
    room = np.asarray(problem.market.step_volume)
    low, high = (np.broadcast_to(np.asarray(b, float), room.shape) for b in problem.cost.bounds())
    bounds = [
        (lo * r / SHARES, hi * r / SHARES) if r > 0 else (0, 0) for lo, hi, r in zip(low, high, room, strict=True)
    ]
    unit = abs(float(jx.objective(problem, start)))
    whole = float(problem.shares - problem.target) / SHARES
    limits = {"type": "eq", "fun": lambda x: np.sum(x) - whole, "jac": lambda x: np.ones_like(x)}

    def scaled(x):
        value, slope = cost_of(x, problem)
        return float(value) / unit, np.asarray(slope) / unit

    found = []
    for seed in range(tries):
        x = start / SHARES + 0.02 * np.random.default_rng(seed).normal(size=STEPS)
        x = np.clip(x, *np.asarray(bounds).T)
        found.append(
            scipy.optimize.minimize(
                scaled,
                x,
                jac=True,
                bounds=bounds,
                method="SLSQP",
                constraints=[] if problem.terminal_penalty is not None else [limits],
                options={"maxiter": 1000, "ftol": 1e-15},
            )
        )
    best = min(found, key=lambda f: f.fun)
    return best.fun * unit, best.x * SHARES


@pytest.mark.parametrize("kind", KINDS)
def test_optimal_against_scipy(kind):
    problem, s = problem_of(kind), schedule_of(kind)
    value, trades = least_by_scipy(problem, s.trades)
    unit = abs(float(s.objective))
    assert value >= s.objective - 1e-8 * unit  # SLSQP lets the sum of the trades be off by rounding
    assert value <= s.objective + 1e-6 * unit
    np.testing.assert_allclose(trades, s.trades, atol=3e-3 * SHARES)


@pytest.mark.parametrize("kind", KINDS)
def test_consistent_and_certified(kind):
    problem, s = problem_of(kind), schedule_of(kind)
    assert 0 <= s.relative_gap <= 1e-8
    for name, function in (("expected_cost", jx.expected_cost), ("variance", jx.variance), ("objective", jx.objective)):
        np.testing.assert_allclose(getattr(s, name), function(problem, s.trades), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(s.inventory[0] - s.inventory[1:], np.cumsum(s.trades), atol=1e-9 * SHARES)
    if problem.terminal_penalty is None:
        np.testing.assert_allclose(np.sum(s.trades), problem.shares - problem.target, rtol=1e-12)
    room = np.asarray(problem.market.step_volume)
    rates, (low, high) = s.trades / np.where(room > 0, room, 1), problem.cost.bounds()
    assert np.all(s.trades[room == 0] == 0)
    assert np.all(rates <= np.asarray(high) * (1 + 1e-12)) and np.all(rates >= np.asarray(low) * (1 + 1e-12))


def test_kinds_show_what_they_are_for():
    """Caps bind, purchases happen, the tail is left over: else the tests above would say nothing."""
    rates = {kind: schedule_of(kind).trades / np.asarray(market().step_volume) for kind in KINDS}
    at_cap = np.isclose(rates["capped"], CAPS, rtol=1e-9)
    assert at_cap.any() and not at_cap.all()
    assert np.isclose(rates["discrete, capped"], CAPS, rtol=1e-9).any()
    assert (rates["sell-only"] == 0).any() and np.all(rates["sell-only"] >= 0)
    assert (rates["two-sided"] < 0).any()
    assert np.isclose(rates["capped, one number"], 0.045, rtol=1e-9).any()
    left = SHARES - schedule_of("soft end").trades.sum() - 2e4
    assert abs(left) > 1e-3 * SHARES
    over = TIMES[1:] <= 0.3
    assert over.any() and np.all(schedule_of("elapsed").trades[over] == 0)


# What a change of one unit should be measured in where the number itself is zero.
SCALES = {"drift": 0.3, "target": 1e4, "benchmark": 1e4}


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind):
    problem = problem_of(kind)
    flat, values, _ = of_flat(kind)
    found, forward, reverse, _ = all_about(kind)
    paths = jax.tree_util.tree_leaves_with_path(problem)
    names = np.concatenate([np.full(x.size, jax.tree_util.keystr(path).split(".")[-1]) for path, x in paths])
    flat = np.asarray(flat)
    unit = np.where(flat != 0, np.abs(flat), [SCALES.get(name, 0.0) for name in names])
    step = np.where(names == "times", 1e-5, 3e-4 * unit)
    step = np.where([name.startswith("fractions") for name in names], 2e-7, step)  # they must sum to 1, to 1e-6
    seen = np.flatnonzero(step > 0)  # what is 0 at the edge of its domain has nothing beyond to step to
    moves = np.stack([np.eye(flat.size)[seen] * step[seen, None] * k for k in (-2, -1, 1, 2)])
    at = np.asarray(values((flat + moves).reshape(-1, flat.size))).reshape(4, seen.size, 2)
    assert np.all(np.isfinite(at))
    slopes = ((8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * step[seen, None])).T
    scale = np.abs(found)[:, None]
    elasticity = unit[seen] / scale
    np.testing.assert_allclose(forward * unit / scale, reverse * unit / scale, rtol=1e-9, atol=1e-9)
    for row, what in enumerate(("objective", "trades")):
        ours, theirs = reverse[row, seen] * elasticity[row], slopes[row] * elasticity[row]
        off = np.abs(ours - theirs) > 1e-6 + 1e-6 * np.abs(theirs)
        wrong = [f"{n}: {a:.9g}, not {b:.9g}" for n, a, b in zip(names[seen][off], ours[off], theirs[off], strict=True)]
        assert not wrong, f"{what} by {wrong}"


# ---- benchmarks -----------------------------------------------------------------------------------------------------


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0))
def track(risk_aversion, benchmark):
    return jx.solve(order(risk_aversion=risk_aversion, benchmark=benchmark))


def test_fear_follows_the_benchmark():
    """A TWAP, and the close as far as it can be reached: what is apart falls as 1/γ."""
    s = track(jnp.asarray([1e-3, 1e-1, 1e1]), jnp.asarray(np.tile(TWAP, (3, 1))))
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    apart = np.max(np.abs(np.asarray(s.inventory) - TWAP), 1) / SHARES
    np.testing.assert_allclose(apart[1:] / apart[:-1], 0.01, rtol=0.2)
    assert apart[-1] < 1e-4
    assert np.all(np.diff(np.asarray(s.variance)) < 0)
    close = np.where(np.arange(STEPS + 1) < STEPS, SHARES, 0.0)
    s = track(jnp.asarray([1e-7, 1e-5, 1e3]), jnp.asarray(np.tile(close, (3, 1))))
    np.testing.assert_allclose(s.inventory[2], close, atol=1e-4 * SHARES)
    assert np.all(np.diff(np.asarray(s.trades)[:, -1]) > 0)


def test_a_benchmark_of_nothing_changes_nothing():
    s = track(jnp.asarray([3e-6]), jnp.zeros((1, STEPS + 1)))
    np.testing.assert_allclose(s.inventory[0], schedule_of("plain").inventory, atol=1e-8 * SHARES)
    np.testing.assert_allclose(s.objective[0], schedule_of("plain").objective, rtol=1e-9)


def test_a_benchmark_of_one_s_own_optimum():
    """Measured against itself the cheapest schedule without risk has no risk: VWAP, for a power law."""
    vwap = SHARES - np.r_[0, np.cumsum(np.asarray(jx.vwap(order())))]
    s = track(jnp.asarray([3e-6]), jnp.asarray(vwap)[None])
    np.testing.assert_allclose(s.inventory[0], vwap, atol=1e-8 * SHARES)
    assert s.variance[0] < 1e-12 * schedule_of("plain").variance


# ---- soft ends ------------------------------------------------------------------------------------------------------


@jax.jit
@jax.vmap
def end_softly(penalty):
    return jx.solve(order(terminal_penalty=penalty))


def test_a_hard_end_is_an_endless_penalty():
    hard = schedule_of("plain")
    penalties = jnp.asarray([1e-8, 1e-6, 1e-4, 1e-2, 1.0])
    s = end_softly(penalties)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    left, missing = np.asarray(s.inventory)[:, -1], hard.objective - np.asarray(s.objective)
    assert np.all(left > 0) and np.all(np.diff(left) < 0)
    assert np.all(missing > 0) and np.all(np.diff(missing) < 0)
    np.testing.assert_allclose((missing[1:] / missing[:-1])[2:], 0.01, rtol=0.05)
    np.testing.assert_allclose(s.trades[-1], hard.trades, atol=1e-5 * SHARES)
    # What is left is worth its penalty: P x_N = L' in the last step (−p, and half a step of risk).
    end = order().market.step_variance[-1] / 2 * order().risk_aversion
    np.testing.assert_allclose(penalties * left, -np.asarray(s.costate)[:, -1] - end * left, rtol=1e-7)


def test_a_penalty_makes_no_schedule_dearer_than_leaving_all():
    problem = problem_of("soft end")
    nothing = jx.objective(problem, np.zeros(STEPS))
    held = SHARES
    expected = problem.terminal_penalty / 2 * (held - problem.target) ** 2
    expected = expected + problem.market.permanent_impact / 2 * (held**2 - problem.target**2)
    expected = expected + 1.5e-6 * held**2 * jnp.sum(problem.market.step_variance)
    expected = expected - held * jnp.sum(problem.market.step_drift)
    np.testing.assert_allclose(nothing, expected, rtol=1e-12)
    assert schedule_of("soft end").objective < nothing


# ---- resuming -------------------------------------------------------------------------------------------------------


def test_resuming_on_plan_changes_no_plan(caplog):
    """Bellman: the rest of the optimum is the optimum of the rest; and nothing is compiled again."""
    problem = problem_of("plain")
    s = jx.solve(problem, throw=True)
    with jax.log_compiles():
        for k in (1, 4, 7):
            rest = jx.solve(problem.resume(TIMES[k], s.inventory[k]), guess=s, throw=True)
            np.testing.assert_allclose(rest.inventory[k:], s.inventory[k:], atol=1e-8 * SHARES)
            assert np.all(np.asarray(rest.trades)[:k] == 0)
            assert rest.iterations <= s.iterations
        fresh = jx.solve(problem.resume(TIMES[4], s.inventory[4]), throw=True)
        warm = jx.solve(problem.resume(TIMES[4], s.inventory[4]), guess=s, throw=True)
    assert "_solve" not in caplog.text
    assert warm.iterations < fresh.iterations
    np.testing.assert_allclose(warm.inventory, fresh.inventory, atol=1e-9 * SHARES)


def test_resuming_in_the_middle_of_a_step():
    """The step under way keeps the rest of its share: the same as an order that starts there."""
    problem, at, held = problem_of("plain"), (TIMES[3] + 2 * TIMES[4]) / 3, 9e4
    s = jx.solve(problem.resume(at, held), throw=True)
    rest, m = slice(3, None), problem.market
    share = np.ones(STEPS - 3)
    share[0] = 1 / 3
    part = jx.Market(
        jx.TimeGrid(np.r_[at, TIMES[4:]]),
        m.volatility[rest],
        m.volume[rest],
        m.permanent_impact,
        m.drift[rest],
        m.gap_variance[rest] * share,
    )
    alone = jx.Liquidation(held, part, POWER, problem.risk_aversion)
    np.testing.assert_allclose(jx.objective(alone, s.trades[rest]), s.objective, rtol=1e-12)
    # No worse than anything near: the same optimum.
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2):
        noise = rng.normal(size=STEPS - 3) * size * held
        assert jx.objective(alone, s.trades[rest] + noise - noise.mean()) >= s.objective
    np.testing.assert_array_equal(np.asarray(s.inventory)[:4], held)


def test_resuming_is_traced_once():
    traces = []

    @jax.jit
    def again(problem, at, shares, guess):
        traces.append(1)
        return jx.solve(problem.resume(at, shares), guess=guess)

    problem = problem_of("plain")
    s = schedule_of("plain")
    for at, held in ((0.0, SHARES), (0.25, 1.5e5), (0.9, 1e4)):
        rest = again(problem, at, held, s.costate)
        assert rest.status == jx.Status.OK
        np.testing.assert_allclose(np.sum(rest.trades), held, rtol=1e-12)
        if at == 0:
            np.testing.assert_allclose(rest.inventory, s.inventory, atol=1e-9 * SHARES)
    assert len(traces) == 1
    late = again(problem, 1.0, 1e4, s.costate)
    assert late.status == jx.Status.INFEASIBLE
    assert len(traces) == 1


# ---- finer grids ----------------------------------------------------------------------------------------------------


@jax.jit
def best_of(problem):
    return jx.solve(problem).objective


def order_of_accuracy(problems):
    a, b, c = (float(best_of(problem)) for problem in problems)
    return np.log2((a - b) / (b - c))


def test_refining_is_of_second_order():
    coarse = order(drift=0.05)
    assert 1.9 < order_of_accuracy([coarse.refine(2), coarse.refine(4), coarse.refine(8)]) < 2.1
    finer = coarse.refine(3)
    for curve in ("step_volume", "step_variance", "step_drift"):
        old, new = (np.asarray(getattr(p.market, curve)) for p in (coarse, finer))
        np.testing.assert_allclose(new.reshape(STEPS, 3).sum(1), old, rtol=1e-12)
    with pytest.raises(ValueError, match="parts"):
        coarse.refine(0)


def test_refining_keeps_curves_of_the_cost_and_of_the_benchmark():
    capped = order(jx.ParticipationCap(POWER, CAPS), benchmark=TWAP).refine(2)
    np.testing.assert_array_equal(capped.cost.rho_max, np.repeat(CAPS, 2))
    np.testing.assert_allclose(capped.benchmark, SHARES * (1 - np.asarray(capped.grid.times)), atol=1e-6)
    custom = order(jx.CustomCost(smile, (0.1 * (1 + MIDDLE), 30.0), 0.002)).refine(2)
    trades = np.full(2 * STEPS, SHARES / 2 / STEPS)
    assert np.isfinite(float(jx.objective(custom, trades)))


def test_smooth_curves_are_of_second_order():
    """Sampled in the middle of each step."""
    coefficients = {
        "volatility": lambda t: 0.6 * (1 + 0.3 * jnp.cos(3 * t)),
        "volume": lambda t: 4e6 * (1 + 1.5 * (2 * t - 1) ** 2),
        "drift": lambda t: 0.05 * jnp.sin(5 * t),
    }

    def on(steps):
        curves = jx.Market.from_functions(
            jx.TimeGrid.uniform(1.0, steps), **coefficients, gap_variance=np.zeros(steps), permanent_impact=1e-7
        )
        return jx.Liquidation(SHARES, curves, POWER, 3e-6)

    assert 1.9 < order_of_accuracy([on(2 * STEPS), on(4 * STEPS), on(8 * STEPS)]) < 2.1


# ---- bounds of any schedule -----------------------------------------------------------------------------------------


bound_each = jax.jit(jax.vmap(certify, in_axes=(None, 0)))


@pytest.mark.parametrize("kind", ["plain", "soft end"])
def test_bound_of_any_schedule(kind):
    """The excess is what a schedule costs above the optimum, to rounding, and never below it."""
    problem, s = problem_of(kind), schedule_of(kind)
    rng = np.random.default_rng(3)
    noisy = s.trades * (1 + 0.2 * rng.normal(size=STEPS))
    noisy = noisy * (np.sum(s.trades) / np.sum(noisy))
    trades = np.stack([s.trades, jx.twap(problem), jx.vwap(problem), noisy, s.trades[::-1], jx.immediate(problem)])
    bound = bound_each(problem, trades)
    assert np.all(np.asarray(bound.status) == jx.Status.OK)
    costs = np.asarray(jax.vmap(lambda n: jx.objective(problem, n))(trades))
    np.testing.assert_allclose(bound.objective, costs, rtol=1e-12)
    excess, unit = np.asarray(bound.excess), abs(float(s.objective))
    assert np.all(excess >= 0)
    # Never less than it is; and the very amount where the spread's own slack, (|y| − ψ)⁺, is not part of it.
    assert np.all(excess >= costs - s.objective - 1e-10 * unit)
    assert excess[0] <= 1e-8 * unit
    assert np.all(excess[1:] > 1e-4 * unit)
    assert np.all(np.asarray(bound.lower_bound) <= s.objective + 1e-10 * unit)
    np.testing.assert_allclose(bound.lower_bound, s.objective, rtol=1e-8)
    assert np.all(np.asarray(bound.relative_excess)[1:] > 0)


def test_bound_of_what_is_not_a_schedule():
    """Incomplete trades are no schedule of the order; other lanes do not notice."""
    problem, s = problem_of("plain"), schedule_of("plain")
    trades = np.stack([s.trades, s.trades * 0.9, np.full(STEPS, np.nan), *[s.trades] * 3])
    bound = bound_each(problem, trades)
    assert list(np.asarray(bound.status)[:2]) == [jx.Status.OK, jx.Status.INFEASIBLE]
    assert np.isnan(float(bound.excess[1])) and np.isnan(float(bound.lower_bound[1]))
    assert not np.isfinite(float(bound.excess[2]))
    np.testing.assert_array_equal(np.asarray(bound.excess)[3:], np.asarray(bound.excess)[0])
    with pytest.raises(ValueError, match=r"trades must have shape \(8,\)"):
        certify(problem, np.zeros(5))


def test_bound_of_trades_that_break_a_cap():
    problem, s = problem_of("capped"), schedule_of("capped")
    trades = np.stack([s.trades, jx.twap(problem), s.trades])
    bound = bound_each(problem, trades)
    assert np.all(np.asarray(bound.status) == jx.Status.OK)
    assert list(np.isinf(np.asarray(bound.excess))) == [False, True, False]
    assert bound.excess[0] <= 1e-8 * s.objective


def test_bound_is_differentiable_in_the_trades():
    """The slope of the excess is that of the objective: the optimum does not depend on the trades."""
    problem = problem_of("plain")
    twap = jnp.asarray(jx.twap(problem))
    excess = jax.jit(jax.value_and_grad(lambda n: certify(problem, n).excess))
    value, slope = excess(twap)
    fixed = jax.grad(lambda n: jx.objective(problem, n))(twap)
    turn = np.random.default_rng(4).normal(size=STEPS)
    turn = jnp.asarray(turn - turn.mean())
    np.testing.assert_allclose(jnp.sum(turn * slope), jnp.sum(turn * fixed), rtol=1e-7)
    h = 1.0
    ends = [excess(twap + e * turn)[0] for e in (h, -h)]
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h), jnp.sum(turn * slope), rtol=1e-6)
    assert value > 0


def test_bound_in_a_problem_with_a_failed_status():
    problem = eqx.tree_at(lambda p: p.market.volume, problem_of("plain"), jnp.zeros(STEPS))
    trades = np.tile(np.asarray(jx.twap(problem_of("plain"))), (6, 1))
    bound = bound_each(problem, trades)
    assert np.all(np.asarray(bound.status) == jx.Status.INFEASIBLE)
    assert np.all(np.isnan(np.asarray(bound.excess)))


def test_caps_in_steps_of_next_to_no_volume():
    """A difference of inventories cannot tell whether 0.02 shares of volume were passed by one part in a million."""
    market = jx.Market(jx.TimeGrid(8.0 * np.linspace(0, 1, 1201) ** 3), 0.6, 4e6)
    cost = jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.004), 0.03)
    s = jx.solve(jx.Liquidation(2e5, market, cost, 1e-6), throw=True)
    assert s.status == jx.Status.OK
    assert s.relative_gap < 1e-10
