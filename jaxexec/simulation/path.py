"""One path of the price, and the shortfall of a schedule along it.

    shortfall = x_0 S_0 − Σ n_k S̃_k − x_N S_N          what is left at the end is worth its price
              = Σ n_k h_k − Σ n_k (S̄_k − S_0) − x_N (S_N − S_0),      S̃_k = S̄_k − h_k

Prices are counted from S_0, so that nothing cancels. With a benchmark b the shortfall of b's trades at prices without
impact is taken off; with a terminal penalty the settlement of what is left is added.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation, inventory_of, settlement_cost, step_costs
from jaxexec.numerics.arrays import safe_power
from jaxexec.numerics.status import taint
from jaxexec.simulation.process import Execution, MeanReverting, PriceProcess
from jaxexec.simulation.shocks import Shape, Shocks

# How much of its own permanent impact a trade meets.
OWN_SHARE: dict[Execution, float] = {"before": 0.0, "middle": 0.5, "after": 1.0}


class Course(NamedTuple):
    """What is the same on all paths of one schedule.

    Attributes:
        trades: n.
        open_trades: n − the benchmark's trades.
        open_end: x_N − the benchmark's end.
        permanent: τ g(n/τ), by how much each trade lowers the price for good.
        drift: α τ.
        deviation: σ √τ.
        certain: settlement, and what a benchmark's trades gain by not seeing the permanent impact; currency.
        costs: n h of each step with the expected volume, currency.
    """

    trades: Float[Array, " steps"]
    open_trades: Float[Array, " steps"]
    open_end: Float[Array, ""]
    permanent: Float[Array, " steps"]
    drift: Float[Array, " steps"]
    deviation: Float[Array, " steps"]
    certain: Float[Array, ""]
    costs: Float[Array, " steps"]


class Path(NamedTuple):
    """One path.

    Attributes:
        moves: (nodes,) S − S_0.
        levels: (steps,) S̄ − S_0, where each trade begins, before h.
        costs: (steps,) n h, currency.
        shortfall: currency.
    """

    moves: Float[Array, " nodes"]
    levels: Float[Array, " steps"]
    costs: Float[Array, " steps"]
    shortfall: Float[Array, ""]


def course(problem: Liquidation, trades: Float[Array, " steps"], process: PriceProcess) -> Course:
    """What the paths of `trades` have in common."""
    market, execution = problem.market, process.execution_of(problem)
    inventory = inventory_of(problem, trades)
    durations = market.step_durations
    lasting = durations > 0
    speed = jnp.where(lasting, trades / jnp.where(lasting, durations, 1), 0)
    lowered = market.permanent_impact * trades
    if process.permanent is not None:
        lowered = durations * process.permanent(speed)
    costs = step_costs(problem, trades, market.step_volume)
    if process.temporary is not None:
        impossible = jnp.where(~lasting & (trades != 0), jnp.inf, 0).astype(trades.dtype)
        costs = trades * process.temporary(speed) + impossible
    certain = settlement_cost(problem, inventory)
    if problem.terminal_penalty is not None:  # the permanent impact is that of the whole order
        certain = certain + market.permanent_impact / 2 * (inventory[-1] ** 2 - problem.target**2)
    open_trades, open_end = trades, inventory[-1]
    if problem.benchmark is not None:
        theirs = problem.benchmark[:-1] - problem.benchmark[1:]
        open_trades, open_end = trades - theirs, open_end - problem.benchmark[-1]
        before = jnp.cumsum(lowered) - lowered
        met = before + OWN_SHARE[execution] * lowered
        certain = certain + jnp.sum(theirs * met) + problem.benchmark[-1] * jnp.sum(lowered)
    steps = trades.shape
    return Course(
        trades=trades,
        open_trades=open_trades,
        open_end=open_end,
        permanent=lowered,
        drift=jnp.broadcast_to(market.step_drift, steps),
        deviation=jnp.broadcast_to(safe_power(market.step_variance, jnp.full_like(trades, 0.5)), steps),
        certain=certain,
        costs=costs,
    )


def shape(problem: Liquidation, process: PriceProcess) -> Shape:
    """How many shocks a path takes."""
    parts = 2 if process.execution_of(problem) == "middle" else 1
    noisy = process.variance_noise is not None, process.volume_noise is not None
    return Shape(parts, problem.grid.steps, *noisy)


def path(problem: Liquidation, course: Course, process: PriceProcess, shocks: Shocks) -> Path:
    """The path of these shocks, each without its axis of paths."""
    dtype = course.trades.dtype
    price = shocks.price.astype(dtype)
    deviation, costs = course.deviation, course.costs
    durations = problem.market.step_durations
    if process.variance_noise is not None and shocks.variance is not None:
        level = _levels(process.variance_noise, shocks.variance, shocks.price, durations)
        deviation = deviation * jnp.exp(level / 2)
    if process.volume_noise is not None and shocks.volume is not None:
        level = _levels(process.volume_noise, shocks.volume, shocks.price, durations)
        costs = step_costs(problem, course.trades, problem.market.step_volume * jnp.exp(level))
    start = process.initial_price if process.form == "geometric" else None
    walk = _in_the_middle if process.execution_of(problem) == "middle" else _at_an_end
    moves, levels, sold = walk(course, price, deviation, start, process.execution_of(problem))
    return Path(moves, levels, costs, jnp.sum(costs) - sold - course.open_end * moves[-1] + course.certain)


def _at_an_end(course: Course, price: Array, deviation: Array, start: Array | None, execution: Execution):
    def step(state: tuple[Array, Array], now: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        (move, sold), (open_trades, drift, deviation, shock, permanent) = state, now
        after = _moved(move, drift, deviation, shock, start) - permanent
        level = after if execution == "after" else move
        return (after, sold + open_trades * level), (level, after)

    return _walked(step, course, (course.drift, deviation, price[0], course.permanent))


def _in_the_middle(course: Course, price: Array, deviation: Array, start: Array | None, _: Execution):
    def step(state: tuple[Array, Array], now: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        (move, sold), (open_trades, drift, deviation, first, second, permanent) = state, now
        there = _moved(move, drift, deviation, first, start)
        level = there - permanent / 2
        after = _moved(there - permanent, drift, deviation, second, start)
        return (after, sold + open_trades * level), (level, after)

    halves = (course.drift / 2, deviation * 0.5**0.5, price[0], price[1], course.permanent)
    return _walked(step, course, halves)


def _walked(step: Callable, course: Course, curves: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """Moves at the nodes, levels of the trades, and what the trades earned above S_0."""
    nothing = jnp.zeros_like(course.open_end)
    (end, sold), (levels, later) = lax.scan(step, (nothing, nothing), (course.open_trades, *curves))
    return jnp.concatenate([nothing[None], later[:-1], end[None]]), levels, sold


def _moved(move: Array, drift: Array, deviation: Array, shock: Array, start: Array | None) -> Array:
    """S − S_0 after one exogenous move."""
    if start is None:
        return move + drift + deviation * shock
    scaled = deviation / start
    return move + (start + move) * jnp.expm1(drift / start - scaled**2 / 2 + scaled * shock)


def _levels(noise: MeanReverting, own: Array, price: Array, durations: Array) -> Array:
    """log f_k of each step, from its own shocks and those of the price in the step before."""
    kept = jnp.exp(-noise.speed * durations)
    fresh = safe_power(-jnp.expm1(-2 * noise.speed * durations), jnp.full_like(durations, 0.5))
    tied = jnp.broadcast_to(noise.correlation * price.shape[0] ** -0.5, kept.shape)
    free = safe_power(1 - noise.correlation**2, jnp.ones_like(noise.correlation) / 2)
    # The roots are steep at no reversion and at full correlation: a derivative asked for there is NaN.
    fresh = fresh + taint(noise.speed, noise.speed == 0)
    free = free + taint(noise.correlation, jnp.abs(noise.correlation) == 1)
    # The first step draws from the stationary distribution: nothing is kept of what was before it.
    first = jnp.arange(kept.shape[0]) == 0
    kept, tied = jnp.where(first, 0, kept), jnp.where(first, 0, fresh * tied)
    free = jnp.where(first, 1, fresh * free)

    def step(state: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        (level, before), (kept, tied, free, own, *price) = state, now
        level = kept * level + tied * before + free * own.astype(level.dtype)
        whole = functools.reduce(jnp.add, [shock.astype(level.dtype) for shock in price])
        return (level, whole), level

    nothing = jnp.zeros_like(durations[0])
    _, levels = lax.scan(step, (nothing, nothing), (kept, tied, free, own, *price))
    return noise.deviation * levels - noise.deviation**2 / 2


__all__ = ["OWN_SHARE", "Course", "Path", "course", "path", "shape"]
