"""Newton's method on the Hamiltonian system, neither variable eliminated: for costs without kinks and caps.

Each iteration replaces the curve ρ = H'(y) by its tangent ρ ≈ d y + c in every step and solves what is then a ladder,

    q_k − q_{k+1} = b_k (d_k y_k + c_k),      y_{n−1} − y_n = w_n q_n − g_n.

The linear solve moves each step to a rate ρ̂ and a marginal cost ŷ that the curve does not join. The next tangent is
taken at ρ̂ while ρ̂ stays within a factor of the old rate (for L' = kρ^φ, φ < 1, tangents in ρ overshoot least), else
at H'(ŷ). Four to six iterations from VWAP. It stops on an estimate of the duality gap, never on the size of a step.

Arrays are [steps, lanes]; a lane that has finished does not change any more.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import CurvePoint
from jaxexec.numerics.tridiagonal import solve_ladder
from jaxexec.solvers.program import Iterate, Program

KEEP_RATIO = 0.2  # Without this guard 3–12 % of random problems with small φ fail.
FLOOR_RATIO = 1e-3  # How far one step may take the marginal cost of a one-sided order towards zero.


class _State(NamedTuple):
    point: CurvePoint
    inventory: Float[Array, "interior lanes"]
    marginal: Float[Array, "steps lanes"]
    gap: Float[Array, " lanes"]
    taken: Int[Array, " lanes"]
    active: Bool[Array, " lanes"]


def guarded_newton(
    program: Program,
    begin: Iterate,
    rates: Float[Array, "steps lanes"],
    active: Bool[Array, " lanes"],
    gap_tolerance: float,
    max_steps: Int[Array, " lanes"],
) -> Iterate:
    """Iterate the `active` lanes from `rates`; the others keep what they have in `begin`."""
    sign = jnp.where(program.span < 0, -1, 1).astype(rates.dtype)[None]
    start = _State(
        program.cost.curve_point(rates, jnp.zeros_like(rates), jnp.ones(rates.shape, bool)),
        begin.inventory,
        begin.marginal,
        jnp.full(active.shape, jnp.inf, rates.dtype),
        jnp.zeros(active.shape, jnp.int32),
        active,
    )

    def step(state: _State) -> _State:
        old = with_some_slope(program, state.point)
        q, y = solve_tangent(program, old.slope, old.intercept)
        rate = old.slope * y + old.intercept
        keep = (old.rate != 0) & (rate * jnp.sign(old.rate) >= KEEP_RATIO * jnp.abs(old.rate))
        floor = FLOOR_RATIO * old.marginal
        below = program.monotone[None] & (sign * y < sign * floor)
        new = program.cost.curve_point(rate, jnp.where(below, floor, y), keep)
        gap = _gap_estimate(program, rate, y, new, keep, q)
        sound = jnp.isfinite(gap) & state.active  # else stay at the last pair that was
        taken = state.taken + state.active.astype(jnp.int32)
        return _State(
            new,
            jnp.where(sound[None], q, state.inventory),
            jnp.where(sound[None], y, state.marginal),
            jnp.where(sound, gap, state.gap),
            taken,
            sound & (gap > gap_tolerance) & (taken < max_steps),
        )

    end = lax.while_loop(lambda state: jnp.any(state.active), step, start)
    converged = begin.converged | (active & (end.gap <= gap_tolerance))
    return Iterate(end.inventory, end.marginal, begin.iterations + end.taken, converged)


def with_some_slope(program: Program, point: CurvePoint) -> CurvePoint:
    """The tangents, but not all of them flat: where every step rests or is at its cap, the ladder has no answer."""
    stuck = jnp.max(program.volume * point.slope, 0)[None] <= 0
    least = jnp.finfo(point.rate.dtype).eps
    slope = jnp.where(stuck, least, point.slope)
    return point._replace(slope=slope, intercept=jnp.where(stuck, point.rate - slope * point.marginal, point.intercept))


def solve_tangent(
    program: Program, slope: Float[Array, "steps lanes"], intercept: Float[Array, "steps lanes"]
) -> tuple[Float[Array, "interior lanes"], Float[Array, "steps lanes"]]:
    """The ladder in which ρ = slope · y + intercept."""
    return solve_ladder(
        program.volume * slope,
        program.weight,
        program.volume * intercept,
        program.charge,
        program.first,
        program.last,
    )


def _gap_estimate(program: Program, rate: Array, y: Array, new: CurvePoint, keep: Array, q: Array) -> Array:
    """Duality gap of (q, y) to leading order, relative, from numbers already at hand.

    Where the rate was kept, L(ρ) + H(y) − ρy ≈ ½ H'' (L'(ρ) − y)²; elsewhere, and beyond a cap, |ρ − H'(y)| |y| bounds
    its order.
    """
    kept = new.slope * (new.marginal - y) ** 2 / 2
    away = jnp.abs(new.rate - rate)
    moved = away > jnp.finfo(rate.dtype).eps ** 0.5 * jnp.abs(rate)
    gap = jnp.sum(program.volume * (jnp.where(keep, kept, 0) + jnp.where(moved, away * jnp.abs(y), 0)), 0)
    size = jnp.sum(program.volume * jnp.abs(rate * y), 0) + jnp.sum(program.weight * q**2, 0) / 2
    return jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), gap)
