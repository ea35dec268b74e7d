"""The price of an order with a deadline, and of the promise to trade at a benchmark's price.

Who takes over an order of x_0 − x_N shares and is indifferent asks for its least objective: execution cost, and risk
at the risk aversion γ. What permanent impact takes, ½κ(x_0² − x_N²), is no merit of the schedule and stands apart:

    premium = U* − ½κ(x_0² − x_N²)

Against a benchmark the same holds with the tracking error for the inventory: the premium is then what guaranteeing
the benchmark's price is worth (Guéant 2016).
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.basket import Basket, BasketSchedule, permanent_matrix
from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.numerics.arrays import as_float
from jaxexec.numerics.status import Status
from jaxexec.solvers import BlockLadderNewton, solve
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.program import node_terms
from jaxexec.solvers.verdict import harmless_where


class LiquidationPremium(eqx.Module):
    """What taking over an order is worth.

    Attributes:
        premium: what execution and risk take, currency.
        discount: what the order sells for below x_0 − x_N shares at the price of the start, currency: premium +
            ½κ(x_0² − x_N²).
        marginal: ∂premium/∂x_0, currency per share, of a basket (assets,): what one share more would take. Negative
            for a purchase. Minus the costate at the start, the risk of the first half step added; target and
            benchmark stay as they are. With `Collocation` to first order in the step.
        schedule: the schedule behind the price.
        status: a `Status`, int32.
    """

    premium: Float[Array, ""]
    discount: Float[Array, ""]
    marginal: Float[Array, "*assets"]
    schedule: Schedule | BasketSchedule
    status: Int[Array, ""]

    def summary(self) -> str:
        """The price, and the schedule behind it, as text."""
        head = (
            f"{Status(int(self.status)).name}: premium {float(self.premium):,.6g}, discount {float(self.discount):,.6g}"
        )
        return f"{head}\n{self.schedule.summary()}"


def liquidation_premium(
    problem: Liquidation | Basket, solver: ScheduleSolver | BlockLadderNewton | None = None
) -> LiquidationPremium:
    """The price of an order with a deadline, for any cost, curves, benchmark and end. Traced and differentiable.

    Without a deadline it is that of `block_price`, a lower bound for every deadline in a market of constant curves.

    Args:
        problem: the order or basket.
        solver: the method; None means the default.

    Source: Guéant, The Financial Mathematics of Market Liquidity (2016).
    """
    schedule = solve(problem, solver)  # pyright: ignore[reportCallIssue, reportArgumentType]
    failed = schedule.status > Status.LOCAL
    # Where the order failed its numbers are not touched, so that a loss that masks it has a gradient.
    sound = harmless_where(failed, problem)
    permanent, held = _basket_terms(sound) if isinstance(sound, Basket) else _order_terms(sound)
    return LiquidationPremium(
        premium=schedule.objective - permanent,
        discount=schedule.objective,
        marginal=held - schedule.costate[0],
        schedule=schedule,
        status=schedule.status,
    )


def target_close(problem: Liquidation) -> Liquidation:
    """The order measured against the price at the end of its grid, the close: its benchmark holds all shares till then.

    The risk is that of what has been sold before the close, so that trades come late: with constant curves the schedule
    is that of the same order against the price at the start, run backwards. The close is taken as it would be without
    the order.
    """
    held = jnp.broadcast_to(problem.shares, problem.grid.times.shape)
    return _measured_against(problem, held)


def against(problem: Liquidation, schedule: Schedule | ArrayLike) -> Liquidation:
    """The order measured against the average price of another schedule of it, such as `twap(problem)` or a broker's.

    The benchmark's prices are those without the order.

    Args:
        problem: the order.
        schedule: a `Schedule`, its trades (steps,), or its inventories (nodes,).

    Raises:
        ValueError: `schedule` has neither of the two shapes.
    """
    given = schedule.inventory if isinstance(schedule, Schedule) else schedule
    path, steps = as_float("schedule", given).astype(problem.shares.dtype), problem.grid.steps
    if path.shape == (steps,):
        path = problem.shares - jnp.concatenate([jnp.zeros_like(path[:1]), jnp.cumsum(path)])
    if path.shape != (steps + 1,):
        raise ValueError(f"schedule must have shape ({steps},) or ({steps + 1},), trades or inventories: {path.shape}")
    return _measured_against(problem, path)


def _measured_against(problem: Liquidation, benchmark: Array) -> Liquidation:
    return eqx.tree_at(lambda p: p.benchmark, problem, benchmark, is_leaf=lambda x: x is None)


def _order_terms(problem: Liquidation) -> tuple[Array, Array]:
    """½κ(x_0² − x_N²), and what holding x_0 at the very start adds to the marginal premium."""
    weight, drift = node_terms(problem)
    start = problem.shares if problem.benchmark is None else problem.shares - problem.benchmark[0]
    permanent = problem.market.permanent_impact / 2 * (problem.shares**2 - problem.target**2)
    return permanent, weight[0] * start - drift[0]


def _basket_terms(basket: Basket) -> tuple[Array, Array]:
    """The same for a basket, with Γ for κ."""
    matrix, first, last = permanent_matrix(basket), basket.shares, basket.target
    permanent = (first @ matrix @ first - last @ matrix @ last) / 2
    if basket.convention != "continuous":
        return permanent, jnp.zeros_like(first)
    covariance = basket.daily_covariance
    begin = covariance[0] if covariance.ndim == 3 else covariance
    risk = basket.risk_aversion * basket.step_length[0] / 2 * (begin @ first)
    return permanent, risk - basket.step_drift[0] / 2
