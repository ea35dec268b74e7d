"""The schedule of least worst regret: a concave maximum over the weights of few scenarios, exchanged among many.

    min_n max_i r_i(n)  =  max_λ min_n Σ λ_i r_i(n),      λ ≥ 0,  Σ λ = 1

Few scenarios bind. A working set of them is solved by an interior-point method in λ, whose Newton steps see how the
schedule answers to λ; then those of least weight make room for those that its schedule serves worst. The minimum of
every working set is a lower bound for all, and the worst regret of every schedule an upper one: the search ends when
they meet. (The exchange is that of semi-infinite programming, e.g. Hettich and Kortanek, SIAM Review 35, 1993.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.numerics.moments import inverse_definite
from jaxexec.numerics.status import Status
from jaxexec.solvers import solve
from jaxexec.solvers.bound import bound_by
from jaxexec.solvers.ladder_plan import plan_of_pair
from jaxexec.solvers.plan import ScheduleSolver

_WORKING = 12  # scenarios at a time; half of them may change in a round
_MOST_ROUNDS = 30
_MOST_STEPS = 60
_POLISH = 3  # steps at the last barrier, so that the answer is its centre
_LEAST = 1e-12
_NUMBERS = ("inventory", "trades", "costate", "expected_cost", "variance", "objective")

Blend = Callable[[Liquidation, Array], Liquidation]


class Cases(NamedTuple):
    """Scenarios on a leading axis, and the best schedule of each."""

    orders: Liquidation
    best: Schedule

    def regrets(self, trades: Float[Array, " steps"]) -> Float[Array, " scenarios"]:
        """r_i of one schedule."""
        return jax.vmap(lambda p, best: bound_by(p, trades, best).excess)(self.orders, self.best)

    def some(self, places: Int[Array, " few"]) -> "Cases":
        return jax.tree.map(lambda x: x[places], self)


class _Inner(eqx.Module):
    """The interior-point method on its way: λ, the slack z = ν − r of every scenario, μ; in units of `scale`.

    `schedule` is that of `looked_at`, the λ before the last step.
    """

    weights: Float[Array, " few"]
    slack: Float[Array, " few"]
    barrier: Float[Array, ""]
    upper: Float[Array, ""]
    lower: Float[Array, ""]
    steps: Int[Array, ""]
    polished: Int[Array, ""]
    looked_at: Float[Array, " few"]
    schedule: Schedule


class _Rounds(eqx.Module):
    """The exchange on its way: the working set, its λ and μ, bounds for all scenarios in units of `scale`."""

    places: Int[Array, " few"]
    next_places: Int[Array, " few"]
    weights: Float[Array, " few"]
    schedule: Schedule
    barrier: Float[Array, ""]
    upper: Float[Array, ""]
    lower: Float[Array, ""]
    rounds: Int[Array, ""]


def least_worst(
    cases: Cases, blended: Blend, solver: ScheduleSolver | None, lost: Bool[Array, ""]
) -> tuple[Schedule, Array, Array, Array]:
    """The schedule of least worst regret and λ, with first derivatives; the lower bound it proves; a status.

    Args:
        cases: at least two scenarios.
        blended: the order that scenarios make with weights.
        solver: a method of the N-step programme.
        lost: where nothing is to be looked for, as a scenario has no schedule.
    """
    count, dtype = cases.best.objective.shape[0], cases.best.objective.dtype
    few, tolerance = min(count, _WORKING), 1e-9 if dtype == jnp.float64 else 1e-4
    fixed = jax.tree.map(lax.stop_gradient, cases)
    first = fixed.regrets(jnp.mean(fixed.best.trades, 0))
    size = jnp.max(first)
    scale = jnp.where((size > 0) & jnp.isfinite(size), size, jnp.mean(jnp.abs(fixed.best.objective)))
    scale = jnp.where(scale > 0, scale, 1)

    def go_on(s: _Rounds) -> Bool[Array, ""]:
        # A working set of all is the problem itself.
        most = 1 if few == count else _MOST_ROUNDS
        return ~lost & (s.rounds < most) & (s.upper - s.lower > tolerance)

    def one_round(s: _Rounds) -> _Rounds:
        some = fixed.some(s.next_places)
        end = _centre(some, lambda w: solve(blended(some.orders, w), solver), scale, tolerance)
        every = fixed.regrets(end.schedule.trades) / scale
        changed = _exchange(s.next_places, end.looked_at, every, end.upper)
        upper, lower = jnp.minimum(s.upper, jnp.max(every)), jnp.maximum(s.lower, end.lower)
        return _Rounds(s.next_places, changed, end.looked_at, end.schedule, end.barrier, upper, lower, s.rounds + 1)

    infinite, none = jnp.asarray(jnp.inf, dtype), jnp.zeros((), jnp.int32)
    places = lax.top_k(first, few)[1].astype(jnp.int32)
    even = jnp.full((few,), 1 / few, dtype)
    one = jax.tree.map(lambda x: x[0], fixed.best)
    start = _Rounds(places, places, even, one, jnp.asarray(0.1 / few, dtype), infinite, -infinite, none)
    end = jax.tree.map(lax.stop_gradient, lax.while_loop(go_on, one_round, start))
    schedule, weights = _at_centre(cases.some(end.places), blended, scale, end)
    gap = end.upper - end.lower
    close = jnp.where(gap <= 1e-4, Status.OK, jnp.where(gap <= 1e-2, Status.OK_INACCURATE, Status.MAX_STEPS))
    return schedule, jnp.zeros((count,), dtype).at[end.places].set(weights), end.lower * scale, close


def _centre(cases: Cases, answer: Callable[[Array], Schedule], scale: Array, tolerance: float) -> _Inner:
    """The weights of the working set, by an interior-point method."""
    count, dtype = cases.best.objective.shape[0], scale.dtype

    def at(w: Array) -> tuple[dict[str, Array], Schedule]:
        schedule = answer(w)
        return numbers_of(schedule), schedule

    def go_on(s: _Inner) -> Bool[Array, ""]:
        return (s.steps < _MOST_STEPS) & (s.polished < _POLISH)

    def step(s: _Inner) -> _Inner:
        values, slope, _, schedule = _looked_at(cases, at, scale, s.weights)
        change = _newton(values, slope, s.weights, s.slack, s.barrier)
        upper, lower = jnp.minimum(jnp.max(values), s.upper), jnp.maximum(jnp.sum(s.weights * values), s.lower)
        done = upper - lower <= tolerance
        eased = (s.barrier - s.weights * s.slack - s.slack * change) / s.weights
        weights, slack = _inside(s.weights, change), _inside(s.slack, eased)
        weights = weights / jnp.sum(weights)
        centred = jnp.maximum(0.1 * jnp.mean(weights * slack), 0.01 * tolerance)
        barrier = jnp.where(done, s.barrier, jnp.minimum(s.barrier, centred))
        polished = jnp.where(done, s.polished + 1, 0)
        return _Inner(weights, slack, barrier, upper, lower, s.steps + 1, polished, s.weights, schedule)

    even, infinite, none = jnp.full((count,), 1 / count, dtype), jnp.asarray(jnp.inf, dtype), jnp.zeros((), jnp.int32)
    barrier, one = jnp.asarray(0.1 / count, dtype), jax.tree.map(lambda x: x[0], cases.best)
    first = _Inner(even, jnp.ones_like(even), barrier, infinite, -infinite, none, none, even, one)
    return lax.while_loop(go_on, step, first)


def _looked_at(
    cases: Cases, at: Callable[[Array], tuple[dict[str, Array], Any]], scale: Array, weights: Array
) -> tuple[Array, Array, tuple[dict[str, Array], Callable], Any]:
    """r(λ); J = ∂r/∂λ, without a derivative; the schedule's numbers and the linear map from dλ to them; the rest.

    Args:
        at: from λ to the numbers of its schedule, and what else there is.
    """

    def both(w: Array):
        numbers, rest = at(w)
        return (cases.regrets(numbers["trades"]) / scale, numbers), rest

    (values, numbers), push, rest = jax.linearize(both, weights, has_aux=True)
    slope = lax.stop_gradient(jax.vmap(lambda d: push(d)[0], out_axes=1)(jnp.eye(weights.shape[0], dtype=scale.dtype)))
    return values, (slope + slope.T) / 2, (numbers, lambda change: push(change)[1]), rest


def _newton(values: Array, slope: Array, weights: Array, slack: Array, barrier: Array) -> Array:
    """dλ of   J dλ + dz − dν = ν − r − z,   λ dz + z dλ = μ − λz,   Σ dλ = 0   (J = ∂r/∂λ, z slack)."""
    # In dλ/λ, where all entries are of one size. J λ = 0, as only proportions matter; a multiple of 11ᵀ, which
    # Σ dλ = 0 makes nothing of, keeps the matrix away from singular.
    matrix = -slope * weights[:, None] * weights[None] + jnp.diag(slack * weights)
    matrix = matrix + jnp.trace(matrix) * weights[:, None] * weights[None]
    inverse = lax.stop_gradient(inverse_definite(matrix)[0])
    whole, pull = inverse @ (weights * values + barrier), inverse @ weights
    return weights * (whole - pull * (jnp.sum(weights * whole) / jnp.sum(weights * pull)))


def _at_centre(cases: Cases, blended: Blend, scale: Array, end: _Rounds) -> tuple[Schedule, Float[Array, " few"]]:
    """The schedule that was found and its λ, both with the derivative of the centre (implicit function theorem)."""

    def at(w: Array):
        plan = plan_of_pair(blended(cases.orders, w), end.schedule.inventory, end.schedule.costate)
        return {name: getattr(plan, name) for name in _NUMBERS}, None

    values, slope, (numbers, moved), _ = _looked_at(cases, at, scale, end.weights)
    # At the centre a Newton step has length zero, and the derivative of the centre.
    change = _newton(values, slope, end.weights, end.barrier / end.weights, end.barrier)
    change = change - lax.stop_gradient(change)
    return with_numbers(end.schedule, jax.tree.map(jnp.add, numbers, moved(change))), end.weights + change


def _exchange(
    places: Int[Array, " few"], weights: Float[Array, " few"], regrets: Float[Array, " scenarios"], worst: Array
) -> Int[Array, " few"]:
    """The working set with its lighter half replaced by scenarios that are worse off than all within."""
    count = min(places.shape[0] // 2, regrets.shape[0] - places.shape[0])
    if not count:
        return places
    outside, candidates = lax.top_k(regrets.at[places].set(-jnp.inf), count)
    lightest = lax.top_k(-weights, count)[1]
    return places.at[lightest].set(jnp.where(outside > worst, candidates.astype(places.dtype), places[lightest]))


def _inside(x: Array, change: Array) -> Array:
    """x + change, shortened to nine tenths of the way to the first entry that would be zero."""
    room = jnp.min(jnp.where(change < 0, -x / jnp.where(change < 0, change, 1), jnp.inf))
    return jnp.maximum(x + jnp.minimum(1, 0.9 * room).astype(x.dtype) * change, _LEAST)


def numbers_of(schedule: Schedule) -> dict[str, Array]:
    """What of a schedule has a derivative."""
    return {name: getattr(schedule, name) for name in _NUMBERS}


def with_numbers(schedule: Schedule, numbers: dict[str, Array]) -> Schedule:
    """A schedule with other numbers."""
    return eqx.tree_at(lambda s: [getattr(s, name) for name in _NUMBERS], schedule, [numbers[n] for n in _NUMBERS])
