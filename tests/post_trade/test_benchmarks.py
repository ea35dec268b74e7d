"""Slippage, and the prices of a path, against sums over a fine grid and by hand; NumPy and JAX alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec import post_trade
from tests.post_trade.executed_orders import FILLS, padded

RNG = np.random.default_rng(0)
TIMES = np.sort(RNG.uniform(0, 1, 40)).round(3)
PRICES = 50 + np.cumsum(RNG.normal(size=40)) * 0.1


@pytest.mark.parametrize("sign", [1, -1])
def test_slippage_is_what_the_benchmark_would_have_saved(sign):
    sizes, prices = sign * np.array([3.0, 4.0, 5.0]), np.array([50.0, 49.0, 51.0])
    s = jx.slippage(padded(prices, sizes), [50.5, 49.5])
    wanted = [np.sum(sizes * (b - prices)) for b in (50.5, 49.5)]
    np.testing.assert_allclose(s.cost, wanted, rtol=1e-13)
    np.testing.assert_allclose(s.bps, 1e4 * np.array(wanted) / (12 * np.array([50.5, 49.5])), rtol=1e-13)
    assert s.status.tolist() == [0, 0]
    assert jx.slippage(padded(prices, sizes), 50.5).cost == wanted[0]


def test_slippage_fails_alone_and_says_so():
    prices, sizes = jnp.full(FILLS, 50.0), jnp.ones(FILLS)

    def both(benchmarks, mask, sizes):
        s = jx.slippage(jx.Fills(prices, sizes, mask=mask), benchmarks)
        return jnp.sum(jnp.where(jnp.arange(2) < 1, s.bps, 0)), s

    run = jax.jit(jax.value_and_grad(both, has_aux=True))
    (_, s), slopes = run(jnp.array([51.0, np.nan]), jnp.ones(FILLS, bool), sizes)
    assert s.status.tolist() == [0, jx.Status.NONFINITE_INPUT]
    assert np.isfinite(s.cost[0]) and np.isnan(s.cost[1]) and np.isnan(s.bps[1])
    np.testing.assert_allclose(slopes, [1e4 * 50 / 51**2, 0], rtol=1e-12)
    (_, s), slopes = run(jnp.array([51.0, 52.0]), jnp.zeros(FILLS, bool), sizes)
    assert s.status.tolist() == [jx.Status.INSUFFICIENT_DATA] * 2 and np.isnan(s.bps).all()
    assert np.isnan(slopes[0]) and slopes[1] == 0
    (_, s), _ = run(jnp.array([51.0, 52.0]), jnp.ones(FILLS, bool), sizes.at[2].set(-1))
    assert s.status.tolist() == [jx.Status.NONFINITE_INPUT] * 2


def test_the_price_that_prevails():
    times, prices = np.array([0.0, 1.0, 1.0, 2.0]), np.array([10.0, 11.0, 12.0, 13.0])
    at = np.array([-0.1, 0.0, 0.9, 1.0, 5.0])
    wanted = [np.nan, 10, 10, 12, 13]
    np.testing.assert_array_equal(post_trade.prevailing_price(times, prices, at), wanted)
    np.testing.assert_array_equal(post_trade.prevailing_price(*map(jnp.asarray, (times, prices, at))), wanted)


def test_twap_is_the_mean_over_time():
    fine = np.linspace(0.2, 0.9, 700_001)[:-1] + 0.5e-6  # no time of the path, all rounded, falls on one
    wanted = np.mean(post_trade.prevailing_price(TIMES, PRICES, fine))
    np.testing.assert_allclose(post_trade.interval_twap(TIMES, PRICES, 0.2, 0.9), wanted, rtol=1e-12)
    traced = jax.jit(post_trade.interval_twap)
    np.testing.assert_allclose(traced(TIMES, PRICES, 0.2, 0.9), wanted, rtol=1e-12)
    slope = jax.jit(jax.grad(post_trade.interval_twap, 1))(TIMES, PRICES, 0.2, 0.9)
    weights = np.diff(np.append(np.clip(TIMES, 0.2, 0.9), 0.9)) / 0.7
    np.testing.assert_allclose(slope, weights, atol=1e-14)


def test_time_without_a_price_does_not_count():
    times, prices = np.array([1.0, 2.0, 3.0]), np.array([10.0, np.nan, 13.0])
    assert post_trade.interval_twap(times, prices, 0.0, 5.0) == pytest.approx((10 + 2 * 13) / 3)
    assert np.isnan(post_trade.interval_twap(times, prices, 2.0, 3.0))
    assert np.isnan(post_trade.interval_twap(times, prices, 0.0, 0.5))


def test_vwap_of_an_interval():
    sizes = RNG.integers(1, 9, 40)
    inside = (TIMES >= 0.3) & (TIMES <= 0.8)
    wanted = np.average(PRICES[inside], weights=sizes[inside])
    np.testing.assert_allclose(post_trade.interval_vwap(TIMES, PRICES, sizes, 0.3, 0.8), wanted, rtol=1e-14)
    slope = jax.jit(jax.grad(post_trade.interval_vwap, 1))(TIMES, PRICES, sizes.astype(float), 0.3, 0.8)
    np.testing.assert_allclose(slope, np.where(inside, sizes, 0) / np.sum(sizes[inside]), rtol=1e-12)
    assert np.isnan(post_trade.interval_vwap(TIMES, PRICES, sizes, 5.0, 6.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jx.slippage(padded([1.0], [1.0]), [1.0, -1.0]), r"benchmark_price\[1\] must be positive"),
        (lambda: jx.slippage(padded([1.0], [1.0]), [[1.0]]), "must be a scalar or have shape"),
        (lambda: jx.slippage(1.0, 1.0), "must be a jaxexec.Fills"),
    ],
)
def test_faults(make, message):
    with pytest.raises(ValueError, match=message):
        make()
