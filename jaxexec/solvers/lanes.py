"""Many problems side by side: arrays with the lanes last, [steps, lanes], worked on in chunks that stay in cache.

A vectorised ladder passes along the steps and works on all lanes of a row at once, so the lanes lie side by side in
memory. A loop runs until its slowest lane is done: lanes are therefore put in order of difficulty, cut into chunks
that end on their own, and lanes that have finished are left out of what comes next.

Between the phases lanes are stored one after the other, [lanes, steps], and turned when a chunk is taken: whole rows
move, never single elements. A lane's numbers do not depend on the chunk it is in, nor on its neighbours.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import CustomCost
from jaxexec.solvers.program import Program

State = TypeVar("State")

# On a CPU a chunk's dozen arrays should stay in the second-level cache, and rows long enough to be worth a loop's
# turn; an accelerator wants width instead.
_NUMBERS_ON_CPU, _LEAST_ON_CPU, _MOST_ON_CPU, _CHUNK_ELSEWHERE = 65536, 64, 256, 65536


def chunk_size(lanes: int, steps: int, asked: int | None, most: int = _MOST_ON_CPU) -> int:
    """Number of lanes to work on at a time, a power of two where it is not asked for, on a CPU at most `most`."""
    if asked is None and jax.default_backend() == "cpu":
        fitting = 1 << int(math.log2(_NUMBERS_ON_CPU / steps))
        asked = min(max(fitting, _LEAST_ON_CPU), most)
    return max(1, min(lanes, _CHUNK_ELSEWHERE if asked is None else asked))


def in_chunks(
    work: Callable[[Any, State], State],
    inputs: Any,
    state: State,
    order: Int[Array, " lanes"],
    count: Int[Array, ""],
    chunk: int,
) -> State:
    """`state` with `work` applied to the first `count` lanes of `order`, `chunk` lanes at a time.

    Beyond `count` the last chunk is filled up with lanes that `work` must leave as they are: they have finished.
    """
    lanes = order.shape[0]
    if chunk >= lanes:
        return work(inputs, state)
    nobody = jnp.full((-lanes % chunk,), lanes, order.dtype)  # past the end: the last lane is read, none is written
    order = jnp.concatenate([order, nobody])

    def step(i: Array, state: State) -> State:
        rows = lax.dynamic_slice_in_dim(order, i * chunk, chunk)

        def take(x: Array) -> Array:
            return x.at[rows].get(mode="clip")

        done = work(jax.tree.map(take, inputs), jax.tree.map(take, state))
        return jax.tree.map(lambda x, new: x.at[rows].set(new, mode="drop"), state, done)

    return lax.fori_loop(0, (count + chunk - 1) // chunk, step, state)


def unfinished_first(
    finished: Bool[Array, " lanes"], difficulty: Float[Array, " lanes"]
) -> tuple[Int[Array, " lanes"], Int[Array, ""]]:
    """An order of the lanes that begins with the unfinished ones, easy ones first, and how many these are."""
    order = jnp.argsort(jnp.where(finished, jnp.inf, difficulty), stable=True)
    return order, jnp.sum(~finished, dtype=jnp.int32)


def lanes_last(program: Program) -> Program:
    """A batch of programmes, lanes first, with the lanes last: curves [steps, lanes], scalars [lanes].

    Scalars of costs become rows, [1, lanes], so that they meet curves.
    """
    turned = jax.tree.map(lane_axis_last, eqx.tree_at(lambda p: p.cost, program, None))
    cost = jax.tree.map(_turned_cost, program.cost, is_leaf=_is_custom)
    return eqx.tree_at(lambda p: p.cost, turned, cost, is_leaf=lambda x: x is None)


def lane_axis_last(x: Array) -> Array:
    """[lanes, ...] to [..., lanes]."""
    return jnp.moveaxis(x, 0, -1) if x.shape[0] != 1 else x.reshape((*x.shape[1:], 1))


def lane_axis_first(x: Array) -> Array:
    """[..., lanes] to [lanes, ...]."""
    return jnp.moveaxis(x, -1, 0) if x.shape[-1] != 1 else x.reshape((1, *x.shape[:-1]))


def _is_custom(node: Any) -> bool:
    return isinstance(node, CustomCost)


def _turned_cost(node: Any) -> Any:
    # Only a user's function knows what its parameters mean: they keep their lanes in front.
    if _is_custom(node):
        turned = jax.tree.map(_turned_cost, (node.psi, node.units))
        return eqx.tree_at(lambda c: (c.psi, c.units), node.over_lanes(), turned)
    return node[None] if node.ndim == 1 else lane_axis_last(node)
