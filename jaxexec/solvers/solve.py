"""`solve`: one problem in, one certified schedule out. Failure tiers and derivatives are joined here."""

import functools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxexec.liquidation import Liquidation, Schedule, discrete_cost
from jaxexec.numerics.arrays import is_concrete
from jaxexec.numerics.status import Flag, Status, poison, replace_where
from jaxexec.solvers.ladder_newton import LadderNewton
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.program import Certificate

# Largest relative duality gap that is called OK, and the one that is still called OK_INACCURATE.
_GAP_OK = {"float64": 1e-8, "float32": 1e-5}
_GAP_INACCURATE = {"float64": 1e-5, "float32": 1e-3}


def solve(
    problem: Liquidation,
    solver: ScheduleSolver | None = None,
    *,
    throw: bool = False,
    on_failure: Literal["nan", "best"] = "nan",
) -> Schedule:
    """The schedule of least E + (γ/2) Var, with a proof of how close to least it is.

    Works under `jit`, `vmap`, `grad`, `jacfwd` and `jacrev`, and keeps the dtype of the problem. Derivatives are those
    of the optimality conditions (implicit function theorem), one-sided at kinks; the objective's derivative needs no
    solve (envelope theorem).

    Args:
        problem: the order, its market, cost and risk aversion.
        solver: the method; None means `LadderNewton()`.
        throw: raise on failure instead of returning a status. Concrete problems only.
        on_failure: "nan", or "best" for the best iterate where the solver did not converge; the status stays. Problems
            that were refused (not finite, not convex, infeasible) have no iterate and are NaN in either case.

    Returns:
        The schedule. Where `status` is not usable (see `Status`) its values are NaN.

    Raises:
        ValueError: `throw` with a traced problem, a problem that is not a `Liquidation`, or another `on_failure`.
        RuntimeError: `throw` and a failed status; the message names cause and remedy.

    Source: Guéant, The Financial Mathematics of Market Liquidity (2016), ch. 3, for the system; the certificate is its
    convex dual.
    """
    if not isinstance(problem, Liquidation):
        raise ValueError(f"problem must be a jaxexec.Liquidation, got {type(problem).__name__}")
    if on_failure not in ("nan", "best"):
        raise ValueError(f"on_failure must be 'nan' or 'best', got {on_failure!r}")
    schedule = _solve(problem, LadderNewton() if solver is None else solver, on_failure == "best")
    if throw:
        _raise_on_failure(schedule)
    return schedule


@functools.partial(jax.jit, static_argnums=(1, 2))
def _solve(problem: Liquidation, solver: ScheduleSolver, keep_best: bool) -> Schedule:
    refusal = _refusal(problem)
    refused = refusal != Status.OK
    problem = _harmless_where(refused, problem)
    plan = solver.plan(problem)
    status = jnp.where(refused, refusal, _verdict(plan.proof, plan.finite))
    failed = (refused | ~plan.finite) if keep_best else status > Status.LOCAL
    single = problem.shares.dtype == jnp.float32
    return Schedule(
        times=poison(problem.grid.times, failed),
        inventory=poison(plan.inventory, failed),
        trades=poison(plan.trades, failed),
        costate=poison(plan.costate, failed),
        expected_cost=poison(plan.expected_cost, failed),
        variance=poison(plan.variance, failed),
        objective=poison(plan.objective, failed),
        duality_gap=plan.proof.duality_gap,
        relative_gap=plan.proof.relative_gap,
        residual=plan.proof.residual,
        status=status.astype(jnp.int32),
        flags=jnp.asarray(Flag.FLOAT32 if single else Flag.NONE, jnp.int32),
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
    reachable = (jnp.sum(jnp.broadcast_to(market.step_volume, (problem.grid.steps,))) > 0) | (
        problem.shares == problem.target
    )
    refusal = jnp.where(reachable, Status.OK, Status.INFEASIBLE)
    refusal = jnp.where(convex, refusal, Status.NONCONVEX)
    return jnp.where(finite & ordered & signs, refusal, Status.NONFINITE_INPUT)


def _harmless_where(refused: Bool[Array, ""], problem: Liquidation) -> Liquidation:
    """A problem of the same shapes that any solver can solve, in the lanes that were refused."""
    nodes = problem.grid.times.shape[0]
    market = problem.market
    safe = jax.tree.map(jnp.ones_like, problem)
    zero_fields = (
        market.permanent_impact,
        market.drift,
        market.gap_variance,
        problem.target,
        problem.risk_aversion,
    )
    zeros = iter([jnp.zeros_like(f) for f in zero_fields])
    safe = _replace_fields(safe, jnp.arange(nodes, dtype=problem.grid.times.dtype), zeros)
    return jax.tree.map(lambda x, s: replace_where(jnp.broadcast_to(refused, x.shape), x, s), problem, safe)


def _replace_fields(safe: Liquidation, times: Array, zeros) -> Liquidation:
    def fields(p: Liquidation):
        m = p.market
        return [m.permanent_impact, m.drift, m.gap_variance, p.target, p.risk_aversion, m.grid.times]

    return eqx.tree_at(fields, safe, [*zeros, times])


def _verdict(proof: Certificate, finite: Array) -> Array:
    dtype = str(proof.relative_gap.dtype)
    gap = proof.relative_gap
    status = jnp.where(gap <= _GAP_INACCURATE.get(dtype, 1e-3), Status.OK_INACCURATE, Status.MAX_STEPS)
    status = jnp.where(gap <= _GAP_OK.get(dtype, 1e-5), Status.OK, status)
    return jnp.where(finite & jnp.isfinite(gap), status, Status.NONFINITE_INTERNAL)


def _raise_on_failure(schedule: Schedule) -> None:
    if not is_concrete(schedule.status):
        raise ValueError("throw=True needs concrete values: read `status` inside jit, vmap or grad instead")
    for index, code in np.ndenumerate(np.asarray(schedule.status)):
        status = Status(int(code))
        if status > Status.LOCAL:
            where = f" (problem {index})" if index else ""
            raise RuntimeError(f"solve ended with {status.name}{where}. {status.remedy}")
