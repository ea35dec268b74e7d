"""`solve` on the bank: optimality against an outsider, certificates, batches, precision, edge cases."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxexec as jx
from tests.problems import KINDS, one, random_batch

solve_batch = jax.jit(jax.vmap(jx.solve))


def lane(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


@jax.jit
@jax.value_and_grad
def cost_of(first_trades, problem):
    """Cost of the schedule with these trades, as shares of the order, and the rest in the last step."""
    total = problem.shares - problem.target
    return jx.objective(problem, total * jnp.append(first_trades, 1 - jnp.sum(first_trades)))


@pytest.mark.parametrize("kind", KINDS)
def test_optimal_against_scipy(kind):
    """SciPy finds no cheaper schedule, and where the cost is smooth it finds the same one."""
    problem = one(kind)
    s = jx.solve(problem, throw=True)
    unit = abs(float(s.objective))
    open_ = np.asarray(problem.market.step_volume)[:-1] > 0
    bounds = [(None, None) if o else (0, 0) for o in open_]

    def scaled(x):
        value, slope = cost_of(x, problem)
        return float(value) / unit, np.asarray(slope) / unit

    start = np.asarray(s.trades)[:-1] / float(problem.shares - problem.target)
    np.testing.assert_allclose(scaled(start)[0] * unit, s.objective, rtol=1e-12)
    for seed in range(2):
        noise = np.random.default_rng(seed).normal(size=start.shape) * 0.02 * open_
        found = scipy.optimize.minimize(
            scaled, start + noise, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 2000}
        )
        assert found.fun >= float(s.objective) / unit - 1e-10
        if not {"drift", "target", "uneven-spread"} & set(kind.split()):  # smooth where it ends
            np.testing.assert_allclose(found.x, start, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_schedule_is_consistent(kind):
    problem = one(kind)
    s = jx.solve(problem)
    assert s.status == jx.Status.OK
    np.testing.assert_allclose(jnp.sum(s.trades), problem.shares - problem.target, rtol=1e-12)
    np.testing.assert_allclose(s.inventory[0] - s.inventory[1:], jnp.cumsum(s.trades), rtol=1e-9, atol=1e-6)
    assert s.inventory[0] == problem.shares
    assert s.inventory[-1] == problem.target
    for field, function in (
        ("expected_cost", jx.expected_cost),
        ("variance", jx.variance),
        ("objective", jx.objective),
    ):
        np.testing.assert_allclose(getattr(s, field), function(problem, s.trades), rtol=1e-12)
    closed = np.asarray(problem.market.step_volume) == 0
    assert np.all(np.asarray(s.trades)[closed] == 0)
    assert 0 <= s.duality_gap <= 1e-9 * abs(s.objective)


def test_a_buy_is_a_sale_with_all_signs_turned():
    sale, buy = jx.solve(one("")), jx.solve(one("buy"))
    np.testing.assert_allclose(buy.trades, -sale.trades, rtol=1e-12)
    np.testing.assert_allclose(buy.costate, -sale.costate, rtol=1e-12)
    np.testing.assert_allclose(buy.objective, sale.objective, rtol=1e-14)


def test_gap_bounds_the_cost_of_a_loose_solution():
    """Stopped early, the certificate still bounds the distance to the optimum."""
    problem = one("drift target")
    best = jx.solve(problem)
    loose = jx.solve(problem, jx.LadderNewton(rtol=1.0, max_steps=1), on_failure="best")
    excess = float(loose.objective - best.objective)
    assert 0 < excess <= loose.duality_gap
    assert loose.relative_gap > best.relative_gap


@pytest.mark.parametrize(
    "features",
    [
        {},
        {"decades": (3.0, 5.0)},
        {"drift": True},
        {"target": True},
        {"drift": True, "target": True, "uneven_spread": True},
    ],
    ids=["plain", "stiff", "drift", "target", "all"],
)
def test_a_thousand_random_orders(features):
    s = solve_batch(random_batch(1, 1000, **features))
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert float(jnp.max(s.relative_gap)) <= 1e-8


def test_a_thousand_random_orders_in_float32():
    problems = random_batch(1, 1000, dtype=np.float32)
    s = solve_batch(problems)
    assert s.trades.dtype == jnp.float32
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert np.all(np.asarray(s.flags) == jx.Flag.FLOAT32)
    exact = solve_batch(jax.tree.map(lambda x: x.astype(jnp.float64), problems))
    error = np.abs(np.asarray(s.objective) / np.asarray(exact.objective) - 1)
    assert np.quantile(error, 0.99) < 1e-5
    assert error.max() < 2e-5  # 96 steps of rounding


def test_a_thousand_kinked_orders_in_float32_converge_or_say_so():
    s = solve_batch(random_batch(1, 1000, drift=True, target=True, uneven_spread=True, dtype=np.float32))
    usable = np.asarray(s.status) <= jx.Status.OK_INACCURATE
    assert usable.mean() > 0.99
    assert np.all(np.isfinite(np.asarray(s.trades)[usable]))
    assert np.all(np.isnan(np.asarray(s.trades)[~usable]))
    assert np.all(np.asarray(s.relative_gap)[np.asarray(s.status) == jx.Status.OK] <= 1e-5)


def test_batch_equals_single():
    problems = random_batch(3, 4, steps=12, drift=True)
    together = solve_batch(problems)
    for i in range(4):
        alone = jx.solve(lane(problems, i))
        np.testing.assert_allclose(alone.inventory, together.inventory[i], rtol=1e-12, atol=1e-6)
        assert alone.status == together.status[i]


def test_zero_shares():
    s = jx.solve(eqx.tree_at(lambda p: p.shares, one(""), jnp.asarray(0.0)))
    assert s.status == jx.Status.OK
    assert np.all(np.asarray(s.inventory) == 0) and np.all(np.asarray(s.trades) == 0)
    assert s.objective == 0 and s.relative_gap == 0
    assert s.iterations == 0  # a padded lane must not slow its batch
    slope = jax.grad(lambda p: jx.solve(p).objective)(eqx.tree_at(lambda p: p.shares, one(""), jnp.asarray(0.0)))
    assert slope.shares == 0
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(slope))


def test_no_shares_but_a_drift_makes_a_round_trip():
    problem = eqx.tree_at(lambda p: p.shares, one("drift"), jnp.asarray(0.0))
    s = jx.solve(problem, throw=True)
    assert s.objective < 0
    np.testing.assert_allclose(jnp.sum(s.trades), 0, atol=1e-8)


def test_zero_risk_aversion_is_vwap():
    problem = eqx.tree_at(lambda p: p.risk_aversion, one("quadratic"), jnp.asarray(0.0))
    s = jx.solve(problem, throw=True)
    np.testing.assert_allclose(s.trades, jx.vwap(problem), rtol=1e-12)
    gradient = jax.grad(lambda p: jx.solve(p).objective)(problem)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(gradient))


def test_one_step():
    grid = jx.TimeGrid([0.0, 0.5])
    problem = jx.Liquidation(1e5, jx.Market(grid, 0.6, 4e6), jx.PowerLawCost(0.1, 0.6), 1e-6)
    s = jx.solve(problem, throw=True)
    np.testing.assert_allclose(s.trades, [1e5])
    np.testing.assert_allclose(s.objective, jx.objective(problem, s.trades))


@pytest.mark.parametrize("horizon", [1e-12, 1e4])
def test_extreme_horizons(horizon):
    market = jx.Market(jx.TimeGrid.uniform(horizon, 32), 0.6, 4e6 / horizon)
    s = jx.solve(jx.Liquidation(1e5, market, jx.PowerLawCost(0.1, 0.6), 1e-3), throw=True)
    assert s.relative_gap < 1e-10
    assert np.all(np.diff(np.asarray(s.inventory)) <= 0)


def test_dead_core_is_never_negative():
    """φ = 2 finishes before the horizon: the tail is zero or tiny, and never below."""
    market = jx.Market(jx.TimeGrid.uniform(1.0, 96), 1.0, 1.0)
    s = jx.solve(jx.Liquidation(1.0, market, jx.PowerLawCost(0.1, 2.0), 200.0), throw=True)
    inventory = np.asarray(s.inventory)
    assert np.all(inventory >= 0)
    assert inventory[60] < 1e-10


def test_uneven_grid():
    times = np.r_[0, np.geomspace(1e-8, 1, 40)]
    s = jx.solve(
        jx.Liquidation(1e5, jx.Market(jx.TimeGrid(times), 0.6, 4e6), jx.PowerLawCost(0.1, 0.6), 1e-5), throw=True
    )
    assert s.relative_gap < 1e-10


def test_compiles_once_for_python_numbers_and_arrays():
    traces = []

    @jax.jit
    def counted(problem):
        traces.append(1)
        return jx.solve(problem).objective

    for shares, gamma in ((1e5, 1e-6), (jnp.asarray(2e5), 2e-6), (np.float64(3e5), jnp.asarray(1e-6)), (7, 0)):
        market = jx.Market(jx.TimeGrid.uniform(1.0, 12), 0.6, 4e6)
        counted(jx.Liquidation(shares, market, jx.QuadraticCost(0.1), gamma))
    assert len(traces) == 1


def test_summary_and_frame():
    s = jx.solve(one(""))
    assert "OK" in s.summary()
    frame = s.to_polars()
    assert frame.columns == ["time_start", "time_end", "inventory_start", "trade", "costate"]
    assert frame.height == 12
    batch = solve_batch(random_batch(3, 4, steps=12, drift=True))
    with pytest.raises(ValueError, match="one concrete schedule"):
        batch.summary()


@pytest.mark.parametrize("shares", [0.0, 5.0])
def test_nothing_to_trade_needs_no_volume(shares):
    closed = eqx.tree_at(lambda p: (p.market.volume, p.market.drift), one(""), (jnp.zeros(12), jnp.zeros(12)))
    held = eqx.tree_at(lambda p: (p.shares, p.target), closed, (jnp.asarray(shares), jnp.asarray(shares)))
    s = jx.solve(held, throw=True)
    np.testing.assert_array_equal(s.inventory, np.full(13, shares))
    assert np.all(np.asarray(s.trades) == 0)


def test_trades_of_a_one_sided_order_never_turn():
    market = jx.Market(jx.TimeGrid.uniform(1.0, 96), 1.0, 1.0)
    s = jx.solve(jx.Liquidation(1.0, market, jx.PowerLawCost(0.1, 2.0), 200.0), throw=True)
    assert np.all(np.asarray(s.trades) >= 0)
