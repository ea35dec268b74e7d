"""Obizhaeva and Wang's closed form: dense solves on any grid, limits, the continuous optimum, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx

EQUAL = np.linspace(0.0, 2.0, 8)
UNEQUAL = np.array([0.0, 0.1, 0.4, 0.5, 0.9, 1.2, 1.9, 2.0])
SHARES, IMPACT = 1e5, 2e-7


@jax.jit
def closed(resilience, times=EQUAL, shares=SHARES, impact=IMPACT, permanent=0.0, spread=0.0):
    given = {"permanent_impact": permanent, "half_spread": spread}
    return jx.obizhaeva_wang(shares, times, impact=impact, resilience=resilience, **given)


@pytest.mark.parametrize("times", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("resilience", [0.3, 3.0, 50.0])
def test_against_a_dense_solve(times, resilience):
    s = closed(resilience, times)
    decay = np.exp(-resilience * np.abs(times[:, None] - times))
    weights = np.linalg.solve(decay, np.ones(8))
    trades = SHARES * weights / weights.sum()
    np.testing.assert_allclose(s.trades, trades, rtol=1e-12)
    np.testing.assert_allclose(s.inventory, SHARES - np.cumsum(trades), atol=1e-9)
    np.testing.assert_allclose(s.expected_cost, IMPACT / 2 * trades @ decay @ trades, rtol=1e-13)


def test_equal_steps_as_usually_written():
    """n_0 = X/(2 + (N − 1)(1 − a)) and (1 − a) n_0 in between, a = e^{−ρτ}."""
    left = 1 - np.exp(-3.0 * 2 / 7)
    ends = SHARES / (2 + 6 * left)
    s = closed(3.0)
    np.testing.assert_allclose(s.trades, [ends, *[left * ends] * 6, ends], rtol=1e-14)
    np.testing.assert_allclose(s.inventory[:-1], SHARES - np.cumsum(s.trades)[:-1], rtol=1e-13)
    assert s.inventory[-1] == 0


def test_limits():
    """No resilience: half at either end. All of it: equal slices. Fine grids: blocks and a constant rate."""
    still = closed(0.0)
    np.testing.assert_array_equal(still.trades, [SHARES / 2, *[0.0] * 6, SHARES / 2])
    np.testing.assert_allclose(still.expected_cost, IMPACT / 2 * SHARES**2, rtol=1e-15)
    np.testing.assert_allclose(closed(1e4).trades, np.full(8, SHARES / 8), rtol=1e-15)
    fine = jx.obizhaeva_wang(SHARES, np.linspace(0, 2, 4001), impact=IMPACT, resilience=3.0)
    np.testing.assert_allclose(fine.block, SHARES / (2 + 3 * 2), rtol=1e-15)
    np.testing.assert_allclose(2 * fine.block + fine.rate * 2, SHARES, rtol=1e-15)
    np.testing.assert_allclose(np.asarray(fine.trades)[[0, -1]], fine.block, rtol=1e-3)
    np.testing.assert_allclose(fine.trades[2000] / (2 / 4000), fine.rate, rtol=1e-3)
    errors = []
    for nodes in (401, 801):
        s = jx.obizhaeva_wang(SHARES, np.linspace(0, 2, nodes), impact=IMPACT, resilience=3.0)
        errors.append(float(s.expected_cost / s.continuous_cost - 1))
    assert 0 < errors[1] < errors[0] < 1e-4
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 2, atol=0.01)  # second order in the step


def test_what_stays_and_the_spread():
    bare, full = closed(3.0), closed(3.0, permanent=1e-7, spread=0.01)
    np.testing.assert_array_equal(bare.trades, full.trades)
    for field in ("expected_cost", "continuous_cost"):
        extra = getattr(full, field) - getattr(bare, field)
        np.testing.assert_allclose(extra, 1e-7 / 2 * SHARES**2 + 0.01 * SHARES, rtol=1e-13)
    purchase = closed(3.0, shares=-SHARES, permanent=1e-7, spread=0.01)
    np.testing.assert_allclose(purchase.expected_cost, full.expected_cost)
    np.testing.assert_allclose(purchase.trades, -full.trades)


@pytest.mark.parametrize("resilience", [0.0, 1e-9, 3.0])
def test_derivatives(resilience):
    """At ρ = 0 too, from the right; there the continuous cost falls by κX²T/4 a unit of ρ."""

    def of(p):
        s = closed(p[0], jnp.asarray(EQUAL) * p[1], SHARES * p[2], IMPACT * p[3], 1e-7 * p[4], 0.01 * p[5])
        return jnp.append(s.trades / SHARES, jnp.stack([s.expected_cost, s.continuous_cost]) / 1e3)

    point = np.array([resilience, 1.0, 1.0, 1.0, 1.0, 1.0])
    forward, reverse = (jax.jit(mode(of))(point) for mode in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, reverse, rtol=1e-12, atol=1e-15)
    values = jax.jit(of)
    for i in range(6):
        step = 1e-5 * (np.arange(6) == i)
        if i == 0 and resilience < 1e-5:
            numeric = (4 * values(point + step) - values(point + 2 * step) - 3 * values(point)) / 2e-5
        else:
            numeric = (values(point + step) - values(point - step)) / 2e-5
        np.testing.assert_allclose(forward[:, i], numeric, rtol=1e-6, atol=1e-8)
    if resilience == 0:
        np.testing.assert_allclose(forward[-1, 0] * 1e3, -IMPACT * SHARES**2 * 2 / 4, rtol=1e-14)


def test_single_precision_and_lanes():
    times = np.linspace(0, 1, 391)
    single = jx.obizhaeva_wang(1e5, times.astype(np.float32), impact=np.float32(IMPACT), resilience=np.float32(3.0))
    exact = jx.obizhaeva_wang(1e5, times, impact=IMPACT, resilience=3.0)
    assert single.trades.dtype == single.block.dtype == jnp.float32
    np.testing.assert_allclose(single.trades, exact.trades, rtol=5e-5)  # the times' own rounding over the step
    np.testing.assert_allclose(single.expected_cost, exact.expected_cost, rtol=1e-6)

    def loss(rates, masked):
        s = jax.vmap(lambda rate: closed(rate))(rates)
        return jnp.sum(jnp.where((s.status == jx.Status.OK) | ~masked, s.expected_cost, 0)), s

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    rates = np.array([3.0, -1.0, np.nan])
    (_, s), masked = both(rates, True)
    np.testing.assert_array_equal(s.status, [jx.Status.OK, jx.Status.NONFINITE_INPUT, jx.Status.NONFINITE_INPUT])
    assert np.isnan(s.trades[1:]).all() and np.isnan(s.times[1:]).all()
    np.testing.assert_array_equal(masked[1:], 0)
    assert np.isfinite(masked[0]) and np.isnan(both(rates, False)[1][1:]).all()


def test_refuses():
    for changes, message in (
        ({"resilience": -1.0}, "resilience must be at least 0"),
        ({"impact": np.ones(2)}, "impact must be a scalar"),
        ({"times": [0.0, 0.0]}, "times"),
    ):
        with pytest.raises(ValueError, match=message):
            jx.obizhaeva_wang(**({"shares": 1.0, "times": EQUAL, "impact": 1.0, "resilience": 1.0} | changes))
    traced = closed(3.0, EQUAL[::-1].copy())
    assert traced.status == jx.Status.NONFINITE_INPUT
