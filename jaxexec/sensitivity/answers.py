"""What may be asked of a model: named answers as a function of its inputs.

An answer is any function from a pytree of inputs to a dictionary of arrays; an entry "status" is taken for what it is.
Those of this file are for orders. For others, an equilibrium say, write

    def price_impact(inputs):
        found = jx.kyle.solve(inputs["prior_variance"], inputs["noise_variance"], 10)
        return {"price_impact": found.price_impact, "status": found.status}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.frontier import efficient_frontier
from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.numerics.arrays import as_float
from jaxexec.pricing import block_price
from jaxexec.solvers import LadderNewton, solve
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.response import Move, response

Answers = Callable[[Any], Mapping[str, Array]]


def direct_slopes(of: Answers, inputs: Any, moves: Sequence[Move]) -> tuple[dict[str, Array], dict[str, Array]] | None:
    """Answers and their derivatives along moves where there is a way that shares the work of all moves; else None."""
    if not isinstance(of, OptimalCost | OptimalSchedule) or not isinstance(inputs, Liquidation):
        return None
    if not isinstance(of.solver, LadderNewton | None):
        return None
    schedule = solve(inputs, of.solver)
    slopes = response(inputs, schedule, moves)
    answers = of.of(schedule)
    return answers, {name: getattr(slopes, name) for name in answers if name != "status"}


class OptimalCost(eqx.Module):
    """Of an order: `objective` U = E + (γ/2) Var, `expected_cost` E and `variance` of its best schedule.

    The derivative of U needs no solve: at the optimum the schedule's own response does not move it (envelope theorem).

    Args:
        solver: the method; None means the default.
    """

    solver: ScheduleSolver | None = None

    def __call__(self, problem: Liquidation) -> dict[str, Array]:
        return self.of(solve(problem, self.solver))

    def of(self, schedule: Schedule) -> dict[str, Array]:
        """The answers of a schedule that is known."""
        s = schedule
        return {"objective": s.objective, "expected_cost": s.expected_cost, "variance": s.variance, "status": s.status}


class OptimalSchedule(eqx.Module):
    """Of an order: what `OptimalCost` answers, and the schedule, `trades` (steps,) and `inventory` (nodes,).

    Args:
        solver: the method; None means the default.
    """

    solver: ScheduleSolver | None = None

    def __call__(self, problem: Liquidation) -> dict[str, Array]:
        return self.of(solve(problem, self.solver))

    def of(self, schedule: Schedule) -> dict[str, Array]:
        """The answers of a schedule that is known."""
        return OptimalCost().of(schedule) | {"trades": schedule.trades, "inventory": schedule.inventory}


class FrontierPoints(eqx.Module):
    """Of an order: the efficient frontier, `expected_cost` and `variance`, (points,) each.

    Args:
        risk_aversions: (points,) γ ≥ 0; the order's own is ignored.
    """

    risk_aversions: Float[Array, " points"]

    def __init__(self, risk_aversions: ArrayLike):
        self.risk_aversions = as_float("risk_aversions", risk_aversions)

    def __call__(self, problem: Liquidation) -> dict[str, Array]:
        f = efficient_frontier(problem, self.risk_aversions)
        return {"expected_cost": f.expected_cost, "variance": f.variance, "status": jnp.max(f.status)}


class BlockPremium(eqx.Module):
    """Of a block without a deadline: `premium`, `discount` and `marginal` of `block_price`.

    The inputs are a dictionary of its arguments: shares, cost, volatility, volume, risk_aversion and perhaps
    permanent_impact.
    """

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        price = block_price(**inputs)
        return {
            "premium": price.premium,
            "discount": price.discount,
            "marginal": price.marginal,
            "status": price.status,
        }
