"""Primal-dual interior point on the ladder: brings problems with kinks, caps and drift close to their answer.

Sales and purchases of a step are two variables, ρ = r⁺ − r⁻, each within 0 ≤ r^s ≤ cap^s, with costs ℓ^s(r) = L(s r):
the kink of a spread and the wall of a cap become bounds. With multipliers λ of r ≥ 0 and ν of r ≤ cap,

    ℓ'(r) − λ + ν = s y,      λ r = μ,      ν (cap − r) = μ,      q_k − q_{k+1} = b (r⁺ − r⁻),      Dᵀy + w q = g.

Eliminating (r, λ, ν) from a Newton step leaves the ladder with the rungs b Σ_s 1/K^s, K = ℓ'' + λ/r + ν/(cap − r).
Predictor and corrector (Mehrotra 1992) cost two ladders an iteration. Semismooth Newton takes over from 1e-4.

Arrays are [steps, lanes], with the two sides in front where there are two; a lane that has finished does not change.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.tridiagonal import solve_ladder, through_ends
from jaxexec.solvers.program import Iterate, Program


class _State(NamedTuple):
    rate: Float[Array, "2 steps lanes"]
    room: Float[Array, "2 steps lanes"]
    floor: Float[Array, "2 steps lanes"]  # λ
    ceiling: Float[Array, "2 steps lanes"]  # ν
    inventory: Float[Array, "interior lanes"]
    marginal: Float[Array, "steps lanes"]
    taken: Int[Array, " lanes"]
    active: Bool[Array, " lanes"]


class _Step(NamedTuple):
    inventory: Array
    marginal: Array
    rate: Array
    floor: Array
    ceiling: Array


class _Tangent(NamedTuple):
    """ℓ'(r) of both sides, and 1/K."""

    slope: Float[Array, "2 steps lanes"]
    give: Float[Array, "2 steps lanes"]


def interior_point(
    program: Program,
    begin: Iterate,
    active: Bool[Array, " lanes"],
    tolerance: Float[Array, ""],
    barrier: Float[Array, ""],
    max_steps: Int[Array, ""],
) -> Iterate:
    """Iterate the `active` lanes until Σ |b H'(y) − (q_k − q_{k+1})| is below `tolerance`, starting from VWAP.

    Args:
        barrier: first μ, in units of the problem's own costs. Larger is slower and surer.
    """
    sides = _Sides(program)

    def step(s: _State) -> _State:
        move = sides.mehrotra_step(s)
        share = jnp.where(s.taken > 2, 0.995, 0.95).astype(s.marginal.dtype)
        length = jnp.minimum(1, share * jnp.minimum(*sides.longest(s, move)))
        sound = s.active & jnp.isfinite(length) & jnp.all(jnp.isfinite(move.marginal), 0)
        inventory = jnp.where(sound[None], move.inventory, s.inventory)
        marginal = jnp.where(sound[None], move.marginal, s.marginal)
        taken = s.taken + s.active.astype(jnp.int32)
        going = sound & (_miss(program, inventory, marginal) > tolerance) & (taken < max_steps)
        moved = sides.moved(s, move, jnp.where(sound, length, 0))
        return moved._replace(inventory=inventory, marginal=marginal, taken=taken, active=going)

    none = jnp.zeros(active.shape, jnp.int32)
    state = _State(*sides.start(barrier), begin.inventory, begin.marginal, none, active & (max_steps > 0))
    end = lax.while_loop(lambda s: jnp.any(s.active), step, state)
    return Iterate(end.inventory, end.marginal, begin.iterations + end.taken, begin.converged)


def _miss(program: Program, inventory: Array, marginal: Array) -> Array:
    nodes = through_ends(inventory, program.first, program.last)
    best = program.volume * program.cost.optimal_rate(marginal)
    return jnp.sum(jnp.abs(nodes[:-1] - nodes[1:] - best), 0)


