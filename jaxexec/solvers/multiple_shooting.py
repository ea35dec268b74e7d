"""Multiple shooting on the N-step programme: march M segments at once, and let Newton join them.

Unknown are the states (q, y) at the starts of the segments. Each is marched to its end with its sensitivities,

    q' = A q − B y + …,      y' = −C q + D y + …,      A D − B C = 1,   A, B, C, D ≥ 0,

and solving the second row for y makes of the joints a ladder whose coefficients do not grow with κT:

    q_{s+1} = τ q_s − c y_{s+1} + e_s       y_s = τ y_{s+1} + k q_s + f_s       τ = 1/D ≤ 1,  c = B/D,  k = C/D

    segment 0        segment 1        segment 2
    q_0 ──►  joint  q_1,y_1 ──►  joint  q_2,y_2 ──►  q_N given

An error grows like e^{κT/M} within a segment only. Newton is damped on the residual of the joints and stops on the
duality gap. Use it where single shooting runs out of digits and a second opinion on `LadderNewton` is wanted, or where
marches are cheap in parallel; it needs κT/M ≲ 15, and kinks (spreads in orders that may change sign) slow it down.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation
from jaxexec.numerics.tridiagonal import solve_ladder
from jaxexec.solvers.ladder_plan import plan_on_ladder
from jaxexec.solvers.plan import Plan, ScheduleSolver
from jaxexec.solvers.program import Iterate, Program, StepCosts
from jaxexec.solvers.shooting import LARGE, Steps, feasible, gap_bound, per_step, scan_steps

_HALVINGS = 12
_CHORDS = 12
_LEAST_CHORD = 1e-3
_FLOOR_RATIO = 1e-3  # How far one step may take the marginal cost of a one-sided order towards zero.


class MultipleShooting(ScheduleSolver):
    """Parallel shooting with M segments, for κT up to about 15 M.

    Args:
        segments: M, number of segments; at most the number of steps is used.
        rtol: relative tolerance of the schedule in the energy norm, √(gap/objective); None means 1e-10 in float64
            and 3e-6 in float32.
        max_steps: most Newton steps.
    """

    segments: int = eqx.field(static=True, default=8)
    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=60)

    def __check_init__(self):
        if self.segments < 1:
            raise ValueError(f"segments must be at least 1, got {self.segments}")

    def check(self, problem: Liquidation) -> None:
        """Any order will do."""

    def plan(self, problem: Liquidation, guess: Float[Array, " steps"]) -> Plan:
        return plan_on_ladder(problem, self.iterate, guess)

    def iterate(self, program: Program, guess: Float[Array, " steps"]) -> Iterate:
        """Solve a dimensionless programme. A guess is not used."""
        cost, dtype = program.cost, program.volume.dtype
        tolerance = (self.rtol or (1e-10 if dtype == jnp.float64 else 3e-6)) ** 2
        joints = _Joints(program, cost, min(self.segments, program.volume.shape[0]))

        def unfinished(state: _State):
            return (state.iterations < self.max_steps) & ~(state.gap <= tolerance) & ~state.stuck

        end = lax.while_loop(unfinished, joints.step, joints.start())
        return Iterate(end.inventory, end.marginal, end.iterations, end.gap <= tolerance)


class _State(NamedTuple):
    """The states at the starts of the segments, the pair that they make, and its gap."""

    q: Float[Array, " segments"]
    y: Float[Array, " segments"]
    inventory: Float[Array, " interior"]
    marginal: Float[Array, " steps"]
    gap: Float[Array, ""]
    stuck: Array
    iterations: Int[Array, ""]


class _Marched(NamedTuple):
    """Ends of all segments, their sensitivities, and the inventories on the way."""

    q: Float[Array, " segments"]
    y: Float[Array, " segments"]
    to_inventory: Float[Array, "segments 2"]
    to_marginal: Float[Array, "segments 2"]
    after: Float[Array, "segments length"]
    on_way: Float[Array, "segments length"]


class _Joints:
    """The equations of one programme cut into `segments` equal segments, padded with steps in which nothing happens."""

    def __init__(self, program: Program, cost: StepCosts, segments: int):
        count = program.volume.shape[0]
        length = -(-count // segments)
        self.program, self.cost, self.count = program, cost, count
        steps = per_step(program, cost)

        def cut(x: Array, fill: Array) -> Array:
            return jnp.concatenate([x, jnp.broadcast_to(fill, (segments * length - count,))]).reshape(segments, length)

        nothing = jax.tree.map(lambda x: x[-1], eqx.tree_at(lambda s: s.shared, steps, None))
        zero = jnp.zeros_like(steps.volume[-1])
        nothing = eqx.tree_at(lambda s: (s.volume, s.weight, s.charge), nothing, (zero, zero, zero))
        each = jax.tree.map(cut, eqx.tree_at(lambda s: s.shared, steps, None), nothing)
        self.steps, self.shared = each, steps.shared
        self.first_steps = jnp.minimum(jnp.arange(segments) * length, count - 1)

    def start(self) -> _State:
        """From a few ladders with chords ρ/L'(ρ) for slopes: near the answer, or segments would run away."""
        p = self.program
        every = jnp.ones(p.volume.shape, bool)

        def chord(_, state):
            rates, _, _ = state
            marginal = self.cost.curve_point(rates, rates, every).marginal
            positive = marginal * rates > 0
            slope = jnp.where(positive, rates / jnp.where(positive, marginal, 1), _LEAST_CHORD)
            q, y = solve_ladder(p.volume * slope, p.weight, jnp.zeros_like(rates), p.charge, p.first, p.last)
            return slope * y, q, y

        mean = jnp.broadcast_to(jnp.where(p.span == 0, 1, p.span), p.volume.shape)
        _, q, y = lax.fori_loop(0, _CHORDS, chord, (mean, jnp.zeros_like(p.weight), jnp.zeros_like(mean)))
        nodes = jnp.concatenate([p.first[None], q])
        gap = jnp.where(p.idle, 0, jnp.inf).astype(y.dtype)
        inventory, marginal = jnp.where(p.idle, 0, q), jnp.where(p.idle, 0, y)
        return _State(
            nodes[self.first_steps],
            y[self.first_steps],
            inventory,
            marginal,
            gap,
            jnp.asarray(False),
            jnp.asarray(0, jnp.int32),
        )

    def step(self, state: _State) -> _State:
        """One damped Newton step, and the pair that it leads to."""
        marched = self._march(state.q, state.y)
        miss_q, miss_y = self._misses(state.q, state.y, marched)
        grown = jnp.maximum(marched.to_marginal[:, 1], 1)
        dq, dy = self._newton(marched, miss_q, miss_y)
        sound = jnp.all(jnp.isfinite(dq)) & jnp.all(jnp.isfinite(dy))
        dq, dy = jnp.where(sound, dq, 0), jnp.where(sound, dy, 0)

        def size(misses: tuple[Array, Array]) -> Array:
            """Misses in units of what a miss at the start of the segment grows to."""
            return jnp.max(jnp.maximum(jnp.abs(misses[0]), jnp.abs(misses[1])) / grown)

        now = size((miss_q, miss_y))

        def moved(t: Array) -> tuple[Array, Array]:
            y = state.y + t * dy
            sign = jnp.sign(self.program.span)
            floor = _FLOOR_RATIO * state.y
            below = self.program.monotone & (sign * y < sign * floor) & (sign * floor > 0)
            return state.q + t * dq, jnp.where(below, floor, y)

        def too_far(search: tuple[Array, Array]):
            t, tries = search
            q, y = moved(t)
            return (tries < _HALVINGS) & ~(size(self._misses(q, y, self._march(q, y))) <= (1 - t / 4) * now)

        start = jnp.ones_like(now), jnp.asarray(0, jnp.int32)
        t, tries = lax.while_loop(too_far, lambda s: (s[0] / 2, s[1] + 1), start)
        q, y = moved(t)
        inventory, marginal = self._pair(self._march(q, y))
        gap = gap_bound(self.program, self.cost, inventory, marginal)
        # At the level of rounding the misses stop falling; then the better of the two pairs is kept.
        better = gap < state.gap
        stuck = ~sound | ((tries >= _HALVINGS) & ~better)
        return _State(
            q,
            y,
            jnp.where(better, inventory, state.inventory),
            jnp.where(better, marginal, state.marginal),
            jnp.where(better, gap, state.gap),
            stuck,
            state.iterations + 1,
        )

    def _march(self, q: Array, y: Array) -> _Marched:
        def step(state, at: Steps):
            q, y, dq, dy = state
            rate, slope = at.curve_point(y)
            open_ = at.volume > 0
            after = jnp.clip(q - jnp.where(open_, at.volume * rate, 0), -LARGE, LARGE)
            dq = dq - jnp.where(open_, at.volume * slope, 0) * dy
            next_y = jnp.clip(y - (at.weight * after - at.charge), -LARGE, LARGE)
            return (after, next_y, dq, dy - at.weight * dq), (after, y)

        def segment(q, y, steps):
            one, zero = jnp.ones_like(q), jnp.zeros_like(q)
            begin = q, y, jnp.stack([one, zero]), jnp.stack([zero, one])
            whole = eqx.tree_at(lambda s: s.shared, steps, self.shared, is_leaf=lambda x: x is None)
            (q, y, dq, dy), (after, on_way) = scan_steps(whole, step, begin)
            return _Marched(q, y, dq, dy, after, on_way)

        return jax.vmap(segment)(q, y, self.steps)

    def _misses(self, q: Array, y: Array, marched: _Marched) -> tuple[Array, Array]:
        """Where the segments end, less where the next ones start; the last y is free."""
        starts_q = jnp.concatenate([q[1:], self.program.last[None]])
        starts_y = jnp.concatenate([y[1:], marched.y[-1:]])
        return marched.q - starts_q, marched.y - starts_y

    def _newton(self, marched: _Marched, miss_q: Array, miss_y: Array) -> tuple[Array, Array]:
        """The change of the states that joins the linearised segments: one pass forward, one back."""
        grown = marched.to_marginal[:, 1]
        tau, reach, hold = 1 / grown, -marched.to_inventory[:, 1] / grown, -marched.to_marginal[:, 0] / grown
        e, f = miss_q + reach * miss_y, -miss_y * tau

        def forward(carry, segment):
            passed, level = carry
            tau, c, k, e, f = segment
            inverse = 1 / (1 + passed * k)
            shifted = (level - passed * f) * inverse
            return (c + tau**2 * passed * inverse, tau * shifted + e), (passed, level, inverse)

        zero = jnp.zeros_like(miss_q[0])
        (passed, level), kept = lax.scan(forward, (zero, zero), (tau, reach, hold, e, f))
        last = level / jnp.where(passed > 0, passed, 1)

        def backward(y_next, segment):
            passed, level, inverse, tau, k, f = segment
            y = (tau * y_next + k * level + f) * inverse
            return y, (level - passed * y, y)

        _, (dq, dy) = lax.scan(backward, last, (*kept, tau, hold, f), reverse=True)
        return dq, dy

    def _pair(self, marched: _Marched) -> tuple[Array, Array]:
        """A feasible path, with y by the rails from its last value: added up backwards, a tail keeps its digits."""
        p = self.program
        inventory = feasible(p, marched.after.reshape(-1)[: self.count - 1])
        last = marched.on_way.reshape(-1)[self.count - 1]
        withheld = lax.cumsum(p.weight * inventory - p.charge, reverse=True)
        return inventory, jnp.concatenate([last + withheld, last[None]])
