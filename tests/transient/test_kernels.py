"""The contract of decay kernels, one for all: differences, derivatives, precision; and averages by quadrature."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

import jaxexec as jx


def gaussian(lag, p):
    return p["impact"] * jnp.exp(-p["rate"] * lag**2)


KERNELS = {
    "exponential": jx.ExponentialKernel(2e-7, 3.0),
    "permanent": jx.ExponentialKernel(2e-7, 0.0),
    "power": jx.PowerLawKernel(2e-7, 0.4, 0.05),
    "singular": jx.SingularPowerLawKernel(2e-7, 0.5, 0.125),
    "sum": jx.ExponentialKernel(1e-7, 0.0) + jx.PowerLawKernel(2e-7, 0.4, 0.05) + jx.ExponentialKernel(2e-7, 20.0),
    "custom": jx.CustomKernel(gaussian, {"impact": 2e-7, "rate": 4.0}),
}
VALUE, FALL, BEND = (
    jax.jit(lambda kernel, *at, name=name: getattr(kernel, name)(*at)) for name in ("value", "fall", "bend")
)
LAGS = np.array([0.0, 1e-6, 0.125, 0.3, 0.5, 0.7, 3.0])


@pytest.mark.parametrize("name", KERNELS)
def test_differences_are_those_of_the_value(name):
    kernel = KERNELS[name]
    start = float(VALUE(kernel, np.zeros(1))[0])
    assert start > 0
    for first, second in ((0.2, 0.05), (0.125, 0.125), (0.0, 0.3)):
        values = [np.asarray(VALUE(kernel, LAGS + x)) for x in (0, first, second, first + second)]
        a, b = (np.full_like(LAGS, x) for x in (first, second))
        np.testing.assert_allclose(FALL(kernel, LAGS, a), values[0] - values[1], atol=4e-16 * start)
        bend = np.asarray(BEND(kernel, LAGS, a, b))
        np.testing.assert_allclose(bend, values[0] - values[1] - values[2] + values[3], atol=8e-16 * start)
        np.testing.assert_allclose(bend, BEND(kernel, LAGS, b, a), atol=8e-16 * start)


@pytest.mark.parametrize("name", KERNELS)
def test_derivatives_and_dtype(name):
    kernel = KERNELS[name]

    leaves, structure = jax.tree.flatten(kernel)

    @jax.jit
    def total(point):  # changes of log parameters, or of those that are zero, and the lag
        moved = [jnp.where(x == 0, p, x * jnp.exp(p)) for x, p in zip(leaves, point, strict=False)]
        k, lag = jax.tree.unflatten(structure, moved), point[-1]
        return 1e7 * jnp.stack([k.fall(lag, jnp.full_like(lag, 0.06)), k.bend(lag, lag + 0.03, lag)])

    forward, reverse = (jax.jit(mode(total)) for mode in (jax.jacfwd, jax.jacrev))
    for lag in (0.0, 0.2):
        point = np.append(np.zeros(len(leaves)), lag)
        found = forward(point)
        np.testing.assert_allclose(found, reverse(point), rtol=1e-12, atol=1e-14)
        for i in range(len(point) - (lag == 0)):
            step = 1e-5 * (np.arange(len(point)) == i)
            numeric = (total(point + step) - total(point - step)) / 2e-5
            np.testing.assert_allclose(found[:, i], numeric, rtol=1e-7, atol=1e-9)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), kernel)
    lag = jnp.asarray(LAGS, jnp.float32)
    assert jax.eval_shape(BEND, single, lag, lag, lag).dtype == jnp.float32
    assert jax.eval_shape(FALL, single, lag, lag).dtype == jnp.float32


@pytest.mark.parametrize("name", ["exponential", "power"])
@pytest.mark.parametrize("step", [1e-3, 1e-9, 1e-200])
def test_differences_keep_their_digits(name, step):
    """Against 400 digits: to rounding of themselves, not of G, however short the step."""
    kernel = KERNELS[name]
    mpmath.mp.dps = 400
    exact = {
        "exponential": lambda t: mpmath.mpf(2e-7) * mpmath.exp(-3 * mpmath.mpf(t)),
        "power": lambda t: mpmath.mpf(2e-7) * (1 + mpmath.mpf(t) / mpmath.mpf(0.05)) ** -mpmath.mpf(0.4),
    }[name]
    for lag in (0.0, 0.3):
        t, a, b = (mpmath.mpf(x) for x in (lag, step, 2 * step))
        fall, bend = exact(t) - exact(t + a), exact(t) - exact(t + a) - exact(t + b) + exact(t + a + b)
        np.testing.assert_allclose(FALL(kernel, np.full(1, lag), step)[0], float(fall), rtol=1e-14)
        np.testing.assert_allclose(BEND(kernel, np.full(1, lag), step, 2 * step)[0], float(bend), rtol=1e-14)


def weighted(difference, ratio, exponent):
    return (1 - abs(difference)) * abs(0.25 * (ratio + difference)) ** -exponent


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.9])
def test_averages_of_a_singular_power(exponent):
    """∫∫ κ|t + u − v|^{−γ} du dv/δ², by the triangle of u − v; both sides of the change to a series."""
    kernel = jx.SingularPowerLawKernel(3.0, exponent, 0.25)
    ratios = np.array([0.0, 0.4, 1.0, 1.7, 3.99, 4.0, 60.0])
    values = VALUE(kernel, ratios / 4)
    for ratio, value in zip(ratios, values, strict=True):
        parts = sorted({-1.0, 0.0, 1.0, float(np.clip(-ratio, -1, 1))})
        pieces = [quad(weighted, a, b, (ratio, exponent), epsrel=1e-12, limit=400)[0] for a, b in pairwise(parts)]
        np.testing.assert_allclose(value, 3 * sum(pieces), rtol=1e-7 if ratio <= 1 else 1e-12)
    np.testing.assert_allclose(VALUE(kernel, np.full(1, 1e6))[0], 3.0 * 1e6**-exponent, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jx.ExponentialKernel(-1.0, 1.0), "impact must be at least 0"),
        (lambda: jx.ExponentialKernel(1.0, np.inf), "decay must be finite"),
        (lambda: jx.ExponentialKernel(np.ones(2), 1.0), "impact must be a scalar"),
        (lambda: jx.PowerLawKernel(1.0, 0.5, 0.0), "scale must be positive"),
        (lambda: jx.SingularPowerLawKernel(1.0, 1.0, 0.1), "exponent must be at least 0 and below 1"),
        (lambda: jx.SumKernel([]), "at least one kernel"),
        (lambda: jx.SumKernel([1.0]), r"kernels\[0\] must be a jaxexec.ImpactKernel"),
        (lambda: jx.CustomKernel(gaussian, {"impact": np.nan}), r"parameters\['impact'\] must be finite"),
        (lambda: jx.CustomKernel(1.0), "function must be callable"),
        (lambda: jx.CustomKernel(lambda t, p: jnp.ones(3)).value(jnp.ones(2)), "function must be elementwise"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
