"""The frontier of orders and baskets falls, is convex, and its slope is −γ/2; pictures and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from tests.problems import one

GAMMAS = np.geomspace(1e-8, 1e-4, 25)
COVARIANCE = np.array([[0.36, 0.2, 0.0], [0.2, 0.5, -0.1], [0.0, -0.1, 0.3]])


def basket():
    """Three assets, one of them a hedge; one step in which the first is closed."""
    grid = jx.TimeGrid(np.array([0.0, 0.1, 0.3, 0.45, 0.7, 0.8, 1.0]))
    volume = 4e6 * np.array([[1.0, 2.0, 0.0, 1.0, 1.0, 2.0], np.ones(6), np.linspace(1, 2, 6)])
    market = [jx.Market(grid, 0.0, v, permanent_impact=1e-8) for v in volume]
    return jx.Basket([2e5, -1e5, 0.0], market, jx.PowerLawCost(0.1, 0.6, 0.002), COVARIANCE)


PROBLEMS = {"order": one(""), "basket": basket()}


@pytest.fixture(scope="module")
def frontiers():
    return {name: jx.efficient_frontier(problem, GAMMAS) for name, problem in PROBLEMS.items()}


@pytest.mark.parametrize("name", PROBLEMS)
def test_monotone_and_convex(frontiers, name):
    f = frontiers[name]
    cost, variance = np.asarray(f.expected_cost), np.asarray(f.variance)
    assert np.all(np.asarray(f.status) == jx.Status.OK)
    assert np.all(np.diff(cost) > 0)
    assert np.all(np.diff(variance) < 0)
    chords = np.diff(cost) / np.diff(variance)
    assert np.all(np.diff(chords) < 0)
    # A chord's slope lies between those of the tangents at its ends.
    tangents = np.asarray(f.slope)
    assert np.all((chords < tangents[:-1]) & (chords > tangents[1:]))


@pytest.mark.parametrize("name", PROBLEMS)
def test_slope_by_differences(name):
    """Central differences of neighbouring points; their error falls with the square of the distance."""
    gammas = 1e-6 * np.exp(np.linspace(-0.002, 0.002, 25))
    f = jx.efficient_frontier(PROBLEMS[name], gammas)
    cost, variance = np.asarray(f.expected_cost), np.asarray(f.variance)
    for apart, tolerance in ((12, 1e-6), (3, 1e-7)):
        chord = (cost[12 + apart] - cost[12 - apart]) / (variance[12 + apart] - variance[12 - apart])
        np.testing.assert_allclose(chord, f.slope[12], rtol=tolerance)


def both_twice(inputs):
    f = jx.efficient_frontier(*inputs)
    both = jnp.concatenate([f.expected_cost, f.variance])
    return both, both


def test_derivatives():
    """Those of two points are differences along a random direction of all parameters; and dE/dVar = −γ/2."""
    rng, still = np.random.default_rng(0), ("target", "elapsed", "drift")
    inputs = PROBLEMS["order"], jnp.asarray([3e-7, 3e-6])

    def direction(path, x):
        fixed = getattr(path[-1], "name", "") in still
        return jnp.asarray(1e-3 * np.asarray(x) * (0 if fixed else rng.normal(size=x.shape)))

    along = jax.tree_util.tree_map_with_path(direction, inputs)
    at = jax.jit(jax.jacrev(both_twice, has_aux=True))
    slopes, value = at(inputs)
    change = jax.tree.map(lambda g, v: jnp.sum(g * v[None], tuple(range(1, g.ndim))), slopes, along)

    def moved(k):
        return at(jax.tree.map(lambda x, v: x + k * v, inputs, along))[1]

    numeric = (8 * (moved(0.2) - moved(-0.2)) - (moved(0.4) - moved(-0.4))) / 2.4
    np.testing.assert_allclose(sum(jax.tree.leaves(change)) / value, numeric / value, rtol=1e-6, atol=1e-10)
    by_gamma = np.asarray(slopes[1])
    np.testing.assert_allclose(np.diag(by_gamma[:2]) / np.diag(by_gamma[2:]), -inputs[1] / 2, rtol=1e-8)


def test_each_point_is_the_single_solve(frontiers):
    problem = one("")
    alone = jx.solve(jx.Liquidation(problem.shares, problem.market, problem.cost, GAMMAS[7]))
    np.testing.assert_allclose(frontiers["order"].schedules.trades[7], alone.trades, rtol=1e-10)


def test_outputs(frontiers):
    f, problem = frontiers["order"], PROBLEMS["order"]
    assert f.to_polars().height == 25
    assert "risk aversion" in f.summary()
    assert len(f.plot().axes) == 1
    marked = {"optimum": jax.tree.map(lambda x: x[12], f.schedules), "front-loaded": jx.front_loaded(problem)}
    assert labels(f.plot(marked, problem=problem)) == ["efficient", "TWAP", "VWAP", "optimum", "front-loaded"]
    with pytest.raises(ValueError, match="front-loaded"):
        f.plot({"front-loaded": jx.front_loaded(problem)})


def test_picture_of_a_basket(frontiers):
    """TWAP trades where the first asset is closed: what costs infinitely much is left out."""
    f, problem = frontiers["basket"], PROBLEMS["basket"]
    late = np.zeros((6, 3))
    late[-1] = problem.shares
    assert labels(f.plot({"late": late}, problem=problem)) == ["efficient", "VWAP", "late"]
    with pytest.raises(ValueError, match="late"):
        f.plot({"late": late[:3]}, problem=problem)


def labels(figure):
    return [text for text in figure.axes[0].get_legend_handles_labels()[1] if not text.startswith("_")]


@pytest.mark.parametrize("gammas", [[], 1e-6, [[1e-6]], [-1e-6], [np.nan]])
def test_refuses(gammas):
    with pytest.raises(ValueError, match="risk_aversions"):
        jx.efficient_frontier(one(""), gammas)


def test_chunks_change_nothing(frontiers, monkeypatch):
    """Twenty-five points in chunks of nine: the last is filled up, and what was added is not shown."""
    monkeypatch.setattr("jaxexec.frontier.efficient._NUMBERS", 0)
    monkeypatch.setattr("jaxexec.frontier.efficient._LEAST_CHUNK", 10)
    f = jx.efficient_frontier(PROBLEMS["order"], GAMMAS)
    whole = frontiers["order"]
    assert f.schedules.trades.shape == whole.schedules.trades.shape
    np.testing.assert_allclose(f.expected_cost, whole.expected_cost, rtol=1e-12)
    np.testing.assert_allclose(f.schedules.inventory, whole.schedules.inventory, rtol=1e-9, atol=1e-3)
