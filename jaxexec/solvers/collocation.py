"""Fourth order for the continuous problem: two-stage Gauss collocation by Newton's method on its condensed ladder.

    q' = −V H'(y)        y' = −(γσ² q − α)        y = −p, the marginal cost of selling

Two consecutive steps of equal length are one cell, and the curves on them are those of its two Gauss stages: smooth
curves sampled at `market.gauss_times` fit exactly, and so do piecewise-constant ones once every step is split in two.

Gauss's method is symplectic, so what it solves is again a convex programme, with the stages' rates ρ and weights b, w:

    minimise  Σ b L(ρ) + ½ w Q² − g Q      (Q, q) of the flows f = bρ as in `numerics.gauss_ladder`, q_0 and q_N given

Any (f, Q, Y) that satisfies the linear conditions costs at most Σ b [L(ρ) + H(Y) − ρY] more than the optimum, the
same certificate as that of the N-step programme. The two phases are those of `ladder_newton`, on stages.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import custom_batching, lax
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation
from jaxexec.numerics.arrays import is_concrete
from jaxexec.numerics.gauss_ladder import (
    cells_response,
    condense,
    ends_of,
    flow_to_middle,
    halves,
    stages,
)
from jaxexec.numerics.status import replace_where
from jaxexec.numerics.tridiagonal import through_ends
from jaxexec.solvers.collocation_newton import Found, Path, damped_newton, direction, first_phase
from jaxexec.solvers.lanes import chunk_size, in_chunks, lanes_last
from jaxexec.solvers.plan import Plan, ScheduleSolver
from jaxexec.solvers.program import Certificate, Program, build, scale

_EVEN = 1e-4  # how far, relatively, the two steps of a cell may differ beyond the rounding of the times


class Collocation(ScheduleSolver):
    """Fourth-order solver of the continuous problem, with the certificate of its own convex programme.

    Steps 2n and 2n + 1 must be of one length and are one cell. Costs and curves that are smooth in time give an error
    of order h⁴ in inventory, costate and costs; where the order has a finish or a kink it is less. The costs of the
    schedule are integrals by Gauss's rule over the stages: `objective(problem, trades)` agrees to second order only.
    `costate` is that of the stages. A cell much longer than the time constant oscillates: refine, or use `solve_to`.

    Args:
        rtol: relative tolerance of the schedule in the energy norm, √(gap/objective); None means 1e-10 in float64
            and 3e-6 in float32.
        max_steps: most Newton steps in each of the two phases.

    Source: Hairer, Lubich and Wanner, Geometric Numerical Integration (2006), II.1.3 and VI.4 (Gauss methods).
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=60)

    def check(self, problem: Liquidation) -> None:
        check_pairs(problem)

    def plan(self, problem: Liquidation, guess: Float[Array, " steps"]) -> Plan:
        paired = check_pairs(problem)
        program, found = self._solve(problem, guess)
        fixed = lax.stop_gradient(found.path)
        finite = paired & jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in fixed]))
        fixed = jax.tree.map(lambda x: jnp.where(finite, x, 0), fixed)
        return _plan(problem, program, _attach(program, fixed), finite, found.iterations)

    def _solve(self, problem: Liquidation, guess: Array) -> tuple[Program, Found]:
        one_way, both_ways = _stage_programs(problem)
        scaled, units = scale(one_way)
        rtol = self.rtol
        if rtol is None:
            rtol = 1e-10 if scaled.volume.dtype == jnp.float64 else 3e-6
        near = (-lax.stop_gradient(guess).astype(scaled.volume.dtype) - scaled.shift) / units.marginal
        guarded = _in_lanes(scaled, near, rtol**2, self.max_steps)
        whole = lax.stop_gradient(both_ways).cost.in_units(units)
        shifted = guarded.path._replace(marginal=guarded.path.marginal + scaled.shift / units.marginal)
        damped = damped_newton(scaled, whole, guarded._replace(path=shifted), rtol, self.max_steps)
        first = guarded.converged
        path = jax.tree.map(lambda a, b: jnp.where(first, a, b), guarded.path, damped.path)
        path = Path(
            path.inventory * units.shares,
            path.held * units.shares,
            path.marginal * units.marginal,
            path.flow * units.shares,
        )
        program = jax.tree.map(lambda a, b: replace_where(~first, a, b), one_way, both_ways)
        return program, Found(path, guarded.iterations + damped.iterations, first | damped.converged)


