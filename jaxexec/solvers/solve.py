"""`solve`: one problem in, one certified schedule out. Failure tiers and derivatives are joined here."""

import functools
from typing import Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from jaxexec.basket import Basket, BasketSchedule
from jaxexec.costs import CustomCost
from jaxexec.liquidation import Liquidation, Schedule, discrete_cost
from jaxexec.numerics.arrays import as_float
from jaxexec.numerics.status import Flag, Status, poison, taint
from jaxexec.solvers.basket import solve_basket
from jaxexec.solvers.block_ladder import BlockLadderNewton
from jaxexec.solvers.ladder_newton import LadderNewton
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.verdict import comparable, harmless_where, raise_on_failure, verdict


@overload
def solve(
    problem: Liquidation,
    solver: ScheduleSolver | None = None,
    *,
    guess: Schedule | ArrayLike | None = None,
    throw: bool = False,
    on_failure: Literal["nan", "best"] = "nan",
) -> Schedule: ...
@overload
def solve(
    problem: Basket,
    solver: BlockLadderNewton | None = None,
    *,
    throw: bool = False,
    on_failure: Literal["nan", "best"] = "nan",
) -> BasketSchedule: ...
def solve(
    problem: Liquidation | Basket,
    solver: ScheduleSolver | BlockLadderNewton | None = None,
    *,
    guess: Schedule | ArrayLike | None = None,
    throw: bool = False,
    on_failure: Literal["nan", "best"] = "nan",
) -> Schedule | BasketSchedule:
    """The schedule of least E + (γ/2) Var, with a proof of how close to least it is.

    Works under `jit`, `vmap`, `grad`, `jacfwd` and `jacrev`, and keeps the dtype of the problem. Derivatives are those
    of the optimality conditions (implicit function theorem), one-sided at kinks; the objective's derivative needs no
    solve (envelope theorem).

    Args:
        problem: the order, its market, cost and risk aversion; or a `Basket` of orders.
        solver: the method; None means `LadderNewton()`, for a basket `BlockLadderNewton()`.
        guess: a schedule that is thought to be near, or its (steps,) costates, to start from; it changes how many
            iterations are needed, never what is found. One that is not finite is left aside, with the flag
            GUESS_IGNORED. The shooting methods do without.
        throw: raise on failure instead of returning a status. Concrete problems only.
        on_failure: "nan", or "best" for the best iterate where the solver did not converge; the status stays. Problems
            that were refused (not finite, not convex, infeasible) have no iterate and are NaN in either case.

    Returns:
        The schedule (of a basket a `BasketSchedule`). Where `status` is not usable (see `Status`) its values are NaN.

    Raises:
        ValueError: `throw` with a traced problem, a problem that is not a `Liquidation`, another `on_failure`, or a
            guess of another shape.
        RuntimeError: `throw` and a failed status; the message names cause and remedy.

    Source: Guéant, The Financial Mathematics of Market Liquidity (2016), ch. 3, for the system; the certificate is its
    convex dual.
    """
    if isinstance(problem, Basket):
        return _solve_basket(problem, solver, guess, throw, on_failure)
    if not isinstance(problem, Liquidation):
        raise ValueError(f"problem must be a jaxexec.Liquidation or Basket, got {type(problem).__name__}")
    if not isinstance(solver, ScheduleSolver | None):
        raise ValueError(f"solver must be a method for one order, such as LadderNewton(), got {type(solver).__name__}")
    if on_failure not in ("nan", "best"):
        raise ValueError(f"on_failure must be 'nan' or 'best', got {on_failure!r}")
    method = LadderNewton() if solver is None else solver
    method.check(problem)
    schedule = _solve(problem, _as_guess(problem, guess), method, on_failure == "best")
    if throw:
        raise_on_failure(schedule)
    return schedule


def _solve_basket(basket: Basket, solver, guess, throw: bool, on_failure) -> BasketSchedule:
    if guess is not None:
        raise ValueError("guess is for a single order: a basket's solver starts by itself")
    if not isinstance(solver, BlockLadderNewton | None):
        raise ValueError(f"the solver of a basket must be a BlockLadderNewton, got {type(solver).__name__}")
    return solve_basket(basket, solver, throw=throw, on_failure=on_failure)


