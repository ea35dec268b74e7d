"""The efficient frontier: expected cost against variance as risk aversion varies (Almgren and Chriss 2000, fig. 1)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.numerics.arrays import as_float, check
from jaxexec.solvers import LadderNewton, solve


class Frontier(eqx.Module):
    """Optimal schedules over a range of risk aversions.

    Attributes:
        risk_aversions: (points,) γ.
        expected_cost: (points,) E, currency. Its slope along the frontier is dE/dVar = −γ/2.
        variance: (points,) Var, currency².
        schedules: the schedules, every field with a leading axis (points,).
    """

    risk_aversions: Float[Array, " points"]
    expected_cost: Float[Array, " points"]
    variance: Float[Array, " points"]
    schedules: Schedule

    @property
    def status(self) -> Int[Array, " points"]:
        """(points,) a `Status` each."""
        return self.schedules.status

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

    def plot(self):
        """Expected cost against standard deviation, a matplotlib Figure."""
        from jaxexec.presentation import figures

        deviation, cost = np.sqrt(np.asarray(self.variance)), np.asarray(self.expected_cost)
        return figures.frontier(deviation, cost, title="Efficient frontier")

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


def efficient_frontier(problem: Liquidation, risk_aversions: ArrayLike, solver: LadderNewton | None = None) -> Frontier:
    """Solve `problem` for each risk aversion, all in one call. Traced and differentiable.

    Args:
        problem: the order; its own risk aversion is ignored.
        risk_aversions: (points,) γ ≥ 0, per currency.
        solver: the method; None means the default.

    Raises:
        ValueError: `risk_aversions` is not one-dimensional and non-empty, or a concrete one is negative or not finite.
    """
    gammas = as_float("risk_aversions", risk_aversions)
    if gammas.ndim != 1 or gammas.shape[0] == 0:
        raise ValueError(f"risk_aversions must have shape (points,) with at least 1 point, got {gammas.shape}")
    check("risk_aversions", gammas, lambda v: np.isfinite(v) & (v >= 0), "finite and at least 0")
    gammas = gammas.astype(problem.shares.dtype)
    schedules = jax.vmap(lambda gamma: solve(_with_risk_aversion(problem, gamma), solver))(gammas)
    return Frontier(gammas, schedules.expected_cost, schedules.variance, schedules)


def _with_risk_aversion(problem: Liquidation, gamma: Array) -> Liquidation:
    return eqx.tree_at(lambda p: p.risk_aversion, problem, jnp.asarray(gamma))
