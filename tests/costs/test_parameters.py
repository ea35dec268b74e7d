"""For every cost: derivatives in its parameters, 32 bits, and several lanes at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxexec.costs import CustomCost
from tests.costs.test_contract import ALL_COSTS, STEPS, each_cost, facts, rates_of

# Nestings whose parts are here too, and whose compilation takes half a minute each.
DEEP = {"custom among venues", "capped venues", "sum of a cap and a steep power"}
not_too_deep = pytest.mark.parametrize("name", [name for name in ALL_COSTS if name not in DEEP])

# Within every cap and clear of every kink, by more than a difference quotient moves.
SMOOTH = np.asarray([-0.31, -0.05, 0.03, 0.11, 0.2, 0.41])


@jax.jit
def parameter_mix(cost, rates, p):
    """Numbers that depend on every parameter: L at the rates, H and H' at costs within and beyond every cap."""
    weight = jnp.asarray(np.cos(np.arange(STEPS)) + 1.5)

    def duals(q):
        return jnp.stack([jnp.sum(weight * cost.hamiltonian(q)), jnp.sum(weight * cost.optimal_rate(q))])

    return jnp.append(jax.lax.map(duals, jnp.stack([p, 40 * p])).ravel(), jnp.sum(weight * cost.value(rates)))


@jax.jit
def forward_mode(cost, direction, rates, p):
    return jax.jvp(lambda c: parameter_mix(c, rates, p), (cost,), (direction,))


@jax.jit
def reverse_mode(cost, weights, rates, p):
    return jax.grad(lambda c: jnp.sum(weights * parameter_mix(c, rates, p)))(cost)


@not_too_deep
def test_derivatives_in_the_parameters(name):
    """Forward = reverse = central difference, caps and fractions included."""
    cost, rates = ALL_COSTS[name], jnp.asarray(np.abs(SMOOTH) if "sell-only" in name else SMOOTH)
    p = jax.jit(lambda c: c.marginal(rates))(cost)
    leaves, structure = jax.tree.flatten(cost)
    weights = jnp.asarray([1.0, -0.5, 0.01, 0.3, 2.0])
    reverse = jax.tree.leaves(reverse_mode(cost, weights, rates, p))
    for i, leaf in enumerate(leaves):
        size = np.where(np.asarray(leaf) == 0, 1e-3, np.abs(leaf))
        direction = jnp.asarray(np.cos(np.arange(np.size(leaf))).reshape(np.shape(leaf)) * size)

        def moved(h, i=i, direction=direction):
            return jax.tree.unflatten(structure, [x + h * direction if j == i else x for j, x in enumerate(leaves)])

        def at(h, moved=moved):
            return np.asarray(parameter_mix(moved(h), rates, p))

        tangent = jax.tree.unflatten(
            structure, [direction if j == i else jnp.zeros_like(x) for j, x in enumerate(leaves)]
        )
        value, forward = (np.asarray(x) for x in forward_mode(cost, tangent, rates, p))
        np.testing.assert_allclose(np.sum(reverse[i] * direction), np.sum(weights * forward), rtol=1e-8, atol=1e-10)
        h, scale = 1e-5, np.max(np.abs(value))
        difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        np.testing.assert_allclose(forward, difference, rtol=2e-6, atol=3e-9 * (1 + scale), err_msg=str(i))


@jax.jit
def everything(cost, rates, p, keep):
    return (
        cost.value(rates),
        cost.marginal(rates),
        cost.curvature(rates),
        cost.hamiltonian(p),
        cost.optimal_rate(p),
        cost.rate_slope(p),
        cost.curve_point(rates, p, keep),
        cost.half_spread() + jnp.zeros_like(rates),
    )


@each_cost
def test_in_32_bits(name):
    cost = jax.tree.map(lambda x: x.astype(jnp.float32), ALL_COSTS[name])
    rates, p = rates_of(name).astype(jnp.float32), facts(name)["p"].astype(jnp.float32)
    single = everything(cost, rates, p, jnp.arange(STEPS) % 2 == 0)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(single))
    found = facts(name)
    for what, value in (("value", single[0]), ("p", single[1]), ("curvature", single[2])):
        np.testing.assert_allclose(value, found[what], rtol=2e-4, err_msg=what)
    # p is known to 1e-7 of itself: what is left of it beyond the spread to less.
    np.testing.assert_allclose(single[4], rates, rtol=2e-3)
    np.testing.assert_allclose(single[3], found["hamiltonian"], rtol=5e-3, atol=1e-8)


def over_lanes(costs):
    """The same cost in several lanes, lanes last, as a solver lays them out; a user's parameters keep them first."""

    def stack(*parts):
        if isinstance(parts[0], CustomCost):
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *(part.parameters for part in parts))
            psi = last(*(part.psi for part in parts))
            cost = jax.tree.unflatten(jax.tree.structure(parts[0]), [*jax.tree.leaves(stacked), psi])
            return cost.over_lanes()
        return last(*parts)

    def last(*x):
        return jnp.stack([jnp.atleast_1d(one) for one in x], axis=-1)

    return jax.tree.map(stack, *costs, is_leaf=lambda part: isinstance(part, CustomCost))


@not_too_deep
def test_lanes_are_independent(name):
    lanes = [jax.tree.map(lambda x, k=k: x * (1 + 0.1 * k), ALL_COSTS[name]) for k in range(2)]
    rates = jnp.stack([rates_of(name), 0.9 * rates_of(name)], axis=-1)
    p = jnp.stack([facts(name)["p"], facts(name)["p"] * 1.3], axis=-1)
    keep = jnp.asarray(np.arange(2 * STEPS).reshape(STEPS, 2) % 3 == 0)
    together = everything(over_lanes(lanes), rates, p, keep)
    for k, cost in enumerate(lanes):
        alone = everything(cost, rates[:, k], p[:, k], keep[:, k])
        for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(other[:, k], one, rtol=1e-12, atol=1e-17)
