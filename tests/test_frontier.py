"""The frontier falls, is convex, and its slope is −γ/2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from tests.problems import one

GAMMAS = np.geomspace(1e-8, 1e-4, 25)


@pytest.fixture(scope="module")
def frontier():
    return jx.efficient_frontier(one(""), GAMMAS)


def test_monotone_and_convex(frontier):
    cost, variance = np.asarray(frontier.expected_cost), np.asarray(frontier.variance)
    assert np.all(np.asarray(frontier.status) == jx.Status.OK)
    assert np.all(np.diff(cost) > 0)
    assert np.all(np.diff(variance) < 0)
    slopes = np.diff(cost) / np.diff(variance)
    assert np.all(np.diff(slopes) < 0)
    assert np.all((-slopes > GAMMAS[:-1] / 2) & (-slopes < GAMMAS[1:] / 2))


def test_tangent(frontier):
    """dE/dVar = −γ/2, by the derivatives of both with respect to γ."""

    def both(gamma):
        f = jx.efficient_frontier(one(""), jnp.asarray(gamma)[None])
        return f.expected_cost[0], f.variance[0]

    cost, variance = jax.jacfwd(both)(1e-6)
    np.testing.assert_allclose(cost / variance, -0.5e-6, rtol=1e-8)


def test_each_point_is_the_single_solve(frontier):
    problem = one("")
    alone = jx.solve(jx.Liquidation(problem.shares, problem.market, problem.cost, GAMMAS[7]))
    np.testing.assert_allclose(frontier.schedules.trades[7], alone.trades, rtol=1e-10)


def test_outputs(frontier):
    assert frontier.to_polars().height == 25
    assert "risk aversion" in frontier.summary()
    assert len(frontier.plot().axes) == 1


@pytest.mark.parametrize("gammas", [[], 1e-6, [[1e-6]], [-1e-6], [np.nan]])
def test_refuses(gammas):
    with pytest.raises(ValueError, match="risk_aversions"):
        jx.efficient_frontier(one(""), gammas)
