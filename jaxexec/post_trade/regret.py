"""What an execution left on the table: how far it is from the best schedule of its shares, bounded on both sides."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation, as_trades
from jaxexec.solvers import solve
from jaxexec.solvers.bound import bound_by
from jaxexec.solvers.plan import ScheduleSolver


class Regret(eqx.Module):
    """By how much E + (γ/2) Var of an execution is above the least that the filled shares could have cost.

    Attributes:
        at_least: proved from below, by a schedule that is better, currency.
        at_most: proved from above, by duality, currency. Infinite where a cap was passed or a step without volume
            traded in.
        relative: at_most over execution cost + (γ/2) variance.
        objective: E + (γ/2) Var of the filled shares as they were traded, currency.
        best: E + (γ/2) Var of the schedule that was found for them, currency.
        status: that of the best schedule; NONFINITE_INPUT where a traced trade is not finite.
    """

    at_least: Float[Array, ""]
    at_most: Float[Array, ""]
    relative: Float[Array, ""]
    objective: Float[Array, ""]
    best: Float[Array, ""]
    status: Int[Array, ""]

    def in_bps(self, value: ArrayLike) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """`at_least` and `at_most` in basis points of a value in currency, such as a shortfall's `arrival_value`."""
        return 1e4 * self.at_least / value, 1e4 * self.at_most / value


def regret(problem: Liquidation, trades: ArrayLike, solver: ScheduleSolver | None = None) -> Regret:
    """How much an executed schedule cost above the best one, at least and at most. Traced and differentiable.

    The best is that of an order of the shares that were filled: what unfilled shares cost is opportunity, and nobody's
    schedule.

    Args:
        problem: the order as it was planned.
        trades: (steps,) shares filled in each step, as of `Fills.trades_on`; a purchase is negative.
        solver: an N-step method; None means `LadderNewton()`.

    Raises:
        ValueError: `trades` does not have shape (steps,).

    Source: weak duality, see `certify`.
    """
    return _regret(problem, as_trades(problem, trades), solver)


@functools.partial(jax.jit, static_argnums=2)
def _regret(problem: Liquidation, trades: Array, solver: ScheduleSolver | None) -> Regret:
    done = eqx.tree_at(lambda p: p.shares, problem, problem.target + jnp.sum(trades))
    best = solve(done, solver)
    bound = bound_by(done, trades, best)
    # `bound` measures from below the optimum, `best` lies above it; their difference is the gap of `best`.
    proved = jnp.where(bound.excess <= best.duality_gap, 0, bound.excess - best.duality_gap)
    return Regret(proved, bound.excess, bound.relative_excess, bound.objective, best.objective, bound.status)
