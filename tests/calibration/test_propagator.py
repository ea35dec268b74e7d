"""Decay kernels from order flow: the truth, coverage, statsmodels, and a kernel that schedules understand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.signal

import jaxexec as jx
from jaxexec.calibration import propagator

STEP = 1 / 390
FORMS = {
    "exponential": (lambda t, k, rho: k * np.exp(-rho * t), (2e-6, 20.0)),
    "exponential-permanent": (lambda t, k, rho, stays: k * np.exp(-rho * t) + stays, (2e-6, 20.0, 5e-7)),
    "power-law": (lambda t, k, gamma, s: k * (1 + t / s) ** -gamma, (2e-6, 0.4, 0.01)),
}


def market(seed, shape, kernel, noise):
    """Persistent order flow, and returns that a kernel (on steps) makes of it since the session's start."""
    rng = np.random.default_rng(seed)
    flow = 1000 * scipy.signal.lfilter([1], [1, -0.5], rng.standard_normal(shape))
    change = np.concatenate([kernel[:1], np.diff(kernel)])
    return flow, scipy.signal.lfilter(change, [1], flow) + noise * rng.standard_normal(shape)


@pytest.mark.parametrize("form", FORMS)
def test_noiseless_flow_returns_the_truth(form):
    function, truth = FORMS[form]
    flow, returns = market(1, (3, 60), function(STEP * np.arange(60), *truth), 0.0)
    found = propagator(flow, returns, step=STEP, form=form, lags=59, history="zero", starts=20).parameters
    assert int(found.status) == jx.Status.OK
    assert int(found.agreeing) >= 10
    np.testing.assert_allclose(found.values, truth, rtol=1e-8)


def test_scipy_on_the_rows_themselves():
    function, truth = FORMS["exponential"]
    flow, returns = market(3, (4, 60), function(STEP * np.arange(60), *truth), 1e-3)
    mask = np.ones((4, 60), bool)
    mask[1, 40] = False
    returns[1, 40] = np.nan
    found = propagator(flow, returns, mask, step=STEP, lags=10).parameters
    lag = STEP * np.arange(11)

    def left(p):
        kernel = function(lag, p[0] * 1e-6, p[1] * 10)
        change = np.concatenate([kernel[:1], np.diff(kernel)])
        rows = []
        for q, r, m in zip(flow, returns, mask, strict=True):
            rows += [r[t] - change @ q[t - np.arange(11)] for t in range(10, 60) if m[t - np.arange(11)].all()]
        return np.array(rows)

    peer = scipy.optimize.least_squares(left, [2.0, 2.0], jac="3-point", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    np.testing.assert_array_equal(found.n, len(peer.fun))
    np.testing.assert_allclose(found.values / np.array([1e-6, 10]), peer.x, rtol=1e-5)
    errors = np.sqrt(np.diag(np.linalg.inv(peer.jac.T @ peer.jac)) * 2 * peer.cost / (len(peer.fun) - 2))
    np.testing.assert_allclose(found.std_errors / np.array([1e-6, 10]), errors, rtol=1e-4)


def test_derivatives_and_what_schedules_make_of_the_kernel():
    function, truth = FORMS["exponential"]
    flow, returns = (jnp.asarray(x) for x in market(4, (1, 60), function(STEP * np.arange(60), *truth), 1e-3))

    @jax.jit
    def answer(returns):
        return jnp.log(propagator(flow, returns, step=STEP, lags=10).parameters.values)

    forward, reverse = jax.jacfwd(answer)(returns), jax.jacrev(answer)(returns)
    np.testing.assert_allclose(forward, reverse, rtol=1e-6, atol=1e-6 * np.abs(forward).max())
    change = jnp.zeros_like(returns).at[0, 30].set(1e-6)
    np.testing.assert_allclose(
        forward[:, 0, 30], (answer(returns + change) - answer(returns - change)) / 2e-6, rtol=1e-4
    )
    found = propagator(flow, returns, step=STEP, lags=10)
    schedule = jx.transient_schedule(1000.0, jnp.linspace(0, 1, 5), found.kernel)
    assert int(schedule.status) == jx.Status.OK


def test_flow_that_never_changes_tells_no_decay():
    flow = np.zeros(100)
    found = propagator(flow, flow, step=STEP, lags=5, starts=1).parameters
    assert int(found.status) == jx.Status.RANK_DEFICIENT


def test_what_is_refused():
    flow = np.ones((2, 30))
    with pytest.raises(ValueError, match="form"):
        propagator(flow, flow, step=STEP, form="gaussian")  # pyright: ignore
    with pytest.raises(ValueError, match="lags"):
        propagator(flow, flow, step=STEP, lags=30)
    with pytest.raises(ValueError, match="step"):
        propagator(flow, flow, step=0.0)
    with pytest.raises(ValueError, match="shape of flow"):
        propagator(flow, flow[:1], step=STEP)
