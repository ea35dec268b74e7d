"""The default solver: Newton's method on the Hamiltonian system, neither variable eliminated.

Each iteration replaces the curve ρ = H'(y) by its tangent ρ ≈ d y + c in every step and solves what is then a ladder,

    q_k − q_{k+1} = b_k (d_k y_k + c_k),      y_{n−1} − y_n = w_n q_n − g_n.

1. *Guarded Newton.* The linear solve moves each step to a rate ρ̂ and a marginal cost ŷ that the curve does not join.
   The next tangent is taken at ρ̂ while ρ̂ stays within a factor of the old rate (for L' = kρ^φ, φ < 1, tangents in ρ
   overshoot least), else at H'(ŷ). Four to six iterations from VWAP; no kink, no sign change.
2. *Damped semismooth Newton* on the dual, for lanes that the first leaves unfinished (spreads in problems that may
   change sign, drift, targets other than zero). The dual is convex and C¹; its derivative along the step is monotone,
   so the line search brackets a zero of that derivative and never compares values, which cancel.

Both stop on an estimate of the duality gap, never on the size of a step.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxexec.costs import CurvePoint
from jaxexec.liquidation import Liquidation
from jaxexec.numerics.tridiagonal import solve_ladder, through_ends
from jaxexec.solvers.ladder_plan import plan_on_ladder
from jaxexec.solvers.plan import Plan, ScheduleSolver
from jaxexec.solvers.program import Iterate, Program, ScaledCost

_KEEP_RATIO = 0.2  # Without this guard 3–12 % of random problems with small φ fail.
_FLOOR_RATIO = 1e-3  # How far one step may take the marginal cost of a one-sided order towards zero.
_LINE_SEARCH_STEPS = 14


class LadderNewton(ScheduleSolver):
    """Certified default solver for smooth and kinked costs.

    Args:
        rtol: relative tolerance of the schedule in the energy norm, √(gap/objective); None means 1e-10 in float64
            and 3e-6 in float32.
        max_steps: most Newton steps in each of the two phases.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=60)

    def plan(self, problem: Liquidation) -> Plan:
        return plan_on_ladder(problem, self.iterate)

    def iterate(self, program: Program, cost: ScaledCost) -> Iterate:
        """Solve a dimensionless programme."""
        gap_tolerance = self._tolerance(program.volume.dtype) ** 2
        guarded = _guarded_newton(program, cost, gap_tolerance, self.max_steps)
        damped = _damped_newton(program, cost, guarded, gap_tolerance, self.max_steps)
        pick = guarded.converged
        return Iterate(
            jnp.where(pick, guarded.inventory, damped.inventory),
            jnp.where(pick, guarded.marginal, damped.marginal),
            guarded.iterations + damped.iterations,
            pick | damped.converged,
        )

    def _tolerance(self, dtype) -> float:
        if self.rtol is not None:
            return self.rtol
        return 1e-10 if dtype == jnp.float64 else 3e-6


class _Guarded(NamedTuple):
    point: CurvePoint
    inventory: Array
    marginal: Array
    gap: Array
    iterations: Array


def _guarded_newton(program: Program, cost: ScaledCost, gap_tolerance: float, max_steps: int) -> Iterate:
    every = jnp.ones(program.volume.shape, bool)
    sign = jnp.where(program.span < 0, -1, 1).astype(program.volume.dtype)
    mean_rate = sign * jnp.maximum(jnp.abs(program.span), 0.1)
    rates = jnp.broadcast_to(mean_rate, program.volume.shape)
    start = _Guarded(
        cost.curve_point(rates, jnp.zeros_like(rates), every),
        jnp.zeros_like(program.weight),
        jnp.zeros_like(rates),
        jnp.where(program.idle, 0, jnp.inf).astype(rates.dtype),
        jnp.asarray(0, jnp.int32),
    )

    def unfinished(state: _Guarded):
        return (state.iterations < max_steps) & ~(state.gap <= gap_tolerance) & ~jnp.isnan(state.gap)

    def step(state: _Guarded):
        old = state.point
        q, y = _solve_tangent(program, old.slope, old.intercept)
        rate = old.slope * y + old.intercept
        keep = (old.rate != 0) & (rate * old.rate >= _KEEP_RATIO * old.rate**2)
        floor = _FLOOR_RATIO * old.marginal
        below = program.monotone & (sign * y < sign * floor)
        new = cost.curve_point(rate, jnp.where(below, floor, y), keep)
        gap = _gap_estimate(program, rate, y, new, keep, q)
        sound = jnp.isfinite(gap)  # else stay at the last pair that was, for the second phase to go on from
        q, y = jnp.where(sound, q, state.inventory), jnp.where(sound, y, state.marginal)
        return _Guarded(new, q, y, jnp.where(sound, gap, jnp.nan), state.iterations + 1)

    end = lax.while_loop(unfinished, step, start)
    return Iterate(end.inventory, end.marginal, end.iterations, end.gap <= gap_tolerance)


