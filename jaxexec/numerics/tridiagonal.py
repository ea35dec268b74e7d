"""Solves along a time axis without LAPACK: the ladder, a symmetric system that couples steps and nodes.

Steps k = 0..N−1 carry y_k, nodes n = 0..N carry q_n with both ends given:

    q_k − q_{k+1}   = a_k y_k + r_k        k = 0..N−1     (rungs: what flows through a step)
    y_{n−1} − y_n   = w_n q_n − g_n        n = 1..N−1     (rails: what a node withholds)

        y_0        y_1        y_2              With a, w ≥ 0 the elimination below adds and divides
    q_0 ─┼── q_1 ──┼── q_2 ──┼── q_3           non-negative numbers only: no pivoting, no cancellation,
             w_1       w_2                     and nothing special happens at a = 0 or w = 0.

Forward, A and α carry q = α − A y across each node; backward they are unrolled. With r = 0 the answer has
componentwise relative accuracy, whatever the ratio of a to w.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxexec.numerics.recurrence import along


def solve_ladder(
    rung: Float[Array, " steps"],
    rail: Float[Array, " interior"],
    flow: Float[Array, " steps"],
    charge: Float[Array, " interior"],
    first: Float[Array, ""],
    last: Float[Array, ""],
) -> tuple[Float[Array, " interior"], Float[Array, " steps"]]:
    """Solve the ladder in one pass forward and one back, O(N).

    Args:
        rung: a ≥ 0, (steps,), not all zero.
        rail: w ≥ 0, (steps − 1,).
        flow: r, (steps,).
        charge: g, (steps − 1,).
        first: q_0.
        last: q_N.

    Returns:
        q at the interior nodes, (steps − 1,), and y, (steps,).
    """

    # Both passes hand on what they put out and nothing else: XLA then copies nothing from step to step, and what is
    # not a recurrence is done for all nodes at once.
    def forward(carry, node):
        reach, level = carry
        w, g, a, r = node
        inverse = 1 / (1 + reach * w)
        after = (reach * inverse + a, (level + reach * g) * inverse - r)
        return after, after

    def backward(y, node):
        inverse, rest = node
        before = y * inverse + rest
        return before, before

    start = (rung[0], first - flow[0])
    (reach, level), after = along(forward, start, (rail, charge, rung[1:], flow[1:]))
    reaches, levels = (jnp.concatenate([x[None], rest[:-1]]) for x, rest in zip(start, after, strict=True))
    inverse = 1 / (1 + reaches * rail)
    beta = (levels + reaches * charge) * inverse
    y_last = (level - last) / jnp.where(reach > 0, reach, 1)
    _, y_before = along(backward, y_last, (inverse, rail * beta - charge), reverse=True)
    y = jnp.concatenate([y_before, y_last[None]])
    return beta - reaches * inverse * y[1:], y


def solve_ladders(
    rung: Float[Array, "steps lanes"],
    rail: Float[Array, "interior lanes"],
    flow: Float[Array, "steps k lanes"],
    charge: Float[Array, "interior k lanes"],
    first: Float[Array, "k lanes"],
    last: Float[Array, "k lanes"],
) -> tuple[Float[Array, "interior k lanes"], Float[Array, "steps k lanes"]]:
    """`solve_ladder` for k right sides of one matrix: what depends on the matrix alone is done once."""

    def forward(carry, node):
        reach, level = carry
        w, g, a, r = node
        inverse = 1 / (1 + reach * w)
        after = (reach * inverse + a, (level + reach[None] * g) * inverse[None] - r)
        return after, after

    def backward(y, node):
        inverse, rest = node
        before = y * inverse[None] + rest
        return before, before

    start = (rung[0], first - flow[0])
    (reach, level), after = along(forward, start, (rail, charge, rung[1:], flow[1:]))
    reaches, levels = (jnp.concatenate([x[None], rest[:-1]]) for x, rest in zip(start, after, strict=True))
    inverse = 1 / (1 + reaches * rail)
    beta = (levels + reaches[:, None] * charge) * inverse[:, None]
    y_last = (level - last) / jnp.where(reach > 0, reach, 1)[None]
    _, y_before = along(backward, y_last, (inverse, rail[:, None] * beta - charge), reverse=True)
    y = jnp.concatenate([y_before, y_last[None]])
    return beta - (reaches * inverse)[:, None] * y[1:], y


def ladder_response(
    rung: Float[Array, " steps"],
    rail: Float[Array, " interior"],
    flow: Float[Array, " steps"],
    charge: Float[Array, " interior"],
) -> tuple[Float[Array, " interior"], Float[Array, " steps"]]:
    """The ladder with both ends at zero, linear in `flow` and `charge` and differentiable in all four, both ways.

    The matrix is symmetric, so `lax.custom_linear_solve` transposes the solve into itself: a reverse pass costs one
    more ladder, whatever the number of parameters.
    """

    interior = rail.shape[0]

    def apply(unknown):
        q, y = unknown[:interior], unknown[interior:]
        ends = through_ends(q, jnp.zeros_like(y[0]), jnp.zeros_like(y[0]))
        return jnp.concatenate([rail * q + y[1:] - y[:-1], ends[:-1] - ends[1:] - rung * y])

    def solve(_, right_side):
        g, r = right_side[:interior], right_side[interior:]
        return jnp.concatenate(solve_ladder(rung, rail, r, g, jnp.zeros_like(r[0]), jnp.zeros_like(r[0])))

    # One vector, not a pair: the transpose wants all of the right side to be unknown, or none.
    solution = lax.custom_linear_solve(apply, jnp.concatenate([charge, flow]), solve, symmetric=True)
    return solution[:interior], solution[interior:]


def node_sums(steps: Float[Array, " steps"]) -> Float[Array, " interior"]:
    """For each interior node the mean of the two steps that meet there."""
    return (steps[:-1] + steps[1:]) / 2


def through_ends(
    interior: Float[Array, " interior"], first: Float[Array, ""], last: Float[Array, ""]
) -> Float[Array, " nodes"]:
    """Interior values with both end values joined on."""
    return jnp.concatenate([jnp.asarray(first)[None], interior, jnp.asarray(last)[None]])


__all__ = ["ladder_response", "node_sums", "solve_ladder", "solve_ladders", "through_ends"]
