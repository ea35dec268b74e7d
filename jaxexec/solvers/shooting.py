"""Single shooting on the N-step programme: guess the first marginal cost, march, look where the inventory ends.

    q_{k+1} = q_k − b_k H'(y_k),      y_{k+1} = y_k − (w_{k+1} q_{k+1} − g_{k+1}),      q_0 given, y_0 guessed

Both rows keep order: a dearer start sells more in every step, so q_N falls in y_0 and its root is bracketed. The price
is that an error in y_0 grows like e^{κT}: in float64 no digit is left at κT ≈ 30, whatever the root finder does.

Use it to check another solver, or to learn how the system behaves. Do not use it for orders that are urgent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import ExecutionCost
from jaxexec.liquidation import Liquidation
from jaxexec.numerics.tridiagonal import through_ends
from jaxexec.solvers.ladder_plan import plan_on_ladder
from jaxexec.solvers.plan import Plan, ScheduleSolver
from jaxexec.solvers.program import Iterate, Program, StepCosts

LARGE = 1e30  # A march that runs away stops here and keeps its sign, which is all that a bracket needs.
_WIDENINGS = 40


class Shooting(ScheduleSolver):
    """Single shooting with a bracketed root: simple, monotone, and blind beyond κT ≈ 30.

    The pair it returns satisfies the rails, so the certificate holds; where digits were lost the gap is large and the
    status says so. (A one-sided order is first made one-sided again, which often saves it.) `LadderNewton` has no such
    limit and is faster.

    Args:
        rtol: relative error of the final inventory; None means 1e-13 in float64 and 1e-6 in float32.
        max_steps: most marches after the root is bracketed.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=200)

    def check(self, problem: Liquidation) -> None:
        """Any order will do."""

    def plan(self, problem: Liquidation, guess: Float[Array, " steps"]) -> Plan:
        return plan_on_ladder(problem, self.iterate, guess)

    def iterate(self, program: Program, guess: Float[Array, " steps"]) -> Iterate:
        """Solve a dimensionless programme. A guess is not used: the bracket starts wide enough without."""
        cost = program.cost
        steps = per_step(program, cost)

        def left(marginal: Array) -> Array:
            """q_N less its target."""
            (end, _), _ = march(steps, program.first, marginal)
            return end - program.last

        bracket = _narrow(left, _widen(left, cost, program), _tolerance(self.rtol, program), self.max_steps)
        # The shot that falls short: the rest is sold in the last step, and a one-sided order stays one-sided.
        (end, _), (after, marginal) = march(steps, program.first, bracket.low)
        short = jnp.abs(end - program.last) <= _tolerance(self.rtol, program)
        q = feasible(program, after[:-1])
        return Iterate(q, rails(program, q, marginal[0]), bracket.marches, short)


class Steps(eqx.Module):
    """What a march needs of each step and of the node behind it; every leaf has an axis of steps, but for `shared`."""

    volume: Float[Array, " steps"]
    weight: Float[Array, " steps"]
    charge: Float[Array, " steps"]
    softness: Float[Array, " steps"]
    cost: ExecutionCost
    shared: ExecutionCost

    def curve_point(self, marginal: Float[Array, ""]) -> tuple[Array, Array]:
        """H'(y) and H''(y) of one step: of its cost, or of the settlement at a soft end."""
        cost = eqx.combine(self.cost, self.shared)
        settled = self.softness > 0
        rate = jnp.where(settled, self.softness * marginal, cost.optimal_rate(marginal))
        return rate, jnp.where(settled, self.softness, cost.rate_slope(marginal))


def per_step(program: Program, cost: StepCosts) -> Steps:
    """The programme cut into steps. The last node neither weighs nor charges: its inventory is given."""
    count = program.volume.shape[0]
    zero = jnp.zeros((1,), program.volume.dtype)
    stiffness, own = cost.stiffness, cost.cost
    softness, steps = jnp.zeros_like(program.volume), count
    if stiffness is not None:
        softness, steps = softness.at[-1].set(1 / stiffness[0]), count - 1
        own = jax.tree.map(lambda x: jnp.append(x, x[-1]) if x.shape == (steps,) else x, own)
    varying, shared = eqx.partition(own, lambda x: jnp.shape(x) == (count,))
    weight, charge = (jnp.concatenate([x, zero]) for x in (program.weight, program.charge))
    return Steps(program.volume, weight, charge, softness, varying, shared)


def scan_steps(steps: Steps, step: Callable, state: Any) -> tuple[Any, Any]:
    """`lax.scan` of step(state, steps of one step)."""
    each = eqx.tree_at(lambda s: s.shared, steps, None)

    def one(state, at: Steps):
        return step(state, eqx.tree_at(lambda s: s.shared, at, steps.shared, is_leaf=lambda x: x is None))

    return lax.scan(one, state, each)


