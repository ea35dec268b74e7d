"""Schedules by rule: that they sum, what they are proportional to, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

VOLUME = np.array([2e6, 0.0, 4e6, 8e6])


def order(shares=3e5, target=0.0, times=(0.0, 0.25, 0.5, 0.75, 1.0)):
    return jx.Liquidation(shares, jx.Market(jx.TimeGrid(times), 0.6, VOLUME), jx.QuadraticCost(0.1), 1e-6, target)


def test_pov_takes_its_share_until_done():
    np.testing.assert_allclose(jx.pov(order(), 0.1), [5e4, 0, 1e5, 1.5e5])
    np.testing.assert_allclose(jx.pov(order(-3e5), 0.1), [-5e4, 0, -1e5, -1.5e5])
    np.testing.assert_allclose(jx.pov(order(3e5, 2e5), 0.1), [5e4, 0, 5e4, 0])
    assert np.sum(jx.pov(order(), 0.01)) == pytest.approx(0.01 * np.sum(VOLUME) / 4)  # the volume does not suffice
    np.testing.assert_array_equal(jx.pov(order(), 0.0), np.zeros(4))
    slope = jax.jacfwd(lambda rate: jx.pov(order(), rate))(0.05)
    np.testing.assert_allclose(slope, VOLUME / 4)


def test_front_loaded_falls_linearly():
    """The concept note's weights load the back: n_k is proportional to N + 1 − k, not to k."""
    np.testing.assert_allclose(jx.front_loaded(order()), 3e5 * np.array([4, 3, 2, 1]) / 10)


@pytest.mark.parametrize("decay", [-3.0, -1e-3, 0.0, 1e-9, 0.02, 0.04, 2.0, 60.0])
def test_exponential(decay):
    p = order(times=(0.0, 0.1, 0.5, 0.75, 1.0))
    trades = np.asarray(jx.exponential(p, decay))
    times = np.asarray(p.grid.times)
    left = (1 - times) if decay == 0 else (np.exp(-decay * times) - np.exp(-decay)) / -np.expm1(-decay)
    np.testing.assert_allclose(trades, -np.diff(left) * 3e5, rtol=1e-6)
    assert np.sum(trades) == pytest.approx(3e5, rel=1e-13)
    slope = jax.jacrev(lambda k: jx.exponential(p, k))(decay)
    step = 1e-5
    numeric = (jx.exponential(p, decay + step) - jx.exponential(p, decay - step)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-4)


def test_on_equal_steps_each_trade_is_a_fixed_part_of_the_one_before():
    """The note's own formula is that of what has been traded, not of a trade."""
    trades = np.asarray(jx.exponential(order(), 2.0))
    np.testing.assert_allclose(trades[1:] / trades[:-1], np.exp(-0.5), rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="participation must be at least 0"):
        jx.pov(order(), -0.1)
    with pytest.raises(ValueError, match="decay must be a scalar"):
        jx.exponential(order(), jnp.ones(2))
    with pytest.raises(ValueError, match="decay must be finite"):
        jx.exponential(order(), np.nan)