def _as_guess(problem: Liquidation, guess: Schedule | ArrayLike | None) -> ArrayLike:
    """Costates to start from; infinite for none, so that with and without a guess one programme is compiled."""
    steps, dtype = problem.grid.steps, np.dtype(problem.shares.dtype)
    if guess is None:
        return _no_guess(steps, dtype)
    costate = guess.costate if isinstance(guess, Schedule) else as_float("guess", guess)
    if costate.shape != (steps,):
        raise ValueError(f"guess must have shape ({steps},), one costate a step, got {costate.shape}")
    return costate.astype(dtype)


@functools.cache
def _no_guess(steps: int, dtype: np.dtype) -> np.ndarray:
    return np.full(steps, np.inf, dtype)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _solve(problem: Liquidation, guess: Array, solver: ScheduleSolver, keep_best: bool) -> Schedule:
    # Inputs that are constants of a caller's programme send XLA's simplifier round in circles, with a warning.
    problem, guess = lax.optimization_barrier((problem, guess))
    refusal = _refusal(problem)
    refused = refusal != Status.OK
    inputs, problem = problem, harmless_where(refused, problem)
    plan = solver.plan(problem, guess)
    status = jnp.where(refused, refusal, verdict(plan.proof, plan.finite))
    status = jnp.where(_is_convex_where_used(problem, plan.trades), status, Status.NONCONVEX)
    failed = (refused | ~plan.finite) if keep_best else status > Status.LOCAL
    ignored = ~jnp.all(jnp.isfinite(guess)) & ~jnp.all(guess == jnp.inf)
    single = problem.shares.dtype == jnp.float32
    everywhere = taint(inputs, failed)

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return Schedule(
        times=spoilt(problem.grid.times),
        inventory=spoilt(plan.inventory),
        trades=spoilt(plan.trades),
        costate=spoilt(plan.costate),
        expected_cost=spoilt(plan.expected_cost),
        variance=spoilt(plan.variance),
        objective=spoilt(plan.objective),
        duality_gap=comparable(plan.proof.duality_gap),
        relative_gap=comparable(plan.proof.relative_gap),
        residual=comparable(plan.proof.residual),
        status=status.astype(jnp.int32),
        flags=(jnp.where(ignored, Flag.GUESS_IGNORED, 0) + (Flag.FLOAT32 if single else 0)).astype(jnp.int32),
        iterations=plan.iterations,
    )


def _refusal(problem: Liquidation) -> Array:
    """The status of a problem that cannot be solved, found from its inputs alone."""
    finite = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(problem)])
    market = problem.market
    ordered = jnp.all(problem.grid.durations > 0)
    nonnegative = (market.volume, market.volatility, market.gap_variance, market.permanent_impact)
    signs = functools.reduce(jnp.logical_and, [jnp.all(curve >= 0) for curve in nonnegative])
    convex = discrete_cost(problem)[1] & (problem.risk_aversion >= 0)
    reachable = _is_reachable(problem)
    refusal = jnp.where(reachable, Status.OK, Status.INFEASIBLE)
    refusal = jnp.where(convex, refusal, Status.NONCONVEX)
    return jnp.where(finite & ordered & signs, refusal, Status.NONFINITE_INPUT)


def _is_convex_where_used(problem: Liquidation, trades: Array) -> Bool[Array, ""]:
    """Whether samples of a user's own cost show it convex as far as the schedule goes; known costs need no look."""
    parts = jax.tree.leaves(problem.cost, is_leaf=lambda part: isinstance(part, CustomCost))
    if not any(isinstance(part, CustomCost) for part in parts):
        return jnp.asarray(True)
    volume = lax.stop_gradient(jnp.broadcast_to(problem.market.step_volume, trades.shape))
    open_ = volume > 0
    rates = jnp.where(open_, lax.stop_gradient(trades) / jnp.where(open_, volume, 1), 0)
    return jnp.all(problem.cost.is_convex(jnp.max(jnp.abs(rates))))


def _is_reachable(problem: Liquidation) -> Bool[Array, ""]:
    """Whether the caps and the volume allow the order at all: Σ b ρ_min ≤ x_0 − x_N ≤ Σ b ρ_max."""
    if problem.terminal_penalty is not None:
        return jnp.asarray(True)
    volume = jnp.broadcast_to(problem.market.step_volume, (problem.grid.steps,))
    open_ = volume > 0
    low, high = (jnp.sum(jnp.where(open_, volume * bound, 0)) for bound in problem.cost.bounds())
    span = problem.shares - problem.target
    slack = 8 * jnp.finfo(span.dtype).eps * jnp.abs(span)
    return (span == 0) | ((low - slack <= span) & (span <= high + slack) & jnp.any(open_))
