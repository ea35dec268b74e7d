"""Faults 1 to 12 of inputs: an error on the host that names the field, a status where traced.

E is a ValueError, S a status with NaN values and NaN gradients in that lane, zero where masked, the others unchanged
to the bit. Each test is named after its fault.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from tests.problems import random_batch
from tests.solvers.spoiled_orders import (
    BAD,
    GOOD,
    LANES,
    LEAVES,
    SETTERS,
    STEPS,
    assert_gradients_fail_there_only,
    assert_one_lane_fails,
    careless_gradient,
    leaf,
    market,
    order,
    solve_batch,
    spoiled,
)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SETTERS)
def test_1_2_not_finite_where_concrete(name, value):
    field = name.split()[0].replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ValueError, match=rf"(^|\b){field}.* must be "):
        SETTERS[name](value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", LEAVES)
def test_1_2_not_finite_where_traced(clean, name, value):
    where = leaf(name)
    index = () if where(GOOD).ndim == 1 else 7
    batch = eqx.tree_at(where, GOOD, where(GOOD).at[(BAD, index) if index else BAD].set(value))
    assert_one_lane_fails(clean, batch, jx.Status.NONFINITE_INPUT)
    if np.isnan(value):
        assert_gradients_fail_there_only(batch)


def test_3_no_shares(clean):
    """Nothing to do costs nothing, one share more costs nothing yet; no 0/0 anywhere."""
    batch = eqx.tree_at(lambda p: (p.shares, p.target), GOOD, (0 * GOOD.shares, 0 * GOOD.target))
    s, slope = solve_batch(batch), careless_gradient(batch)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert np.all(np.asarray(s.inventory) == 0) and np.all(np.asarray(s.objective) == 0)
    assert np.all(np.asarray(s.iterations) == 0) and np.all(np.asarray(s.relative_gap) == 0)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(slope))
    free = np.all(np.asarray(GOOD.cost.psi) == 0, -1)
    assert free.any()
    assert np.all(np.asarray(slope.shares)[free] == 0)


@pytest.mark.parametrize("horizon", [0.0, -1.0])
def test_4_5_no_time(clean, horizon):
    with pytest.raises(ValueError, match="horizon must be positive"):
        jx.TimeGrid.uniform(horizon, 4)
    batch = spoiled(lambda p: p.grid.times, horizon * GOOD.grid.times[BAD])
    assert_one_lane_fails(clean, batch, jx.Status.NONFINITE_INPUT)


def test_6_tiny_and_huge_horizons():
    """Time has no natural unit: what scales with it leaves the schedule as it was. κT of 10⁴ is no trouble either."""
    s = solve_batch(GOOD)
    for a in (1e-12, 1e6):
        phi, column = GOOD.cost.phi, (slice(None), None)
        factor = a**-phi
        scaled = eqx.tree_at(
            lambda p: (p.grid.times, p.cost.psi, p.risk_aversion),
            GOOD,
            (a * GOOD.grid.times, factor[column] * GOOD.cost.psi, factor / a * GOOD.risk_aversion),
        )
        other = solve_batch(scaled)
        assert np.all(np.asarray(other.status) == jx.Status.OK)
        np.testing.assert_allclose(other.trades, s.trades, atol=1e-9 * float(jnp.max(GOOD.shares)))
        np.testing.assert_allclose(other.objective, factor * s.objective, rtol=1e-9)
    stiff = random_batch(18, LANES, STEPS, (3.5, 4.0))
    s = solve_batch(stiff)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert all(np.all(np.isfinite(np.asarray(x))) for x in jax.tree.leaves(s))


@pytest.mark.parametrize("which", ["volatility", "risk_aversion"])
def test_7_nothing_to_fear(which):
    """VWAP exactly, with finite derivatives at the edge of the domain."""
    where = (lambda p: p.market.volatility) if which == "volatility" else (lambda p: p.risk_aversion)
    batch = eqx.tree_at(where, GOOD, 0 * where(GOOD))
    s, slope = solve_batch(batch), careless_gradient(batch)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    np.testing.assert_allclose(s.trades, jax.vmap(jx.vwap)(batch), atol=1e-9 * float(jnp.max(GOOD.shares)))
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(slope))
    if which == "volatility":
        assert np.all(np.asarray(slope.market.volatility) == 0)
    else:
        assert np.all(np.asarray(slope.risk_aversion) > 0)


@pytest.mark.parametrize("name", ["volatility", "gap_variance"])
def test_8_negative_volatility(clean, name):
    with pytest.raises(ValueError, match=rf"{name}\[1\] must be at least 0, got -0.1"):
        market(**{name: [0.1, -0.1, 0.1, 0.1]})
    batch = spoiled(lambda p: getattr(p.market, name), -0.1)
    assert_one_lane_fails(clean, batch, jx.Status.NONFINITE_INPUT)


def test_11_no_temporary_impact(clean):
    for bad in (0.0, -0.1):
        with pytest.raises(ValueError, match="eta must be positive"):
            jx.PowerLawCost(bad, 0.6)
        batch = spoiled(lambda p: p.cost.eta, bad)
        assert_one_lane_fails(clean, batch, jx.Status.NONCONVEX)
    assert_gradients_fail_there_only(batch)


def test_11_permanent_impact_that_outweighs_it():
    with pytest.raises(ValueError, match=r"permanent_impact .*1e-06"):
        order(market=market(permanent_impact=1e-6), cost=jx.QuadraticCost(0.1), convention="almgren-chriss")

    def of(kappa):
        cost = jx.QuadraticCost(0.1)
        return jx.solve(order(market=market(permanent_impact=kappa), cost=cost, convention="almgren-chriss"))

    s = jax.jit(jax.vmap(of))(jnp.asarray([0.0, 1e-8, 1e-6]))
    assert list(np.asarray(s.status)) == [jx.Status.OK, jx.Status.OK, jx.Status.NONCONVEX]
    assert np.all(np.isnan(np.asarray(s.trades)[2])) and np.all(np.isfinite(np.asarray(s.trades)[:2]))


def test_12_an_exponent_that_is_too_small(clean):
    for bad in (0.0, -0.5):
        with pytest.raises(ValueError, match="phi must be positive"):
            jx.PowerLawCost(0.1, bad)
        assert_one_lane_fails(clean, spoiled(lambda p: p.cost.phi, bad), jx.Status.NONCONVEX)


@pytest.mark.parametrize("phi", [1e-3, 9e-3])
def test_12_an_exponent_close_to_none(phi):
    """p = 1 + φ within 0.01 of 1: solved with a certificate, or said not to be."""
    batch = eqx.tree_at(lambda p: p.cost.phi, GOOD, jnp.full(LANES, phi))
    s = solve_batch(batch)
    usable = np.asarray(s.status) <= jx.Status.OK_INACCURATE
    assert np.all(np.asarray(s.relative_gap)[usable] <= 1e-5)
    assert np.all(np.isfinite(np.asarray(s.trades)[usable]))
    assert np.all(np.isnan(np.asarray(s.trades)[~usable]))
