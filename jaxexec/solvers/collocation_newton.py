"""Newton's method on the condensed ladder of Gauss collocation, in the two phases of the default solver.

Each iteration replaces the curve ρ = H'(y) by its tangent in every stage, which leaves `numerics.gauss_ladder`. Its
solution (q, Q, Y, f) satisfies the linear conditions, so that Σ b [L(ρ) + H(Y) − ρY] bounds what it costs too much.

1. *Guarded Newton*: the next tangent is taken at the new rate while that stays within a factor of the old one, else at
   H'(Y). A one-sided order is kept from turning by a floor under its marginal cost.
2. *Damped semismooth Newton* on the dual for lanes that are left over: spreads, caps, drift, and cells so long that
   their optimum overshoots.

Both stop on an estimate of the gap, never on the size of a step.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import CurvePoint, CustomCost
from jaxexec.numerics.arrays import positive_log
from jaxexec.numerics.gauss_ladder import condense, halves, solve_cells, stages
from jaxexec.solvers.line_search import line_search
from jaxexec.solvers.program import Program, StepCosts

_KEEP_RATIO = 0.2  # as in the default solver, for the same reason
_FLOOR_RATIO = 1e-3
_LEAST_CELLS = 13  # fewer start from VWAP
_COARSER = 4
_ROUGH_GAP, _ROUGH_STEPS = 1e-6, 12
_TINY_SHARE = 1e-20
_ROOM = 0.3


def direction(program: Program) -> Array:
    return jnp.where(program.span < 0, -1, 1).astype(program.volume.dtype)


class Path(NamedTuple):
    """Both sides of the linear conditions: `inventory` at the inner ends of cells, the rest at the stages."""

    inventory: Float[Array, " interior"]
    held: Float[Array, " steps"]
    marginal: Float[Array, " steps"]
    flow: Float[Array, " steps"]


class Found(NamedTuple):
    path: Path
    iterations: Array
    converged: Array


def solve_tangent(program: Program, slope: Array, intercept: Array) -> Path:
    system = (program.volume * slope, program.weight, program.volume * intercept, program.charge)
    inventory, after = solve_cells(condense(*system), program.first, program.last)
    return Path(inventory, *stages(*system, jnp.concatenate([program.first[None], inventory]), after))


class _Guarded(NamedTuple):
    point: CurvePoint
    path: Path
    gap: Float[Array, " lanes"]
    least: Float[Array, " lanes"]
    taken: Int[Array, " lanes"]
    active: Bool[Array, " lanes"]


def first_phase(program: Program, near: Float[Array, "steps lanes"], gap_tolerance: float, max_steps: int) -> Found:
    """Guarded Newton from a guess `near` y, where that is finite; else from a solution on fewer cells, or from VWAP.

    Lanes that fewer cells led astray begin again from VWAP.
    """
    known = jnp.all(jnp.isfinite(near), 0)
    start, carried = _start(program, near, known, max_steps)
    first = guarded_newton(program, start, ~program.idle, gap_tolerance, _limit(carried, max_steps))
    if carried is None:
        return first

    def astray(found: Found) -> Array:
        return carried & ~found.converged

    def again(found: Found) -> Found:
        active, everywhere = astray(found), jnp.ones(near.shape, bool)
        begin = program.cost.curve_point(_vwap(program, near), jnp.zeros_like(near), everywhere)
        second = guarded_newton(program, begin, active, gap_tolerance, jnp.full(active.shape, max_steps, jnp.int32))
        merged = jax.tree.map(lambda new, old: jnp.where(_rows(active, new), new, old), second, found)
        return merged._replace(iterations=found.iterations + second.iterations)

    return lax.cond(jnp.any(astray(first)), again, lambda found: found, first)


def _limit(carried: Array | None, max_steps: int) -> Array | int:
    return max_steps if carried is None else jnp.where(carried, min(_ROUGH_STEPS, max_steps), max_steps)


def _rows(lanes: Array, like: Array) -> Array:
    return lanes if like.ndim == 1 else lanes[None]


def _vwap(program: Program, like: Array) -> Array:
    rate = direction(program) * jnp.maximum(jnp.abs(program.span), 0.1)
    return jnp.broadcast_to(rate[None], like.shape)


def _start(program: Program, near: Array, known: Array, max_steps: int) -> tuple[CurvePoint, Array | None]:
    """A point of the curve in every stage: at y = `near` in lanes where it is `known`, else as cheaply as it goes.

    An urgent order is far from VWAP, and all lanes wait for the last. So smooth lanes are solved roughly on a quarter
    of the cells first, which start from a quarter of theirs, and y is carried over by polynomials. Also which lanes.
    """
    use, carried = jnp.broadcast_to(known[None], near.shape), None
    y = jnp.where(use, near, 0)
    if near.shape[0] // 2 >= _LEAST_CELLS and not _has_custom(program):
        small = _coarsened(program)
        active = program.smooth & program.monotone & ~program.idle & ~known
        begin, _ = _start(small, jnp.zeros_like(small.volume), jnp.zeros_like(known), max_steps)
        found = guarded_newton(small, begin, active, _ROUGH_GAP, min(_ROUGH_STEPS, max_steps))
        side = direction(program)[None]
        fine = side * _carried(found.path.marginal * side, near.shape[0])
        carried = active & found.converged & jnp.all(jnp.isfinite(fine), 0)
        y, use = jnp.where(carried[None], fine, y), use | carried[None]
    return program.cost.curve_point(_vwap(program, near), y, ~use), carried


def _has_custom(program: Program) -> bool:
    """Only a user's function knows which of its parameters are curves."""
    parts = jax.tree.leaves(program.cost, is_leaf=lambda part: isinstance(part, CustomCost))
    return any(isinstance(part, CustomCost) for part in parts)


