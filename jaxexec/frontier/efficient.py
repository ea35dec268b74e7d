"""The efficient frontier: expected cost against variance as risk aversion varies (Almgren and Chriss 2000, fig. 1)."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.basket import Basket, BasketSchedule, basket_cost, basket_variance
from jaxexec.liquidation import Liquidation, Schedule, expected_cost, variance
from jaxexec.numerics.arrays import as_float, check
from jaxexec.schedules import twap, vwap
from jaxexec.solvers import BlockLadderNewton, LadderNewton, solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBERS, _LEAST_CHUNK = 50_000, 64


class Frontier(eqx.Module):
    """Optimal schedules over a range of risk aversions.

    Attributes:
        risk_aversions: (points,) γ.
        expected_cost: (points,) E, currency. A convex, falling function of the variance.
        variance: (points,) Var, currency².
        schedules: the schedules, every field with a leading axis (points,).
    """

    risk_aversions: Float[Array, " points"]
    expected_cost: Float[Array, " points"]
    variance: Float[Array, " points"]
    schedules: Schedule | BasketSchedule

    @property
    def status(self) -> Int[Array, " points"]:
        """(points,) a `Status` each."""
        return self.schedules.status

    @property
    def slope(self) -> Float[Array, " points"]:
        """(points,) dE/dVar = −γ/2, per currency: what a unit of variance less costs, with the sign turned.

        It is the tangent wherever the variance still changes with γ; Almgren and Chriss's −λ.
        """
        return -self.risk_aversions / 2

    def table(self):
        """One row a risk aversion, as a `presentation.Table`."""
        from jaxexec.presentation import Table

        gamma, cost, var = (np.asarray(x) for x in (self.risk_aversions, self.expected_cost, self.variance))
        gap = np.asarray(self.schedules.relative_gap)
        rows = np.column_stack([gamma, cost, np.sqrt(var), gap]).tolist()
        columns = ("risk aversion (1/currency)", "expected cost", "standard deviation", "relative gap")
        return Table("Efficient frontier", columns, rows, "E + (γ/2) Var is least at each risk aversion γ.")

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def plot(self, marked: Mapping[str, Any] | None = None, *, problem: Liquidation | Basket | None = None) -> "Figure":
        """Expected cost against standard deviation, a matplotlib Figure.

        Args:
            marked: name to what is to be marked: anything with `expected_cost` and `variance` (a schedule, the answer
                of `lvar_optimum`), or the trades of a schedule of `problem`, (steps,) or (steps, assets). What costs
                infinitely much, such as trades in a step without volume, is left out.
            problem: the order or basket; its TWAP and VWAP are marked too.

        Raises:
            ValueError: trades are given without `problem`.
        """
        from jaxexec.presentation import figures

        named = dict(marked or {})
        if problem is not None:
            named = {"TWAP": _twap(problem), "VWAP": _vwap(problem)} | named
        points = {name: _place(name, thing, problem) for name, thing in named.items()}
        shown = {name: place for name, place in points.items() if all(map(math.isfinite, place))}
        deviation, cost = np.sqrt(np.asarray(self.variance)), np.asarray(self.expected_cost)
        return figures.frontier(deviation, cost, title="Efficient frontier", points=shown)

    def to_polars(self):
        """One row a risk aversion (polars DataFrame)."""
        import polars

        return polars.DataFrame(
            {
                "risk_aversion": np.asarray(self.risk_aversions),
                "expected_cost": np.asarray(self.expected_cost),
                "variance": np.asarray(self.variance),
                "relative_gap": np.asarray(self.schedules.relative_gap),
                "status": np.asarray(self.schedules.status),
            }
        )


def efficient_frontier(
    problem: Liquidation | Basket,
    risk_aversions: ArrayLike,
    solver: LadderNewton | BlockLadderNewton | None = None,
) -> Frontier:
    """Solve `problem` for each risk aversion, all in one call. Traced and differentiable.

    Args:
        problem: the order or basket; its own risk aversion is ignored.
        risk_aversions: (points,) γ ≥ 0, per currency.
        solver: the method; None means the default.

    Raises:
        ValueError: `risk_aversions` is not one-dimensional and non-empty, or a concrete one is negative or not finite.

    Source: Almgren and Chriss, Optimal execution of portfolio transactions, J. Risk 3 (2000), § 3.
    """
    gammas = as_float("risk_aversions", risk_aversions)
    if gammas.ndim != 1 or gammas.shape[0] == 0:
        raise ValueError(f"risk_aversions must have shape (points,) with at least 1 point, got {gammas.shape}")
    check("risk_aversions", gammas, lambda v: np.isfinite(v) & (v >= 0), "finite and at least 0")
    gammas = gammas.astype(problem.shares.dtype)
    schedules = _in_chunks(lambda gamma: solve(with_risk_aversion(problem, gamma), solver), gammas, problem.grid.steps)
    return Frontier(gammas, schedules.expected_cost, schedules.variance, schedules)


def _in_chunks(of: Callable[[Array], Any], gammas: Float[Array, " points"], steps: int) -> Any:
    """`of` of every γ, on a CPU in equal chunks whose arrays of [points, steps] stay in the second-level cache."""
    points = gammas.shape[0]
    most = max(_LEAST_CHUNK, _NUMBERS // steps) if jax.default_backend() == "cpu" else points
    chunks = math.ceil(points / most)
    if chunks == 1:
        return jax.vmap(of)(gammas)
    chunk = math.ceil(points / chunks)
    # The last chunk is filled up with the last γ, so that all have one shape.
    padded = jnp.concatenate([gammas, jnp.broadcast_to(gammas[-1:], (chunks * chunk - points,))])
    found = lax.map(jax.vmap(of), padded.reshape(chunks, chunk))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:points], found)


def with_risk_aversion(problem: Any, gamma: Float[Array, ""]) -> Any:
    """The same order or basket with another γ."""
    return eqx.tree_at(lambda p: p.risk_aversion, problem, gamma)


def _place(name: str, thing: Any, problem: Liquidation | Basket | None) -> tuple[float, float]:
    """Standard deviation and expected cost of what is to be marked."""
    if hasattr(thing, "expected_cost"):
        return math.sqrt(float(thing.variance)), float(thing.expected_cost)
    if problem is None:
        raise ValueError(f"marked[{name!r}] is a schedule by its trades: give the problem, too")
    if isinstance(problem, Liquidation):
        return math.sqrt(float(variance(problem, thing))), float(expected_cost(problem, thing))
    trades = as_float(f"marked[{name!r}]", thing).astype(problem.shares.dtype)
    if trades.shape != problem.step_volume.shape:
        raise ValueError(f"marked[{name!r}] must have shape {problem.step_volume.shape}, got {trades.shape}")
    sold = np.concatenate([np.zeros((1, trades.shape[1])), np.cumsum(np.asarray(trades), 0)])
    inventory = problem.shares[None] - sold.astype(trades.dtype)
    return math.sqrt(float(basket_variance(problem, inventory))), float(basket_cost(problem, inventory, trades))


def _twap(problem: Liquidation | Basket) -> Array:
    if isinstance(problem, Liquidation):
        return twap(problem)
    return (problem.grid.durations / problem.grid.horizon)[:, None] * (problem.shares - problem.target)[None]


def _vwap(problem: Liquidation | Basket) -> Array:
    if isinstance(problem, Liquidation):
        return vwap(problem)
    volume = problem.step_volume
    return volume / volume.sum(0, keepdims=True) * (problem.shares - problem.target)[None]
