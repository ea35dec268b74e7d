"""What any schedule leaves on the table, bounded from the dual.

For every y that satisfies the rails with inventories q̂, and every schedule (q, ρ) of the order,

    U(q) − U* ≤ U(q) − dual(y) = Σ b [L(ρ) + H(y) − ρy] + ½ Σ w (q − q̂)²,

a sum of terms that are never negative, so that it does not cancel. At the optimal y the two sides agree.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation, Schedule, as_trades, execution_cost, objective, settlement_cost, variance
from jaxexec.numerics.status import Status, poison
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.program import build, certificate_of
from jaxexec.solvers.solve import solve
from jaxexec.solvers.verdict import harmless_where


class Bound(eqx.Module):
    """How much a schedule costs above the cheapest one.

    Attributes:
        objective: U of the schedule, currency.
        lower_bound: no schedule of this order costs less, currency.
        excess: objective − lower_bound, currency: the most that is left on the table. Infinite where the schedule
            breaks a cap or trades without volume.
        relative_excess: the excess over execution cost + (γ/2) variance of the schedule.
        status: that of the optimal schedule; INFEASIBLE where the trades do not complete the order.
    """

    objective: Float[Array, ""]
    lower_bound: Float[Array, ""]
    excess: Float[Array, ""]
    relative_excess: Float[Array, ""]
    status: Int[Array, ""]


def certify(problem: Liquidation, trades: ArrayLike, solver: ScheduleSolver | None = None) -> Bound:
    """Bound from below what any schedule of the order costs, and so what `trades` leave on the table.

    Works for a broker's VWAP, the path of a policy or the fills of a day; traced, and differentiable in the trades
    and in the problem.

    Args:
        problem: the order.
        trades: (steps,) shares sold in each step; a purchase is negative. They must complete the order (to 1e-6 of it
            in float64, 1e-3 in float32), unless it has a terminal penalty; the last little is taken as rounding.
        solver: an N-step method that finds the dual point; None means `LadderNewton()`.

    Raises:
        ValueError: `trades` does not have shape (steps,).

    Source: weak duality, e.g. Boyd and Vandenberghe, Convex Optimization (2004), ch. 5.
    """
    array = as_trades(problem, trades)
    return _certify(problem, array, solver)


@eqx.filter_jit
def _certify(problem: Liquidation, trades: Array, solver: ScheduleSolver | None) -> Bound:
    return bound_by(problem, trades, solve(problem, solver))


def bound_by(problem: Liquidation, trades: Float[Array, " steps"], best: Schedule) -> Bound:
    """The bound that an optimal schedule of the order gives, by its costates."""
    # Where there is none the numbers below mean nothing, and are finite: so are gradients that mask them.
    lost = best.status > Status.LOCAL
    problem = harmless_where(lost, problem)
    best = jax.tree.map(lambda x: x if x is best.status else jnp.where(lost, jnp.zeros_like(x), x), best)
    trades = jnp.where(lost, 0, trades)
    program = build(problem)
    sold = jnp.cumsum(trades)
    soft = problem.terminal_penalty is not None
    inventory = problem.shares - (sold if soft else sold[:-1])
    marginal = -best.costate - program.shift
    if problem.terminal_penalty is not None:
        # The settlement's own marginal cost closes the rails.
        marginal = jnp.append(marginal, problem.terminal_penalty * (best.inventory[-1] - problem.target))
    cost = objective(problem, trades)
    size = execution_cost(problem, trades) + problem.risk_aversion / 2 * variance(problem, trades)
    size = size + settlement_cost(problem, problem.shares - jnp.append(jnp.zeros_like(sold[:1]), sold))
    on_rails = best.inventory[1:] if soft else best.inventory[1:-1]
    proof = certificate_of(program, inventory, marginal, size, on_rails)
    slack = 1e-6 if trades.dtype == jnp.float64 else 1e-3
    missing = jnp.abs(sold[-1] - (problem.shares - problem.target))
    incomplete = (missing > slack * jnp.sum(jnp.abs(trades))) & (not soft)
    status = jnp.where(incomplete & (best.status <= Status.LOCAL), Status.INFEASIBLE, best.status)
    failed = status > Status.LOCAL

    def safe(x: Array) -> Array:
        return poison(jnp.where(failed, 0, x), failed)

    gap = proof.duality_gap
    return Bound(safe(cost), safe(cost - gap), safe(gap), safe(proof.relative_gap), status.astype(jnp.int32))
