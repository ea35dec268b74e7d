"""Roots over six hundred decades, their derivatives, and what has no root."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxexec.numerics.roots import monotone_root


def powers(x, coefficients):
    slow, fast = coefficients
    return slow * jnp.sqrt(x) + fast * x**3


def late(x, threshold):
    """Nothing up to a threshold, then a line, then a kink and another line."""
    return jnp.maximum(x - threshold, 0) + 5 * jnp.maximum(x - 2 * threshold, 0)


def barrier(x, scale):
    return -scale * jnp.log1p(-x)


def flat_at_one(x, scale):
    return jnp.minimum(scale * x, 1)


root_of_powers = jax.jit(lambda c, t: monotone_root(powers, c, t))
COEFFICIENTS = (jnp.asarray(0.3), jnp.asarray(2.0))


def test_every_scale():
    target = jnp.asarray(np.logspace(-140, 300, 45))
    root = root_of_powers(COEFFICIENTS, target)
    np.testing.assert_allclose(powers(root, COEFFICIENTS), target, rtol=1e-14)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x, _: jnp.sinh(x), np.arcsinh),
        (lambda x, _: jnp.expm1(x), np.log1p),
        (lambda x, _: x**0.05, lambda t: t**20),
    ],
)
def test_known_inverses(function, exact):
    target = np.asarray([1e-12, 1e-3, 0.5, 3.0, 1e12])
    np.testing.assert_allclose(monotone_root(function, (), jnp.asarray(target)), exact(target), rtol=2e-13)


def test_kinks_barriers_and_plateaus():
    target = jnp.asarray([1e-9, 0.5, 1.0, 1.5, 7.0, 1e6])
    scale = jnp.asarray(1.0)
    np.testing.assert_allclose(late(monotone_root(late, scale, target), scale), target, rtol=1e-6)
    np.testing.assert_allclose(monotone_root(late, scale, target)[1:], [1.5, 2, 25 / 12, 3, 166668.5], rtol=1e-14)
    np.testing.assert_allclose(monotone_root(barrier, scale, target[:5]), -np.expm1(-target[:5]), rtol=1e-14)
    # The least of many roots, and none at all.
    np.testing.assert_allclose(monotone_root(flat_at_one, scale, target[:3]), target[:3], rtol=1e-14)
    assert np.all(np.isinf(monotone_root(flat_at_one, scale, target[3:])))


def test_rest_and_numbers_that_are_none():
    target = jnp.asarray([0.0, -1.0, jnp.nan, 2.3])
    root = root_of_powers(COEFFICIENTS, target)
    np.testing.assert_array_equal(root[:3], [0, 0, jnp.nan])
    np.testing.assert_allclose(root[3], 1, rtol=1e-14)
    lost = root_of_powers((jnp.asarray(jnp.nan), jnp.asarray(2.0)), target)
    assert np.all(np.isnan(lost))
    gradient = jax.grad(lambda c: jnp.sum(root_of_powers(c, target[:2])))(COEFFICIENTS)
    assert gradient == (0, 0)


def test_slopes_that_overflow_far_from_the_root():
    """A user's ρ^1.1 + ρ², differentiated twice, bends infinitely below 1e-154, where bisection may come by."""

    def function(x, scale):
        return jax.jvp(lambda at: scale * (jnp.exp(1.1 * jnp.log(at)) + at**2), (x,), (jnp.ones_like(x),))[1]

    scale = jnp.geomspace(1e-3, 1e3, 400)
    target = jnp.full_like(scale, 0.0112)
    root = monotone_root(function, scale, target)
    np.testing.assert_allclose(function(root, scale), target, rtol=1e-12)


def test_arguments_broadcast():
    both = (jnp.asarray([0.3, 0.6]), jnp.asarray(2.0))
    root = root_of_powers(both, jnp.asarray(2.3))
    assert root.shape == (2,)
    np.testing.assert_allclose(powers(root, both), 2.3, rtol=1e-14)


def test_derivatives_to_second_order():
    """Of x with a√x + bx³ = t: by hand, forward over reverse and reverse over forward."""

    def root(theta):
        return root_of_powers((theta[0], theta[1]), theta[2])

    theta = jnp.asarray([0.3, 2.0, 1.7])
    x = float(root(theta))
    slope = 0.15 / np.sqrt(x) + 6 * x**2
    by_hand = np.asarray([-np.sqrt(x), -(x**3), 1]) / slope
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(mode(root)(theta), by_hand, rtol=1e-12)
    hessian = jax.jacfwd(jax.jacrev(root))(theta)
    np.testing.assert_allclose(jax.jacrev(jax.jacfwd(root))(theta), hessian, rtol=1e-12)
    h = 1e-5
    for i in range(3):
        step = jnp.zeros(3).at[i].set(h)
        difference = (jax.jacfwd(root)(theta + step) - jax.jacfwd(root)(theta - step)) / (2 * h)
        np.testing.assert_allclose(hessian[i], difference, rtol=1e-6, atol=1e-9)


def test_in_32_bits():
    target = jnp.asarray(np.logspace(-15, 30, 12), jnp.float32)
    single = tuple(c.astype(jnp.float32) for c in COEFFICIENTS)
    root = root_of_powers(single, target)
    assert root.dtype == jnp.float32
    np.testing.assert_allclose(powers(root, single), target, rtol=3e-6)
