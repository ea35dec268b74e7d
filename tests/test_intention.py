"""Liquidation against a market maker who infers: costs by hand and drawn, the best reply, leakage, manipulation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

NOISE = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])


@functools.cache
def equilibrium(preference="local", gamma=1.0, rho=0.6):
    return jx.kyle.solve(2.0, NOISE, 6, gamma, preference, rho, 1)


@functools.cache
def many(preference, gamma):
    return jx.kyle.solve(1.0, np.ones(50), 50, gamma, preference, 0.0, 1)


def quadratic(e, gamma=0.0):
    """The matrix M of E + (γ/2) Var = nᵀMn, from the rule itself: prices p_t = Σ_{j<t} λ_j y_j + Λ_t y_t, y = u − n."""
    lam, whole, s = (np.asarray(x) for x in (e.price_impact, e.price_impact + e.transitory_impact, e.noise_variance))
    moves = np.tril(np.broadcast_to(lam, (lam.size, lam.size)), -1) + np.diag(whole)
    return (moves + moves.T) / 2 + gamma / 2 * moves @ np.diag(s) @ moves.T


def test_cost_and_risk_of_any_trades():
    e, trades = equilibrium(), np.array([3.0, -1.0, 2.0, 0.5, 4.0, 1.0])
    found = jx.intention.against_rule(e, trades)
    assert found.expected_cost == pytest.approx(trades @ quadratic(e) @ trades, rel=1e-13)
    risk = 2 * (trades @ (quadratic(e, 1.0) - quadratic(e)) @ trades)
    assert found.variance == pytest.approx(risk, rel=1e-12)
    np.testing.assert_allclose(found.inventory, 9.5 - np.concatenate([[0], np.cumsum(trades)]), atol=1e-14)
    rng = np.random.default_rng(0)
    u = np.sqrt(NOISE) * rng.normal(size=(200_000, 6))
    flow = u - trades
    estimate = np.cumsum(np.asarray(e.price_impact) * flow, axis=1)
    price = estimate + np.asarray(e.transitory_impact) * flow
    cost = -(price * trades).sum(1)
    assert abs(cost.mean() - float(found.expected_cost)) < 4 * cost.std() / np.sqrt(len(cost))
    assert cost.var() == pytest.approx(float(found.variance), rel=0.02)
    np.testing.assert_allclose(found.belief[1:], np.cumsum(-np.asarray(e.price_impact) * trades), rtol=1e-13)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 20.0])
def test_best_reply_is_the_quadratic_programmes(gamma):
    e = equilibrium()
    found = jx.intention.mistaken(e, 9.0, gamma)
    weights = np.linalg.solve(quadratic(e, gamma), np.ones(6))
    np.testing.assert_allclose(found.trades, 9 * weights / weights.sum(), rtol=1e-11)
    assert found.status == jx.Status.OK
    bought = jx.intention.mistaken(e, -9.0, gamma)
    np.testing.assert_allclose(bought.trades, -found.trades, rtol=1e-13)


def test_best_reply_has_derivatives():
    def cost(x):
        e = jx.kyle.solve(x[0], NOISE, 6, x[1], "local", x[2], 1.0)
        s = jx.intention.mistaken(e, x[3], x[4])
        return s.expected_cost + x[4] / 2 * s.variance

    at = jnp.asarray([2.0, 1.0, 0.6, 9.0, 0.3])
    value, gradient = jax.jit(cost), jax.jit(jax.grad(cost))(at)
    for i in range(5):
        slope = (value(at.at[i].add(1e-5)) - value(at.at[i].add(-1e-5))) / 2e-5
        assert gradient[i] == pytest.approx(float(slope), rel=1e-7)


def test_the_informed_sells_as_the_equilibrium_says():
    e = equilibrium()
    found = jx.intention.informed(e, 9.0)
    known = float(jx.intention.signal(e, 9.0))
    assert known < 0
    assert np.sum(found.trades) == pytest.approx(9, rel=1e-13)
    learnt = 1 - np.asarray(e.posterior_variance) / 2
    np.testing.assert_allclose(found.leakage[1:], learnt, rtol=1e-12)
    # All profit is that at the average v² and that of reacting to noise.
    beta, whole = np.asarray(e.intensity), np.asarray(e.price_impact + e.transitory_impact)
    left = np.asarray(e.variance_before) / 2
    total = 2 * np.sum(beta * (1 - whole * beta) * left**2) + float(jx.intention.noise_gain(e))
    assert total == pytest.approx(float(e.expected_profit), rel=1e-12)


def test_drawn_trades_are_those_expected():
    """Given v, the average trade over noise: the paths' trades regressed on v."""
    e = equilibrium()
    p = jx.kyle.simulate(e, 200_000, 5)
    v = np.asarray(p.value)
    slope = (np.asarray(p.trades) * v[:, None]).mean(0) / (v**2).mean()
    trades = np.asarray(jx.intention.informed(e, 9.0).trades) / -float(jx.intention.signal(e, 9.0))
    np.testing.assert_allclose(-slope, -trades, atol=0.01)


