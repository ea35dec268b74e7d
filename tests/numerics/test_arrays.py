"""Safe functions, statuses and the ladder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxexec.numerics.arrays import as_float, positive_log, safe_power, unify
from jaxexec.numerics.status import Status, poison, replace_where
from jaxexec.numerics.tridiagonal import ladder_response, solve_ladder


def test_positive_log():
    """Two units in the last place, near 1 too, against longer numbers; its derivative; what is not a normal number."""
    rng = np.random.default_rng(0)
    x = np.concatenate([10 ** rng.uniform(-307, 307, 5000), 1 + rng.normal(size=5000) * 1e-3])
    exact = np.log(x.astype(np.longdouble))
    error = np.abs(np.asarray(positive_log(jnp.asarray(x))) - exact) / np.maximum(np.abs(exact), 1e-300)
    assert float(error.max()) < 2 * np.finfo(float).eps
    np.testing.assert_allclose(jax.vmap(jax.grad(positive_log))(jnp.asarray(x)), 1 / x, rtol=1e-15)
    odd = positive_log(jnp.asarray([0.0, 1e-310, np.inf, np.nan, -1.0, 1.0]))
    np.testing.assert_array_equal(odd, [-np.inf, -np.inf, np.inf, np.nan, np.nan, 0.0])
    single = jnp.asarray([0.5, 3.0], jnp.float32)
    np.testing.assert_allclose(positive_log(single), np.log(single), rtol=1e-6)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0, 2.5])
def test_safe_power(exponent):
    x = jnp.asarray([0.0, 1e-300, 0.3, 2.0])
    np.testing.assert_allclose(safe_power(x, jnp.asarray(exponent)), np.asarray(x) ** exponent, rtol=1e-13)
    slope = jax.vmap(jax.grad(safe_power, argnums=(0, 1)), (0, None))(x, jnp.asarray(exponent))
    assert all(np.isfinite(np.asarray(s)).all() for s in slope)
    np.testing.assert_allclose(slope[0][2:], exponent * np.asarray(x[2:]) ** (exponent - 1), rtol=1e-12)
    assert safe_power(jnp.asarray(-1.0), jnp.asarray(exponent)) == 0


def test_poison_spreads_only_where_asked():
    failed = jnp.asarray([False, True])
    x = jnp.asarray([1.0, 2.0])
    np.testing.assert_array_equal(poison(x, failed), [1.0, np.nan])
    masked = jax.grad(lambda v: jnp.sum(jnp.where(failed, 0, poison(v, failed))))(x)
    np.testing.assert_array_equal(masked, [1.0, 0.0])
    careless = jax.grad(lambda v: jnp.sum(poison(v, failed)))(x)
    np.testing.assert_array_equal(careless, [1.0, np.nan])
    _, tangent = jax.jvp(lambda v: poison(v, failed), (x,), (jnp.asarray([1.0, 0.0]),))
    np.testing.assert_array_equal(tangent, [1.0, 0.0])
    np.testing.assert_array_equal(jax.vmap(poison)(x, failed), [1.0, np.nan])


def test_replace_where_lets_the_derivative_through():
    def f(v):
        return replace_where(jnp.asarray(True), v, jnp.asarray(5.0)) * 3

    assert f(jnp.nan) == 15
    assert jax.grad(f)(jnp.nan) == 3


def test_every_status_has_a_remedy():
    assert all(status.remedy.endswith(".") for status in Status)


def test_as_float():
    assert as_float("x", 3).dtype == jnp.float64
    assert as_float("x", np.float32(3)).dtype == jnp.float32
    for bad in ("three", 1j, True, [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="x must be"):
            as_float("x", bad)


def test_unify_leaves_the_choice_open_or_makes_it():
    assert unify(as_float("x", 1.0)).weak_type
    assert not unify(as_float("x", 1.0), final=True).weak_type
    both = unify({"a": as_float("a", 1.0), "b": jnp.ones(2, jnp.float32)})
    assert both["a"].dtype == jnp.float32


@pytest.mark.parametrize("stiffness", [0.0, 1e-3, 1.0, 1e4])
def test_ladder_against_a_dense_solve(stiffness):
    rng = np.random.default_rng(0)
    n = 9
    rung, rail = rng.uniform(0.1, 1, n), stiffness * rng.uniform(0.1, 1, n - 1)
    rung[3] = 0
    flow, charge, first, last = rng.normal(size=n), rng.normal(size=n - 1), 2.0, -1.0
    q, y = solve_ladder(*(jnp.asarray(v) for v in (rung, rail, flow, charge, first, last)))
    nodes = np.r_[first, q, last]
    np.testing.assert_allclose(nodes[:-1] - nodes[1:], rung * y + flow, atol=1e-11 * (1 + np.abs(y).max()))
    np.testing.assert_allclose(y[:-1] - y[1:], rail * q - charge, atol=1e-11 * (1 + np.abs(y).max()))


def test_ladder_keeps_relative_accuracy_in_the_smallest_components():
    """sinh decay over 200 orders of magnitude, componentwise."""
    n, ratio = 400, 1.4
    rung, rail = jnp.ones(n), jnp.full(n - 1, ratio)
    zero = jnp.zeros(n)
    q, _ = solve_ladder(rung, rail, zero, zero[1:], jnp.asarray(1.0), jnp.asarray(0.0))
    kappa = np.arccosh(1 + ratio / 2)
    exact = np.exp(-kappa * np.arange(1, n)) * -np.expm1(-2 * kappa * np.arange(n - 1, 0, -1))
    assert exact[-1] < 1e-190
    np.testing.assert_allclose(q, exact, rtol=1e-11)


def test_ladder_response_differentiates_both_ways():
    rng = np.random.default_rng(1)
    n = 6
    arguments = [jnp.asarray(v) for v in (rng.uniform(0.1, 1, n), rng.uniform(0.1, 1, n - 1))]
    arguments += [jnp.asarray(rng.normal(size=n)), jnp.asarray(rng.normal(size=n - 1))]
    weights = jnp.asarray(rng.normal(size=2 * n - 1))

    def f(*a):
        return jnp.dot(weights, jnp.concatenate(ladder_response(*a)))

    np.testing.assert_allclose(
        np.concatenate(jax.grad(f, range(4))(*arguments)),
        np.concatenate(jax.jacfwd(f, range(4))(*arguments)),
        rtol=1e-9,
    )
    for i in range(4):
        step = 1e-6 * rng.normal(size=arguments[i].shape)
        up, down = list(arguments), list(arguments)
        up[i], down[i] = up[i] + step, down[i] - step
        slope = jnp.sum(jax.grad(f, i)(*arguments) * step)
        np.testing.assert_allclose(slope, (f(*up) - f(*down)) / 2, rtol=1e-6)
