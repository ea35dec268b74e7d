"""One contract for every cost: convexity, conjugacy, tangents, derivatives. A new cost is one more entry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.costs import CustomCost
from jaxexec.costs.mixture import MixedCost, stacked

STEPS = 6


def power_law(rate, parameters):
    return parameters["eta"] * jnp.abs(rate) ** (1 + parameters["phi"])


def catenary(rate, parameters):
    eta, steepness = parameters
    return 2 * eta * jnp.sinh(steepness * rate / 2) ** 2


def lopsided(rate, depth):
    """Smooth, asymmetric, with curves that differ by step."""
    return depth * (jnp.expm1(rate) + jnp.expm1(-2 * rate) / 2)


CURVE = np.linspace(1.0, 2.0, STEPS)
POWER = {"eta": 0.1, "phi": 0.6}
THREE = jx.VenueSplit(
    (jx.PowerLawCost(0.1, 0.6, 0.02), jx.QuadraticCost(0.2, 0.01), jx.QuadraticCost(0.3, 0.05)), (0.5, 0.3, 0.2)
)
CAPPED_POWER = jx.ParticipationCap(jx.PowerLawCost(0.1, 0.6, 0.02), 0.5)
MIXED = ((0.1, 0.4, 0.02), (0.05, 0.8, 0.0), (0.2, 0.6, 0.01))
ALL_COSTS = {
    "quadratic": jx.QuadraticCost(0.1),
    "quadratic with spread": jx.QuadraticCost(0.1, 0.02),
    "power 0.3": jx.PowerLawCost(0.1, 0.3),
    "power 0.6 with spread": jx.PowerLawCost(0.1, 0.6, 0.02),
    "power 1": jx.PowerLawCost(0.1, 1.0, 0.02),
    "power 2 with spread": jx.PowerLawCost(0.1, 2.0, 0.02),
    "power by step": jx.PowerLawCost(0.1 * CURVE, 0.6, 0.01 * CURVE),
    "capped power": CAPPED_POWER,
    "sell-only quadratic": jx.ParticipationCap(jx.QuadraticCost(0.1, 0.01), 0.5, 0.0),
    "cap by step": jx.ParticipationCap(jx.PowerLawCost(0.1, 0.3), 0.5 * CURVE, -0.4 * CURVE),
    "sum": jx.PowerLawCost(0.1, 0.5, 0.01) + jx.QuadraticCost(0.2, 0.02),
    "sum of a cap and a steep power": CAPPED_POWER + jx.PowerLawCost(0.1, 2.0),
    "mixture by step": MixedCost(
        stacked(
            jax.tree.map(lambda *x: jnp.stack(x), *(jx.PowerLawCost(e, f, p) for e, f, p in MIXED)),
            STEPS,
        )
    ),
    "mixture of caps": MixedCost(
        stacked(jax.tree.map(lambda x: jnp.stack([x, 2 * x, x]), CAPPED_POWER), STEPS),
    ),
    "venues": THREE,
    "capped venues": jx.ParticipationCap(THREE, 0.5),
    "venues, one capped": jx.VenueSplit(
        [jx.ParticipationCap(jx.QuadraticCost(0.01), 0.1), jx.PowerLawCost(0.1, 0.6, 0.01)], [0.4, 0.6]
    ),
    "two-sided": jx.TwoSidedCost(jx.PowerLawCost(0.1, 0.6, 0.02), jx.QuadraticCost(0.2, 0.01)),
    "custom power": CustomCost(power_law, POWER),
    "custom catenary": CustomCost(catenary, (0.1, 8.0)),
    "custom with spread, by step": CustomCost(lopsided, 0.2 * CURVE, 0.02),
    "custom among venues": jx.VenueSplit([CustomCost(catenary, (0.1, 2.0), 0.01), CAPPED_POWER], [0.5, 0.5]),
    "capped power less permanent": CAPPED_POWER.less_permanent(jnp.asarray(0.01))[0],
}
SYMMETRIC = {name for name in ALL_COSTS if name not in ("sell-only quadratic", "cap by step", "two-sided")} - {
    "custom with spread, by step"
}
each_cost = pytest.mark.parametrize("name", ALL_COSTS)
RATES = np.asarray([-0.31, -1e-3, 2e-3, 1.1e-2, 0.2, 0.41])


def rates_of(name):
    return jnp.asarray(np.abs(RATES) if "sell-only" in name else RATES)


def slopes(function, x):
    """Derivative of an elementwise function, in forward mode; reverse mode must say the same."""
    forward = jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
    y, pull = jax.vjp(function, x)
    return forward, pull(jnp.ones_like(y))[0]


@jax.jit
def look_at(cost, rates):
    p = cost.marginal(rates)
    points = {keep: cost.curve_point(rates, p, jnp.full(rates.shape, keep)) for keep in (True, False)}
    return {
        "p": p,
        "value": cost.value(rates),
        "curvature": cost.curvature(rates),
        "rate": cost.optimal_rate(p),
        "hamiltonian": cost.hamiltonian(p),
        "slope": cost.rate_slope(p),
        "dL": slopes(cost.value, rates),
        "dp": slopes(cost.marginal, rates),
        "dH": slopes(cost.hamiltonian, p),
        "d2H": jax.jvp(jax.grad(lambda q: jnp.sum(cost.hamiltonian(q))), (p,), (jnp.ones_like(p),))[1],
        "drate": slopes(cost.optimal_rate, p),
        "points": points,
        "mixed": cost.curve_point(rates, p, jnp.arange(rates.shape[0]) % 2 == 0),
        "opposite": (cost.value(-rates), cost.marginal(-rates)),
        "convex": jnp.all(cost.is_convex(jnp.max(jnp.abs(rates)))),
    }


@functools.cache
def facts(name):
    return look_at(ALL_COSTS[name], rates_of(name))


@each_cost
def test_conjugate(name):
    """L'(H'(p)) = p; H(p) + L(ρ) = pρ at the optimum and no less elsewhere; H' is the derivative of H."""
    found, rates = facts(name), rates_of(name)
    np.testing.assert_allclose(found["rate"], rates, rtol=1e-9)
    np.testing.assert_allclose(found["hamiltonian"] + found["value"], found["p"] * rates, rtol=1e-12)
    for shift in range(1, STEPS):
        if "by step" not in name:
            other = jnp.roll(rates, shift)
            slack = found["hamiltonian"] + jnp.roll(found["value"], shift) - found["p"] * other
            assert float(jnp.min(slack)) > -1e-15
    for mode in found["dH"]:
        np.testing.assert_allclose(mode, rates, rtol=1e-9)


