"""How long an order should take: the optimal cost U*(T) as a function of its horizon.

More time never hurts: U* does not rise with T, since what is done early may rest. In a market of constant curves

    dU*/dT = −E(T),     E = V H(p) − γσ²q²/2 ≥ 0, the constant of the Hamiltonian system, which falls as T grows,

and U* is convex. There is a best horizon only where a day in the market costs something by itself: with c a day it is
where E(T) = c. A cost for each share held and day is no such thing, but a drift (`Market(drift=…)`).
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.liquidation import Liquidation, Schedule, discrete_cost
from jaxexec.numerics.arrays import as_float, check, is_concrete
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.solvers import solve
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.verdict import harmless_where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHORTEST = 1e-4  # of the grid, where nothing else is said
_GEOMETRIC, _LINEAR = 8, 8  # points of the first look: from the shortest to a ninth of the grid, and from there on
_ROUNDS = 12
_NOWHERE = 3


class HorizonCurve(eqx.Module):
    """Optimal schedules over a range of horizons.

    Attributes:
        horizons: (points,) T, trading days.
        expected_cost: (points,) E, currency.
        variance: (points,) Var, currency².
        objective: (points,) U* = E + (γ/2) Var, currency.
        total: (points,) U* + cT, currency.
        slope: (points,) dU*/dT, currency per day; from the left where T is a node of the grid.
        schedules: the schedules, every field with a leading axis (points,).
    """

    horizons: Float[Array, " points"]
    expected_cost: Float[Array, " points"]
    variance: Float[Array, " points"]
    objective: Float[Array, " points"]
    total: Float[Array, " points"]
    slope: Float[Array, " points"]
    schedules: Schedule

    @property
    def status(self) -> Int[Array, " points"]:
        """(points,) a `Status` each."""
        return self.schedules.status

    def plot(self) -> "Figure":
        """Cost against the horizon, a matplotlib Figure."""
        from jaxexec.presentation import figures

        lines = {"objective": self.objective, "expected cost": self.expected_cost}
        if np.any(np.asarray(self.total) != np.asarray(self.objective)):
            lines = {"with the cost of time": self.total} | lines
        shown = {name: np.asarray(y) for name, y in lines.items()}
        title, xlabel = "Cost of the best schedule against its horizon", "horizon (trading days)"
        return figures.curves(np.asarray(self.horizons), shown, title, xlabel, "currency")


def horizon_curve(
    problem: Liquidation,
    horizons: ArrayLike,
    cost_per_day: ArrayLike = 0.0,
    solver: ScheduleSolver | None = None,
) -> HorizonCurve:
    """Solve an order over each horizon, all in one call. Traced and differentiable.

    An order of horizon T stays on the grid of `problem`: what comes after T has neither volume nor risk, and the step
    in which T falls is cut short. Choose steps that are short beside the horizons of interest.

    Args:
        problem: the order over a grid as long as the longest horizon, without a benchmark.
        horizons: (points,) T > 0, trading days, at most the horizon of the grid.
        cost_per_day: c, currency per day.
        solver: the method; None means the default.

    Raises:
        ValueError: `horizons` is not one-dimensional and non-empty, or a concrete one is not positive or longer than
            the grid; or a benchmark.
    """
    _check_problem(problem)
    at = as_float("horizons", horizons)
    if at.ndim != 1 or not at.shape[0]:
        raise ValueError(f"horizons must have shape (points,) with at least 1 point, got {at.shape}")
    at = at.astype(problem.shares.dtype)
    _check_horizons("horizons", at, problem)
    rent = _scalar("cost_per_day", cost_per_day).astype(at.dtype)
    beyond = ~((at > 0) & (at <= problem.grid.horizon * (1 + 1e-6)))
    slope, schedules = _curve(problem, replace_where(beyond, at, jnp.full_like(at, jnp.nan)), solver)
    objective = schedules.objective
    total = objective + rent * at
    return HorizonCurve(at, schedules.expected_cost, schedules.variance, objective, total, slope, schedules)


class BestHorizon(eqx.Module):
    """The horizon of least U*(T) + cT.

    Attributes:
        horizon: T*, trading days.
        expected_cost: E, currency.
        variance: Var, currency².
        objective: U* = E + (γ/2) Var, currency.
        total: U* + cT*, currency.
        binding: 1 where the order would take longer if the grid did, −1 where it would be done before `shortest`, −2
            where it would be done before caps allow it; 0 where none of these binds.
        schedule: the schedule.
        status: that of the schedule; LOCAL where curves or costs vary over the grid, so that there may be other
            horizons from which both longer and shorter ones are dearer.
    """

    horizon: Float[Array, ""]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    total: Float[Array, ""]
    binding: Int[Array, ""]
    schedule: Schedule
    status: Int[Array, ""]


def best_horizon(
    problem: Liquidation,
    cost_per_day: ArrayLike,
    shortest: ArrayLike | None = None,
    solver: ScheduleSolver | None = None,
) -> BestHorizon:
    """The best time to take for an order, if each day in the market costs something beside risk. Traced.

    The zero of dU*/dT + c, found between the grid's horizon and `shortest`: the cheapest of sixteen horizons, then
    ever closer around it. Its derivatives are those of the equation (implicit function theorem), those of the total
    those at a fixed horizon (envelope theorem).

    Args:
        problem: the order over a grid that is as long as it may take, without a benchmark. Steps should be short beside
            the best horizon; its schedule stays on this grid, idle after T*.
        cost_per_day: c ≥ 0, currency per day in the market: staff, margin, the trade that has to wait.
        shortest: T may not be less, trading days; None for 1e-4 of the grid's horizon.
        solver: the method; None means the default.

    Raises:
        ValueError: a benchmark; or an argument that is not a scalar, or concrete and of the wrong sign, or `shortest`
            not below the grid's horizon.
    """
    _check_problem(problem)
    rent = _scalar("cost_per_day", cost_per_day).astype(problem.shares.dtype)
    check("cost_per_day", rent, lambda v: np.isfinite(v) & (v >= 0), "finite and at least 0")
    least = _SHORTEST * problem.grid.horizon
    if shortest is not None:
        least = _scalar("shortest", shortest).astype(rent.dtype)
        _check_horizons("shortest", least, problem)
    return _best(problem, rent, least, solver)


@functools.partial(jax.jit, static_argnums=3)
def _best(problem: Liquidation, rent: Array, least: Array, solver: Any) -> BestHorizon:
    refused = ~((rent >= 0) & jnp.isfinite(rent) & (least > 0) & (least < problem.grid.horizon))
    found = _horizon(problem, *(replace_where(refused, x, jnp.ones_like(x)) for x in (rent, least)), solver)
    at = replace_where(refused, found.horizon, jnp.full_like(rent, jnp.nan))
    schedule = solve(_over(problem, at), solver)
    failed = schedule.status > Status.LOCAL
    everywhere = taint((problem, rent, least), failed)
    usable = jnp.where(_is_constant(problem), schedule.status, jnp.maximum(schedule.status, Status.LOCAL))
    return BestHorizon(
        horizon=poison(jnp.where(failed, 0, at) + everywhere, failed),
        expected_cost=schedule.expected_cost,
        variance=schedule.variance,
        objective=schedule.objective,
        total=schedule.objective + jnp.where(failed, 0, rent) * jnp.where(failed, 0, at) + everywhere,
        binding=jnp.where(failed, 0, found.binding).astype(jnp.int32),
        schedule=schedule,
        status=usable.astype(jnp.int32),
    )


class _Found(NamedTuple):
    """T*, and what `BestHorizon.binding` says, or that no horizon could be solved for."""

    horizon: Float[Array, ""]
    binding: Float[Array, ""]


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _horizon(problem: Liquidation, rent: Array, least: Array, solver: Any) -> _Found:
    return _search(problem, rent, least, solver)


@_horizon.defjvp
def _horizon_jvp(solver, primals, tangents):
    problem, rent, least = primals
    found = _horizon(problem, rent, least, solver)
    problem, capped = harmless_where(found.binding == _NOWHERE, problem), found.binding == -2

    def balance(problem: Liquidation, rent: Array, horizon: Array) -> Array:
        return jnp.where(capped, _room(problem, horizon), _slope(problem, horizon, solver)[0] + rent)

    _, change = jax.linearize(balance, problem, rent, found.horizon)
    still = jax.tree.map(jnp.zeros_like, (problem, rent))
    bend = change(*still, jnp.ones_like(rent))
    moved = -change(*tangents[:2], jnp.zeros_like(rent))
    bent = (capped | (found.binding == 0)) & (bend > 0)
    moved = jnp.where(bent, moved / jnp.where(bent, bend, 1), 0)
    times = tangents[0].market.grid.times
    moved = moved + jnp.where(found.binding == 1, times[-1] - times[0], 0)
    moved = moved + jnp.where(found.binding == -1, tangents[2], 0)
    return found, _Found(moved, jnp.zeros_like(moved))


class _Zoom(NamedTuple):
    """An interval around the best horizon, with dU*/dT + c at its ends where that is known."""

    low: Float[Array, ""]
    high: Float[Array, ""]
    at_low: Float[Array, ""]
    at_high: Float[Array, ""]
    solved: Bool[Array, ""]
    done: Bool[Array, ""]
    rounds: Int[Array, ""]


def _search(problem: Liquidation, rent: Array, least: Array, solver: Any) -> _Found:
    problem, rent, least = lax.stop_gradient((problem, rent, least))
    most, dtype = problem.grid.horizon, rent.dtype
    eps = float(jnp.finfo(dtype).eps)
    wide = _everywhere(least, most)
    even = jnp.arange(1, wide.size + 1, dtype=dtype) / (wide.size + 1)

    def look(z: _Zoom) -> _Zoom:
        first = z.rounds == 0
        at = jnp.where(first, wide, z.low + (z.high - z.low) * even)
        slope, schedules = _curve(problem, at, solver)
        usable = schedules.status <= Status.LOCAL
        total = jnp.where(usable, schedules.objective + rent * at, jnp.inf)
        # An order that cannot be done in so little time needs more of it.
        rise = jnp.where(usable, slope + rent, -jnp.inf)
        cheapest = jnp.argmin(total)
        here, rising = at[cheapest], rise[cheapest] > 0
        # The zero lies on the side to which the best falls; later, where the sign changes.
        below = jnp.sum((rise < 0) & (jnp.cumsum(rise >= 0) == 0))
        step = jnp.where(first, jnp.where(rising, cheapest, cheapest + 1), below)
        ends = jnp.concatenate([z.low[None], at, z.high[None]])
        rises = jnp.concatenate([z.at_low[None], rise, z.at_high[None]])
        # `ends` has one entry before the first point.
        low, high = ends[step], ends[step + 1]
        edge = first & ((rising & (cheapest == 0)) | (~rising & (cheapest == at.size - 1)))
        low, high = jnp.where(edge, here, low), jnp.where(edge, here, high)
        narrow = high - low <= eps**0.4 * high
        solved = jnp.any(usable)
        return _Zoom(low, high, rises[step], rises[step + 1], solved, edge | narrow | ~solved, z.rounds + 1)

    never = jnp.full_like(rent, jnp.inf)
    no, none = jnp.asarray(False), jnp.asarray(0, jnp.int32)
    begin = _Zoom(least, most, -never, never, no, no, none)
    end = lax.while_loop(lambda z: ~z.done & (z.rounds < _ROUNDS), look, begin)
    # The last little by a secant; on the near side of a horizon that is too short to be done at all.
    known = (end.at_low < 0) & (end.at_high > 0) & jnp.isfinite(end.at_high - end.at_low)
    share = jnp.where(known, -end.at_low / jnp.where(known, end.at_high - end.at_low, 1), 1)
    horizon = end.low + (end.high - end.low) * share
    capped = (end.at_low == -jnp.inf) & (end.low > least)
    binding = jnp.where(horizon >= most, 1, jnp.where(horizon <= least, -1, jnp.where(capped, -2, 0)))
    return _Found(jnp.where(end.solved, horizon, most), jnp.where(end.solved, binding, _NOWHERE).astype(dtype))


def _everywhere(least: Array, most: Array) -> Float[Array, " points"]:
    """Horizons of the first look, in equal ratios at first and then in equal steps."""
    along = jnp.arange(_GEOMETRIC + _LINEAR, dtype=most.dtype)
    split = jnp.maximum(most / (_LINEAR + 1), least)
    early = least * (split / least) ** (along / _GEOMETRIC)
    late = split + (most - split) * ((along - _GEOMETRIC) / (_LINEAR - 1))
    return jnp.where(along == along.size - 1, most, jnp.where(along < _GEOMETRIC, early, late))


@functools.partial(jax.jit, static_argnums=2)
def _curve(problem: Liquidation, horizons: Array, solver: Any) -> tuple[Array, Schedule]:
    return jax.vmap(lambda horizon: _slope(problem, horizon, solver))(horizons)


def _slope(problem: Liquidation, horizon: Array, solver: Any) -> tuple[Array, Schedule]:
    """dU*/dT, and the schedule. By the envelope theorem it is what the cut step's length changes at a fixed path:

    −V (ρy − L(ρ)) + (γ/2) σ² R_k − α x_k,    y the marginal cost of selling and ρ the rate that it pays for.
    """
    within, share = _cut(problem, horizon)
    order = _shortened(problem, horizon, share)
    schedule = solve(order, solver)
    # Where that failed, harmless numbers: a loss that masks the lane then has a gradient.
    failed = schedule.status > Status.LOCAL
    problem, order = harmless_where(failed, problem), harmless_where(failed, order)
    inventory, y = (jnp.where(failed, 0, x) for x in (schedule.inventory, -schedule.costate))
    market, discrete = problem.market, problem.convention == "almgren-chriss"
    cost, _ = discrete_cost(order)
    rate = cost.optimal_rate(y)
    earned = rate * y - problem.cost.value(rate)
    if discrete:  # what permanent impact takes within the step does not depend on its length, ρy does
        earned = earned + market.permanent_impact * order.market.step_volume * rate**2
    before, after = inventory[:-1], inventory[1:]
    squares = after**2 if discrete else (before**2 + after**2) / 2
    held = after if discrete else (before + after) / 2
    risk = problem.risk_aversion / 2 * market.step_variance * squares
    change = risk - market.step_volume * earned - market.step_drift * held
    slope = jnp.sum(jnp.where(within, change / problem.grid.durations, 0))
    return poison(slope, failed), schedule


def _over(problem: Liquidation, horizon: Array) -> Liquidation:
    """The order that has only `horizon` days: no volume and no risk after them. The step in which they end is cut."""
    return _shortened(problem, horizon, _cut(problem, horizon)[1])


def _cut(problem: Liquidation, horizon: Array) -> tuple[Bool[Array, " steps"], Float[Array, " steps"]]:
    """Which step the horizon falls in (at a node, that before it), and the part of each step that is left."""
    ends, steps = problem.grid.times - problem.grid.times[0], problem.grid.steps
    horizon = jnp.where(jnp.isnan(horizon), ends[-1], horizon)
    last = jnp.arange(1, steps + 1) == steps
    within = (ends[:-1] < horizon) & ((horizon <= ends[1:]) | last)
    part = (horizon - ends[:-1]) / problem.grid.durations
    return within, jnp.where(within, part, (ends[1:] < horizon).astype(part.dtype))


def _shortened(problem: Liquidation, horizon: Array, share: Float[Array, " steps"]) -> Liquidation:
    """The order with what is left of each step; one that is refused where the horizon is no number."""
    market = problem.market
    root = jnp.where(share > 0, jnp.sqrt(jnp.where(share > 0, share, 1)), 0)
    curves = (market.volume * share, market.volatility * root, market.drift * share, market.gap_variance * share)
    market = eqx.tree_at(lambda m: (m.volume, m.volatility, m.drift, m.gap_variance), market, curves)
    shares = replace_where(jnp.isnan(horizon), problem.shares, jnp.full_like(problem.shares, jnp.nan))
    return eqx.tree_at(lambda p: (p.market, p.shares), problem, (market, shares))


def _room(problem: Liquidation, horizon: Array) -> Array:
    """Shares that caps allow to be traded, less those of the order."""
    order, span = _over(problem, horizon), problem.shares - problem.target
    low, high = problem.cost.bounds()
    volume = jnp.broadcast_to(order.market.step_volume, (problem.grid.steps,))
    bound = jnp.where(span < 0, -low, high)
    return jnp.sum(jnp.where(volume > 0, volume * jnp.where(jnp.isinf(bound), 1, bound), 0)) - jnp.abs(span)


def _is_constant(problem: Liquidation) -> Bool[Array, ""]:
    """Whether volume, volatility, drift and costs are the same in all steps: U* is then convex in T."""
    market, steps = problem.market, problem.grid.steps
    curves = [market.volume, market.volatility, market.drift]
    curves += [x for x in jax.tree.leaves(problem.cost) if jnp.shape(x) == (steps,)]
    same = functools.reduce(jnp.logical_and, [jnp.all(x == x.reshape(-1)[0]) for x in curves])
    return same & jnp.all(market.gap_variance == 0) & (market.elapsed == 0)


def _check_problem(problem: Liquidation) -> None:
    if not isinstance(problem, Liquidation):
        raise ValueError(f"problem must be a jaxexec.Liquidation, got {type(problem).__name__}")
    if problem.benchmark is not None:
        raise ValueError("problem must not have a benchmark: it would have to change with the horizon")


def _check_horizons(name: str, value: Array, problem: Liquidation) -> None:
    check(name, value, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
    if is_concrete(value) and is_concrete(problem.grid.times):
        times = np.asarray(problem.grid.times)
        most = float(times[-1] - times[0])
        check(name, value, lambda v: v <= most * (1 + 1e-6), f"at most the grid's horizon, {most:g} days")


def _scalar(name: str, value: ArrayLike) -> Array:
    array = as_float(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for many")
    return array
