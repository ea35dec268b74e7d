"""Derivatives of a schedule: differentiate the optimality conditions, not the iterations.

With y = −p, D the difference q_k − q_{k+1} and F(θ) = H'(y; θ), the conditions

    D q = b F(y; θ),    Dᵀ y + w q = g                           (Dᵀ y)_n = y_n − y_{n−1}

have the differential   D dq − b F' dy = F db + b ∂_θF dθ − (ends),   Dᵀ dy + w dq = dg − q dw,   a ladder again.
It is written with differentiable operations, so it holds in forward and reverse mode and to any order that exists.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxexec.numerics.tridiagonal import ladder_response, through_ends
from jaxexec.solvers.program import Program


@jax.custom_jvp
def attach(
    program: Program, inventory: Float[Array, " interior"], marginal: Float[Array, " steps"]
) -> tuple[Float[Array, " interior"], Float[Array, " steps"]]:
    """The solution (q, y), unchanged, with its derivative with respect to the programme attached."""
    return inventory, marginal


@attach.defjvp
def _attach_jvp(primals, tangents):
    program, inventory, marginal = primals
    moved = tangents[0]
    q, y = attach(program, inventory, marginal)
    rates, rate_change = _rates_at(program, moved, y)
    first, last = moved.first, moved.last
    ends = through_ends(jnp.zeros_like(q), first, last)
    flow = moved.volume * rates + program.volume * rate_change - (ends[:-1] - ends[1:])
    charge = moved.charge - moved.weight * q
    rung = program.volume * program.cost.rate_slope(y)
    return (q, y), ladder_response(rung, program.weight, flow, charge)


def _rates_at(program: Program, moved: Program, y: Array) -> tuple[Array, Array]:
    """H'(y) and its change with the cost's parameters at fixed y."""
    return jax.jvp(lambda cost: cost.optimal_rate(y), (program.cost,), (moved.cost,))


@jax.custom_jvp
def envelope(
    value: Float[Array, ""],
    program: Program,
    constant: Float[Array, ""],
    inventory: Float[Array, " interior"],
    marginal: Float[Array, " steps"],
) -> Float[Array, ""]:
    """The optimal objective `value`, with the derivative that the envelope theorem gives it without a solve.

    dU = ∂_θ 𝓛 dθ with 𝓛 = Σ bL(ρ) + ½ w q² − g q + y (q_k − q_{k+1} − bρ) at fixed (q, ρ, y), plus `constant`, the
    part of U that no schedule changes. The multipliers keep it right at kinks and at the ends.
    """
    return value


@envelope.defjvp
def _envelope_jvp(primals, tangents):
    value, program, constant, inventory, marginal = primals
    # A step without volume has no trade to take a rate from; one share of volume there would be used at H'(y).
    rates = jnp.where(program.volume > 0, program.rates(inventory), program.cost.optimal_rate(marginal))
    if program.cost.is_capped:
        rates = jnp.clip(rates, *program.cost.bounds(rates))

    def lagrangian(p: Program) -> Array:
        nodes = through_ends(inventory, p.first, p.last)
        taken = _moved_with_bounds(program, p, rates, marginal)
        flow = nodes[:-1] - nodes[1:] - p.volume * taken
        spread = p.shift * p.span
        held = jnp.sum(p.weight / 2 * inventory**2 - p.charge * inventory)
        return jnp.sum(p.volume * p.cost.value(taken)) + held + jnp.sum(marginal * flow) + spread

    _, change = jax.jvp(lagrangian, (program,), (tangents[1],))
    return envelope(value, program, constant, inventory, marginal), change + tangents[2]


def _moved_with_bounds(program: Program, moved: Program, rates: Array, marginal: Array) -> Array:
    """Rates at a cap go where the cap goes: y − L' at the cap is its multiplier."""
    if not program.cost.is_capped:
        return rates
    wanted = program.cost.optimal_rate(marginal)
    low, high = program.cost.bounds(rates)
    moved_low, moved_high = moved.cost.bounds(rates)
    at_bound = jnp.where(marginal < 0, wanted <= low, wanted >= high)
    return jnp.where(at_bound, jnp.where(marginal < 0, moved_low, moved_high), rates)
