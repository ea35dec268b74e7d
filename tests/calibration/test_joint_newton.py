"""The search in schedule and parameters at once, against the one that solves a schedule for every point it tries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.calibration import observed_preferences
from jaxexec.calibration.joint_newton import search_jointly, with_parameters
from jaxexec.calibration.transforms import POSITIVE

STEPS, ORDERS = 10, 48
GRID = jx.TimeGrid.uniform(1.0, STEPS)
VOLUME = 4e6 * (1 + 0.5 * (2 * (np.arange(STEPS) + 0.5) / STEPS - 1) ** 2)
NAMES = ("risk_aversion", "phi")


def order(shares, risk_aversion=1e-5, phi=0.7, drift=0.0):
    market = jx.Market(GRID, 0.6, VOLUME, drift=drift)
    return jx.Liquidation(shares, market, jx.PowerLawCost(0.1, phi, 0.004), risk_aversion)


@pytest.fixture(scope="module")
def observed():
    """Orders to sell and to buy, what they started from, and noisy inventories."""
    rng = np.random.default_rng(1)
    shares = rng.choice([-1, 1], ORDERS) * rng.uniform(1e4, 4e5, ORDERS)
    truth = jax.vmap(order)(shares, 1e-5 * np.exp(rng.normal(0, 1, ORDERS)), rng.uniform(0.4, 1.2, ORDERS))
    held = jax.vmap(lambda p: jx.solve(p).inventory)(truth)
    held = held.at[:, 1:-1].add(0.01 * shares[:, None] * rng.standard_normal((ORDERS, STEPS - 1)))
    return jax.vmap(order)(shares), held


def begin(problems, held, deviations, common):
    share = held / problems.shares[:, None]
    seen = share[:, 1:-1] if deviations == "inventory" else share[:, :-1] - share[:, 1:]
    start = jnp.tile(jnp.log(jnp.asarray([[1e-5, 0.7]])), (ORDERS, 1))
    how = {"deviations": deviations, "common": common, "max_steps": 60}
    found, costates = search_jointly(problems, seen, start, NAMES, (POSITIVE, POSITIVE), **how)
    return found, costates, seen


@pytest.mark.parametrize("deviations", ["inventory", "trades"])
@pytest.mark.parametrize("common", [False, True])
def test_what_it_finds_is_a_minimum(observed, deviations, common):
    """Residuals through `solve`, at right angles to their derivatives; costates those of `solve`."""
    problems, held = observed
    found, costates, seen = begin(problems, held, deviations, common)
    assert np.mean(found.converged) > 0.95

    def left(u):
        values = {name: jnp.exp(u[:, i]) for i, name in enumerate(NAMES)}
        best = jax.vmap(jx.solve)(jax.vmap(with_parameters)(problems, values))
        shown = best.inventory[:, 1:-1] if deviations == "inventory" else best.trades
        return shown / problems.shares[:, None] - seen, best.costate

    (r, costate), move = jax.linearize(left, found.parameters)
    columns = [move(jnp.zeros_like(found.parameters).at[:, i].set(1.0))[0] for i in range(2)]
    axes = (0, 1) if common else 1
    angles = [abs((c * r).sum(axes)) / np.sqrt((c**2).sum(axes) * (r**2).sum(axes)) for c in columns]
    ok = np.asarray(found.converged)
    np.testing.assert_array_less(np.stack([np.broadcast_to(a, ok.shape)[ok] for a in angles]), 1e-7)
    objective = np.broadcast_to((r**2).sum(axes) / 2, ok.shape)
    np.testing.assert_allclose(found.objective[ok], objective[ok], rtol=1e-7)  # that of the point before
    np.testing.assert_allclose(costates[ok], costate[ok], rtol=1e-6)
    assert np.all(np.isinf(costates[~ok]))


def test_the_fit_is_that_of_the_other_search(observed):
    """With two starts every point tried is a solve."""
    problems, held = observed
    trades = held[:, :-1] - held[:, 1:]
    one, two = (observed_preferences(problems, trades, NAMES, starts=k) for k in (1, 2))
    ok = np.asarray(one.status == jx.Status.OK)
    assert ok.mean() > 0.95
    np.testing.assert_array_equal(two.status[ok], jx.Status.OK)
    np.testing.assert_allclose(one.free_values[ok], two.free_values[ok], atol=1e-7)
    np.testing.assert_allclose(one.std_errors[ok], two.std_errors[ok], rtol=1e-6)


def test_kinks_are_left_to_the_other_search(observed):
    """A drift may turn a sale into a purchase: the spread is a kink then."""
    problems = jax.vmap(lambda x: order(x, drift=0.05))(observed[0].shares)
    held = jax.vmap(lambda p: jx.solve(p).inventory)(problems)
    found, costates, _ = begin(problems, held, "inventory", False)
    assert not np.any(found.converged)
    assert np.all(np.isinf(costates))


def test_a_bad_lane_leaves_its_neighbours_alone(observed):
    problems, held = observed
    good = begin(problems, held, "inventory", False)
    spoilt = begin(problems, held.at[7, 3].set(jnp.nan), "inventory", False)
    assert not bool(spoilt[0].converged[7])
    for a, b in zip(jax.tree.leaves(good[:2]), jax.tree.leaves(spoilt[:2]), strict=True):
        np.testing.assert_array_equal(np.delete(np.asarray(a), 7, 0), np.delete(np.asarray(b), 7, 0))
