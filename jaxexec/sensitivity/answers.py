"""What may be asked of a model: named answers as a function of its inputs.

An answer is any function from a pytree of inputs to a dictionary of arrays; an entry "status" is taken for what it is.
Those of this file are for orders, for blocks without a deadline and for the equilibrium of informed trading.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec import kyle
from jaxexec.frontier import efficient_frontier
from jaxexec.kyle.recursion import Preference
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


class InformedTrading(eqx.Module):
    """Of Kyle's equilibrium: prices, trading and learning period by period, and what they come to.

    The inputs are a dictionary of the arguments of `jaxexec.kyle.solve` that are numbers: prior_variance,
    noise_variance and perhaps risk_aversion, market_maker_risk_aversion and insiders (taken as a real number).

    Period by period, (periods,): `price_impact` λ_t, `intensity` β_t, `posterior_variance` Σ_t (the learning path),
    and `transitory_impact` δ_t. Numbers: `expected_profit` of each insider, `market_maker_profit`, the insider's
    ex-ante `value`, `mean_price_impact` and `unlearned` Σ_T/Σ_0, what the market never finds out.

    Args:
        periods: T ≥ 1.
        preference: the insiders', "local" or "cara".
    """

    periods: int = eqx.field(static=True)
    preference: Preference = eqx.field(static=True, default="local")

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        found = kyle.solve(**inputs, periods=self.periods, preference=self.preference)
        return {
            "expected_profit": found.expected_profit,
            "market_maker_profit": found.market_maker_profit,
            "value": found.value,
            "mean_price_impact": jnp.mean(found.price_impact),
            "unlearned": found.posterior_variance[-1] / found.prior_variance,
            "price_impact": found.price_impact,
            "intensity": found.intensity,
            "posterior_variance": found.posterior_variance,
            "transitory_impact": found.transitory_impact,
            "status": found.status,
        }