def check_pairs(problem: Liquidation) -> Array:
    """Refuse what `Collocation` cannot take; where the times are traced, whether all pairs are of one length.

    Raises:
        ValueError: an odd number of steps, another convention, or concrete pairs of steps that differ in length.
    """
    steps = problem.grid.steps
    if problem.convention != "continuous":
        raise ValueError(f"Collocation solves convention='continuous' only, got {problem.convention!r}")
    if problem.benchmark is not None or problem.terminal_penalty is not None:
        raise ValueError("Collocation takes neither a benchmark nor a terminal_penalty: use the default solver")
    if steps % 2:
        raise ValueError(f"Collocation takes steps in pairs and got {steps}: split each in two with problem.refine(2)")
    first, second = halves(problem.grid.durations)
    times = problem.grid.times
    rounding = 16 * jnp.finfo(times.dtype).eps * jnp.max(jnp.abs(times))
    even = jnp.abs(first - second) <= _EVEN * (first + second) + rounding
    if is_concrete(even) and not np.asarray(even).all():
        n = int(np.flatnonzero(~np.asarray(even))[0])
        raise ValueError(
            f"Collocation takes steps in pairs of equal length, and steps {2 * n} and {2 * n + 1} last {first[n]} and "
            f"{second[n]} days: split each in two with problem.refine(2), or make the grid with gauss_times"
        )
    return jnp.all(even)


def _stage_programs(problem: Liquidation) -> tuple[Program, Program]:
    """The programme at the stages: with `weight` and `charge` (steps,) in place of those of the interior nodes.

    First as `build` makes it: where an order cannot profit from turning it must not, and a constant spread is off its
    cost. Then without either: a cell much longer than the time constant has its optimum where it overshoots and buys
    back, which a solver that cannot find its way along the constraint is free to take.
    """
    shape = (problem.grid.steps,)
    weight = problem.risk_aversion * jnp.broadcast_to(problem.market.step_variance, shape)
    charge = jnp.broadcast_to(problem.market.step_drift, shape)
    one_way = eqx.tree_at(lambda p: (p.weight, p.charge), build(problem), (weight, charge))
    return one_way, eqx.tree_at(
        lambda p: (p.cost.cost, p.shift, p.monotone),
        one_way,
        (problem.cost, jnp.zeros_like(one_way.shift), jnp.asarray(False)),
    )


def _facing(program: Program, marginal: Array) -> tuple[Array, Array]:
    """y, zero at the stages where an order that is one-sided would be paid to turn; and which stages it is not."""
    open_ = ~program.monotone | (marginal * direction(program) >= 0)
    return jnp.where(open_, marginal, 0), open_


