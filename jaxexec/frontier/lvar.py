"""The point of the frontier that a quantile of the cost asks for: least E + m √Var (Almgren and Chriss 2000, § 5).

E + m √Var is convex in the schedule. Where it is least and Var > 0, E + (γ/2) Var is least too, with γ = m/√Var, so
the optimum is on the frontier, at the root of

    γ √Var(γ) = m,       with      0 ≤ d log(γ √Var)/d log γ ≤ 1

since Var falls as γ grows and the root, one for each m, grows with it. From a trial γ the root is therefore at least
|log(γ √Var/m)| away in log γ: both ends of a bracket move by that much without an evaluation.

γ √Var may stay below m: with so much weight on risk the order bears none at all. The schedule is then the limit γ = ∞.

Certificate. A pair (x, y) on the rails of γ with γ √Var ≤ m is dual feasible here too, and costs at most

    duality gap of the schedule + √Var (m − γ √Var)

more than the optimum; the second term is zero at the root, and below rounding in the limit.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.basket import Basket, BasketSchedule, basket_execution_cost
from jaxexec.frontier.efficient import with_risk_aversion
from jaxexec.liquidation import Liquidation, Schedule, execution_cost, settlement_cost
from jaxexec.numerics.arrays import as_float, check
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.solvers import BlockLadderNewton, LadderNewton, solve
from jaxexec.solvers.program import Certificate
from jaxexec.solvers.verdict import comparable, verdict

_MOST_SOLVES = 100
_LONGEST_STEP = 3.0  # in log γ, while no upper end of the bracket is known


class LvarOptimum(eqx.Module):
    """The schedule of least E + m √Var.

    Attributes:
        risk_aversion: γ = m/√Var, per currency, of the point of the frontier that this is; infinite where the best
            schedule bears no risk.
        deviation_weight: m.
        expected_cost: E, currency.
        variance: Var, currency².
        value: E + m √Var, currency: with m a normal quantile, the cost that is exceeded with the probability left.
        duality_gap: upper bound of what the schedule costs above the optimum, currency.
        relative_gap: the gap over execution cost + m √Var.
        schedule: the schedule, with its status and certificate as a point of the frontier. Where `risk_aversion` is
            infinite, it is that of a γ at which no risk is left that can be told from rounding.
        status: a `Status`, int32.
    """

    risk_aversion: Float[Array, ""]
    deviation_weight: Float[Array, ""]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    value: Float[Array, ""]
    duality_gap: Float[Array, ""]
    relative_gap: Float[Array, ""]
    schedule: Schedule | BasketSchedule
    status: Int[Array, ""]

    def summary(self) -> str:
        """What it costs, and the schedule, as text."""
        deviation = float(np.sqrt(np.asarray(self.variance)))
        head = (
            f"{Status(int(self.status)).name}: E + {float(self.deviation_weight):.4g} sd = {float(self.value):,.6g}, "
            f"with E = {float(self.expected_cost):,.6g}, sd = {deviation:,.6g}, "
            f"risk aversion {float(self.risk_aversion):.4g}"
        )
        return f"{head}\n{self.schedule.summary()}"


def lvar_optimum(
    problem: Liquidation | Basket,
    deviation_weight: ArrayLike | None = None,
    *,
    confidence: ArrayLike | None = None,
    solver: LadderNewton | BlockLadderNewton | None = None,
) -> LvarOptimum:
    """The schedule of least liquidity-adjusted value at risk, E + m √Var. Traced.

    Derivatives are exact to every order that the solver's are: the value's by the envelope theorem, those of γ and of
    the schedule by the implicit function theorem.

    Args:
        problem: the order or basket; its own risk aversion is ignored.
        deviation_weight: m ≥ 0, a number. Typically 1 to 2.5. At 0 the schedule is that of γ = 0.
        confidence: in place of m, the probability p with which the cost stays below the value: m = Φ⁻¹(p), so
            ½ ≤ p < 1. Costs are normal in this model.
        solver: the method; None means the default.

    Raises:
        ValueError: neither or both of `deviation_weight` and `confidence` are given, or the one that is is not a
            scalar, or concrete and out of its range.

    Source: Almgren and Chriss, Optimal execution of portfolio transactions, J. Risk 3 (2000), § 5 (value at risk).
    """
    if (deviation_weight is None) == (confidence is None):
        raise ValueError("give one of deviation_weight and confidence")
    name, given = ("deviation_weight", deviation_weight) if confidence is None else ("confidence", confidence)
    number = as_float(name, given)  # pyright: ignore[reportArgumentType]
    if number.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {number.shape}; use jax.vmap for many")
    if confidence is None:
        check(name, number, lambda v: np.isfinite(v) & (v >= 0), "finite and at least 0")
    else:
        check(name, number, lambda v: (v >= 0.5) & (v < 1), "at least 0.5 and below 1")
        number = ndtri(number)
    return _optimum(problem, number.astype(problem.shares.dtype), solver)


@functools.partial(jax.jit, static_argnums=2)
def _optimum(problem: Any, weight: Array, solver: Any) -> LvarOptimum:
    refused = ~(jnp.isfinite(weight) & (weight >= 0))
    harmless = replace_where(refused, weight, jnp.ones_like(weight))
    root = _root(problem, harmless, solver)
    risky = root.deviation > 0
    deviation = jnp.where(risky, root.deviation, 1)
    gamma = jnp.where(risky, harmless / deviation, root.limit)
    schedule = solve(with_risk_aversion(problem, replace_where(refused, gamma, jnp.full_like(gamma, jnp.nan))), solver)
    failed = schedule.status > Status.LOCAL
    spread = _square_root(schedule.variance)
    # U(γ) + m²/2γ is least over γ at the root, where it is E + m √Var: its derivative needs none of γ's.
    best = schedule.objective + jnp.where(risky, harmless * deviation / 2, 0)
    # In the limit E + γ Var is the dual value, and off by the square of the risk that is left.
    priced = schedule.expected_cost + jnp.where(risky, harmless, gamma * spread) * spread
    value = best + lax.stop_gradient(priced - best)
    proof = _proof(problem, schedule, harmless, gamma)
    status = jnp.maximum(schedule.status, jnp.where(failed, Status.OK, verdict(proof, ~failed)))
    failed = status > Status.LOCAL
    unbounded = ~risky & (harmless > 0)
    everywhere = taint((problem, weight), failed)

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return LvarOptimum(
        risk_aversion=spoilt(jnp.where(unbounded & ~failed, jnp.inf, gamma)),
        deviation_weight=spoilt(harmless),
        expected_cost=spoilt(schedule.expected_cost),
        variance=spoilt(schedule.variance),
        value=spoilt(value),
        duality_gap=proof.duality_gap,
        relative_gap=proof.relative_gap,
        schedule=schedule,
        status=status.astype(jnp.int32),
    )


def _proof(problem: Any, schedule: Any, weight: Array, gamma: Array) -> Certificate:
    """The bound of the head of this file, divided by execution cost + m √Var."""
    schedule, weight, gamma = lax.stop_gradient((schedule, weight, gamma))
    spread = _square_root(schedule.variance)
    usable = schedule.status <= Status.LOCAL
    gap = schedule.duality_gap + jnp.where(usable, jnp.abs(weight - gamma * spread) * spread, 0)
    size = _traded(lax.stop_gradient(problem), schedule) + weight * spread
    relative = jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), 0)
    return Certificate(comparable(gap), comparable(relative), schedule.residual)


class _Root(NamedTuple):
    """√Var at the optimum, and zero where that is rounding: γ is then as far as the search went."""

    deviation: Float[Array, ""]
    limit: Float[Array, ""]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _root(problem: Any, weight: Array, solver: Any) -> _Root:
    """The root r of r = √Var(m/r), which has a derivative at m = 0 too."""
    return _search(problem, weight, solver)


@_root.defjvp
def _root_jvp(solver, primals, tangents):
    problem, weight = primals
    root = _root(problem, weight, solver)
    risky = root.deviation > 0
    inside = jnp.where(risky, root.deviation, 1)

    def deviation(problem: Any, weight: Array, r: Array) -> Array:
        return _deviation(problem, weight / r, solver)

    _, change = jax.linearize(deviation, problem, weight, inside)
    still = jax.tree.map(jnp.zeros_like, (problem, weight))
    slack = 1 - change(*still, jnp.ones_like(inside))  # d log(γ √Var)/d log γ
    moved = change(*tangents, jnp.zeros_like(inside))
    steady = risky & (slack > 0)
    moved = jnp.where(steady, moved / jnp.where(steady, slack, 1), 0)
    return root, _Root(moved, jnp.zeros_like(moved))


class _Bracket(NamedTuple):
    """Ends of a bracket in log γ; the point looked at next, f = log(γ √Var/m) at the one before, √Var at the last."""

    low: Float[Array, ""]
    high: Float[Array, ""]
    at: Float[Array, ""]
    before: Float[Array, ""]
    f_before: Float[Array, ""]
    most: Float[Array, ""]
    deviation: Float[Array, ""]
    usual: Int[Array, ""]
    riskless: Bool[Array, ""]
    done: Bool[Array, ""]
    solves: Int[Array, ""]


def _search(problem: Any, weight: Array, solver: Any) -> _Root:
    """Secants within the bracket, from γ = 0 upwards; halves where a secant does not shorten it."""
    problem, weight = lax.stop_gradient((problem, weight))
    eps = float(jnp.finfo(weight.dtype).eps)
    log_weight = jnp.log(jnp.where(weight > 0, weight, 1))

    def narrow(b: _Bracket) -> _Bracket:
        schedule = solve(with_risk_aversion(problem, jnp.exp(b.at)), solver)
        deviation = _square_root(schedule.variance)
        first = b.solves == 0
        most, usual = jnp.where(first, deviation, b.most), jnp.where(first, schedule.status, b.usual)
        small = deviation < 1e-3 * most
        nearer = log_weight - jnp.log(jnp.where(deviation > 0, deviation, 1))
        f = b.at - nearer
        # f rises by at most as much as log γ: its root is no nearer than `nearer`.
        low = jnp.where(f < 0, jnp.maximum(b.low, nearer), b.low)
        high = jnp.where(f > 0, jnp.minimum(b.high, nearer), b.high)
        known = jnp.isfinite(b.before)
        slope = jnp.where(known, (f - b.f_before) / jnp.where(known, b.at - b.before, 1), 1)
        step = jnp.clip(-f / jnp.clip(slope, 1e-3, 1), -_LONGEST_STEP, _LONGEST_STEP)
        width, closed = high - low, jnp.isfinite(high)
        slow = closed & (width > 0.5 * (b.high - b.low)) & (jnp.abs(f) > 0.5 * jnp.abs(b.f_before))
        after = jnp.where(slow, low + jnp.where(closed, width, 0) / 2, jnp.where(known, b.at + step, nearer))
        settled = (jnp.abs(f) <= eps**0.75) | (closed & (width <= 4 * eps * jnp.abs(low)))
        # No root: f does not rise any more, and what a schedule of so little risk costs above the optimum is rounding.
        flat = (f < 0) & (f - b.f_before <= -1e-3 * f) & (b.at - b.before >= 1)
        left = -jnp.expm1(f) * weight * deviation
        gone = small & flat & (left <= 0.01 * eps**0.5 * (_traded(problem, schedule) + weight * deviation))
        # Where so much urgency is too much for the solver, one step back: the certificate tells if that was enough.
        lost = (schedule.status > Status.LOCAL) | (small & (schedule.status > usual))
        riskless = lost | (~settled & (gone | ~(deviation > _rounding(problem, schedule.inventory))))
        done = settled | riskless | (weight == 0)
        last = jnp.where(lost & known, b.before, b.at)
        after = jnp.where(done, last, jnp.clip(after, low, high))
        return _Bracket(low, high, after, b.at, f, most, deviation, usual, riskless, done, b.solves + 1)

    least = jnp.full_like(weight, -jnp.inf)
    zero, no = jnp.zeros_like(weight), jnp.asarray(False)
    none = jnp.asarray(0, jnp.int32)
    begin = _Bracket(least, -least, least, least, least, zero, zero, none, no, no, none)
    end = lax.while_loop(lambda b: ~b.done & (b.solves < _MOST_SOLVES), narrow, begin)
    gamma = jnp.exp(end.at)
    # At m = 0 only γ = 0 was looked at.
    deviation = jnp.where(weight > 0, weight / jnp.where(gamma > 0, gamma, 1), end.deviation)
    return _Root(jnp.where(end.riskless, 0, deviation), gamma)


def _deviation(problem: Any, gamma: Array, solver: Any) -> Array:
    return _square_root(solve(with_risk_aversion(problem, gamma), solver).variance)


def _square_root(x: Array) -> Array:
    """√x, zero with a zero derivative where x is not positive."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _rounding(problem: Any, inventory: Array) -> Array:
    """√Var that rounding leaves to a schedule without risk, where inventories, or assets, are taken off each other."""
    eps = float(jnp.finfo(inventory.dtype).eps)
    if isinstance(problem, Basket):
        each = jnp.sqrt(jnp.abs(jnp.diagonal(problem.daily_covariance, axis1=-2, axis2=-1)))
        held = jnp.sum(jnp.abs(inventory[1:]) * jnp.broadcast_to(each, inventory[1:].shape), 1)
        return jnp.sqrt(8 * inventory.shape[1] * eps * jnp.sum(problem.step_length * held**2))
    if problem.benchmark is None:
        return jnp.zeros_like(problem.shares)
    held = jnp.maximum(jnp.max(jnp.abs(inventory)), jnp.max(jnp.abs(problem.benchmark)))
    return eps**0.75 * held * jnp.sqrt(jnp.sum(jnp.broadcast_to(problem.market.step_variance, inventory[1:].shape)))


def _traded(problem: Any, schedule: Any) -> Array:
    """Execution cost, by which gaps are divided."""
    if isinstance(problem, Basket):
        return basket_execution_cost(problem, schedule.trades)
    return execution_cost(problem, schedule.trades) + settlement_cost(problem, schedule.inventory)
