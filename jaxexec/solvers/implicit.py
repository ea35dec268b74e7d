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

    dU = ∂_θ 𝓛 dθ at fixed (q, y), plus `constant`, the part of U that no schedule changes, with

        𝓛 = −Σ b H(y) + ½ w q² − g q + y (q_k − q_{k+1}).

    H(y) stands for the best of ρy − L(ρ), so that spreads, caps and steps without volume need no case of their own.
    """
    return value


@envelope.defjvp
def _envelope_jvp(primals, tangents):
    value, program, constant, inventory, marginal = primals
    _, change = jax.jvp(lambda p: lagrangian(p, inventory, marginal), (program,), (tangents[1],))
    return envelope(value, program, constant, inventory, marginal), change + tangents[2]


def lagrangian(
    program: Program, inventory: Float[Array, " interior"], marginal: Float[Array, " steps"]
) -> Float[Array, ""]:
    """𝓛 of a pair (q, y): where it is optimal, the slopes of 𝓛 in the programme are those of the optimal objective."""
    nodes = through_ends(inventory, program.first, program.last)
    held = jnp.sum(program.weight / 2 * inventory**2 - program.charge * inventory)
    moved = jnp.sum(marginal * (nodes[:-1] - nodes[1:])) - jnp.sum(program.volume * program.cost.hamiltonian(marginal))
    return held + moved + program.shift * program.span