def _in_lanes(program: Program, guess: Array, gap_tolerance: float, max_steps: int) -> Found:
    """The first phase. Under `vmap` the whole batch at once, lanes last, in chunks that stay in cache."""

    def work(inputs, _: Found) -> Found:
        turned, near = lanes_last(inputs[0]), jnp.moveaxis(inputs[1], 0, -1)
        found = first_phase(turned, near, gap_tolerance, max_steps)
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), found)

    def batch(*inputs) -> Found:
        volume = inputs[0].volume
        lanes, steps = volume.shape
        path = Path(jnp.zeros((lanes, steps // 2 - 1), volume.dtype), *[jnp.zeros_like(volume)] * 3)
        begin = Found(path, jnp.zeros(lanes, jnp.int32), jnp.zeros(lanes, bool))
        # In order of stiffness, so that the lanes of a chunk end together.
        order = jnp.argsort(jnp.sum(inputs[0].weight, 1), stable=True)
        return in_chunks(work, inputs, begin, order, jnp.asarray(lanes), chunk_size(lanes, steps, None))

    @custom_batching.custom_vmap
    def alone(*inputs) -> Found:
        return jax.tree.map(lambda x: x[0], batch(*jax.tree.map(lambda x: x[None], inputs)))

    @alone.def_vmap
    def _(lanes: int, batched, *inputs):
        def stretched(x: Array, is_batched: bool) -> Array:
            return x if is_batched else jnp.broadcast_to(x, (lanes, *x.shape))

        found = batch(*jax.tree.map(stretched, inputs, tuple(batched)))
        return found, jax.tree.map(lambda _: True, found)

    return alone(program, guess)


@jax.custom_jvp
def _attach(program: Program, path: Path) -> Path:
    """The solution, unchanged, with the derivative of the optimality conditions attached: a condensed ladder again."""
    return path


@_attach.defjvp
def _attach_jvp(primals, tangents):
    program, moved = primals[0], tangents[0]
    path = _attach(*primals)
    y, open_ = _facing(program, path.marginal)
    rates, rate_change = jax.jvp(lambda cost: cost.optimal_rate(y), (program.cost,), (moved.cost,))
    system = (
        program.volume * jnp.where(open_, program.cost.rate_slope(y), 0),
        program.weight,
        moved.volume * rates + program.volume * rate_change,
        moved.charge - moved.weight * path.held,
    )
    cells = condense(*system)
    loss = cells.loss.at[0].add(-cells.turn[0] * moved.first).at[-1].add(moved.last)
    inventory, after = cells_response(cells._replace(loss=loss))
    return path, Path(inventory, *stages(*system, jnp.append(moved.first, inventory), after))


@jax.custom_jvp
def _envelope(value: Array, program: Program, constant: Array, path: Path) -> Array:
    """The optimal objective, with the derivative of the Lagrangian at a fixed path and that of `constant`."""
    return value


@_envelope.defjvp
def _envelope_jvp(primals, tangents):
    _, program, _, path = primals
    side, _ = _facing(program, path.marginal)
    y_first, y_last = ends_of(program.weight * path.held - program.charge, path.marginal)

    def lagrangian(p: Program) -> Array:
        traded = -jnp.sum(p.volume * p.cost.hamiltonian(side))
        held = jnp.sum(p.weight / 2 * path.held**2 - p.charge * path.held)
        return traded + held + y_first * p.first - y_last * p.last + p.shift * p.span

    _, change = jax.jvp(lagrangian, (program,), (tangents[1],))
    return _envelope(*primals), change + tangents[2]


def _rates(program: Program, path: Path) -> Array:
    open_ = program.volume > 0
    return jnp.where(open_, path.flow / jnp.where(open_, program.volume, 1), 0)


def _kept(program: Program, path: Path) -> tuple[Array, Array]:
    """The rates, zero where rounding would turn a one-sided order, and the size of what that takes off."""
    rates = _rates(program, path)
    against = program.monotone & (rates * direction(program) < 0)
    return jnp.where(against, 0, rates), jnp.where(against, jnp.abs(rates), 0)


def _plan(problem: Liquidation, program: Program, path: Path, finite: Array, iterations: Array) -> Plan:
    """Costs by Gauss's rule over the stages, nodes at the ends and in the middle of the cells."""
    rates, _ = _kept(program, path)
    execution = jnp.sum(program.volume * problem.cost.value(rates))
    constant = problem.market.permanent_impact / 2 * (problem.shares**2 - problem.target**2)
    expected = execution + constant - jnp.sum(program.charge * path.held)
    variance = jnp.sum(problem.market.step_variance * path.held**2)
    objective = expected + problem.risk_aversion / 2 * variance
    best = _envelope(lax.stop_gradient(objective), program, constant, path)
    size = execution + problem.risk_aversion / 2 * variance
    proof = jax.tree.map(lax.stop_gradient, _certify(program, path, size))
    nodes, trades = _trades(program, path)
    costate = -(path.marginal + program.shift)
    return Plan(nodes, trades, costate, expected, variance, best, proof, finite, iterations)


def _trades(program: Program, path: Path) -> tuple[Array, Array]:
    first, second = halves(program.volume)
    together = jnp.repeat((first > 0) & (second > 0), 2, total_repeat_length=program.volume.shape[0])
    moved = flow_to_middle(path.flow, together)
    ends = through_ends(path.inventory, program.first, program.last)
    inner = jnp.stack([ends[:-1], ends[:-1] - moved[::2]], 1).reshape(-1)
    nodes = jnp.append(inner, ends[-1])
    return nodes, jnp.where(program.volume > 0, nodes[:-1] - nodes[1:], 0)


def _certify(program: Program, path: Path, size: Array) -> Certificate:
    """The gap and residual of the programme; a flow against a one-sided order is a residual, paid for at |Y|."""
    rates, turned = _kept(program, path)
    y = path.marginal
    side, _ = _facing(program, y)
    slack = program.cost.value(rates) + program.cost.hamiltonian(side) - rates * y
    open_ = program.volume > 0
    gap = jnp.sum(jnp.where(open_, program.volume * (jnp.maximum(slack, 0) + turned * jnp.abs(y)), 0))
    miss = jnp.sum(program.volume * (jnp.abs(rates - program.cost.optimal_rate(side)) + turned))
    moved = jnp.sum(program.volume * jnp.abs(rates))
    return Certificate(
        gap,
        jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), 0),
        jnp.where(miss > 0, miss / jnp.where(moved > 0, moved, 1), 0),
    )
