"""A schedule as a layer: forecasts of the market in, the best schedule for them out, derivatives through both.

    trades = layer(shares, volatility, volume).trades
    loss = layer.realised(trades, shares, true_volatility, true_volume)

A model that ends in the layer can be trained on what its schedules cost in the market that came, rather than on how
far its forecasts were off: on decisions, not on predictions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.costs import ExecutionCost
from jaxexec.liquidation import Liquidation, Schedule, as_trades, objective
from jaxexec.market import Market, TimeGrid
from jaxexec.numerics.arrays import as_float, unify
from jaxexec.numerics.status import poison, replace_where
from jaxexec.solvers import solve
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.verdict import harmless_where

__all__ = ["ExecutionLayer", "export_scheduler", "load_scheduler"]

_SERVED = (
    "times",
    "inventory",
    "trades",
    "costate",
    "expected_cost",
    "variance",
    "objective",
    "relative_gap",
    "status",
)


class ExecutionLayer(eqx.Module):
    """The map from a forecast market to its best schedule, as an Equinox module.

    Works under `jit`, `vmap` (over stocks, days, orders), `grad` and `jax.checkpoint`. Its own numbers (η, φ, γ, …) are
    leaves like the weights of a network: an optimiser that is handed the layer trains them too, unless they are held
    back (`eqx.partition`, or `jax.lax.stop_gradient`).

    Args:
        grid: the times of the day or of the order.
        cost: the execution cost, its parameters scalars or (steps,).
        risk_aversion: γ ≥ 0, per currency.
        permanent_impact: κ ≥ 0, currency per share².
        solver: the method; None means the default.

    Raises:
        ValueError: a wrong type or shape, or a concrete value of the wrong sign; the field is named.
    """

    grid: TimeGrid
    cost: ExecutionCost
    risk_aversion: Float[Array, ""]
    permanent_impact: Float[Array, ""]
    solver: ScheduleSolver | None

    def __init__(
        self,
        grid: TimeGrid,
        cost: ExecutionCost,
        risk_aversion: ArrayLike,
        permanent_impact: ArrayLike = 0.0,
        solver: ScheduleSolver | None = None,
    ):
        # An order of the layer's parts refuses what cannot be part of one.
        example = Liquidation(1.0, Market(grid, 1.0, 1.0, permanent_impact), cost, risk_aversion)
        given = {"grid": grid, "cost": cost, "gamma": as_float("risk_aversion", risk_aversion)}
        normal = unify({**given, "kappa": as_float("permanent_impact", permanent_impact)}, final=True)
        self.grid, self.cost = normal["grid"], normal["cost"]
        self.risk_aversion, self.permanent_impact = normal["gamma"], normal["kappa"]
        self.solver = solver
        if solver is not None:
            solver.check(example)

    def problem(
        self, shares: ArrayLike, volatility: ArrayLike, volume: ArrayLike, drift: ArrayLike = 0.0
    ) -> Liquidation:
        """The order in this market."""
        market = Market(self.grid, volatility, volume, self.permanent_impact, drift)
        return Liquidation(shares, market, self.cost, self.risk_aversion)

    def __call__(self, shares: ArrayLike, volatility: ArrayLike, volume: ArrayLike, drift: ArrayLike = 0.0) -> Schedule:
        """The best schedule for a forecast.

        Args:
            shares: x_0, scalar; negative to buy. `vmap` for many.
            volatility: σ as it is forecast, currency per share per √day, ≥ 0; scalar or (steps,). Networks give real
                numbers: pass their exponential.
            volume: V as it is forecast, shares per day, > 0 where one may trade; scalar or (steps,).
            drift: α as it is forecast, currency per share per day; scalar or (steps,).

        Returns:
            A `Schedule`. Of a forecast that no market can have it is NaN, with its status and a derivative that is zero
            where the loss does not ask for it.
        """
        return solve(self.problem(shares, volatility, volume, drift), self.solver)

    def realised(
        self,
        trades: Float[Array, " steps"],
        shares: ArrayLike,
        volatility: ArrayLike,
        volume: ArrayLike,
        drift: ArrayLike = 0.0,
    ) -> Float[Array, ""]:
        """E + (γ/2) Var of a schedule in the market that came, currency: the loss that is minded.

        Args:
            trades: (steps,) what was traded.
            shares, volatility, volume, drift: the order and the market as they turned out.

        Returns:
            The bill; NaN for trades or an order that are not finite, with a derivative that is zero where the loss does
            not ask for it, so that a batch may be masked after it was billed.
        """
        problem = self.problem(shares, volatility, volume, drift)
        given = as_trades(problem, trades)
        lost = ~functools.reduce(jnp.logical_and, [jnp.isfinite(x).all() for x in jax.tree.leaves((problem, given))])
        done = replace_where(jnp.broadcast_to(lost, given.shape), given, jnp.zeros_like(given))
        return poison(objective(harmless_where(lost, problem), done), lost)


def export_scheduler(layer: ExecutionLayer, orders: int, *, platforms: Sequence[str] | None = None) -> bytes:
    """A compiled scheduler as bytes, to be served where there is neither this package nor its Python.

    The bytes are StableHLO (`jax.export`), with the layer's numbers in them; they hold no pickle.

    Args:
        layer: the layer.
        orders: how many orders are solved in one call.
        platforms: such as ("cpu", "cuda"); None for the one that runs now.

    Raises:
        ValueError: `orders` is not a positive whole number.
    """
    if isinstance(orders, bool) or not isinstance(orders, int | np.integer) or orders < 1:
        raise ValueError(f"orders must be a positive whole number, got {orders!r}")

    def scheduler(shares: Array, volatility: Array, volume: Array) -> Any:
        found = jax.vmap(layer)(shares, volatility, volume)
        return {name: getattr(found, name) for name in _SERVED}

    dtype = layer.risk_aversion.dtype
    curve = jax.ShapeDtypeStruct((int(orders), layer.grid.steps), dtype)
    lowered = export.export(jax.jit(scheduler), platforms=platforms)
    return bytes(lowered(jax.ShapeDtypeStruct((int(orders),), dtype), curve, curve).serialize())


def load_scheduler(data: bytes) -> Callable[[ArrayLike, ArrayLike, ArrayLike], dict[str, Any]]:
    """The scheduler that `export_scheduler` wrote.

    Returns:
        A function of shares (orders,), volatility and volume (orders, steps), to a dictionary with times, inventory,
        trades, costate, expected_cost, variance, objective, relative_gap and status, each with orders first.

    Raises:
        ValueError: the bytes are not those of a scheduler.
    """
    exported = _deserialized(data)
    dtypes = [argument.dtype for argument in exported.in_avals]
    shapes = [argument.shape for argument in exported.in_avals]

    def scheduler(shares: ArrayLike, volatility: ArrayLike, volume: ArrayLike) -> Any:
        given = {"shares": shares, "volatility": volatility, "volume": volume}
        arrays = [jnp.asarray(x, dtype) for x, dtype in zip(given.values(), dtypes, strict=True)]
        for name, array, shape in zip(given, arrays, shapes, strict=True):
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, as the scheduler was exported; got {array.shape}")
        return exported.call(*arrays)

    return scheduler


def _deserialized(data: bytes) -> export.Exported:
    """What was exported.

    Raises:
        ValueError: the bytes hold nothing that was, or something else than a scheduler.
    """
    try:
        exported = export.deserialize(bytearray(data))
        is_ours = len(exported.in_avals) == 3 and sorted(_SERVED) == sorted(
            exported.out_tree.unflatten(range(len(exported.out_avals)))
        )
    except Exception as error:  # whatever the parser stumbles over: truncated, or of another kind
        raise ValueError(f"data are not the bytes that export_scheduler wrote: {error}") from error
    if not is_ours:
        raise ValueError("data hold an exported function, but none that export_scheduler wrote")
    return exported
