"""Damped semismooth Newton on the dual: finishes problems with kinks and caps from a point that is close.

    D(y) = Σ b_k H(y_k) + Σ (y_{n−1} − y_n + g_n)² / 2w_n − q_0 y_0 + q_N y_{N−1}      (a constraint where w = 0)

is convex and once differentiable even where L has a kink or a cap. A Newton step is the ladder with H'' taken from one
side. Along it the slope of D,

    D'(t) = Σ δy_k [b_k H'(y_k + t δy_k) − (q_k − q_{k+1})(t)],

only grows, so the line search brackets a zero of this slope and never compares values of D, which cancel.

Arrays are [steps, lanes]; a lane that has finished does not change any more.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.tridiagonal import through_ends
from jaxexec.solvers.guarded_newton import solve_tangent
from jaxexec.solvers.line_search import line_search
from jaxexec.solvers.program import Iterate, Program


class _State(NamedTuple):
    inventory: Float[Array, "interior lanes"]
    marginal: Float[Array, "steps lanes"]
    miss: Float[Array, " lanes"]
    taken: Int[Array, " lanes"]
    active: Bool[Array, " lanes"]


def semismooth_newton(
    program: Program,
    begin: Iterate,
    active: Bool[Array, " lanes"],
    tolerance: float,
    max_steps: Int[Array, ""],
) -> Iterate:
    """Iterate the `active` lanes of `begin` until Σ |b H'(y) − (q_k − q_{k+1})| |y|, relative, is below `tolerance`."""
    never = jnp.zeros(program.volume.shape, bool)
    least_slope = jnp.finfo(program.volume.dtype).eps
    zero = jnp.zeros_like(program.first)

    def excess(inventory: Array, rate: Array, first: Array, last: Array) -> Array:
        """b H'(y) − (q_k − q_{k+1}), the gradient of the dual."""
        nodes = through_ends(inventory, first, last)
        return program.volume * rate - (nodes[:-1] - nodes[1:])

    def relative_miss(inventory: Array, marginal: Array, rate: Array) -> Array:
        miss = excess(inventory, rate, program.first, program.last)
        size = jnp.sum(program.volume * jnp.abs(rate * marginal), 0)
        size = size + jnp.sum(program.weight * inventory**2, 0) / 2
        total = jnp.sum(jnp.abs(miss * marginal), 0)
        return jnp.where(total > 0, total / jnp.where(size > 0, size, 1), total)

    def step(state: _State) -> _State:
        point = program.cost.curve_point(state.marginal, state.marginal, never)
        before = relative_miss(state.inventory, state.marginal, point.rate)
        active = state.active & ~(before <= tolerance)
        slope = jnp.maximum(point.slope, least_slope)
        intercept = jnp.where(point.slope >= least_slope, point.intercept, point.rate - slope * point.marginal)
        q, y = solve_tangent(program, slope, intercept)
        dy, dq = y - state.marginal, q - state.inventory
        now = excess(state.inventory, point.rate, program.first, program.last)
        # Along the step the flows change linearly, and only H' does not.
        change = excess(dq, jnp.zeros_like(dy), zero, zero)
        base = now - program.volume * point.rate

        def slope_along(t: Array) -> tuple[Array, Array]:
            rate = program.cost.optimal_rate(state.marginal + t[None] * dy)
            return jnp.sum(dy * (base + t[None] * change + program.volume * rate), 0), rate

        t, rate = line_search(slope_along, jnp.sum(dy * now, 0), point.rate, active)
        move = active & jnp.isfinite(t)
        inventory = jnp.where(move[None], state.inventory + t[None] * dq, state.inventory)
        marginal = jnp.where(move[None], state.marginal + t[None] * dy, state.marginal)
        after = relative_miss(inventory, marginal, rate)
        miss = jnp.where(active, after, jnp.where(state.active, before, state.miss))
        taken = state.taken + active.astype(jnp.int32)
        return _State(inventory, marginal, miss, taken, move & (miss > tolerance) & (taken < max_steps))

    unknown = jnp.full(active.shape, jnp.inf, program.volume.dtype)
    none = jnp.zeros(active.shape, jnp.int32)
    start = _State(begin.inventory, begin.marginal, unknown, none, active & (max_steps > 0))
    end = lax.while_loop(lambda state: jnp.any(state.active), step, start)
    converged = begin.converged | (active & (end.miss <= tolerance))
    return Iterate(end.inventory, end.marginal, begin.iterations + end.taken, converged)
