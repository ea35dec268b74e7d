"""Schedule and parameters searched at once: where a fit to observed schedules begins.

The least-squares problem with the optimality conditions of the schedule as constraints,

    minimise  ½ Σ (q − q_seen)²     subject to   D q = b H'(y; θ),    Dᵀ y + w(θ) q = g(θ),

by the Gauss–Newton method in all of (q, y, θ). One iteration makes a ladder of the tangents of H', as
`solvers.guarded_newton` does, and solves it for 1 + p right sides: the schedule at the parameters it has, and how that
moves with each of them. p normal equations then say how far to go. A search that solves a schedule for every point it
tries makes as many ladders for each of its steps as this one makes in all.

What it hands over is a start: `lane_fit` looks at it once more, by `solve`, and searches itself where this one failed.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.calibration.lane_chunks import over_chunks
from jaxexec.calibration.objective import products
from jaxexec.calibration.transforms import Bound, to_natural, unit_of
from jaxexec.costs import CurvePoint
from jaxexec.liquidation import Liquidation
from jaxexec.numerics.levenberg_marquardt import Minimum, scaled, solve_damped, within_reach
from jaxexec.numerics.tridiagonal import solve_ladders, through_ends
from jaxexec.solvers.guarded_newton import FLOOR_RATIO, KEEP_RATIO, with_some_slope
from jaxexec.solvers.lanes import chunk_size
from jaxexec.solvers.program import Program, Units, build, in_units, units_of

Deviations = Literal["inventory", "trades"]

_MOST_LANES = 128  # twice as many right sides as a schedule alone has, so half its chunk
_DAMPING = 1e-9  # keeps parameters that the schedules cannot tell apart where they are
_SETTLED = 1e-2  # how far, relative and squared, a schedule may be from its optimum for its parameters to move
_RISE = 1.01  # what the objective may grow by before a move is taken back in part
_BACK = 0.75


class _State(NamedTuple):
    """Where a search is; `last` is the move of the parameters that led there from a point with the objective `base`."""

    u: Float[Array, "p lanes"]
    last: Float[Array, "p lanes"]
    base: Float[Array, " lanes"]
    reach: Float[Array, " lanes"]
    rates: Float[Array, "steps lanes"]
    marginal: Float[Array, "steps lanes"]
    keep_rates: Bool[Array, "steps lanes"]
    inventory: Float[Array, "interior lanes"]
    solved: Float[Array, "steps lanes"]
    objective: Float[Array, " lanes"]
    cosine: Float[Array, " lanes"]
    done: Bool[Array, " lanes"]
    active: Bool[Array, " lanes"]
    taken: Int[Array, " lanes"]


def search_jointly(
    problem: Liquidation,
    seen: Float[Array, "schedules rows"],
    start: Float[Array, "schedules p"],
    names: tuple[str, ...],
    bounds: tuple[Bound, ...],
    *,
    deviations: Deviations,
    common: bool,
    max_steps: int,
) -> tuple[Minimum, Float[Array, "schedules steps"]]:
    """Parameters and costates under which schedules are nearest to those seen. Carries no derivative.

    Args:
        problem: batch of orders, schedules first, without settlement.
        seen: inventories at the inner nodes, or trades of every step, as shares of the order.
        start: the parameters without bounds, u; the same for all schedules where `common`.
        common: one value of each parameter for all.

    Returns:
        The minima, schedules first, and the costates in currency per share, infinite where the search failed.
    """
    inputs = lax.stop_gradient((problem, seen, start))
    lanes, steps = seen.shape[0], problem.grid.times.shape[-1] - 1
    chunk = lanes if common else chunk_size(lanes, steps, None, most=_MOST_LANES)

    def work(inputs: tuple) -> tuple[Minimum, Array]:
        problem, seen, start = inputs
        return _search(problem, seen, start, names, bounds, deviations, common, max_steps)

    return over_chunks(work, inputs, chunk)


def with_parameters(problem: Liquidation, values: Mapping[str, Array]) -> Liquidation:
    """The order with another risk aversion, or other parameters of its cost, by name; unchecked."""
    for name, value in values.items():
        where = (lambda p: p.risk_aversion) if name == "risk_aversion" else (lambda p, n=name: getattr(p.cost, n))
        problem = eqx.tree_at(where, problem, value)
    return problem


def _search(
    problem: Liquidation,
    seen: Float[Array, "rows lanes"],
    start: Float[Array, "p lanes"],
    names: tuple[str, ...],
    bounds: tuple[Bound, ...],
    deviations: Deviations,
    common: bool,
    max_steps: int,
) -> tuple[Minimum, Float[Array, "steps lanes"]]:
    """The search with all lanes last."""

    def natural(u: Array) -> Program:
        values = {name: to_natural(u[i], bound) for i, (name, bound) in enumerate(zip(names, bounds, strict=True))}
        return _over_lanes(lambda p, v: build(with_parameters(p, v)), problem, values)

    first = natural(start)
    units = _over_lanes(units_of, first)

    def program_at(u: Array) -> Program:
        return _with_rows(_over_lanes(in_units, natural(u), units))

    seen = seen * (problem.shares / units.shares)[None]
    unit = jnp.asarray([unit_of(bound) for bound in bounds], start.dtype)

    def step(state: _State) -> _State:
        return _step(program_at, seen, names, unit, deviations, common, max_steps, state)

    end = lax.while_loop(lambda state: jnp.any(state.active), step, _begin(first, units, start))
    converged = end.done & first.smooth
    size = units.shares / problem.shares
    found = Minimum(end.u, end.objective * size**2, end.cosine, converged, end.taken)
    costate = -(end.solved * units.marginal[None] + first.shift[None])
    return found, jnp.where(converged[None], costate, jnp.inf)


def _begin(program: Program, units: Units, start: Array) -> _State:
    """An even pace: what was seen is as rough as its noise."""
    lanes = start.shape[1:]
    pace = program.span / units.shares
    pace = jnp.where(pace < 0, -1, 1) * jnp.maximum(jnp.abs(pace), 0.1)
    rates = jnp.broadcast_to(pace[None].astype(start.dtype), program.volume.shape)
    sold = jnp.cumsum(program.volume, 0)[:-1] / jnp.sum(program.volume, 0)[None]
    inventory = (program.first[None] - sold * program.span[None]) / units.shares[None]
    unknown, zeros = jnp.full(lanes, jnp.inf, start.dtype), jnp.zeros_like(rates)
    yes, no = jnp.ones(lanes, bool), jnp.zeros(lanes, bool)
    none = jnp.zeros(lanes, jnp.int32)
    return _State(
        start,
        jnp.zeros_like(start),
        unknown,
        jnp.ones(lanes, start.dtype),
        rates,
        zeros,
        jnp.ones(rates.shape, bool),
        inventory,
        zeros,
        unknown,
        unknown,
        no,
        yes,
        none,
    )


def _step(
    program_at,
    seen: Array,
    names: tuple[str, ...],
    unit: Array,
    deviations: Deviations,
    common: bool,
    max_steps: int,
    state: _State,
) -> _State:
    """One ladder of the tangents with all right sides, one step of the parameters."""
    eps = float(jnp.finfo(seen.dtype).eps)
    program, tangent = jax.linearize(program_at, state.u)
    old = with_some_slope(program, program.cost.curve_point(state.rates, state.marginal, state.keep_rates))
    q, y, changes = _responses(program, tangent, old, names, state)
    columns = [q[:, 1 + i] for i in range(len(unit))]
    best = q[:, 0]
    if deviations == "trades":
        zero = jnp.zeros_like(program.first)
        best = _trades(best, program.first, program.last)
        columns = [_trades(column, zero, zero) for column in columns]
    left = best - seen

    def total(x: Array) -> Array:
        """Over the schedules that share their parameters."""
        return jnp.broadcast_to(x.sum(-1, keepdims=True), x.shape) if common else x

    matrix, length = scaled(total(products(columns, columns)))
    gradient = jnp.stack([total((c * left).sum(0)) for c in columns]) / length
    objective = total((left**2).sum(0)) / 2
    spread = jnp.sqrt(2 * objective)
    cosine = jnp.abs(gradient).max(0) / jnp.where(spread > 0, spread, 1)
    rows = [[matrix[i, j] for j in range(len(unit))] for i in range(len(unit))]
    further = -jnp.stack(solve_damped(rows, list(gradient), jnp.full_like(objective, _DAMPING))) / length

    def apart(y: Array, rates: Array) -> Array:
        """How far the marginal costs are from those the tangents were taken at, relative and squared."""
        energy = (program.volume * old.slope * (y - old.marginal) ** 2).sum(0)
        return total(energy) / total((program.volume * jnp.abs(rates * y)).sum(0))

    settled = apart(y[:, 0], old.slope * y[:, 0] + old.intercept) <= _SETTLED
    seen_size = total((seen**2).sum(0))
    worse = settled & (objective > _RISE * state.base + eps * seen_size)
    further = within_reach(further, unit, state.reach)
    move = jnp.where(worse, -_BACK * state.last, jnp.where(settled, further, 0))
    last = jnp.where(worse, (1 - _BACK) * state.last, jnp.where(settled, further, state.last))
    base = jnp.where(settled & ~worse, objective, state.base)
    longest = jnp.abs(last).max(0)
    reach = jnp.where(worse, longest, jnp.where(settled, jnp.minimum(2 * state.reach, 1), state.reach))

    inventory, solved = (x[:, 0] + (x[:, 1:] * move[None]).sum(1) for x in (q, y))
    rates = old.slope * solved + old.intercept + sum(m[None] * c for m, c in zip(move, changes, strict=True))
    # The guards of `guarded_newton`: tangents in the rate overshoot least, and a one-sided order stays one.
    keep = (old.rate != 0) & (rates * jnp.sign(old.rate) >= KEEP_RATIO * jnp.abs(old.rate))
    side = jnp.where(program.span < 0, -1, 1).astype(rates.dtype)[None]
    floor = FLOOR_RATIO * old.marginal
    below = program.monotone[None] & (side * solved < side * floor)
    marginal = jnp.where(below, floor, solved)

    error = apart(solved, rates)
    sound = state.active & jnp.isfinite(error) & jnp.isfinite(cosine) & jnp.isfinite(move).all(0)
    # The cosine was that before the move. Far in, it shrinks by the same factor again and again.
    shrinks = jnp.where((state.cosine < 1) & (cosine <= 1e-3), jnp.minimum(cosine / state.cosine, 1), 1)
    tiny = (jnp.abs(move) <= eps**0.8 * (jnp.abs(state.u) + unit[:, None])).all(0)
    still = (cosine * jnp.maximum(shrinks, 1e-3) <= eps**0.6) | tiny
    # Newton's method is about to square what is left.
    done = still & settled & ~worse & (error <= eps**0.5)
    taken = state.taken + state.active.astype(jnp.int32)
    new = (state.u + move, last, base, reach, rates, marginal, keep, inventory, solved, objective, cosine, done)
    kept = (jnp.where(sound.reshape((1,) * (a.ndim - 1) + sound.shape), a, b) for a, b in zip(new, state, strict=False))
    return _State(*kept, active=sound & ~done & (taken < max_steps), taken=taken)


def _responses(program: Program, tangent, old: CurvePoint, names: tuple[str, ...], state: _State):
    """q and y at the parameters and by each of them, (·, 1 + p, lanes), and the change of H' by each at fixed y."""
    flows, charges, changes = [program.volume * old.intercept], [program.charge], []
    still = jnp.zeros_like(old.rate)
    for i, name in enumerate(names):
        moved = tangent(jnp.zeros_like(state.u).at[i].set(1))
        # γ is no part of the cost: that half of the work would be multiplied by zeros.
        in_cost = name != "risk_aversion"
        changes.append(_rate_change(program, moved, old.marginal) if in_cost else still)
        flows.append(program.volume * changes[i])
        charges.append(jnp.zeros_like(program.charge) if in_cost else moved.charge - moved.weight * state.inventory)
    zero = jnp.zeros_like(program.first)
    first, last = (jnp.stack([end, *[zero] * len(changes)]) for end in (program.first, program.last))
    rung = program.volume * old.slope
    q, y = solve_ladders(rung, program.weight, jnp.stack(flows, 1), jnp.stack(charges, 1), first, last)
    return q, y, changes


def _rate_change(program: Program, moved: Program, marginal: Array) -> Array:
    _, change = jax.jvp(lambda cost: cost.optimal_rate(marginal), (program.cost,), (moved.cost,))
    return change


def _trades(inventory: Array, first: Array, last: Array) -> Array:
    nodes = through_ends(inventory, first, last)
    return nodes[:-1] - nodes[1:]


def _over_lanes(function, *arguments):
    return jax.vmap(function, in_axes=-1, out_axes=-1)(*arguments)


def _with_rows(program: Program) -> Program:
    """Scalars of the cost as rows, [1, lanes], so that they meet curves."""
    rows = jax.tree.map(lambda x: x[None] if x.ndim == 1 else x, program.cost)
    return eqx.tree_at(lambda p: p.cost, program, rows)
