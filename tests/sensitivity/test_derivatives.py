"""Labelled derivatives: against differences, the envelope theorem for every parameter, symmetric Hessians, failures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.sensitivity import (
    BlockPremium,
    FrontierPoints,
    OptimalSchedule,
    attribute,
    delta_method,
    planning_regret,
    robust_schedule,
    sensitivities,
)
from jaxexec.sensitivity.levels import levels, names_of
from tests.problems import one
from tests.solvers.test_lowering import custom_calls

SCALES = {"drift": 0.3, "target": 1e4}
FEW = ("shares", "eta", "phi", "risk_aversion", "volume")
SCHEDULE = OptimalSchedule()


@pytest.fixture(scope="module")
def order():
    return one("")


@pytest.fixture(scope="module")
def whole(order):
    return sensitivities(order, SCHEDULE)


@pytest.fixture(scope="module")
def bent(order):
    return sensitivities(order, SCHEDULE, parameters=FEW, second=True)


def steps_of(found):
    return {
        name: 1e-4 * (abs(float(v)) or SCALES[name]) for name, v in zip(found.parameters, found.values, strict=True)
    }


def differences(function, chosen, found):
    """Fourth-order central differences of every answer with respect to every parameter."""
    slopes = {}
    for i, (name, h) in enumerate(steps_of(found).items()):
        at = [function(chosen.at(chosen.values.at[i].add(k * h))) for k in (-2, -1, 1, 2)]
        slopes[name] = jax.tree.map(lambda a, b, c, d, h=h: (a - 8 * b + 8 * c - d) / (12 * h), *at)
    return slopes


def test_every_parameter_has_its_name(order, whole):
    expected = "shares horizon volatility volume permanent_impact drift gap_variance eta phi psi risk_aversion target"
    assert whole.parameters == tuple(expected.split())
    np.testing.assert_allclose(whole.values[3], jnp.mean(order.market.volume))
    split = jx.VenueSplit([jx.QuadraticCost(0.1), jx.QuadraticCost(0.2)], [0.5, 0.5])
    names = names_of(jx.Liquidation(1e5, order.market, split, 1e-6))
    assert "costs[0].eta" in names and "costs[1].eta" in names and "volatility" in names
    assert names_of({"a": 1.0, "b": (2.0, {"a": 3.0})}) == ["a", "b[0]", "b[1].a"]


def test_first_derivatives_are_those_of_differences(order, whole):
    chosen = levels(order)
    solved = jax.jit(lambda p: {k: v for k, v in SCHEDULE(p).items() if k != "status"})
    slopes = differences(solved, chosen, whole)
    sizes = np.array([abs(float(v)) or SCALES[n] for n, v in zip(whole.parameters, whole.values, strict=True)])
    for answer, first in whole.first.items():
        numeric = np.stack([np.asarray(slopes[name][answer]) for name in whole.parameters], -1)
        scale = float(jnp.max(jnp.abs(whole.answers[answer])))
        np.testing.assert_allclose(
            np.asarray(first) * sizes, numeric * sizes, rtol=1e-6, atol=2e-7 * scale, err_msg=answer
        )


def test_envelope_theorem_for_every_parameter(order, whole):
    """dU is what the bill changes by with the interior inventories held, though they would move."""
    interior = whole.answers["inventory"][1:-1]
    chosen = levels(order)

    def bill(values):
        problem = chosen.at(values)
        nodes = jnp.concatenate([problem.shares[None], interior, problem.target[None]])
        return jx.objective(problem, nodes[:-1] - nodes[1:])

    fixed = np.asarray(jax.jit(jax.grad(bill))(chosen.values))
    for i, name in enumerate(whole.parameters):
        slope = float(whole.first["objective"][i])
        np.testing.assert_allclose(slope, fixed[i], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(whole.of("objective", "risk_aversion"), whole.answers["variance"] / 2, rtol=1e-9)
    np.testing.assert_allclose(whole.of("objective", "psi"), order.shares, rtol=1e-9)


def test_units(whole):
    cost = whole.answers["objective"]
    np.testing.assert_allclose(whole.elasticity("objective") * cost / 100, whole.per_percent("objective"), rtol=1e-12)
    assert bool(jnp.isnan(whole.elasticity("trades")).any()) is False
    assert whole.elasticity("trades").shape == (12, 12)
    # In a unit of money a hundred times smaller, prices and costs are a hundred times larger: degree one.
    money = {"volatility": 1, "permanent_impact": 1, "gap_variance": 2, "eta": 1, "psi": 1, "risk_aversion": -1}
    total = sum(k * float(whole.elasticity("objective")[whole.parameters.index(n)]) for n, k in money.items())
    assert total == pytest.approx(1, rel=1e-9)
    # Of shares: κ per share², γ's variance stays money; twice the shares in twice the volume cost twice as much.
    shares = {"shares": 1, "volume": 1, "permanent_impact": -1, "risk_aversion": -1}
    total = sum(k * float(whole.elasticity("objective")[whole.parameters.index(n)]) for n, k in shares.items())
    assert total == pytest.approx(1, rel=1e-9)


def test_second_derivatives_are_symmetric_and_those_of_differences(order, bent):
    assert bent.second is not None
    chosen = levels(order, FEW)
    gradient = jax.jit(lambda v: sensitivities(chosen.at(v), SCHEDULE, parameters=FEW).first)
    sizes = np.asarray(bent.values)
    columns = []
    for i, h in enumerate(1e-5 * sizes):
        up, down = (gradient(chosen.values.at[i].add(k)) for k in (h, -h))
        columns.append(jax.tree.map(lambda a, b, h=h: np.asarray((a - b) / (2 * h)), up, down))
    for answer, second in bent.second.items():
        numeric = np.stack([column[answer] for column in columns], -1) * sizes[:, None] * sizes
        exact = np.asarray(second) * sizes[:, None] * sizes
        scale = float(np.max(np.abs(numeric)))
        np.testing.assert_allclose(exact, np.swapaxes(exact, -1, -2), atol=1e-9 * scale, err_msg=answer)
        np.testing.assert_allclose(exact, numeric, atol=2e-6 * scale, err_msg=answer)


def test_a_curve_step_by_step_adds_up_to_its_level(order, whole):
    steps = sensitivities(order, SCHEDULE, parameters=("volume", "eta"), by_step=("volume",))
    assert steps.parameters == (*(f"volume[{k}]" for k in range(12)), "eta")
    volume = order.market.volume
    together = steps.first["trades"][:, :12] @ (volume / jnp.mean(volume))
    np.testing.assert_allclose(together, whole.of("trades", "volume"), rtol=1e-9, atol=1e-12)
    gradient = jax.grad(lambda p: jx.solve(p).objective)(order)
    np.testing.assert_allclose(steps.first["objective"][:12], gradient.market.volume, rtol=1e-9)


def test_vmap_and_failed_lanes():
    orders = [one("", seed=i) for i in range(3)]
    bad = eqx.tree_at(lambda p: p.cost.phi, orders[1], jnp.asarray(-0.5))
    few = jax.jit(jax.vmap(lambda p: sensitivities(p, SCHEDULE, parameters=FEW)))
    good, mixed = (few(jax.tree.map(lambda *x: jnp.stack(x), *b)) for b in (orders, [orders[0], bad, orders[2]]))
    assert mixed.status.tolist() == [0, int(jx.Status.NONCONVEX), 0]
    for answer in good.first:
        assert np.isnan(mixed.first[answer][1]).all() and np.isnan(mixed.answers[answer][1]).all()
        np.testing.assert_array_equal(mixed.first[answer][::2], good.first[answer][::2])
    one_of = sensitivities(orders[2], SCHEDULE, parameters=FEW)
    np.testing.assert_allclose(good.first["trades"][2], one_of.first["trades"], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="one concrete result"):
        mixed.table()


def test_float32(order, bent):
    narrow = sensitivities(jax.tree.map(lambda x: x.astype(jnp.float32), order), SCHEDULE, parameters=FEW, second=True)
    for answer in ("objective", "expected_cost", "trades"):
        for derivatives in (narrow.answers, narrow.first, narrow.second):
            assert derivatives[answer].dtype == jnp.float32
        wide = bent.per_percent(answer)
        atol = 1e-4 * float(jnp.max(jnp.abs(wide)))
        np.testing.assert_allclose(narrow.per_percent(answer), wide, rtol=1e-3, atol=atol)
    sizes = np.asarray(bent.values)
    a, b = (np.asarray(x.second["objective"], float) * sizes[:, None] * sizes for x in (narrow, bent))
    np.testing.assert_allclose(a, b, atol=1e-3 * np.max(np.abs(b)))


def test_frontier_points(order):
    gammas = jnp.array([1e-6, 5e-6])
    found = sensitivities(order, FrontierPoints(gammas), parameters=("volatility", "eta"))
    assert found.first["variance"].shape == (2, 2)
    at = sensitivities(
        eqx.tree_at(lambda p: p.risk_aversion, order, gammas[1]), SCHEDULE, parameters=("volatility", "eta")
    )
    for answer in ("expected_cost", "variance"):
        np.testing.assert_allclose(found.first[answer][1], at.first[answer], rtol=1e-8)


def test_block_price_by_its_power_law():
    """ℓ ∝ η^{1/(1+φ)} (γσ²/2V)^{φ/(1+φ)} q^{(1+3φ)/(1+φ)}: the elasticities are the exponents."""
    phi = 0.6
    inputs = {"shares": 1e5, "cost": jx.PowerLawCost(0.1, phi), "volatility": 0.6, "volume": 4e6, "risk_aversion": 1e-6}
    found = sensitivities(inputs, BlockPremium(), second=True)
    risk = phi / (1 + phi)
    expected = {"shares": (1 + 3 * phi) / (1 + phi), "eta": 1 / (1 + phi), "volatility": 2 * risk, "volume": -risk}
    expected["risk_aversion"] = risk
    for name, power in expected.items():
        i = found.parameters.index(name)
        assert float(found.elasticity("premium")[i]) == pytest.approx(power, rel=1e-7), name
        bend = found.second["premium"][i, i] * found.values[i] ** 2 / found.answers["premium"]
        assert float(bend) == pytest.approx(power * (power - 1), rel=1e-5), name


def test_an_answer_of_ones_own():
    def area(inputs):
        return {"area": inputs["a"] * inputs["b"], "status": jnp.where(inputs["a"] > 0, 0, 7)}

    found = sensitivities({"a": 2.0, "b": 3.0}, area, second=True)
    assert found.first["area"].tolist() == [3.0, 2.0]
    assert found.second["area"].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    lost = sensitivities({"a": -2.0, "b": 3.0}, area)
    assert int(lost.status) == 7 and np.isnan(lost.first["area"]).all()


def test_shown(whole):
    text = whole.table().text(200)
    assert "risk_aversion" in text and "elasticity" in text and "OK" in text
    assert len(whole.table("trades").rows) == 12
    frame = whole.to_polars()
    assert frame.height == 3 * 12 and set(frame["answer"]) == {"objective", "expected_cost", "variance"}
    bars = whole.plot("objective").axes[0].patches
    assert len(bars) == 12 and abs(bars[-1].get_width()) == pytest.approx(
        float(jnp.max(jnp.abs(whole.per_percent("objective"))))
    )
    assert len(whole.plot("trades").axes[0].lines) == 12


def test_what_is_refused(order, whole):
    for bad, words in (
        ({"parameters": ("eta", "sigma")}, r"parameters\[1\] must be one of .*volatility"),
        ({"parameters": ("eta", "eta")}, "there twice"),
        ({"by_step": ("eta",)}, "give a curve"),
    ):
        with pytest.raises(ValueError, match=words):
            sensitivities(order, **bad)
    with pytest.raises(ValueError, match="no parameter"):
        sensitivities({"n": 3}, lambda x: {"n": x["n"]})
    with pytest.raises(ValueError, match="parameter must be one of"):
        whole.of("objective", "sigma")


def test_it_lowers_for_cuda_without_callbacks_or_custom_calls(order):
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), order)
    of = jax.jit(jax.vmap(lambda p: sensitivities(p, SCHEDULE, parameters=FEW).first))
    assert custom_calls(jax.export.export(of, platforms=["cuda"])(batch)) == set()
    worst = jax.jit(lambda b: robust_schedule(b, criterion="worst").schedule.trades)
    two = jax.tree.map(lambda x, y: jnp.stack([x, y]), one("quadratic"), one("quadratic", seed=1))
    two = eqx.tree_at(lambda p: p.market.grid.times, two, jnp.stack([two.market.grid.times[0]] * 2))
    assert custom_calls(jax.export.export(worst, platforms=["cuda"])(two)) == set()


def test_another_value_is_no_other_programme():
    traced = []

    def answer(inputs):
        traced.append(1)
        return {"square": inputs["a"] ** 2}

    for value in (1.0, 2.0, 3.0):
        assert float(sensitivities({"a": value}, answer).first["square"][0]) == 2 * value
    once = len(traced)
    sensitivities({"a": 4.0}, answer)
    assert len(traced) == once


def test_a_failed_lane_is_nan_where_it_is_asked_and_zero_where_it_is_masked():
    """The second of three orders has a cap that it cannot keep: slopes, regrets and errors, differentiated."""
    grid = jx.TimeGrid.uniform(1.0, 4)

    def order(volatility, cap):
        cost = jx.ParticipationCap(jx.PowerLawCost(0.1, 0.75, 0.004), cap)
        return jx.Liquidation(2e5, jx.Market(grid, volatility, 4e6), cost, 3e-6)

    def answers(volatility, cap):
        one, true = order(volatility, cap), order(0.9, cap)
        both = jax.tree.map(lambda a, b: jnp.stack([a, b]), one, order(0.9, 0.2 + 0 * cap))
        variance = jnp.diag(jnp.asarray([1e-4]))
        return {
            "slope": sensitivities(one, parameters=("eta",)).first["objective"][0],
            "band": delta_method(one, variance, parameters=("eta",)).std_errors["objective"],
            "regret": planning_regret(one, true).value,
            "attributed": attribute(one, true).residual,
            "robust": robust_schedule(both).worst_regret,
        }

    def total(volatility, asked):
        found = jax.vmap(answers)(volatility, jnp.asarray([0.2, 0.01, 0.2]))
        return jax.tree.map(lambda x: jnp.sum(jnp.where(asked, x, 0.0)), found)

    slopes = jax.jit(jax.jacrev(total))
    volatility = jnp.full(3, 0.6)
    masked, whole = slopes(volatility, jnp.asarray([True, False, True])), slopes(volatility, jnp.ones(3, bool))
    for name, slope in masked.items():
        assert slope[1] == 0 and slope[0] != 0, name
        np.testing.assert_array_equal(slope[jnp.asarray([0, 2])], whole[name][jnp.asarray([0, 2])], name)
        assert np.isnan(whole[name][1]), name