def _coarsened(program: Program) -> Program:
    """The programme on a quarter of the cells, the last one filled up with nothing."""
    steps = program.volume.shape[0]
    fill = -steps % (2 * _COARSER)

    def groups(x: Array, mode: str) -> Array:
        filled = jnp.pad(x, [(0, fill), (0, 0)], mode=mode)
        return filled.reshape(-1, _COARSER, x.shape[1])

    def mean(x: Array) -> Array:
        return jnp.mean(groups(x, "edge"), 1) if x.ndim == 2 and x.shape[0] == steps else x

    sums = [jnp.sum(groups(x, "constant"), 1) for x in (program.volume, program.weight, program.charge)]
    small = eqx.tree_at(lambda p: (p.volume, p.weight, p.charge), program, sums)
    return eqx.tree_at(lambda p: p.cost, small, jax.tree.map(mean, program.cost))


def _carried(coarse: Float[Array, "coarse lanes"], steps: int) -> Float[Array, "steps lanes"]:
    """y > 0 at the stages of all cells from those of a quarter of them: log y is cubic, but not far from linear."""
    logs = positive_log(jnp.maximum(coarse, _TINY_SHARE * jnp.max(coarse, 0)[None]))
    beyond = _beyond()
    before = [_combined(weights, logs[:4]) for weights in beyond]
    after = [_combined(weights, logs[-4:][::-1]) for weights in beyond[::-1]]
    first, second = halves(jnp.concatenate([jnp.stack(before), logs, jnp.stack(after)]))
    cells = coarse.shape[0] // 2
    # Of each cell its own two and two on either side.
    taps = [(second if i % 2 else first)[i // 2 : i // 2 + cells] for i in range(6)]
    cubic, linear = _interpolation(4), _interpolation(2)
    inner = []
    for j in range(2 * _COARSER):
        straight = _combined(linear[j], taps)
        inner.append(jnp.clip(_combined(cubic[j], taps), straight - _ROOM, straight + _ROOM))
    return jnp.exp(jnp.stack(inner, 1).reshape(-1, coarse.shape[1])[:steps])


def _combined(weights: np.ndarray, taps: Sequence[Array] | Array) -> Array:
    return functools.reduce(jnp.add, [float(w) * tap for w, tap in zip(weights, taps, strict=True) if w])


_LOW, _HIGH = 0.5 - 12**-0.5, 0.5 + 12**-0.5


@functools.cache
def _interpolation(points: int) -> np.ndarray:
    """Weights of six stages of coarse cells, those around a cell, for the stages of the cells within it."""
    known = np.asarray([_LOW - 1, _HIGH - 1, _LOW, _HIGH, _LOW + 1, _HIGH + 1])
    wanted = [(i // 2 + (_LOW, _HIGH)[i % 2]) / _COARSER for i in range(2 * _COARSER)]
    weights = np.zeros((len(wanted), 6))
    for row, x in zip(weights, wanted, strict=True):
        first = int(np.searchsorted(known, x)) - points // 2
        row[first : first + points] = _lagrange(known[first : first + points], x)
    return weights


@functools.cache
def _beyond() -> np.ndarray:
    """Weights of the first four stages for the two that would come before."""
    known = np.asarray([_LOW, _HIGH, _LOW + 1, _HIGH + 1])
    return np.stack([_lagrange(known, _LOW - 1), _lagrange(known, _HIGH - 1)])


def _lagrange(known: np.ndarray, at: float) -> np.ndarray:
    """Weights of values at `known` for the value at `at` of the polynomial through them."""
    others = [[k for k in known if k != j] for j in known]
    return np.asarray([np.prod([(at - k) / (j - k) for k in rest]) for j, rest in zip(known, others, strict=True)])


def guarded_newton(
    program: Program, start: CurvePoint, active: Bool[Array, " lanes"], gap_tolerance: float, max_steps: int | Array
) -> Found:
    """Newton's method in the rates, except where a rate would fall below a fifth of itself: there in H'.

    Arrays are [steps, lanes]; a lane that has finished does not change any more, and keeps its best pair.
    """
    cost, sign = program.cost, direction(program)[None]
    zeros = jnp.zeros_like(program.volume)
    begin = _Guarded(
        start,
        Path(zeros[: zeros.shape[0] // 2 - 1], zeros, zeros, zeros),
        jnp.where(program.idle, 0, jnp.inf).astype(zeros.dtype),
        jnp.full(active.shape, jnp.inf, zeros.dtype),
        jnp.zeros(active.shape, jnp.int32),
        active,
    )

    def step(state: _Guarded) -> _Guarded:
        old = state.point
        path = solve_tangent(program, old.slope, old.intercept)
        y = path.marginal
        rate = old.slope * y + old.intercept
        keep = (old.rate != 0) & (rate * jnp.sign(old.rate) >= _KEEP_RATIO * jnp.abs(old.rate))  # squares underflow
        floor = _FLOOR_RATIO * old.marginal
        below = program.monotone[None] & (sign * y < sign * floor)
        new = cost.curve_point(rate, jnp.where(below, floor, y), keep)
        # Leading order of L(ρ) + H(y) − ρy where the rate was kept, a bound of its order elsewhere.
        jumped = jnp.where(below, jnp.abs(rate), jnp.abs(new.rate - rate)) * jnp.abs(y)
        apart = jnp.where(keep, new.slope * (new.marginal - y) ** 2 / 2, jumped)
        gap = _relative(jnp.sum(program.volume * apart, 0), program, rate, y, path.held)
        better = state.active & (gap < state.least)
        path = jax.tree.map(lambda a, b: jnp.where(better[None], a, b), path, state.path)
        taken = state.taken + state.active.astype(jnp.int32)
        return _Guarded(
            new,
            path,
            jnp.where(state.active, gap, state.gap),
            jnp.where(better, gap, state.least),
            taken,
            state.active & jnp.isfinite(gap) & (gap > gap_tolerance) & (taken < max_steps),
        )

    end = lax.while_loop(lambda state: jnp.any(state.active), step, begin)
    return Found(end.path, end.taken, end.gap <= gap_tolerance)


def _relative(gap: Array, program: Program, rate: Array, marginal: Array, held: Array) -> Array:
    size = jnp.sum(program.volume * jnp.abs(rate * marginal), 0) + jnp.sum(program.weight * held**2, 0) / 2
    return jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), gap)


class _Damped(NamedTuple):
    path: Path
    gap: Array
    iterations: Array


def damped_newton(program: Program, cost: StepCosts, start: Found, tolerance: float, max_steps: int) -> Found:
    """Semismooth Newton on the dual Σ b H(Y) + ½ w Q² − q_0 y_0 + q_N y_N, whose gradient in Y is b H'(Y) − f."""
    least_slope = jnp.finfo(program.volume.dtype).eps

    def point_at(marginal: Array) -> CurvePoint:
        return cost.curve_point(marginal, marginal, jnp.zeros(marginal.shape, bool))

    def unfinished(state: _Damped):
        return (state.iterations < max_steps) & ~(state.gap <= tolerance)

    def step(state: _Damped):
        path, point = state.path, point_at(state.path.marginal)  # here, since few lanes come so far
        slope = jnp.maximum(point.slope, least_slope)
        intercept = jnp.where(point.slope >= least_slope, point.intercept, point.rate - slope * point.marginal)
        change = jax.tree.map(jnp.subtract, solve_tangent(program, slope, intercept), path)

        def slope_along(t: Array) -> tuple[Array, Array]:
            rate = cost.optimal_rate(path.marginal + t * change.marginal)
            excess = program.volume * rate - path.flow - t * change.flow
            return jnp.sum(change.marginal * excess), rate

        fall = jnp.sum(change.marginal * (program.volume * point.rate - path.flow))
        begun = jnp.any(path.flow != 0)  # from nothing, all the way
        t, _ = line_search(slope_along, fall, point.rate, begun)
        path = jax.tree.map(lambda x, d: x + t * d, path, change)
        rate = cost.optimal_rate(path.marginal)
        miss = jnp.sum(jnp.abs((program.volume * rate - path.flow) * path.marginal))
        gap = _relative(miss, program, rate, path.marginal, path.held)
        return _Damped(path, gap, state.iterations + 1)

    limit = jnp.where(start.converged, 0, jnp.inf).astype(start.path.marginal.dtype)
    end = lax.while_loop(unfinished, step, _Damped(start.path, limit, jnp.asarray(0, jnp.int32)))
    return Found(end.path, end.iterations, end.gap <= tolerance)