def march(steps: Steps, inventory: Array, marginal: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """From (q_0, y_0): the state (q_N, y_N) behind the last step, and on the way all q_{k+1} and y_k."""

    def step(state, at: Steps):
        q, y = state
        sold = jnp.where(at.volume > 0, at.volume * at.curve_point(y)[0], 0)
        after = jnp.clip(q - sold, -LARGE, LARGE)
        return (after, jnp.clip(y - (at.weight * after - at.charge), -LARGE, LARGE)), (after, y)

    return scan_steps(steps, step, (inventory, marginal))


def feasible(program: Program, inventory: Float[Array, " interior"]) -> Float[Array, " interior"]:
    """Inventories of a schedule: a one-sided order never turns back, and is done while there is volume."""
    ends = jnp.minimum(program.first, program.last), jnp.maximum(program.first, program.last)
    kept = jnp.clip(inventory, *ends)
    one_sided = jnp.where(program.span < 0, lax.cummax(kept), lax.cummin(kept))
    to_come = lax.cumsum(program.volume, reverse=True)[1:]
    return jnp.where(to_come > 0, jnp.where(program.monotone, one_sided, inventory), program.last)


def rails(program: Program, inventory: Float[Array, " interior"], start: Float[Array, ""]) -> Float[Array, " steps"]:
    """y from y_0 by y_n = y_{n−1} − (w_n q_n − g_n): what makes a pair with any q a certificate."""
    withheld = lax.cumsum(program.weight * inventory - program.charge)
    return jnp.concatenate([start[None], start - withheld])


def gap_bound(program: Program, cost: StepCosts, inventory: Array, marginal: Array) -> Float[Array, ""]:
    """The relative duality gap from above, without cancellation: L(ρ) + H(y) − ρy ≤ (ρ − H'(y)) (L'(ρ) − y)."""
    nodes = through_ends(inventory, program.first, program.last)
    open_ = program.volume > 0
    rate = jnp.where(open_, (nodes[:-1] - nodes[1:]) / jnp.where(open_, program.volume, 1), 0)
    on_curve = cost.curve_point(rate, marginal, jnp.ones(rate.shape, bool)).marginal
    gap = jnp.sum(program.volume * jnp.abs((rate - cost.optimal_rate(marginal)) * (on_curve - marginal)))
    size = jnp.sum(program.volume * jnp.abs(rate * on_curve)) + jnp.sum(program.weight * inventory**2) / 2
    return jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), gap)


def _tolerance(rtol: float | None, program: Program) -> float:
    if rtol is not None:
        return rtol
    return 1e-13 if program.volume.dtype == jnp.float64 else 1e-6


class _Bracket(NamedTuple):
    """q_N is at or above its target at `low`, below it at `high`; what is left there, and marches so far."""

    low: Float[Array, ""]
    left_low: Float[Array, ""]
    high: Float[Array, ""]
    left_high: Float[Array, ""]
    found: Bool[Array, ""]
    marches: Int[Array, ""]


def _widen(left, cost: StepCosts, program: Program) -> _Bracket:
    """Both ends, started at the marginal cost of the mean rate, go outwards by powers of four."""
    mean = jnp.broadcast_to(program.span, program.volume.shape)
    curve = cost.curve_point(mean, mean, jnp.ones(mean.shape, bool)).marginal
    middle = jnp.sum(program.volume * curve)
    width = jnp.where(middle == 0, 1, jnp.abs(middle)) / 2

    def open_(b: _Bracket):
        return (b.marches < _WIDENINGS) & ~b.found

    def wider(b: _Bracket):
        reach = width * 4 ** b.marches.astype(width.dtype)
        low = jnp.where(b.left_low >= 0, b.low, middle - reach)
        high = jnp.where(b.left_high < 0, b.high, middle + reach)
        at_low, at_high = left(low), left(high)
        return _Bracket(low, at_low, high, at_high, (at_low >= 0) & (at_high < 0), b.marches + 1)

    unknown = jnp.asarray(jnp.nan, width.dtype)
    start = _Bracket(middle, unknown, middle, unknown, jnp.asarray(False), jnp.asarray(0, jnp.int32))
    return lax.while_loop(open_, wider, start)


def _narrow(left, start: _Bracket, tolerance: float, max_steps: int) -> _Bracket:
    """Secant and bisection in turn, until the short shot is within the tolerance or no number lies between."""

    def unfinished(b: _Bracket):
        return (b.marches < max_steps) & ~b.found

    def step(b: _Bracket):
        middle = b.low + (b.high - b.low) / 2
        fall = b.left_low - b.left_high
        # Aimed to fall short by a quarter of the tolerance: the secant's error then lands on the side that counts.
        share = (b.left_low - tolerance / 4) / jnp.where(fall > 0, fall, 1)
        secant = b.low + (b.high - b.low) * jnp.clip(share, 1e-9, 1 - 1e-9)
        at = jnp.where((b.marches % 2 == 0) & jnp.isfinite(secant), secant, middle)
        at = jnp.where((at > b.low) & (at < b.high), at, middle)
        between = (at > b.low) & (at < b.high)
        now = left(at)
        short = now >= 0
        low, left_low = jnp.where(short, at, b.low), jnp.where(short, now, b.left_low)
        high, left_high = jnp.where(short, b.high, at), jnp.where(short, b.left_high, now)
        done = ~between | (left_low <= tolerance)
        return _Bracket(
            jnp.where(between, low, b.low),
            jnp.where(between, left_low, b.left_low),
            jnp.where(between, high, b.high),
            jnp.where(between, left_high, b.left_high),
            done,
            b.marches + 1,
        )

    begin = start._replace(found=~start.found | (start.left_low <= tolerance))
    return lax.while_loop(unfinished, step, begin)