@each_cost
def test_derivatives_in_the_rate(name):
    found = facts(name)
    for mode in found["dL"]:
        np.testing.assert_allclose(mode, found["p"], rtol=1e-9)
    for mode in found["dp"]:
        np.testing.assert_allclose(mode, found["curvature"], rtol=1e-9)
    for mode in (found["d2H"], *found["drate"]):
        np.testing.assert_allclose(mode, found["slope"], rtol=1e-7)
    np.testing.assert_allclose(found["slope"] * found["curvature"], 1, rtol=1e-9)


@each_cost
def test_strictly_convex(name):
    found, cost = facts(name), ALL_COSTS[name]
    assert bool(found["convex"])
    if "by step" not in name:
        order = np.argsort(rates_of(name))
        assert np.all(np.diff(np.asarray(found["p"])[order]) > 0)
    if name in SYMMETRIC:
        np.testing.assert_allclose(found["opposite"][0], found["value"])
        np.testing.assert_allclose(found["opposite"][1], -found["p"])
    assert np.all(np.asarray(cost.value(jnp.asarray(0.0))) == 0)


@each_cost
def test_curve_points_are_tangents(name):
    found, rates = facts(name), rates_of(name)
    for point in (*found["points"].values(), found["mixed"]):
        np.testing.assert_allclose(point.rate, rates, rtol=1e-9)
        np.testing.assert_allclose(point.marginal, found["p"], rtol=1e-12)
        np.testing.assert_allclose(point.slope, found["slope"], rtol=1e-8)
        np.testing.assert_allclose(point.slope * point.marginal + point.intercept, rates, rtol=1e-8, atol=1e-17)


@each_cost
def test_inside_the_spread_nothing_is_traded(name):
    cost = ALL_COSTS[name]
    psi = np.broadcast_to(cost.half_spread(), (STEPS,))
    inside = jnp.asarray(np.linspace(-1, 1, STEPS) * psi * 0.999)
    rate, hamiltonian, slope = jax.jit(lambda c, p: (c.optimal_rate(p), c.hamiltonian(p), c.rate_slope(p)))(
        cost, inside
    )
    assert np.all(np.asarray(rate) == 0)
    assert np.all(np.asarray(hamiltonian) == 0)
    if np.all(psi > 0):
        assert np.all(np.asarray(slope) == 0)


@jax.jit
def at_rest(cost):
    def total(c, x, method):
        return jnp.sum(getattr(c, method)(jnp.full((STEPS,), x)))

    return [
        jax.grad(functools.partial(total, method=method), argnums=(0, 1))(cost, 0.0)
        for method in ("value", "hamiltonian", "optimal_rate")
    ]


@each_cost
def test_derivatives_are_finite_at_rest(name):
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(at_rest(ALL_COSTS[name])))


@each_cost
def test_spread_comes_off(name):
    cost, rates = ALL_COSTS[name], rates_of(name)
    bare = cost.less_spread(cost.half_spread())
    found = jax.jit(lambda c: c.value(rates))(bare)
    expected = facts(name)["value"] - cost.half_spread() * jnp.abs(rates)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    assert bool(jnp.all(bare.is_convex(jnp.max(jnp.abs(rates)))))
    assert np.all(np.asarray(bare.half_spread()) == 0)
