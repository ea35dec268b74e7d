"""Impact of a schedule on the price: by hand, and what trades pay is what the schedule costs."""

import jax
import numpy as np
import pytest

import jaxexec as jx

TIMES = np.array([0.0, 0.5, 1.0])
KERNEL = jx.ExponentialKernel(2e-7, 3.0)


def test_two_trades_by_hand():
    at = np.array([-1.0, 0.0, 0.25, 0.5, 2.0])
    path = jx.impact_path([1e5, 5e4, 0.0], TIMES, KERNEL, at)
    decay = np.exp(-3 * np.array([0.25, 0.5, 2.0, 1.5]))
    np.testing.assert_allclose(path.before, [0, 0, -0.02 * decay[0], -0.02 * decay[1], path.after[4]], rtol=1e-14)
    last = -0.02 * decay[2] - 0.01 * decay[3]
    np.testing.assert_allclose(path.after, [0, -0.02, -0.02 * decay[0], -0.02 * decay[1] - 0.01, last], rtol=1e-14)
    assert path.status == jx.Status.OK


def test_trades_pay_the_mean_of_before_and_after():
    trades = np.array([1e5, -2e4, 7e4])
    for kernel in (KERNEL, jx.PowerLawKernel(2e-7, 0.4, 0.05)):
        path = jx.impact_path(trades, TIMES, kernel)
        paid = -np.sum(trades * (path.before + path.after)) / 2
        np.testing.assert_allclose(paid, jx.transient_cost(trades, TIMES, kernel).expected_cost, rtol=1e-14)


def test_a_book_that_refills_is_kept_at_one_level():
    """Obizhaeva and Wang: between two of the best trades the price comes back to where the one before found it."""
    times = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    best = jx.transient_schedule(1e5, times, KERNEL)
    before = jx.impact_path(best.trades, times, KERNEL).before
    assert before[0] == 0
    np.testing.assert_allclose(before[1:], before[1], rtol=1e-12)


def test_derivatives_and_faults():
    def of(trades, decay):
        return jx.impact_path(trades, TIMES, jx.ExponentialKernel(2e-7, decay), [0.25, 0.5, 2.0]).after * 1e2

    point = np.array([1e5, 5e4, 0.0]), 3.0
    forward, reverse = (jax.jit(mode(of, argnums=(0, 1)))(*point) for mode in (jax.jacfwd, jax.jacrev))
    for a, b in zip(forward, reverse, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    numeric = (of(point[0], 3 + 1e-6) - of(point[0], 3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(forward[1], numeric, rtol=1e-7)
    failed = jax.jit(lambda rate: jx.impact_path(np.ones(3), TIMES, jx.ExponentialKernel(1.0, rate)))(-1.0)
    assert failed.status == jx.Status.NONFINITE_INPUT
    assert np.isnan(failed.before).all() and np.isnan(failed.after).all()
    with pytest.raises(ValueError, match=r"trades must be \(3,\)"):
        jx.impact_path(np.ones(2), TIMES, KERNEL)
    with pytest.raises(ValueError, match=r"at\[0\] must be finite"):
        jx.impact_path(np.ones(3), TIMES, KERNEL, [np.nan])
    with pytest.raises(ValueError, match="at must have shape"):
        jx.impact_path(np.ones(3), TIMES, KERNEL, 1.0)
