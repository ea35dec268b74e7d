"""How a schedule answers to many moves of its inputs at once: one factorisation of the ladder, a sweep for all moves.

`implicit.attach` gives every tangent its own way through the whole programme, which is right for one and wasteful for a
dozen. Here the dozen shares what it can:

    right sides      D dq − b F' dy,  Dᵀ dy + w dq  of each input by itself: what one input does not touch stays zero
    schedule         one ladder, factored once, the moves side by side in the last axis
    E and Var        their slopes along the path once, in reverse, times the moves of the path
    U                its slopes in every input once, in reverse (envelope theorem): no move of the path at all

It is written with differentiable operations: derivatives of it are second derivatives.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation, Schedule, path_cost, variance_of_inventory
from jaxexec.numerics.status import Status
from jaxexec.numerics.tridiagonal import ladder_response, through_ends
from jaxexec.solvers.implicit import lagrangian
from jaxexec.solvers.program import Program, build, constant_part
from jaxexec.solvers.verdict import harmless_where


class Move(NamedTuple):
    """Ways in which one leaf of a problem may be moved.

    Attributes:
        place: of the leaf, among `jax.tree.leaves` of the problem.
        directions: (moves, …) of the leaf's shape each.
    """

    place: int
    directions: Float[Array, "moves ..."]


class Response(NamedTuple):
    """Derivatives of a schedule along moves, in the order in which they were given."""

    inventory: Float[Array, "nodes moves"]
    trades: Float[Array, "steps moves"]
    expected_cost: Float[Array, " moves"]
    variance: Float[Array, " moves"]
    objective: Float[Array, " moves"]


def response(problem: Liquidation, schedule: Schedule, moves: Sequence[Move]) -> Response:
    """Derivatives of the optimal schedule of the N-step programme. Those of a failed one are finite and mean nothing.

    Args:
        problem: the order.
        schedule: `solve(problem)`, by a method of the N-step programme.
        moves: of its leaves.
    """
    failed = schedule.status > Status.LOCAL
    problem = harmless_where(failed, problem)
    nodes, trades, costate = (jnp.where(failed, 0, x) for x in (schedule.inventory, schedule.trades, schedule.costate))
    program = build(problem)
    inventory, marginal = _pair(problem, program, nodes, costate)
    rung = program.volume * program.cost.rate_slope(marginal)
    # Where every step rests or is at its cap no schedule but this one is possible, and the ladder has no answer.
    rung = jnp.where(jnp.any(rung > 0), rung, 1)
    flow, charge, first, last = _right_sides(problem, inventory, marginal, moves)
    inner, _ = jax.vmap(ladder_response, in_axes=(None, None, -1, -1), out_axes=-1)(rung, program.weight, flow, charge)
    soft = problem.terminal_penalty is not None
    path = jnp.concatenate([first[None], inner] if soft else [first[None], inner, last[None]])
    sold = jnp.where(problem.market.step_volume[:, None] > 0, path[:-1] - path[1:], 0)

    def along(cost) -> Array:
        here, in_nodes, in_trades = jax.grad(cost, argnums=(0, 1, 2))(problem, nodes, trades)
        return _together(here, moves) + in_nodes @ path + in_trades @ sold

    fixed = jax.grad(lambda p: lagrangian(build(p), inventory, marginal) + constant_part(p))(problem)
    variance = along(lambda p, x, _: variance_of_inventory(p, x))
    return Response(path, sold, along(path_cost), variance, _together(fixed, moves))


def _pair(problem: Liquidation, program: Program, nodes: Array, costate: Array) -> tuple[Array, Array]:
    """(q, y) of the programme from the schedule's inventories and costates."""
    marginal = -costate - program.shift
    if problem.terminal_penalty is None:
        return nodes[1:-1], marginal
    # The settlement's own marginal cost closes the rails.
    return nodes[1:], jnp.append(marginal, problem.terminal_penalty * (nodes[-1] - problem.target))


def _right_sides(
    problem: Liquidation, inventory: Array, marginal: Array, moves: Sequence[Move]
) -> tuple[Array, Array, Array, Array]:
    """What each move adds to the optimality conditions at fixed (q, y), and to the ends; moves in the last axis."""
    leaves, structure = jax.tree.flatten(problem)

    def conditions(place: int, leaf: Array):
        program = build(jax.tree.unflatten(structure, [*leaves[:place], leaf, *leaves[place + 1 :]]))
        ends = through_ends(jnp.zeros_like(inventory), program.first, program.last)
        flow = program.volume * program.cost.optimal_rate(marginal) - (ends[:-1] - ends[1:])
        return flow, program.charge - program.weight * inventory, program.first, program.last

    def pushed(move: Move):
        def along(direction: Array):
            return jax.jvp(lambda leaf: conditions(move.place, leaf), (leaves[move.place],), (direction,))[1]

        return jax.vmap(along, out_axes=-1)(move.directions)

    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *(pushed(move) for move in moves))


def _together(slopes: Liquidation, moves: Sequence[Move]) -> Float[Array, " moves"]:
    """The slope along every move, from the slopes in every leaf."""
    leaves = jax.tree.leaves(slopes)
    along = [jnp.tensordot(move.directions, leaves[move.place], axes=leaves[move.place].ndim) for move in moves]
    return jnp.concatenate(along)