def test_when_haste_is_right():
    """Half sold after this share of the time, 50 periods: an uninformed seller at no risk waits till half-time; risk, a
    CARA insider's impatience and rivals hasten, each alone."""

    def half(schedule):
        left = np.asarray(schedule.inventory)
        return np.argmax(left <= left[0] / 2) / 50

    calm = many("local", 0.0)
    assert half(jx.intention.mistaken(calm, 5.0)) == pytest.approx(0.5, abs=0.05)
    assert half(jx.intention.informed(calm, 5.0)) == pytest.approx(0.5, abs=0.05)
    assert half(jx.intention.mistaken(calm, 5.0, 0.1)) < 0.2
    assert half(jx.intention.informed(many("cara", 2.0), 5.0)) < 0.2
    rivals = jx.kyle.solve(1.0, np.ones(50), 50, 0.0, "local", 0.0, 2)
    pace = np.asarray(rivals.intensity * rivals.variance_before)
    assert np.cumsum(pace)[9] > 0.6 * pace.sum()


def test_where_impact_falls_fast_it_can_be_manipulated():
    """No round trip earns against the rule of a risk-neutral or local insider; against a CARA one's some do."""

    def least(e):
        basis = np.linalg.svd(np.ones((1, 50)))[2][1:]
        return np.linalg.eigvalsh(basis @ quadratic(e) @ basis.T)[0]

    assert least(many("local", 0.0)) > 0
    assert least(many("local", 2.0)) > 0
    assert least(many("cara", 2.0)) < -0.01
    free = jx.intention.mistaken(many("cara", 2.0), 5.0, 0.0)
    assert free.status == jx.Status.UNBOUNDED
    assert np.isnan(free.expected_cost)
    careful = jx.intention.mistaken(many("cara", 2.0), 5.0, 10.0)
    assert careful.status == jx.Status.OK


def test_taken_for_informed_one_best_behaves_as_one():
    """At no risk aversion the best reply of who knows nothing is, on average, what the informed does."""
    calm = many("local", 0.0)
    np.testing.assert_allclose(
        jx.intention.mistaken(calm, 5.0).trades, jx.intention.informed(calm, 5.0).trades, rtol=1e-10
    )


