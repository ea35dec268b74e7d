"""How a schedule answers to many moves of its inputs at once: one factorisation of the ladder, a sweep for all moves.

`implicit.attach` gives every tangent its own way through the whole programme, which is right for one and wasteful for a
dozen. Here the dozen shares what it can:

    right sides      D dq − b F' dy,  Dᵀ dy + w dq  of each input by itself: what one input does not touch stays zero
    schedule         one ladder, factored once, the moves side by side in the last axis
    Var              its slopes along the path once, in reverse, times the moves of the path
    U                its slopes in every input once, in reverse (envelope theorem): no move of the path at all
    E                what is left, dU − d(γ Var/2)

It is written with differentiable operations: derivatives of it are second derivatives.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jaxtyping import Array, Bool, Float

from jaxexec.liquidation import Liquidation, Schedule, variance_of_inventory
from jaxexec.numerics.status import Status
from jaxexec.numerics.tridiagonal import ladder_response, through_ends
from jaxexec.solvers.implicit import lagrangian
from jaxexec.solvers.ladder_plan import pair_of
from jaxexec.solvers.program import build, constant_part
from jaxexec.solvers.verdict import harmless_where

_PIECE_ON_CPU = 32  # lanes at a time: a dozen moves of each stay in the second-level cache


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


class _Path(NamedTuple):
    """What is used of a schedule."""

    nodes: Float[Array, " nodes"]
    costate: Float[Array, " steps"]
    failed: Bool[Array, ""]


def response(problem: Liquidation, schedule: Schedule, moves: Sequence[Move]) -> Response:
    """Derivatives of the optimal schedule of the N-step programme. Those of a failed one are finite and mean nothing.

    Args:
        problem: the order.
        schedule: `solve(problem)`, by a method of the N-step programme.
        moves: of its leaves.
    """
    places = [move.place for move in moves]
    failed = schedule.status > Status.LOCAL
    path = _Path(jnp.where(failed, 0, schedule.inventory), jnp.where(failed, 0, schedule.costate), failed)

    def of(problem: Liquidation, path: _Path, directions: list[Array]) -> Response:
        return _response(problem, path, [Move(*move) for move in zip(places, directions, strict=True)])

    return _in_pieces(of)(problem, path, [move.directions for move in moves])


def _in_pieces(function: Callable[..., Response]) -> Callable[..., Response]:
    """`function`, which under `vmap` works on as many lanes at a time as stay in cache."""

    @custom_batching.custom_vmap
    def alone(*inputs):
        return function(*inputs)

    @alone.def_vmap
    def together(lanes: int, batched, *inputs):
        def stretched(x: Array, is_batched: bool) -> Array:
            return x if is_batched else jnp.broadcast_to(x, (lanes, *x.shape))

        inputs = jax.tree.map(stretched, inputs, tuple(batched))
        on_cpu = jax.default_backend() == "cpu" and lanes > _PIECE_ON_CPU
        found = (
            lax.map(lambda x: function(*x), inputs, batch_size=_PIECE_ON_CPU) if on_cpu else jax.vmap(function)(*inputs)
        )
        return found, jax.tree.map(lambda _: True, found)

    # A function with a batching rule of its own has no transpose: derivatives are those of the plain one.
    @jax.custom_jvp
    def pieces(*inputs):
        return alone(*inputs)

    @pieces.defjvp
    def _(primals, tangents):
        return pieces(*primals), jax.jvp(function, primals, tangents)[1]

    return pieces


def _response(problem: Liquidation, path: _Path, moves: Sequence[Move]) -> Response:
    problem = harmless_where(path.failed, problem)
    program = build(problem)
    inventory, marginal = pair_of(problem, program, path.nodes, path.costate)
    rung = program.volume * program.cost.rate_slope(marginal)
    # Where every step rests or is at its cap no schedule but this one is possible, and the ladder has no answer.
    rung = jnp.where(jnp.any(rung > 0), rung, 1)
    flow, charge, first, last = _right_sides(problem, inventory, marginal, moves)
    inner, _ = jax.vmap(ladder_response, in_axes=(None, None, -1, -1), out_axes=-1)(rung, program.weight, flow, charge)
    soft = problem.terminal_penalty is not None
    moved = jnp.concatenate([first[None], inner] if soft else [first[None], inner, last[None]])
    open_ = jnp.broadcast_to(problem.market.step_volume, path.costate.shape) > 0
    sold = jnp.where(open_[:, None], moved[:-1] - moved[1:], 0)

    def envelope(p: Liquidation) -> Array:
        # The order's own γ: held here, but not where this slope is differentiated once more.
        p = eqx.tree_at(lambda p: p.risk_aversion, p, problem.risk_aversion)
        return lagrangian(build(p), inventory, marginal) + constant_part(p)

    # With γ held, dU = dE + (γ/2) dVar; and γ brings Var/2 to U alone.
    held = jax.grad(envelope)(problem)
    risk, (here, in_nodes) = jax.value_and_grad(variance_of_inventory, argnums=(0, 1))(problem, path.nodes)
    variance = _together(here, moves) + in_nodes @ moved
    expected = _together(held, moves) - problem.risk_aversion / 2 * variance
    objective = _together(eqx.tree_at(lambda p: p.risk_aversion, held, risk / 2), moves)
    return Response(moved, sold, expected, variance, objective)


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