def _solve_tangent(program: Program, slope: Array, intercept: Array) -> tuple[Array, Array]:
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

    Where the rate was kept, L(ρ) + H(y) − ρy ≈ ½ H'' (L'(ρ) − y)²; elsewhere |ρ − H'(y)| |y| bounds its order.
    """
    kept = new.slope * (new.marginal - y) ** 2 / 2
    jumped = jnp.abs(new.rate - rate) * jnp.abs(y)
    gap = jnp.sum(program.volume * jnp.where(keep, kept, jumped))
    size = jnp.sum(program.volume * jnp.abs(rate * y)) + jnp.sum(program.weight * q**2) / 2
    return jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), gap)


class _Damped(NamedTuple):
    point: CurvePoint
    inventory: Array
    marginal: Array
    gap: Array
    iterations: Array


def _damped_newton(program: Program, cost: ScaledCost, start: Iterate, gap_tolerance: float, max_steps: int) -> Iterate:
    never = jnp.zeros(program.volume.shape, bool)
    least_slope = jnp.finfo(program.volume.dtype).eps
    no_change = jnp.zeros_like(program.first)
    tolerance = gap_tolerance**0.5  # the bound below is of first order in the error, the gap of second

    def excess(inventory: Array, rate: Array, first: Array, last: Array) -> Array:
        """b H'(y) − (q_k − q_{k+1}), the gradient of the dual."""
        nodes = through_ends(inventory, first, last)
        return program.volume * rate - (nodes[:-1] - nodes[1:])

    def unfinished(state: _Damped):
        return (state.iterations < max_steps) & ~(state.gap <= tolerance)

    def step(state: _Damped):
        point = state.point
        slope = jnp.maximum(point.slope, least_slope)
        intercept = jnp.where(point.slope >= least_slope, point.intercept, point.rate - slope * point.marginal)
        q_full, y_full = _solve_tangent(program, slope, intercept)
        dy, dq = y_full - state.marginal, q_full - state.inventory
        now = excess(state.inventory, point.rate, program.first, program.last)
        # Along the step the flows change linearly, and only H' does not.
        change = excess(dq, jnp.zeros_like(dy), no_change, no_change)
        base = now - program.volume * point.rate

        def slope_along(t: Array) -> Array:
            y = state.marginal + t * dy
            return jnp.sum(dy * (base + t * change + program.volume * cost.curve_point(y, y, never).rate))

        t = _line_search(slope_along, jnp.sum(dy * now))
        inventory, marginal = state.inventory + t * dq, state.marginal + t * dy
        new = cost.curve_point(marginal, marginal, never)
        miss = excess(inventory, new.rate, program.first, program.last)
        return _Damped(new, inventory, marginal, relative_gap(miss, inventory, new), state.iterations + 1)

    def relative_gap(miss: Array, inventory: Array, point: CurvePoint) -> Array:
        size = jnp.sum(program.volume * jnp.abs(point.rate * point.marginal))
        size = size + jnp.sum(program.weight * inventory**2) / 2
        gap = jnp.sum(jnp.abs(miss * point.marginal))
        return jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), gap)

    point = cost.curve_point(start.marginal, start.marginal, never)
    limit = jnp.where(start.converged, 0, jnp.inf).astype(start.marginal.dtype)
    begin = _Damped(point, start.inventory, start.marginal, limit, jnp.asarray(0, jnp.int32))
    end = lax.while_loop(unfinished, step, begin)
    return Iterate(end.inventory, end.marginal, end.iterations, end.gap <= tolerance)


class _Bracket(NamedTuple):
    t: Array
    low: Array
    low_slope: Array
    high: Array
    done: Array
    tries: Array


def _line_search(slope_along, fall: Array) -> Array:
    """A step t in (0, 1] at which the dual still falls, or rises less than half as fast as it fell at 0."""
    one, zero = jnp.ones_like(fall), jnp.zeros_like(fall)
    enough = jnp.abs(fall) / 2

    def searching(s: _Bracket):
        return (s.tries < _LINE_SEARCH_STEPS) & ~s.done

    def narrow(s: _Bracket):
        slope = slope_along(s.t)
        beyond = slope > 0
        done = (jnp.abs(slope) <= enough) | (~beyond & (s.t >= 1)) | ~jnp.isfinite(slope)
        low, low_slope = jnp.where(beyond, s.low, s.t), jnp.where(beyond, s.low_slope, slope)
        high = jnp.where(beyond, s.t, s.high)
        share = jnp.clip(-low_slope / (jnp.where(beyond, slope, enough) - low_slope), 0.05, 0.9)
        t = jnp.where(done, s.t, low + (high - low) * share)
        return _Bracket(t, low, low_slope, high, done, s.tries + 1)

    start = _Bracket(one, zero, fall, one, jnp.asarray(False), jnp.asarray(0, jnp.int32))
    return lax.while_loop(searching, narrow, start).t