def test_a_failed_equilibrium_leaves_a_masked_sum_its_derivatives():
    def costs(prior, gamma):
        e = jx.kyle.solve(prior, NOISE, 6, gamma, "local", 0.0, 1.0)
        c = jx.intention.compare(e, 1.0, 0.5)
        each = [s.expected_cost for s in (c.exogenous, c.informed, c.mistaken, c.naive)]
        cut = jx.intention.splitting(e, 1.0, np.array([2])).expected_cost[0]
        return jnp.stack([*each, c.noise_gain, cut, jx.intention.signal(e, 1.0)]), c.naive.status

    def loss(prior, gamma, mask):
        found, status = jax.vmap(costs, in_axes=(0, None))(prior, gamma)
        return jnp.sum(jnp.where(mask[:, None], found, 0.0)), (found, status)

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    prior = jnp.array([1.0, jnp.nan])
    (by_prior, by_gamma), (found, status) = slopes(prior, 0.5, jnp.array([True, False]))
    assert np.isfinite(by_gamma) and np.isfinite(by_prior[0]) and by_prior[1] == 0
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
    assert status.tolist() == [jx.Status.OK, jx.Status.NONFINITE_INPUT]
    (by_prior, _), _ = slopes(prior, 0.5, jnp.array([True, True]))
    assert np.isnan(by_prior[1])


def test_traced_inputs_out_of_range_are_named_by_the_status():
    mistaken = jax.jit(jx.intention.mistaken)
    for shares, gamma in ((jnp.nan, 0.5), (1.0, jnp.nan), (1.0, -0.5), (1.0, jnp.inf)):
        found = mistaken(equilibrium(), shares, gamma)
        assert found.status == jx.Status.NONFINITE_INPUT
        assert np.isnan(found.inventory).all() and np.isnan(found.expected_cost)
    lost = jax.jit(jx.intention.against_rule)(equilibrium(), jnp.full(6, jnp.nan))
    assert lost.status == jx.Status.NONFINITE_INPUT and np.isnan(lost.inventory).all()
    huge = jx.intention.against_rule(equilibrium(), np.full(6, 1e200))
    assert huge.status == jx.Status.NONFINITE_INTERNAL and np.isnan(huge.expected_cost)


def test_comparison():
    e = many("local", 0.0)
    c = jx.intention.compare(e, 5.0, 0.02)
    assert c.mistaken.expected_cost + 0.01 * c.mistaken.variance <= c.naive.expected_cost + 0.01 * c.naive.variance
    flat = float(np.mean(np.asarray(e.price_impact)))
    trades = np.asarray(c.exogenous.trades)
    assert c.exogenous.expected_cost == pytest.approx(flat / 2 * (25 + np.sum(trades**2)), rel=1e-12)
    np.testing.assert_allclose(c.exogenous.trades, c.naive.trades)
    assert np.asarray(c.informed.leakage)[-1] == pytest.approx(1 - float(e.posterior_variance[-1]), rel=1e-12)
    assert "taken for informed" in c.table().text()
    for figure in (c.plot(), c.plot_leakage()):
        assert len(figure.axes[0].lines) >= 3


def test_splitting_saves_at_most_half():
    e = many("local", 0.0)
    cost = np.asarray(jx.intention.splitting(e, 5.0, np.array([1, 2, 5, 50])).expected_cost)
    assert np.all(np.diff(cost) < 0)
    np.testing.assert_allclose(cost[:3], float(e.price_impact[0]) / 2 * 25 * (1 + 1 / np.array([1, 2, 5])), rtol=2e-3)
    assert 0.48 < cost[3] / cost[0] < 0.52


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: jx.intention.mistaken(e, np.nan), "shares must be finite"),
        (lambda e: jx.intention.mistaken(e, 1.0, -1.0), "risk_aversion must be finite and at least 0"),
        (lambda e: jx.intention.mistaken(e, np.ones(2)), "shares must be a scalar"),
        (lambda e: jx.intention.against_rule(e, np.ones(3)), r"trades must have shape \(6,\)"),
        (lambda e: jx.intention.splitting(e, 1.0, np.array([0])), r"slices\[0\] must be between 1 and 6"),
        (lambda e: jx.intention.splitting(e, 1.0, np.array([1.5])), "slices must be whole numbers"),
        (
            lambda e: jx.intention.signal(jx.kyle.solve(1.0, NOISE, 6, insiders=2), 1.0),
            "must have one insider",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(equilibrium())
