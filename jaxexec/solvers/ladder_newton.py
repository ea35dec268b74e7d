"""The default solver: guarded Newton where the cost is smooth, interior point and semismooth Newton where it is not.

    every lane ──► guarded Newton (to the end where the cost is smooth, a few steps where it is not)
    left over  ──► semismooth Newton, a few steps
    left over  ──► interior point, then semismooth Newton, a few steps
    left over  ──► semismooth Newton, to the end
    left over  ──► interior point from a larger barrier to a tighter end, then semismooth Newton

All three solve the same ladder in every iteration and stop on an estimate of the gap or of the residual; the exact
certificate is computed from the answer, by other means, in `program.certificate_of`.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation
from jaxexec.solvers.guarded_newton import guarded_newton
from jaxexec.solvers.interior_point import interior_point
from jaxexec.solvers.ladder_plan import plan_on_ladder
from jaxexec.solvers.lanes import chunk_size, in_chunks, lane_axis_first, lane_axis_last, lanes_last, unfinished_first
from jaxexec.solvers.plan import Plan, ScheduleSolver
from jaxexec.solvers.program import Iterate, Program
from jaxexec.solvers.semismooth_newton import semismooth_newton

_TRIES_IF_ROUGH = 6  # guarded steps before kinks and caps are treated as such
_ROUGH_CHUNK_ON_CPU = 64  # numbers of iterations differ more there: smaller chunks wait less


class LadderNewton(ScheduleSolver):
    """Certified default solver for any convex cost, with kinks, caps, drift, gaps and any end.

    Args:
        rtol: relative tolerance of the schedule in the energy norm, √(gap/objective); None means 1e-10 in float64
            and 3e-6 in float32.
        max_steps: most Newton steps of each algorithm.
        chunk: problems of a batch that are worked on together; None means 64 to 256 on CPUs, by the number of steps,
            and 65,536 elsewhere.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=60)
    chunk: int | None = eqx.field(static=True, default=None)

    def check(self, problem: Liquidation) -> None:
        """Any order will do."""

    def plan(self, problem: Liquidation, guess: Float[Array, " steps"]) -> Plan:
        return plan_on_ladder(problem, self.iterate, guess)

    def iterate(self, program: Program, guess: Float[Array, " steps"]) -> Iterate:
        """Solve a dimensionless programme. Under `vmap` the whole batch is solved at once, lanes last.

        Args:
            guess: dimensionless y to start from; not finite for none.
        """
        solver = self

        @custom_batching.custom_vmap
        def alone(program: Program, guess: Array) -> Iterate:
            batch = jax.tree.map(lambda x: x[None], (program, guess))
            return jax.tree.map(lambda x: x[0], _solve_lanes(solver, *batch))

        @alone.def_vmap
        def together(lanes: int, batched, program: Program, guess: Array):
            def stretched(x: Array, is_batched: bool) -> Array:
                return x if is_batched else jnp.broadcast_to(x, (lanes, *x.shape))

            found = _solve_lanes(solver, *jax.tree.map(stretched, (program, guess), tuple(batched)))
            return found, jax.tree.map(lambda _: True, found)

        return alone(program, guess)


class _Stage(NamedTuple):
    """One round of interior point and semismooth Newton for the lanes that are left over."""

    interior_steps: Array
    tolerance: Array
    barrier: Array
    newton_steps: Array


def _stages(max_steps: int, dtype) -> _Stage:
    """A short finish; interior point and a short finish; a long finish; interior point once more, slowly."""
    close = 1e-4 if dtype == jnp.float64 else 1e-3
    return _Stage(
        jnp.asarray([0, min(30, max_steps), 0, 2 * max_steps], jnp.int32),
        jnp.asarray([close, close, close, close**2], dtype),
        jnp.asarray([0.1, 0.1, 0.1, 1.0], dtype),
        jnp.asarray([min(3, max_steps), min(6, max_steps), max_steps, max_steps], jnp.int32),
    )


def _solve_lanes(solver: LadderNewton, program: Program, guess: Array) -> Iterate:
    """Solve a batch, lanes first."""
    lanes, steps = program.volume.shape
    dtype = program.volume.dtype
    rtol = solver.rtol if solver.rtol is not None else (1e-10 if dtype == jnp.float64 else 3e-6)
    close = max(rtol / 100, 25 * float(jnp.finfo(dtype).eps))  # of the residual, which is of first order in the error
    chunk = chunk_size(lanes, steps, solver.chunk)
    rough_chunk = min(chunk, chunk_size(lanes, steps, solver.chunk, most=_ROUGH_CHUNK_ON_CPU))
    inputs = (program, guess)
    none = jnp.zeros((lanes,), jnp.int32)
    idle = jax.vmap(lambda p: p.idle)(program)
    state = Iterate(jnp.zeros_like(program.weight), jnp.zeros_like(program.volume), none, idle)

    smooth = functools.partial(_run_smooth, rtol**2, solver.max_steps)
    # Σw is a dimensionless κ²T²: stiff orders take longer, and those that are not smooth are told apart.
    stiffness = jnp.sum(program.weight, 1)
    order = jnp.argsort(jnp.where(program.smooth, stiffness, jnp.inf), stable=True)
    state = in_chunks(smooth, inputs, state, order, jnp.asarray(lanes), chunk)
    stages = _stages(solver.max_steps, dtype)
    count = stages.tolerance.shape[0]

    def go_on(carry) -> Array:
        i, state = carry
        return (i < count) & ~jnp.all(state.converged)

    def run_stage(carry):
        i, state = carry
        stage = jax.tree.map(lambda x: x[i], stages)
        order, left = unfinished_first(state.converged, stiffness)
        rough = functools.partial(_run_rough, stage, close)
        return i + 1, in_chunks(rough, inputs, state, order, left, rough_chunk)

    return lax.while_loop(go_on, run_stage, (jnp.asarray(0, jnp.int32), state))[1]


def _run_smooth(gap_tolerance: float, max_steps: int, inputs, state: Iterate) -> Iterate:
    """Guarded Newton to the end where all is smooth, a few steps of it for a first pair (q, y) elsewhere."""
    program, guess, state = _with_lanes_last(inputs, state)
    side = jnp.where(program.span < 0, -1, 1).astype(guess.dtype)
    mean = side * jnp.maximum(jnp.abs(program.span), 0.1)
    rates = jnp.broadcast_to(mean[None], guess.shape)
    known = jnp.all(jnp.isfinite(guess), 0)[None]
    rates = jnp.where(known, program.cost.optimal_rate(jnp.where(known, guess, 0)), rates)
    most = jnp.where(program.smooth, max_steps, min(max_steps, _TRIES_IF_ROUGH))
    found = guarded_newton(program, state, rates, ~state.converged, gap_tolerance, most)
    # At kinks and caps its estimate of the gap is not to be trusted: the next phase looks at the residual.
    return _lanes_first(found._replace(converged=state.converged | (found.converged & program.smooth)))


def _run_rough(stage: _Stage, rtol: float, inputs, state: Iterate) -> Iterate:
    program, _, state = _with_lanes_last(inputs, state)
    active = ~state.converged
    state = interior_point(program, state, active, stage.tolerance, stage.barrier, stage.interior_steps)
    return _lanes_first(semismooth_newton(program, state, active, rtol, stage.newton_steps))


def _with_lanes_last(inputs, state: Iterate) -> tuple[Program, Array, Iterate]:
    program, guess = inputs
    return lanes_last(program), lane_axis_last(guess), jax.tree.map(lane_axis_last, state)


def _lanes_first(state: Iterate) -> Iterate:
    return jax.tree.map(lane_axis_first, state)
