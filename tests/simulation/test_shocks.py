"""Shocks: the inverse normal against SciPy, Sobol's points against SciPy, and what replacing a component does."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.stats import qmc

from jaxexec.simulation.shocks import Shape, align, draw, mirrored, normals, quiet, sobol


def test_normals_are_quantiles():
    bits = np.unique(np.concatenate([np.linspace(0, 2**32 - 1, 20_001), 2.0 ** np.arange(32)]).astype(np.uint32))
    found = np.asarray(normals(jnp.asarray(bits)), float)
    half = (bits & 0x7FFFFFFF).astype(float)
    exact = np.where(bits >> 31, -1, 1) * stats.norm.ppf((half + 0.5) / 2**32)
    inside = np.abs(exact) < 5.3
    np.testing.assert_allclose(found[inside], exact[inside], rtol=2e-6, atol=3e-7)
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=3e-7)
    assert np.abs(found).max() > 6.1


def test_moments_of_normals():
    """Over an even grid of all bits they are those of a normal variable."""
    z = np.asarray(normals(jnp.arange(2**11, 2**32, 2**12, dtype=jnp.uint32)), float)
    np.testing.assert_allclose([z.mean(), (z**2).mean(), (z**4).mean()], [0, 1, 3], atol=1e-3)


def test_sobol_is_that_of_scipy():
    ours = np.asarray(sobol(jnp.arange(256, dtype=jnp.uint32)), float) / 2**32
    theirs = qmc.Sobol(2, scramble=False).random(256)  # the same points in Gray code's order
    np.testing.assert_array_equal(np.sort(ours[0] + 2.0 * ours[1]), np.sort(theirs[:, 0] + 2.0 * theirs[:, 1]))


def test_align_replaces_one_component():
    shape = Shape(2, 5, False, True)
    shocks = draw(jax.random.key(1), shape, 64)
    direction = quiet(shape)._replace(price=jnp.arange(10.0).reshape(2, 5), volume=jnp.zeros(5))
    points = sobol(jnp.arange(64, dtype=jnp.uint32)) ^ jnp.uint32(12345)
    aligned = align(shocks, direction, points)
    unit = np.arange(10.0) / np.linalg.norm(np.arange(10.0))
    before, after = (np.asarray(s.price).reshape(10, 64) for s in (shocks, aligned))
    np.testing.assert_allclose(unit @ after, normals(points[0]), atol=1e-5)
    across = np.eye(10) - np.outer(unit, unit)
    np.testing.assert_allclose(across @ after, across @ before, atol=1e-5)
    np.testing.assert_array_equal(aligned.volume, shocks.volume)  # no direction, nothing replaced
    np.testing.assert_array_equal(mirrored(aligned).price, -np.asarray(aligned.price))