class _Sides:
    """Sales and purchases of a programme: their bounds, tangents and Newton steps. Arrays are [side, steps, lanes]."""

    def __init__(self, program: Program):
        volume = program.volume
        low, high = program.cost.bounds(volume)
        self.program = program
        self.cap = jnp.stack([high, -low])
        self.open = (self.cap > 0) & (volume > 0)[None]
        self.capped = self.open & jnp.isfinite(self.cap)
        self.sign = jnp.asarray([1, -1], volume.dtype)[:, None, None]
        bounds = self.open.astype(volume.dtype) + self.capped.astype(volume.dtype)
        self.weight = jnp.sum(volume[None] * bounds, (0, 1))

    def start(self, barrier: Array) -> tuple[Array, Array, Array, Array]:
        """Rates near VWAP on the side of the order, well within their bounds, and multipliers of equal products."""
        p, total = self.program, jnp.sum(self.program.volume, 0)
        mean = 1 / jnp.where(total > 0, total, 1)[None]
        side = jnp.stack([p.span >= 0, p.span < 0])[:, None]
        most = jnp.where(self.capped, self.cap, jnp.inf)
        along, against = jnp.minimum(mean[None], most / 2), jnp.minimum(mean[None], most) / 10
        rate = jnp.where(self.open, jnp.where(side, along, against), 1)
        room = jnp.where(self.capped, self.cap - rate, 1)
        sold = jnp.cumsum(p.volume, 0)[: p.weight.shape[0]] * mean
        vwap = p.first[None] - p.span[None] * sold
        scale = 1 + jnp.sum(p.weight * jnp.abs(vwap), 0)[None]
        mu = (barrier * scale * mean)[None]
        return rate, room, mu / rate, jnp.where(self.capped, mu / room, 0)

    def complementarity(self, s: _State) -> Array:
        """The mean μ of all products of a multiplier and what it guards."""
        products = jnp.where(self.open, s.floor * s.rate, 0) + jnp.where(self.capped, s.ceiling * s.room, 0)
        total = jnp.sum(self.program.volume[None] * products, (0, 1))
        return total / jnp.where(self.weight > 0, self.weight, 1)

    def mehrotra_step(self, s: _State) -> _Step:
        """Predictor and corrector: one step, from how it goes the aims of the next, and that one."""
        now, tangent = self.complementarity(s), self._tangent(s)

        def again(_: Array, carry: tuple[Array, Array, _Step]) -> tuple[Array, Array, _Step]:
            move = self._newton_step(s, tangent, carry[0], carry[1])
            primal, dual = (jnp.minimum(1, x)[None, None] for x in self.longest(s, move))
            ahead = self.complementarity(
                s._replace(
                    rate=s.rate + primal * move.rate,
                    room=s.room - primal * move.rate,
                    floor=s.floor + dual * move.floor,
                    ceiling=s.ceiling + dual * move.ceiling,
                )
            )
            aim, mean = (jnp.clip((ahead / now) ** 3, 1e-6, 1) * now)[None, None], now[None, None]
            floor_aim = jnp.clip(aim - move.rate * move.floor, -mean / 2, 3 * mean)
            return floor_aim, jnp.clip(aim + move.rate * move.ceiling, -mean / 2, 3 * mean), move

        none = jnp.zeros_like(s.rate)
        nowhere = _Step(s.inventory, s.marginal, none, none, none)
        # A loop over the two passes, so that they are one programme to compile.
        return lax.fori_loop(0, 2, again, (none, none, nowhere))[2]

    def longest(self, s: _State, move: _Step) -> tuple[Array, Array]:
        """How far one may go before a rate or a room, and before a multiplier, reaches zero."""
        primal = jnp.minimum(_reach(s.rate, move.rate, self.open), _reach(s.room, -move.rate, self.capped))
        return primal, jnp.minimum(_reach(s.floor, move.floor, self.open), _reach(s.ceiling, move.ceiling, self.capped))

    def moved(self, s: _State, move: _Step, length: Array) -> _State:
        """The state at `length` of the step; unchanged to the bit where that is zero."""
        t = length[None, None]

        def to(x: Array, change: Array, where: Array) -> Array:
            return jnp.where(where & (t > 0), x + t * change, x)

        return s._replace(
            rate=to(s.rate, move.rate, self.open),
            room=to(s.room, -move.rate, self.capped),
            floor=to(s.floor, move.floor, self.open),
            ceiling=to(s.ceiling, move.ceiling, self.capped),
        )

    def _tangent(self, s: _State) -> _Tangent:
        volume = self.program.volume
        every, nothing = jnp.ones(volume.shape, bool), jnp.zeros_like(volume)

        def of_side(rate: Array) -> tuple[Array, Array]:
            point = self.program.cost.curve_point(rate, nothing, every)
            return point.marginal, point.slope

        marginal, ease = lax.map(of_side, self.sign * s.rate)
        pull = s.floor / s.rate + jnp.where(self.capped, s.ceiling / s.room, 0)
        return _Tangent(self.sign * marginal, jnp.where(self.open, ease / (1 + ease * pull), 0))

    def _newton_step(self, s: _State, tangent: _Tangent, floor_aim: Array, ceiling_aim: Array) -> _Step:
        """The step to λ r = floor_aim and ν (cap − r) = ceiling_aim."""
        p, give = self.program, tangent.give
        push = tangent.slope - floor_aim / s.rate + jnp.where(self.capped, ceiling_aim / s.room, 0)
        flow = p.volume * jnp.sum(jnp.where(self.open, self.sign * (s.rate - push * give), 0), 0)
        rung = p.volume * (give[0] + give[1])
        q, y = solve_ladder(rung, p.weight, flow, p.charge, p.first, p.last)
        rate = (self.sign * y[None] - push) * give
        floor = (floor_aim - s.floor * rate) / s.rate - s.floor
        ceiling = jnp.where(self.capped, (ceiling_aim + s.ceiling * rate) / s.room - s.ceiling, 0)
        return _Step(q, y, rate, floor, ceiling)


def _reach(x: Array, change: Array, where: Array) -> Array:
    falling = where & (change < 0)
    return jnp.min(jnp.where(falling, -x / jnp.where(falling, change, -1), jnp.inf), (0, 1))
