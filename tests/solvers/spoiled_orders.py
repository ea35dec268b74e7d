"""A batch of sound orders, ways to spoil a lane of it, and what must then be true."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from tests.problems import random_batch

LANES, STEPS, BAD = 16, 24, 5
GOOD = random_batch(17, LANES, STEPS, (-1.0, 2.0))
OTHERS = np.arange(LANES) != BAD
CURVES = ("volatility", "volume", "drift", "gap_variance")
VALUES = ("times", "inventory", "trades", "costate", "expected_cost", "variance", "objective")
NUMBERS = ("duality_gap", "relative_gap", "residual", "iterations")

solve_batch = jax.jit(jax.vmap(jx.solve))


@jax.jit
@jax.grad
def masked_gradient(batch):
    s = jax.vmap(jx.solve)(batch)
    usable = s.status <= jx.Status.LOCAL
    return jnp.sum(jnp.where(usable, s.objective, 0)) + jnp.sum(jnp.where(usable[:, None], s.trades, 0))


@jax.jit
@jax.grad
def careless_gradient(batch):
    return jnp.sum(jax.vmap(jx.solve)(batch).objective)


def spoiled(where, value):
    leaf = where(GOOD)
    return eqx.tree_at(where, GOOD, leaf.at[BAD].set(value))


def assert_one_lane_fails(clean, batch, status):
    """`status` and NaN in lane BAD; all other lanes as they were, bit by bit, iterations included."""
    s = solve_batch(batch)
    assert jx.Status(int(s.status[BAD])) == status
    for field in VALUES:
        assert np.all(np.isnan(np.asarray(getattr(s, field))[BAD])), field
    for field in NUMBERS:
        assert np.all(np.isfinite(np.asarray(getattr(s, field))[BAD])), field
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(s), strict=True):
        np.testing.assert_array_equal(a[OTHERS], np.asarray(b)[OTHERS])


def assert_gradients_fail_there_only(batch):
    expected = masked_gradient(GOOD)
    for a, b in zip(jax.tree.leaves(masked_gradient(batch)), jax.tree.leaves(expected), strict=True):
        assert np.all(np.asarray(a)[BAD] == 0)
        np.testing.assert_array_equal(np.asarray(a)[OTHERS], np.asarray(b)[OTHERS])
    careless = careless_gradient(batch)
    assert np.isnan(np.asarray(careless.shares)[BAD])
    for leaf in jax.tree.leaves(careless):
        assert np.all(np.isfinite(np.asarray(leaf)[OTHERS]))


LEAVES = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(GOOD)]


def leaf(name):
    """Picks the leaf of that path out of a problem."""
    return lambda problem: jax.tree.leaves(problem)[LEAVES.index(name)]


def order(shares=1e5, market=None, cost=None, risk_aversion=1e-6, **rest):
    market = jx.Market(jx.TimeGrid.uniform(1.0, 4), 0.6, 4e6) if market is None else market
    return jx.Liquidation(shares, market, jx.PowerLawCost(0.1, 0.6) if cost is None else cost, risk_aversion, **rest)


def market(**changes):
    return jx.Market(**({"grid": jx.TimeGrid.uniform(1.0, 4), "volatility": 0.6, "volume": 4e6} | changes))


SETTERS = {
    "shares": lambda v: order(v),
    "target": lambda v: order(target=v),
    "risk_aversion": lambda v: order(risk_aversion=v),
    "horizon": lambda v: jx.TimeGrid.uniform(v, 4),
    "times[1]": lambda v: jx.TimeGrid([0.0, v, 1.0]),
    "volatility": lambda v: market(volatility=v),
    "volatility[2]": lambda v: market(volatility=[0.6, 0.6, v, 0.6]),
    "volume[0]": lambda v: market(volume=[v, 1e6, 1e6, 1e6]),
    "drift[3]": lambda v: market(drift=[0, 0, 0, v]),
    "gap_variance": lambda v: market(gap_variance=v),
    "permanent_impact": lambda v: market(permanent_impact=v),
    "elapsed": lambda v: market(elapsed=v),
    "eta": lambda v: jx.PowerLawCost(v, 0.6),
    "phi": lambda v: jx.PowerLawCost(0.1, v),
    "psi[1]": lambda v: jx.QuadraticCost(0.1, [0.0, v]),
    "rho_max": lambda v: jx.ParticipationCap(jx.QuadraticCost(0.1), v),
    "rho_min": lambda v: jx.ParticipationCap(jx.QuadraticCost(0.1), 1.0, v),
    "terminal_penalty": lambda v: order(terminal_penalty=v),
    "benchmark[2]": lambda v: order(benchmark=[1.0, 1.0, v, 0.0, 0.0]),
    "at": lambda v: order().resume(v, 1e4),
    "shares held": lambda v: order().resume(0.5, v),
}
