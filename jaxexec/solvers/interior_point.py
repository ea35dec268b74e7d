"""Primal-dual interior point on the ladder: brings problems with kinks, caps and drift close to their answer.

Sales and purchases of a step are two variables, ρ = r⁺ − r⁻, each within 0 ≤ r^s ≤ cap^s, with costs ℓ^s(r) = L(s r):
the kink of a spread and the wall of a cap become bounds. With multipliers λ of r ≥ 0 and ν of r ≤ cap,

    ℓ'(r) − λ + ν = s y,      λ r = μ,      ν (cap − r) = μ,      q_k − q_{k+1} = b (r⁺ − r⁻),      Dᵀy + w q = g.

Eliminating (r, λ, ν) from a Newton step leaves the ladder with the rungs b Σ_s 1/K^s, K = ℓ'' + λ/r + ν/(cap − r).
Predictor and corrector (Mehrotra 1992) cost two ladders an iteration; seven iterations on average to 1e-4, where
semismooth Newton takes over.

Arrays are [steps, lanes], with the two sides in front where there are two; a lane that has finished does not change.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.tridiagonal import solve_ladder, through_ends
from jaxexec.solvers.program import Iterate, Program

_SIDES = (1, -1)


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
    b, w = program.volume, program.weight
    low, high = program.cost.bounds(b)
    cap = jnp.stack([high, -low])
    open_ = (cap > 0) & (b > 0)[None]
    capped = open_ & jnp.isfinite(cap)
    sides = jnp.asarray(_SIDES, b.dtype)[:, None, None]
    total = jnp.sum(b, 0)
    weight = jnp.sum(b[None] * (open_.astype(b.dtype) + capped.astype(b.dtype)), (0, 1))

    def complementarity(s: _State) -> Array:
        products = jnp.where(open_, s.floor * s.rate, 0) + jnp.where(capped, s.ceiling * s.room, 0)
        return jnp.sum(b[None] * products, (0, 1)) / jnp.where(weight > 0, weight, 1)

    def tangents(rate: Array) -> tuple[Array, Array]:
        """ℓ'(r) and 1/ℓ''(r) of both sides."""
        every, nothing = jnp.ones(b.shape, bool), jnp.zeros_like(b)

        def of_side(rate: Array) -> tuple[Array, Array]:
            point = program.cost.curve_point(rate, nothing, every)
            return point.marginal, point.slope

        marginal, slope = lax.map(of_side, sides * rate)
        return sides * marginal, slope

    def step(s: _State) -> _State:
        slope, ease = tangents(s.rate)
        pull = s.floor / s.rate + jnp.where(capped, s.ceiling / s.room, 0)
        give = jnp.where(open_, ease / (1 + ease * pull), 0)  # 1/K
        rung = b * (give[0] + give[1])

        def towards(floor_aim: Array, ceiling_aim: Array) -> _Step:
            """The Newton step to λ r = floor_aim and ν (cap − r) = ceiling_aim."""
            push = slope - floor_aim / s.rate + jnp.where(capped, ceiling_aim / s.room, 0)
            flow = b * jnp.sum(jnp.where(open_, sides * (s.rate - push * give), 0), 0)
            q, y = solve_ladder(rung, w, flow, program.charge, program.first, program.last)
            rate = (sides * y[None] - push) * give
            floor = (floor_aim - s.floor * rate) / s.rate - s.floor
            ceiling = jnp.where(capped, (ceiling_aim + s.ceiling * rate) / s.room - s.ceiling, 0)
            return _Step(q, y, rate, floor, ceiling)

        def longest(d: _Step) -> tuple[Array, Array]:
            """How far one may go before a rate or a room, and before a multiplier, reaches zero."""
            primal = jnp.minimum(_reach(s.rate, d.rate, open_), _reach(s.room, -d.rate, capped))
            return primal, jnp.minimum(_reach(s.floor, d.floor, open_), _reach(s.ceiling, d.ceiling, capped))

        now = complementarity(s)

        def predict_or_correct(_: Array, carry: tuple[Array, Array, _Step]) -> tuple[Array, Array, _Step]:
            """A step to the given aims, and from how it goes the aims of the next: both passes are one programme."""
            move = towards(carry[0], carry[1])
            primal, dual = (jnp.minimum(1, x)[None, None] for x in longest(move))
            ahead = complementarity(
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
        start = (none, none, _Step(s.inventory, s.marginal, none, none, none))
        move = lax.fori_loop(0, 2, predict_or_correct, start)[2]
        share = jnp.where(s.taken > 2, 0.995, 0.95).astype(b.dtype)
        length = jnp.minimum(1, share * jnp.minimum(*longest(move)))
        sound = s.active & jnp.isfinite(length) & jnp.all(jnp.isfinite(move.marginal), 0)
        t = jnp.where(sound, length, 0)[None, None]

        def moved(x: Array, change: Array, where: Array) -> Array:
            return jnp.where(where & (t > 0), x + t * change, x)

        inventory = jnp.where(sound[None], move.inventory, s.inventory)
        marginal = jnp.where(sound[None], move.marginal, s.marginal)
        nodes = through_ends(inventory, program.first, program.last)
        miss = jnp.sum(jnp.abs(nodes[:-1] - nodes[1:] - b * program.cost.optimal_rate(marginal)), 0)
        taken = s.taken + s.active.astype(jnp.int32)
        return _State(
            moved(s.rate, move.rate, open_),
            moved(s.room, -move.rate, capped),
            moved(s.floor, move.floor, open_),
            moved(s.ceiling, move.ceiling, capped),
            inventory,
            marginal,
            taken,
            sound & (miss > tolerance) & (taken < max_steps),
        )

    start = _start(program, cap, open_, capped, total, barrier)
    todo = active & (max_steps > 0)
    state = _State(*start, begin.inventory, begin.marginal, jnp.zeros(active.shape, jnp.int32), todo)
    end = lax.while_loop(lambda s: jnp.any(s.active), step, state)
    return Iterate(end.inventory, end.marginal, begin.iterations + end.taken, begin.converged)


def _start(program: Program, cap: Array, open_: Array, capped: Array, total: Array, barrier: Array):
    """Rates near VWAP on the side of the order, well within their bounds, and multipliers of equal products."""
    mean = 1 / jnp.where(total > 0, total, 1)[None]
    side = jnp.stack([program.span >= 0, program.span < 0])[:, None]
    most = jnp.where(capped, cap, jnp.inf)
    along = jnp.minimum(mean[None], most / 2)
    against = jnp.minimum(mean[None], most) / 10
    rate = jnp.where(open_, jnp.where(side, along, against), 1)
    room = jnp.where(capped, cap - rate, 1)
    sold = jnp.cumsum(program.volume, 0)[: program.weight.shape[0]] / jnp.where(total > 0, total, 1)[None]
    vwap = program.first[None] - program.span[None] * sold
    scale = 1 + jnp.sum(program.weight * jnp.abs(vwap), 0)[None]
    mu = (barrier * scale * mean)[None]
    return rate, room, mu / rate, jnp.where(capped, mu / room, 0)


def _reach(x: Array, change: Array, where: Array) -> Array:
    falling = where & (change < 0)
    return jnp.min(jnp.where(falling, -x / jnp.where(falling, change, -1), jnp.inf), (0, 1))
