"""One period and the limit of many: against the recursion, which shares nothing with them, and known limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx


@pytest.mark.parametrize("gamma", [0.0, 1e-4, 1.0, 30.0, 1e4])
def test_one_period_is_the_recursion(gamma):
    closed = jx.kyle.one_period(4.0, 2.25, gamma)
    found = jx.kyle.solve(4.0, jnp.full(1, 2.25), 1, gamma, "local", 0.0, 1)
    for field in ("intensity", "price_impact", "posterior_variance", "expected_profit", "value"):
        np.testing.assert_allclose(getattr(closed, field), np.ravel(getattr(found, field))[0], rtol=1e-14)
    b = float(closed.intensity) * np.sqrt(4 / 2.25)
    assert b**4 + gamma * 3 * b**3 == pytest.approx(1, rel=1e-13)


def test_one_period_has_derivatives_at_no_risk_aversion():
    slope = jax.grad(lambda g: jx.kyle.one_period(1.0, 1.0, g).intensity)
    assert slope(0.0) == pytest.approx(-1 / 4, rel=1e-13)  # of b⁴ + Γb³ = 1
    h = 1e-5
    curve = [jx.kyle.one_period(1.0, 1.0, 2.0 + d).intensity for d in (-h, h)]
    assert slope(2.0) == pytest.approx(float(curve[1] - curve[0]) / (2 * h), rel=1e-8)
    traced = jax.jit(jx.kyle.one_period)(-1.0, 1.0, 0.0)
    assert traced.status == jx.Status.NONFINITE_INPUT and np.isnan(traced.value)


def test_the_recursion_goes_to_the_limit_of_many_periods():
    """At α = 2 the error falls as 1/n: λ(½) = 0.70711 is reached to 1e-3 at 4,000 periods, four times less at 1,000."""
    inside = np.array([0.25, 0.5])
    limit = jx.kyle.continuous_limit(1.0, 1.0, 1.0, inside, 2.0)
    assert limit.price_impact[1] == pytest.approx(np.sqrt(0.5), rel=1e-12)
    errors = []
    for n in (1000, 4000):
        found = jx.kyle.solve(1.0, jnp.full(n, 1 / n), n, 2.0, "cara", 0.0, 1)
        rows = (inside * n).astype(int)
        near = [np.asarray(x)[rows] for x in (found.price_impact, found.posterior_variance, n * found.intensity)]
        far = (limit.price_impact, limit.posterior_variance, limit.intensity)
        errors.append([np.max(np.abs(a / np.asarray(b) - 1)) for a, b in zip(near, far, strict=True)])
        errors[-1].append(abs(float(found.expected_profit / limit.expected_profit) - 1))
    assert np.all(np.asarray(errors[1]) < 7e-3)
    assert np.all(np.asarray(errors[0]) > 3 * np.asarray(errors[1]))


def test_the_limit_has_a_derivative_in_its_horizon():
    """dx/dT of E = √(Σ_0 σ² T) is E/2T at T; the times may be known, or be traced beside it."""
    inside = np.array([0.25, 0.5])
    profit = jax.jit(lambda horizon: jx.kyle.continuous_limit(4.0, 2.25, horizon, inside).expected_profit)
    assert jax.grad(profit)(2.0) == pytest.approx(np.sqrt(4.5) / 2, rel=1e-13)
    late = jax.jit(lambda horizon: jx.kyle.continuous_limit(4.0, 2.25, horizon, inside))(0.4)
    assert late.status == jx.Status.NONFINITE_INPUT and np.isnan(late.price_impact).all()


def test_risk_aversion_too_large_to_square_is_said():
    """Beside it, a sum over the lanes that could be solved keeps its derivatives."""

    def masked(gamma, call):
        found = jax.vmap(call)(gamma)
        return jnp.sum(jnp.where(found.status == jx.Status.OK, found.expected_profit, 0.0))

    for call in (
        lambda g: jx.kyle.one_period(1.0, 1.0, g),
        lambda g: jx.kyle.continuous_limit(1.0, 1.0, 1.0, jnp.array([0.0, 0.5]), g),
    ):
        found = call(1e200)
        assert found.status == jx.Status.NONFINITE_INTERNAL
        assert all(np.isnan(x).all() for x in jax.tree.leaves(found) if x.dtype == float)
        slopes = jax.grad(masked)(jnp.array([1.0, 1e200]), call)
        assert slopes[0] < 0 and slopes[1] == 0


def test_risk_neutral_limit_is_kyles():
    at = np.array([0.0, 0.3, 0.9])
    limit = jx.kyle.continuous_limit(4.0, 2.25, 2.0, 2 * at)
    np.testing.assert_allclose(limit.price_impact, 2 / np.sqrt(4.5), rtol=1e-14)
    np.testing.assert_allclose(limit.posterior_variance, 4 * (1 - at), rtol=1e-14)
    np.testing.assert_allclose(limit.intensity, np.sqrt(4.5) / 2 / (2 * (1 - at)), rtol=1e-14)
    assert limit.expected_profit == pytest.approx(2 * np.sqrt(4.5), rel=1e-14)


def test_limits_of_references(references):
    """With noise of 1 a period: the boundary layer at the end, extrapolated in √T and T."""
    exact = references["kyle_limits_gam0"]
    rows = []
    for periods in (4_000, 16_000, 64_000):
        e = jx.kyle.solve(1.0, 1.0, periods)
        first, last = float(e.price_impact[0]), float(e.price_impact[-1])
        root = periods**0.5
        rows.append([first / last, last * root, periods * float(e.posterior_variance[-1]), first * root])
        rows[-1].append(float(e.expected_profit) / root)
    a, b, c = np.asarray(rows)
    # Errors are of order 1/T and log T/T: two steps of extrapolation.
    once = b + (b - a) / 3, c + (c - b) / 3
    limit = once[1] + (once[1] - once[0]) / 3
    names = ("lam1_over_lamT", "lamT_sqrtT", "T_SigT", "lam1_sqrtT", "profit_over_sqrtT")
    np.testing.assert_allclose(limit, [exact[name] for name in names], rtol=3e-6)


def test_a_penalty_on_each_period_vanishes_in_the_limit():
    few, many = (jx.kyle.solve(1.0, jnp.full(n, 1 / n), n, 4.0, "local", 0.0, 1) for n in (50, 1000))
    gaps = [abs(float(e.posterior_variance[e.periods // 2]) - 0.5) for e in (few, many)]
    assert gaps[1] < 0.01 < gaps[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jx.kyle.one_period(0.0, 1.0), "prior_variance must be positive"),
        (lambda: jx.kyle.one_period(1.0, 1.0, -1.0), "risk_aversion must be at least 0"),
        (lambda: jx.kyle.one_period(np.ones(2), 1.0), "prior_variance must be a scalar"),
        (lambda: jx.kyle.continuous_limit(1.0, 1.0, 1.0, [0.0, 2.0]), r"times\[1\] must be between"),
        (lambda: jx.kyle.continuous_limit(1.0, 1.0, 1.0, 0.5), "times must have shape"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
