"""Gauss collocation: its order, references in many digits, certificates, derivatives, batches, precision."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.market import gauss_times
from jaxexec.solvers.accuracy import graded_ends, initial_decay, solve_to
from jaxexec.solvers.collocation import Collocation
from tests.problems import one, random_batch

SOLVER = Collocation()
KINDS = ("", "buy", "quadratic", "drift", "target", "uneven-spread", "closed")
WEIGHTS = np.random.default_rng(5).normal(size=12)
SCALES = {"drift": 0.3, "target": 1e4, "gap_variance": 0.01, "permanent_impact": 1e-7, "psi": 0.004, "elapsed": 1e-3}

solve_batch = jax.jit(jax.vmap(lambda problem: jx.solve(problem, SOLVER)))


def lane(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def smooth(cells: int, grading: float = 1.0) -> jx.Liquidation:
    """A day that is smooth in everything, on cells that grow from open to close."""
    s = np.linspace(0, 1, cells + 1)
    times, at = (np.asarray(t) for t in gauss_times(jnp.asarray(np.expm1(grading * s) / np.expm1(grading))))
    market = jx.Market(
        jx.TimeGrid(times),
        volatility=0.6 * (1 + 0.3 * np.cos(3 * at)),
        volume=4e6 * (1 + 1.5 * (2 * at - 1) ** 2),
        permanent_impact=1e-7,
        drift=0.01 * np.sin(5 * at),
    )
    return jx.Liquidation(2e5, market, jx.PowerLawCost(0.1 * (1 + 0.2 * at), 0.8), 1e-6)


def test_order_four():
    """Ends and middles of cells and all costs, on smooth data."""
    fine = jx.solve(smooth(256), SOLVER, throw=True)
    errors = []
    for cells in (32, 64):
        s = jx.solve(smooth(cells), SOLVER, throw=True)
        nodes = np.abs(np.asarray(s.inventory)[::2] - np.asarray(fine.inventory)[:: 512 // cells]) / 2e5
        # The middle of a cell is not a node of finer cells: its time is, on the finest grid, to eight digits.
        truth = middle_of(smooth(cells), fine)
        middles = np.abs(np.asarray(s.inventory)[1::2] - truth) / 2e5
        costs = [abs(float(getattr(s, f) / getattr(fine, f)) - 1) for f in ("expected_cost", "variance", "objective")]
        errors.append([nodes.max(), middles.max(), *costs])
    orders = np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))
    assert np.all(np.abs(orders[-1] - 4) < 0.1), orders
    assert errors[-1][0] < 1e-8


def middle_of(problem: jx.Liquidation, fine: jx.Schedule) -> np.ndarray:
    """Inventory of a fine schedule in the middle of coarse cells, by the interpolating polynomial through six nodes."""
    at, times = np.asarray(problem.grid.times)[1::2], np.asarray(fine.times)
    values = []
    for t in at:
        i = np.clip(np.searchsorted(times, t) - 3, 0, len(times) - 6)
        x, y = (times[i : i + 6] - t) / (times[i + 5] - times[i]), np.asarray(fine.inventory)[i : i + 6]
        values.append(sum(y[j] * np.prod([x[k] / (x[k] - x[j]) for k in range(6) if k != j]) for j in range(6)))
    return np.asarray(values)


@pytest.mark.parametrize(
    ("case", "bound"),
    [
        ("gueant_power_phi1_gam2", 1e-9),
        ("gueant_power_phi1_gam20", 1e-9),
        ("gueant_power_phi0.5_gam2", 1e-9),
        ("gueant_power_phi0.5_gam20", 1e-9),
        ("gueant_power_phi0.75_gam2", 1e-9),
        ("gueant_power_phi2_gam2", 1e-9),
        ("gueant_realistic_T1", 1e-9),
        ("gueant_power_phi2_gam20", 1e-7),  # finished before its time: no order beyond the finish
    ],
)
def test_gueant_power_law(references, case, bound):
    r = references[case]
    p = r["params"]
    steps = 256 if bound > 1e-9 else 1024  # finer grids do not help beyond the finish
    market = jx.Market(jx.TimeGrid.uniform(float(p["T"]), steps), float(p["sigma"]), float(p["V"]))
    problem = jx.Liquidation(float(p["q0"]), market, jx.PowerLawCost(p["eta"], p["phi"]), p["gamma"])
    s = jx.solve(problem, SOLVER, throw=True)
    error = np.abs(np.asarray(s.inventory)[:: steps // 4] - np.asarray(r["q"])).max() / p["q0"]
    assert error < bound
    np.testing.assert_allclose(s.objective, r["J"], rtol=10 * bound)


@pytest.mark.parametrize("case", ["gueant_ushape_gam1e-08", "gueant_ushape_gam2.0"])
def test_gueant_ushaped_volume(references, case):
    r = references[case]
    p = r["params"]
    times, at = gauss_times(jnp.linspace(0.0, 1.0, 513))
    market = jx.Market(jx.TimeGrid(times), 1.0, (1 + 2 * (2 * at - 1) ** 2) / (1 + 2 / 3))
    s = jx.solve(jx.Liquidation(1.0, market, jx.QuadraticCost(p["eta"]), p["gamma"]), SOLVER, throw=True)
    index = np.searchsorted(np.asarray(times), np.asarray(r["t"], float) - 1e-9)
    np.testing.assert_allclose(np.asarray(s.inventory)[index], np.asarray(r["q"], float), atol=1e-9)
    np.testing.assert_allclose(s.objective, r["J_equals_minus_half_p0q0"], rtol=1e-9)


def test_quadratic_cost_is_the_hyperbolic_sine():
    volume, sigma, eta, gamma = 4e6, 0.6, 0.1, 2e-6
    market = jx.Market(jx.TimeGrid.uniform(1.0, 512), sigma, volume)
    s = jx.solve(jx.Liquidation(2e5, market, jx.QuadraticCost(eta), gamma), SOLVER, throw=True)
    kappa = np.sqrt(gamma * sigma**2 * volume / (2 * eta))
    exact = 2e5 * np.sinh(kappa * (1 - np.asarray(s.times))) / np.sinh(kappa)
    np.testing.assert_allclose(s.inventory, exact, atol=1e-10 * 2e5)
    np.testing.assert_allclose(s.objective, 2e5**2 * eta / volume * kappa / np.tanh(kappa), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_schedule_is_consistent(kind):
    problem = one(kind).refine(2)
    s = jx.solve(problem, SOLVER, throw=True)
    assert s.status == jx.Status.OK
    assert 0 <= s.duality_gap <= 1e-9 * abs(s.objective)
    assert s.inventory[0] == problem.shares and s.inventory[-1] == problem.target
    np.testing.assert_allclose(s.inventory[0] - s.inventory[1:], jnp.cumsum(s.trades), rtol=1e-9, atol=1e-6)
    assert np.all(np.asarray(s.trades)[np.asarray(problem.market.step_volume) == 0] == 0)
    np.testing.assert_allclose(s.objective, s.expected_cost + problem.risk_aversion / 2 * s.variance, rtol=1e-12)
    if kind in ("", "buy", "quadratic", "uneven-spread", "closed"):
        assert np.all(np.asarray(s.trades) * np.sign(problem.shares) >= 0)


def test_close_to_the_second_order_schedule():
    """Both converge to the same continuous problem: refined, they meet."""
    problem = one("drift target").refine(16)
    fourth, second = jx.solve(problem, SOLVER, throw=True), jx.solve(problem, throw=True)
    np.testing.assert_allclose(fourth.inventory, second.inventory, atol=1e-3 * 2e5)
    np.testing.assert_allclose(fourth.objective, second.objective, rtol=1e-3)
    np.testing.assert_allclose(jx.objective(problem, fourth.trades), fourth.objective, rtol=1e-3)


def test_gap_bounds_the_cost_of_a_loose_solution():
    problem = one("drift target").refine(2)
    best = jx.solve(problem, SOLVER)
    loose = jx.solve(problem, Collocation(rtol=1.0, max_steps=1), on_failure="best")
    assert 0 < float(loose.objective - best.objective) <= loose.duality_gap
    assert loose.relative_gap > best.relative_gap


def test_a_closed_half_of_a_cell_is_not_traded_in():
    volume = np.full(8, 4e6)
    volume[3] = 0
    problem = jx.Liquidation(2e5, jx.Market(jx.TimeGrid.uniform(1.0, 8), 0.6, volume), jx.PowerLawCost(0.1, 0.6), 1e-6)
    s = jx.solve(problem, SOLVER, throw=True)
    assert s.trades[3] == 0
    gradient = jax.grad(lambda p: jx.solve(p, SOLVER).objective)(problem)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(gradient))


def test_capped_orders():
    market = jx.Market(jx.TimeGrid.uniform(1.0, 24), 0.6, 4e6)

    def capped(rho_max):
        cost = jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.01), rho_max)
        return jx.Liquidation(2e5, market, cost, 1e-5).refine(2)

    problem = capped(0.08)
    s = jx.solve(problem, SOLVER, throw=True)
    value = jax.jit(jax.value_and_grad(lambda cap: jx.solve(capped(cap), SOLVER).objective))
    difference = (value(0.08 + 1e-6)[0] - value(0.08 - 1e-6)[0]) / 2e-6
    np.testing.assert_allclose(value(0.08)[1], difference, rtol=1e-6)
    assert s.relative_gap <= 1e-8
    assert np.all(np.asarray(s.trades / problem.market.step_volume) <= 0.08 * (1 + 1e-9))
    np.testing.assert_allclose(s.inventory, jx.solve(problem, throw=True).inventory, atol=1e-3 * 2e5)


def test_no_risk_is_vwap_and_nothing_costs_nothing():
    calm = eqx.tree_at(lambda p: p.risk_aversion, one(""), jnp.asarray(0.0)).refine(2)
    s = jx.solve(calm, SOLVER, throw=True)
    np.testing.assert_allclose(s.trades, jx.vwap(calm), rtol=1e-10)
    idle = jx.solve(eqx.tree_at(lambda p: p.shares, one("").refine(2), jnp.asarray(0.0)), SOLVER)
    assert idle.status == jx.Status.OK and idle.objective == 0 and idle.iterations == 0


@pytest.mark.parametrize(
    "features",
    [{}, {"drift": True}, {"drift": True, "target": True, "uneven_spread": True}],
    ids=["plain", "drift", "all"],
)
def test_random_orders(features):
    s = solve_batch(random_batch(1, 300, decades=(-3.0, 2.0), **features))
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert float(jnp.max(s.relative_gap)) <= 1e-8


def test_stiff_orders_on_graded_cells():
    """κT up to 1e4 and φ from 0.1 to 2, on cells that follow the decay."""
    rng = np.random.default_rng(3)
    phi, stiff = rng.uniform(0.1, 2.0, 256), 10 ** rng.uniform(0, 4, 256)

    def build(phi, stiff):
        times = jnp.expm1(jnp.linspace(0.0, 1.0, 49) * jnp.log1p(stiff)) / stiff
        market = jx.Market(jx.TimeGrid(gauss_times(times)[0]), 1.0, 1.0)
        return jx.Liquidation(1.0, market, jx.PowerLawCost(1.0, phi), 2 * stiff**2)

    s = solve_batch(jax.vmap(build)(jnp.asarray(phi), jnp.asarray(stiff)))
    assert np.all(np.asarray(s.status) == jx.Status.OK)


def test_float32():
    problems = random_batch(1, 300, decades=(-3.0, 1.5), dtype=np.float32)
    s = solve_batch(problems)
    assert s.trades.dtype == jnp.float32
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    exact = solve_batch(jax.tree.map(lambda x: x.astype(jnp.float64), problems))
    assert np.max(np.abs(np.asarray(s.objective) / np.asarray(exact.objective) - 1)) < 2e-5


def test_batch_equals_single():
    problems = random_batch(3, 4, steps=12, drift=True)
    together = solve_batch(problems)
    for i in range(4):
        alone = jx.solve(lane(problems, i), SOLVER)
        np.testing.assert_allclose(alone.inventory, together.inventory[i], rtol=1e-12, atol=1e-6)
        assert alone.status == together.status[i]


def best_objective(problem):
    return jx.solve(problem.refine(2), SOLVER).objective


def a_mix(problem):
    s = jx.solve(problem.refine(2), SOLVER)
    return jnp.sum(jnp.asarray(WEIGHTS) * s.trades) + jnp.sum(jnp.asarray(WEIGHTS) * s.costate) * 2e5 + s.expected_cost


@functools.cache
def compiled(transform, function):
    return jax.jit(transform(function) if transform else function)


def names(problem):
    return [jax.tree_util.keystr(k).split(".")[-1] for k, _ in jax.tree_util.tree_leaves_with_path(problem)]


def directional_difference(function, leaves, structure, i, direction, step):
    def at(k):
        moved = [*leaves[:i], jnp.asarray(leaves[i] + k * step * direction), *leaves[i + 1 :]]
        return float(function(jax.tree.unflatten(structure, moved)))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)


@functools.partial(jax.jit, static_argnums=0)
def along(function, problem, direction):
    """The derivative in a direction, forward."""
    return jax.jvp(function, (problem,), (direction,))[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [best_objective, a_mix], ids=["objective", "mix"])
def test_gradient(kind, function):
    """Forward = reverse = differences, each leaf moved in a random direction of its own size."""
    problem = one(kind, steps=6)
    reverse = jax.tree.leaves(compiled(jax.grad, function)(problem))
    leaves, structure = jax.tree.flatten(problem)
    leaves = [np.asarray(x) for x in leaves]
    scale = abs(float(compiled(None, function)(problem)))
    rng = np.random.default_rng(0)
    for i, (name, r) in enumerate(zip(names(problem), reverse, strict=True)):
        unit = np.abs(leaves[i]) + SCALES.get(name, 0.0) * (leaves[i] == 0)
        direction = unit * rng.uniform(0.5, 1.5, unit.shape)
        tangent = [jnp.asarray(direction if j == i else np.zeros_like(x)) for j, x in enumerate(leaves)]
        forward = along(function, problem, jax.tree.unflatten(structure, tangent))
        np.testing.assert_allclose(np.sum(r * direction), forward, atol=1e-9 * scale, err_msg=name)
        step = 1e-5 if name == "times" else 3e-4
        if name == "elapsed":
            continue  # a corner at zero
        d = directional_difference(compiled(None, function), leaves, structure, i, direction, step)
        np.testing.assert_allclose(np.sum(r * direction), d, rtol=1e-6, atol=1e-6 * scale, err_msg=name)


def test_hessian_is_symmetric_and_equals_differences():
    """In two parameters, forward over reverse."""
    problem = one("drift", steps=2)

    def of(parameters):
        moved = eqx.tree_at(lambda p: (p.shares, p.cost.phi), problem, tuple(parameters))
        s = jx.solve(moved, SOLVER)
        return s.trades[0] + s.expected_cost

    problem = problem.refine(2)
    at = jnp.asarray([problem.shares, problem.cost.phi])
    gradient = jax.jit(jax.grad(of))
    unit = np.outer(at, at)
    hessian = np.asarray(jax.jit(jax.jacfwd(jax.grad(of)))(at)) * unit
    steps = 1e-5 * np.asarray(at)
    numeric = [(gradient(at.at[i].add(h)) - gradient(at.at[i].add(-h))) / (2 * h) for i, h in enumerate(steps)]
    scale = np.abs(hessian).max()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-9 * scale)
    np.testing.assert_allclose(hessian, np.stack(numeric, 1) * unit, atol=1e-6 * scale)


def test_gradients_under_vmap():
    problems = [one("", steps=6, seed=i) for i in range(2)]
    together = jax.jit(jax.vmap(jax.grad(a_mix)))(jax.tree.map(lambda *x: jnp.stack(x), *problems))
    scale = abs(float(a_mix(problems[0])))
    for i, problem in enumerate(problems):
        alone = compiled(jax.grad, a_mix)(problem)
        for leaf, a, b in zip(*(jax.tree.leaves(t) for t in (problem, alone, together)), strict=True):
            np.testing.assert_allclose(a * leaf, b[i] * leaf, rtol=1e-9, atol=1e-10 * scale)


def test_solve_to_reaches_its_tolerance():
    """The estimate is honest on a refined step function, on smooth curves, and where the order finishes early."""

    def graded(cells):
        grid = jx.TimeGrid(graded_ends(1.0, cells, rate))
        market = jx.Market.from_functions(grid, 0.6, lambda t: 4e6 * (1 + (2 * t - 1) ** 2), points="gauss")
        return jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6), 3e-5)

    rate = 0.0
    rate = initial_decay(graded(8))
    rough = solve_to(graded, 1e-5)
    assert rough.reached and rough.error <= 1e-5
    assert 3.5 < rough.order <= 4
    fine = jx.solve(graded(rough.problem.grid.steps), SOLVER, throw=True)
    wrong = np.abs(np.asarray(rough.schedule.inventory)[::2] - np.asarray(fine.inventory)[::4])
    assert wrong.max() / 2e5 < 2 * rough.error
    assert solve_to(one(""), 1e-3).problem.grid.steps == 48
    with pytest.raises(RuntimeError, match="max_steps"):
        solve_to(one(""), 1e-10, max_steps=48)
    with pytest.raises(ValueError, match="halved alike"):
        solve_to(lambda cells: smooth(cells + 1), 1e-9)
    with pytest.raises(ValueError, match="rtol"):
        solve_to(one(""), 0.0)


def test_initial_decay_of_a_quadratic_cost_is_kappa():
    problem = jx.Liquidation(2e5, jx.Market(jx.TimeGrid.uniform(1.0, 4), 0.6, 4e6), jx.QuadraticCost(0.1), 2e-6)
    np.testing.assert_allclose(initial_decay(problem), np.sqrt(2e-6 * 0.36 * 4e6 / 0.2), rtol=1e-9)


def test_gauss_times():
    times, at = gauss_times([0.0, 1.0, 3.0])
    np.testing.assert_allclose(times, [0, 0.5, 1, 2, 3])
    for power, exact in ((1, 4.5), (2, 9.0), (3, 81 / 4)):  # the rule integrates cubics
        np.testing.assert_allclose(jnp.sum(at**power * jnp.diff(times)), exact, rtol=1e-14)
    with pytest.raises(ValueError, match=r"cells \+ 1"):
        gauss_times([0.0])


def test_refusals():
    with pytest.raises(ValueError, match=r"problem.refine\(2\)"):
        jx.solve(one("", steps=5), SOLVER)
    with pytest.raises(ValueError, match="continuous"):
        jx.solve(one("discrete"), SOLVER)
    with pytest.raises(ValueError, match="steps 0 and 1 last"):
        jx.solve(one(""), SOLVER)
    uneven = jax.jit(lambda p: jx.solve(p, SOLVER))(one(""))  # traced times: a status says it
    assert uneven.status > jx.Status.LOCAL and np.all(np.isnan(uneven.trades))
