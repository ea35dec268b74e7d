"""Almgren's power laws without a deadline: references, the first integral, smoothness through k = 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx


def closed(exponent, times, shares=1e6, impact=2.5e-6, weight=1e-6):
    return jx.infinite_horizon(
        shares, jnp.asarray(times), volatility=0.95, impact=impact, exponent=exponent, variance_weight=weight
    )


@pytest.mark.parametrize("name", ["almgren03_k0.5", "almgren03_k1"])
def test_references(references, name):
    wanted = references[name]
    p, end = wanted["params"], wanted["Tstar"]
    s = jx.infinite_horizon(
        p["X"],
        np.array([end, 2 * end]),
        volatility=p["sigma"],
        impact=p["eta"],
        exponent=p["k"],
        variance_weight=p["lam"],
    )
    np.testing.assert_allclose(s.time_constant, end, rtol=1e-13)
    np.testing.assert_allclose(s.expected_cost, wanted["E"], rtol=1e-13)
    np.testing.assert_allclose(s.variance, wanted["V"], rtol=1e-13)
    np.testing.assert_allclose(s.inventory, [wanted["x_at_Tstar"], wanted["x_at_2Tstar"]], rtol=1e-13)


@pytest.mark.parametrize("exponent", [0.3, 0.6, 0.999, 1.0, 1.001, 1.5, 2.0])
def test_first_integral_and_costs(exponent):
    """k η v^{k+1} = λσ²x² all the way, and E and Var are the integrals of the path."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    s = closed(exponent, [0.0])
    end = float(s.time_constant)
    # x falls from X to 1e-4 X; what is left costs less than the tolerance.
    bend = (1 - exponent) / (1 + exponent)
    last = end * (-np.log(1e-5) if bend == 0 else (1e-5**-bend - 1) / bend)
    u = (nodes + 1) / 2
    at = last * u**6
    path = closed(exponent, at)
    x = np.asarray(path.inventory)
    v = np.asarray(jax.vmap(jax.grad(lambda t: -closed(exponent, t[None]).inventory[0]))(at))
    np.testing.assert_allclose(exponent * 2.5e-6 * v ** (exponent + 1), 1e-6 * 0.95**2 * x**2, rtol=1e-7)
    measure = weights / 2 * last * 6 * u**5
    np.testing.assert_allclose(np.sum(measure * 2.5e-6 * v ** (exponent + 1)), s.expected_cost, rtol=1e-4)
    np.testing.assert_allclose(np.sum(measure * 0.95**2 * x**2), s.variance, rtol=1e-4)


def test_smooth_through_one_and_done_beyond_it():
    times = np.array([0.1, 1.0, 3.0])
    below, at, above = (np.asarray(closed(k, times).inventory) for k in (1 - 1e-7, 1.0, 1 + 1e-7))
    np.testing.assert_allclose((below + above) / 2, at, rtol=1e-10)
    slope = jax.jacfwd(lambda k: closed(k, times).inventory)(1.0)
    np.testing.assert_allclose(slope, (above - below) / 2e-7, rtol=1e-5)
    s = closed(2.0, [0.0])
    assert np.isinf(closed(1.0, [0.0]).finished)
    np.testing.assert_allclose(s.finished, 3 * s.time_constant)
    np.testing.assert_array_equal(closed(2.0, [float(s.finished), 1e4]).inventory, [0, 0])
    late = jax.jacrev(lambda k: closed(k, [1e4]).inventory)(2.0)
    assert late == 0


def test_bad_input():
    with pytest.raises(ValueError, match="exponent must be positive"):
        closed(0.0, [0.0])
    nothing = jax.jit(lambda x: closed(0.5, [0.0], shares=x))(0.0)
    assert nothing.status == jx.Status.NONFINITE_INPUT
