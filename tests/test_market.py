"""Grids, curves and windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx


def test_uniform_grid():
    grid = jx.TimeGrid.uniform(2.0, 8)
    np.testing.assert_allclose(grid.times, np.linspace(0, 2, 9), rtol=1e-15)
    assert grid.steps == 8
    assert grid.horizon == 2
    np.testing.assert_allclose(grid.durations, 0.25)


def test_horizon_may_be_traced():
    horizons = jnp.asarray([0.5, 1.0])
    times = jax.vmap(lambda h: jx.TimeGrid.uniform(h, 4).times)(horizons)
    np.testing.assert_allclose(times[:, -1], horizons)
    assert jax.grad(lambda h: jx.TimeGrid.uniform(h, 4).times[2])(1.0) == 0.5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jx.TimeGrid([0.0]), "at least 2 nodes"),
        (lambda: jx.TimeGrid([]), "at least 2 nodes"),
        (lambda: jx.TimeGrid([[0.0, 1.0]]), "shape"),
        (lambda: jx.TimeGrid([0.0, 1.0, 1.0]), r"times\[2\] = 1.0 is not after times\[1\]"),
        (lambda: jx.TimeGrid([0.0, 2.0, 1.0]), r"times\[2\]"),
        (lambda: jx.TimeGrid([0.0, np.nan]), r"times\[1\] must be finite"),
        (lambda: jx.TimeGrid.uniform(0.0, 4), "horizon must be positive"),
        (lambda: jx.TimeGrid.uniform(-1.0, 4), "horizon must be positive"),
        (lambda: jx.TimeGrid.uniform(np.inf, 4), "horizon must be positive and finite"),
        (lambda: jx.TimeGrid.uniform(1.0, 0), "steps must be a positive integer"),
        (lambda: jx.TimeGrid.uniform(1.0, 2.5), "steps must be a positive integer"),
    ],
)
def test_grid_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"volatility": -0.1}, "volatility must be at least 0"),
        ({"volatility": np.nan}, "volatility must be finite"),
        ({"volume": [1.0, 2.0, -3.0, 4.0]}, r"volume\[2\] must be at least 0"),
        ({"volume": [1.0, 2.0]}, r"volume must be a scalar or shape \(4,\)"),
        ({"permanent_impact": -1e-8}, "permanent_impact must be at least 0"),
        ({"permanent_impact": np.zeros(4)}, "permanent_impact must be a scalar"),
        ({"drift": np.inf}, "drift must be finite"),
        ({"gap_variance": -1.0}, "gap_variance must be at least 0"),
        ({"grid": 4}, "grid must be a jaxexec.TimeGrid"),
    ],
)
def test_market_refuses(changes, message):
    arguments = {"grid": jx.TimeGrid.uniform(1.0, 4), "volatility": 0.6, "volume": 4e6} | changes
    with pytest.raises(ValueError, match=message):
        jx.Market(**arguments)


def test_precision_follows_the_arrays():
    curve = np.full(4, 4e6, np.float32)
    market = jx.Market(jx.TimeGrid.uniform(1.0, 4), 0.6, curve)
    assert {x.dtype for x in jax.tree.leaves(market)} == {jnp.dtype("float32")}
    problem = jx.Liquidation(1e5, market, jx.PowerLawCost(0.1, 0.6), 1e-6)
    assert {x.dtype for x in jax.tree.leaves(problem)} == {jnp.dtype("float32")}
    assert jx.solve(problem).trades.dtype == jnp.float32
    mixed = jx.Market(jx.TimeGrid.uniform(1.0, 4), np.full(4, 0.6), curve)
    assert {x.dtype for x in jax.tree.leaves(mixed)} == {jnp.dtype("float64")}
    plain = jx.Liquidation(100_000, jx.Market(jx.TimeGrid.uniform(1, 4), 0.6, 4_000_000), jx.QuadraticCost(1), 0)
    assert {x.dtype for x in jax.tree.leaves(plain)} == {jnp.dtype("float64")}


def test_float64_arrays_are_refused_in_32_bits():
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        jx.TimeGrid(np.linspace(0, 1, 5))


def uneven_market():
    rng = np.random.default_rng(0)
    return jx.Market(
        jx.TimeGrid(np.r_[0, np.cumsum(rng.uniform(0.5, 1.5, 6))] / 6),
        volatility=rng.uniform(0.3, 0.9, 6),
        volume=rng.uniform(1e6, 4e6, 6),
        permanent_impact=1e-8,
        drift=rng.normal(size=6),
        gap_variance=rng.uniform(0, 0.1, 6),
    )


def test_window_preserves_integrals():
    market = uneven_market()
    whole = market.window(market.grid.times[0], market.grid.times[-1], 13)
    for name in ("step_volume", "step_variance", "step_drift"):
        np.testing.assert_allclose(jnp.sum(getattr(whole, name)), jnp.sum(getattr(market, name)), rtol=1e-12)
    left = market.window(market.grid.times[0], 0.4, 5)
    right = market.window(0.4, market.grid.times[-1], 5)
    parts = jnp.sum(left.step_volume) + jnp.sum(right.step_volume)
    np.testing.assert_allclose(parts, jnp.sum(market.step_volume), rtol=1e-12)
    assert left.permanent_impact == market.permanent_impact


def test_window_of_the_same_grid_is_the_market():
    market = jx.Market(jx.TimeGrid.uniform(1.0, 6), np.arange(6.0), np.arange(1.0, 7.0))
    same = market.window(0.0, 1.0, 6)
    np.testing.assert_allclose(same.volume, market.volume, rtol=1e-12)
    np.testing.assert_allclose(same.volatility, market.volatility, rtol=1e-12, atol=1e-12)


def test_many_windows_are_one_batch_with_finite_derivatives():
    market = uneven_market()
    starts, ends = jnp.asarray([0.0, 0.2]), jnp.asarray([0.5, 0.9])

    def cost_of(start, end):
        window = market.window(start, end, 8)
        return jx.solve(jx.Liquidation(1e5, window, jx.PowerLawCost(0.1, 0.6), 1e-6)).objective

    together = jax.vmap(jax.grad(cost_of, argnums=(0, 1)))(starts, ends)
    for slopes in together:
        assert np.all(np.isfinite(np.asarray(slopes)))
    step = 1e-5
    numeric = (cost_of(0.2, 0.9 + step) - cost_of(0.2, 0.9 - step)) / (2 * step)
    np.testing.assert_allclose(together[1][1], numeric, rtol=1e-5)


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.5), (-0.5, 0.5), (0.5, 1.5), (np.nan, 0.5)])
def test_window_refuses(start, end):
    market = jx.Market(jx.TimeGrid.uniform(1.0, 6), 0.6, 4e6)
    with pytest.raises(ValueError, match=r"start|end"):
        market.window(start, end, 4)


@pytest.mark.parametrize(
    ("volatility", "volume", "end"),
    [(-0.6, 4e6, 1.0), (0.6, np.where(np.arange(6) == 2, -4e6, 4e6), 1.0), (0.6, 4e6, 1.9), (0.6, 4e6, -1.0)],
)
def test_a_window_does_not_hide_traced_faults(volatility, volume, end):
    @jax.jit
    def status(volatility, volume, end):
        market = jx.Market(jx.TimeGrid.uniform(1.0, 6), volatility, volume).window(0.0, end, 3)
        return jx.solve(jx.Liquidation(1e4, market, jx.PowerLawCost(0.1, 0.6), 1e-6)).status

    assert status(0.6, np.full(6, 4e6), 1.0) == jx.Status.OK
    assert status(volatility, np.broadcast_to(volume, 6).astype(float), end) == jx.Status.NONFINITE_INPUT
