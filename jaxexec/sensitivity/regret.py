"""What a wrong forecast costs: the schedule of θ̂ against the best one, when θ is true.

    regret(θ̂, θ) = U(n(θ̂); θ) − U(n(θ); θ)  ≥ 0

It is summed from terms that are none of them negative (weak duality, see `certify`), so that a small regret keeps its
digits; it is zero with zero slope at θ̂ = θ, and of second order in θ̂ − θ.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.sensitivity.attribution import alike
from jaxexec.solvers import solve
from jaxexec.solvers.bound import bound_by
from jaxexec.solvers.plan import ScheduleSolver


class PlanningRegret(eqx.Module):
    """What planning with the wrong inputs costs, currency.

    Attributes:
        value: U(n(θ̂); θ) − U(n(θ); θ); infinite where the truth forbids the plan (a cap passed, no volume).
        relative: `value` over execution cost + (γ/2) variance of the plan.
        trades: (steps,) n(θ̂), the plan.
        best: U(n(θ); θ).
        status: a `Status`: the plan's where that failed, else that of the best schedule.
    """

    value: Float[Array, ""]
    relative: Float[Array, ""]
    trades: Float[Array, " steps"]
    best: Float[Array, ""]
    status: Int[Array, ""]


def planning_regret(planned: Liquidation, true: Liquidation, solver: ScheduleSolver | None = None) -> PlanningRegret:
    """Cost of planning with `planned` when `true` holds. Traced, and differentiable in both.

    Args:
        planned: the order with its inputs as they were thought to be, θ̂.
        true: the same order with its inputs as they are, θ.
        solver: an N-step method; None means the default.

    Raises:
        ValueError: the two orders differ in kind, shape, shares or target.
    """
    planned, true = alike(planned, true)
    return _planning_regret(planned, true, solver)


@functools.partial(jax.jit, static_argnums=2)
def _planning_regret(planned: Liquidation, true: Liquidation, solver) -> PlanningRegret:
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), planned, true)
    solved = jax.vmap(lambda p: solve(p, solver))(both)
    plan, best = (jax.tree.map(lambda x, i=i: x[i], solved) for i in (0, 1))
    unplanned = plan.status > Status.LOCAL
    bound = bound_by(true, jnp.where(unplanned, best.trades, plan.trades), best)
    status = jnp.where(plan.status > Status.LOCAL, plan.status, bound.status)
    failed = status > Status.LOCAL
    everywhere = taint((planned, true), failed)

    def safe(x: Array) -> Array:
        return poison(jnp.where(failed, 0, x) + everywhere, failed)

    return PlanningRegret(
        safe(bound.excess), safe(bound.relative_excess), plan.trades, best.objective, status.astype(jnp.int32)
    )
