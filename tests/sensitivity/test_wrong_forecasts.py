"""Attribution, regret and robust schedules: exact splits, differences, and a minimum that nothing found undercuts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import jaxexec as jx
from jaxexec.sensitivity import attribute, blend, planning_regret, robust_schedule
from tests.problems import one


def moved(problem, volatility: Any = 1.0, volume: Any = 1.0, eta: Any = 1.0):
    market = problem.market
    return eqx.tree_at(
        lambda p: (p.market.volatility, p.market.volume, p.cost.eta),
        problem,
        (market.volatility * volatility, market.volume * volume, problem.cost.eta * eta),
    )


def in_lanes(plan, truth):
    """Three pairs of orders, the middle plan without sense, in float64 and float32."""
    bad = eqx.tree_at(lambda p: p.cost.eta, plan, jnp.asarray(-1.0))
    pair = tuple(jax.tree.map(lambda *x: jnp.stack(x), *three) for three in ([plan, bad, plan], [truth] * 3))
    return pair, jax.tree.map(lambda x: x.astype(jnp.float32), pair)


@pytest.fixture(scope="module")
def plan():
    return one("")


@pytest.fixture(scope="module")
def truth(plan):
    return moved(plan, 1 + 0.3 * np.sin(np.arange(12.0)), 0.8 + 0.05 * np.arange(12.0), 1.2)


@pytest.fixture(scope="module")
def scenarios():
    base = one("quadratic", steps=6)
    return [moved(base, 1.5, 1.2, 0.7), moved(base, 0.6, 0.8, 1.5), moved(base, 1.1, 1.0, 1.0)]


@pytest.fixture(scope="module")
def alone(scenarios):
    return [float(jx.solve(p).objective) for p in scenarios]


class TestAttribution:
    def test_it_adds_up(self, plan, truth):
        trades = jx.solve(plan).trades
        total = float(jx.objective(truth, trades) - jx.objective(plan, trades))
        residuals = []
        for nodes in (None, 1, 8):
            found = attribute(plan, truth, nodes=nodes)
            parts = sum(float(x) for x in found.totals.values())
            assert parts + float(found.residual) == pytest.approx(total, rel=1e-12)
            residuals.append(abs(float(found.residual)))
        assert residuals[0] > 1 and residuals[1] < 0.2 * residuals[0] and residuals[2] < 1e-7 * total
        np.testing.assert_allclose(found.planned, jx.objective(plan, trades))
        assert found.contributions["volatility"].shape == (12,)
        unmoved = {"psi", "phi", "drift", "risk_aversion", "horizon", "shares", "target", "permanent_impact"}
        assert all(float(found.totals[name]) == 0 for name in unmoved)

    def test_each_part_is_that_of_its_own_error(self, plan):
        """Where a cost is linear in an input, the first order is all of it: η here, σ² by a mean of the two ends."""
        dearer = moved(plan, eta=1.5)
        found = attribute(plan, dearer)
        trades = jx.solve(plan).trades
        expected = float(jx.objective(dearer, trades) - jx.objective(plan, trades))
        np.testing.assert_allclose(found.totals["eta"], expected, rtol=1e-10)
        np.testing.assert_allclose(found.residual, 0, atol=1e-9 * expected)
        riskier = attribute(plan, moved(plan, volatility=1.5), nodes=1)
        np.testing.assert_allclose(riskier.residual, 0, atol=1e-9 * float(riskier.planned))
        none = attribute(plan, moved(plan, volatility=1.5), measure="expected_cost")
        assert float(none.totals["volatility"]) == 0

    def test_what_was_paid_and_what_was_traded(self, plan, truth):
        trades = jx.twap(plan)
        found = attribute(plan, truth, trades, nodes=4, realised_cost=20_000.0)
        np.testing.assert_allclose(found.planned, jx.objective(plan, trades))
        known = float(found.modelled - found.planned)
        np.testing.assert_allclose(found.residual, 20_000.0 - float(found.planned) - known, rtol=1e-6)
        assert "residual" in found.summary() and found.plot().axes[0].patches

    def test_a_number_meets_a_curve(self, plan):
        flat = eqx.tree_at(lambda p: p.market.volatility, plan, jnp.asarray(0.6))
        found = attribute(flat, plan)
        assert found.contributions["volatility"].shape == (12,)

    def test_both_modes_are_differences(self, plan, truth):
        def of(k):
            forecast = moved(plan, volatility=k[0], eta=k[1])
            found = attribute(forecast, moved(truth, volume=k[2]), jx.twap(plan), nodes=2)
            return jnp.stack([found.residual, found.totals["volatility"], found.totals["eta"], found.planned])

        at = jnp.array([1.1, 0.9, 1.05])
        value, forward, reverse = jax.jit(lambda k: (of(k), jax.jacfwd(of)(k), jax.jacrev(of)(k)))(at)
        np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-9 * float(jnp.max(jnp.abs(value))))
        only, h = jax.jit(of), 1e-5
        numeric = np.stack([(only(at.at[i].add(h)) - only(at.at[i].add(-h))) / (2 * h) for i in range(3)], -1)
        np.testing.assert_allclose(reverse, numeric, rtol=1e-6, atol=1e-6 * float(jnp.max(jnp.abs(value))))

    def test_float32_and_a_failed_lane(self, plan, truth):
        lanes, narrow_lanes = in_lanes(plan, truth)
        few = jax.jit(jax.vmap(lambda p, t: attribute(p, t, nodes=2)))
        found, narrow = few(*lanes), few(*narrow_lanes)
        assert found.status.tolist() == narrow.status.tolist() == [0, int(jx.Status.NONCONVEX), 0]
        alone = attribute(plan, truth, nodes=2)
        for name, part in found.contributions.items():
            # In a failed lane all is NaN, in its neighbours nothing has changed.
            assert np.isnan(part[1]).all(), name
            np.testing.assert_array_equal(part[0], part[2])
            np.testing.assert_allclose(part[0], alone.contributions[name], rtol=1e-9, atol=1e-9)
            assert narrow.contributions[name].dtype == jnp.float32
        assert np.isnan(found.residual[1]) and np.isnan(found.planned[1])
        scale = float(alone.modelled)
        for name, part in narrow.contributions.items():
            np.testing.assert_allclose(jnp.sum(part[0]), alone.totals[name], atol=1e-5 * scale, err_msg=name)
        np.testing.assert_allclose(narrow.residual[0], alone.residual, atol=1e-5 * scale)

    def test_failed(self, plan, truth):
        lost = attribute(eqx.tree_at(lambda p: p.cost.phi, plan, jnp.asarray(-1.0)), truth)
        assert int(lost.status) == jx.Status.NONCONVEX and np.isnan(lost.residual)
        closed = eqx.tree_at(lambda p: p.market.volume, plan, plan.market.volume.at[3].set(0))
        assert int(attribute(plan, closed).status) == jx.Status.NONFINITE_INPUT

    def test_refused(self, plan, truth):
        with pytest.raises(ValueError, match="same shares"):
            attribute(plan, eqx.tree_at(lambda p: p.shares, truth, jnp.asarray(1.0)))
        with pytest.raises(ValueError, match="of one kind"):
            attribute(plan, one("quadratic"))
        with pytest.raises(ValueError, match="horizon must have one shape"):
            attribute(plan, one("", steps=6))
        with pytest.raises(ValueError, match="measure must be"):
            attribute(plan, truth, measure="cost")  # pyright: ignore
        with pytest.raises(ValueError, match="nodes must be"):
            attribute(plan, truth, nodes=0)


class TestRegret:
    def test_it_is_what_the_plan_costs_above_the_best(self, plan, truth):
        found = planning_regret(plan, truth)
        direct = jx.objective(truth, jx.solve(plan).trades) - jx.solve(truth).objective
        np.testing.assert_allclose(found.value, direct, rtol=1e-9)
        assert float(planning_regret(plan, plan).value) < 1e-12 * float(found.best)

    def test_gradient_in_the_forecast_and_in_the_truth(self, plan, truth):
        def of(k):
            return planning_regret(moved(plan, volatility=k[0], eta=k[1]), moved(truth, volume=k[2])).value

        at = jnp.array([1.1, 0.9, 1.0])
        value = jax.jit(of)
        forward, reverse = jax.jit(jax.jacfwd(of))(at), jax.jit(jax.grad(of))(at)
        h = 1e-5
        numeric = [(value(at.at[i].add(h)) - value(at.at[i].add(-h))) / (2 * h) for i in range(3)]
        np.testing.assert_allclose(forward, reverse, rtol=1e-8)
        np.testing.assert_allclose(reverse, numeric, rtol=1e-6)

    def test_it_is_of_second_order(self, plan):
        """Half the error, a quarter of the regret; the digits of a tiny regret are not lost."""
        small = [float(planning_regret(moved(plan, volatility=1 + e), plan).value) for e in (2e-5, 1e-5)]
        assert small[1] > 0 and small[0] / small[1] == pytest.approx(4, rel=1e-3)
        slope = jax.grad(lambda k: planning_regret(moved(plan, volatility=k), plan).value)(1.0)
        assert abs(float(slope)) < 1e-6

    def test_float32_and_a_failed_lane(self, plan, truth):
        """The regret is two thousandths of the cost and keeps its digits in float32, where the difference had few."""
        lanes, narrow_lanes = in_lanes(plan, truth)
        few = jax.jit(jax.vmap(planning_regret))
        found, narrow = few(*lanes), few(*narrow_lanes)
        assert found.status.tolist() == narrow.status.tolist() == [0, int(jx.Status.NONCONVEX), 0]
        for several in (found, narrow):
            assert np.isnan(several.value[1]) and np.isnan(several.trades[1]).all()
            np.testing.assert_array_equal(several.value[0], several.value[2])
        alone = planning_regret(plan, truth)
        np.testing.assert_allclose(found.value[0], alone.value, rtol=1e-9)
        assert narrow.value.dtype == jnp.float32
        np.testing.assert_allclose(narrow.value[0], alone.value, rtol=2e-3)

        def masked(k):
            regret = jax.vmap(planning_regret)(
                eqx.tree_at(lambda p: p.cost.eta, lanes[0], lanes[0].cost.eta * k), lanes[1]
            )
            return jnp.sum(jnp.where(regret.status == 0, regret.value, 0))

        assert np.isfinite(jax.jit(jax.grad(masked))(1.0))

    def test_failed(self, plan, truth):
        lost = planning_regret(eqx.tree_at(lambda p: p.cost.eta, plan, jnp.asarray(-1.0)), truth)
        assert int(lost.status) == jx.Status.NONCONVEX and np.isnan(lost.value)


class TestRobust:
    def test_a_blend_is_the_sum(self, scenarios):
        for batch in (scenarios, [moved(one("", steps=6), 1 + 0.2 * k, 1 - 0.1 * k, 1 + 0.3 * k) for k in range(3)]):
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *batch)
            weights = jnp.array([0.2, 0.3, 0.5])
            mixed = blend(stacked, weights)
            trades = jnp.array([7e4, 5e4, 3e4, 2e4, 2e4, 1e4])
            each = [float(jx.objective(p, trades)) for p in batch]
            np.testing.assert_allclose(jx.objective(mixed, trades), np.dot(weights, each), rtol=1e-12)

    def test_expected_regret_is_least(self, scenarios, alone):
        pi = np.array([0.5, 0.3, 0.2])
        found = robust_schedule(scenarios, pi)
        assert int(found.status) == jx.Status.OK
        direct = [float(jx.objective(p, found.schedule.trades)) - u for p, u in zip(scenarios, alone, strict=True)]
        np.testing.assert_allclose(found.regrets, direct, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.expected_regret, pi @ direct, rtol=1e-6)
        best, _ = self._searched(scenarios, alone, pi)
        np.testing.assert_allclose(found.expected_regret, best, rtol=1e-6)

    def test_worst_regret_is_least(self, scenarios, alone):
        found = robust_schedule(scenarios, criterion="worst")
        assert int(found.status) == jx.Status.OK and float(found.gap) < 1e-6 * float(found.worst_regret)
        np.testing.assert_allclose(found.regrets[:2], found.worst_regret, rtol=1e-6)  # two scenarios bind
        assert float(found.weights[2]) < 1e-6 < float(found.weights[:2].min())
        best, trades = self._searched(scenarios, alone, None)
        assert float(found.worst_regret) <= best * (1 + 1e-6)
        np.testing.assert_allclose(found.worst_regret, best, rtol=1e-6)
        np.testing.assert_allclose(found.schedule.trades, trades, atol=20)

    def test_power_laws_of_different_exponents(self):
        base = one("", steps=6)
        other = eqx.tree_at(lambda p: p.cost.phi, moved(base, volatility=1.4), jnp.asarray(0.8))
        found = robust_schedule([base, other])
        assert int(found.status) == jx.Status.OK and float(found.schedule.relative_gap) < 1e-8
        for shift in (1e3, -1e3):
            trades = found.schedule.trades.at[0].add(shift).at[1].add(-shift)
            elsewhere = [planning(p, trades) for p in (base, other)]
            assert np.mean(elsewhere) > float(found.expected_regret)

    def test_failed_and_refused(self, scenarios):
        lost = robust_schedule([scenarios[0], moved(scenarios[1], eta=-1.0), scenarios[2]])
        assert int(lost.status) == jx.Status.NONCONVEX
        assert np.isnan(lost.regrets).all() and np.isnan(lost.schedule.trades).all()
        refusals: Any = (
            ((scenarios, [1.0, 0.0, 1.0]), r"probabilities\[1\] must be positive"),
            ((scenarios, [1.0, 1.0]), r"shape \(3,\)"),
            (([],), "at least one"),
            (([scenarios[0], one("", steps=6)],), r"scenarios\[1\] is of another kind"),
            ((scenarios[0],), "leading axis"),
            (([one("quadratic discrete")],), "continuous"),
            (([scenarios[0], moved(eqx.tree_at(lambda p: p.shares, scenarios[1], jnp.asarray(9.0)))],), "shares"),
        )
        for bad, words in refusals:
            with pytest.raises(ValueError, match=words):
                robust_schedule(*bad)
        with pytest.raises(ValueError, match="criterion must be"):
            robust_schedule(scenarios, criterion="best")  # pyright: ignore

    @staticmethod
    def _searched(scenarios, alone, probabilities):
        """The least Σ π_i t_i or, without π, the least t, over t ≥ r(n), by SciPy's SLSQP over the inventories."""
        start = np.asarray(jx.solve(scenarios[2]).inventory)
        count = len(alone)

        @jax.jit
        def regrets(inner):
            nodes = jnp.concatenate([start[:1], inner * 1e5, start[-1:]])
            costs = jnp.stack([jx.objective(p, nodes[:-1] - nodes[1:]) for p in scenarios])
            return (costs - jnp.asarray(alone)) / 1e3

        slopes = jax.jit(jax.jacrev(regrets))
        weights = np.ones((1, 1)) if probabilities is None else np.asarray(probabilities)[None]
        bounds = weights.shape[1]
        above = {
            "type": "ineq",
            "fun": lambda z: np.broadcast_to(z[:bounds], (count,)) - np.asarray(regrets(z[bounds:])),
            "jac": lambda z: np.hstack(
                [np.eye(count) if bounds > 1 else np.ones((count, 1)), -np.asarray(slopes(z[bounds:]))]
            ),
        }
        grad = np.concatenate([weights[0], np.zeros(start.size - 2)])
        first = np.concatenate([np.full(bounds, 2.0), start[1:-1] / 1e5])
        options = {"maxiter": 500, "ftol": 1e-14}
        found = minimize(
            lambda z: grad @ z, first, jac=lambda _: grad, constraints=[above], method="SLSQP", options=options
        )
        nodes = np.concatenate([start[:1], found.x[bounds:] * 1e5, start[-1:]])
        return found.fun * 1e3, nodes[:-1] - nodes[1:]


def planning(problem, trades):
    return float(jx.objective(problem, trades) - jx.solve(problem).objective)
