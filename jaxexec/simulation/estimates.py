"""What a simulation found."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxexec.numerics.arrays import is_concrete
from jaxexec.numerics.status import Status
from jaxexec.simulation.histogram import edges


class Simulation(eqx.Module):
    """The distribution of the implementation shortfall. A positive shortfall is a cost.

    Standard errors are from the spread of each estimate over 32 independent replicates, and so themselves known to
    about an eighth; those of a level that a replicate hardly reaches (fewer than 48/(1 − level) paths in all) are NaN.
    They, the counts and the extremes have no derivatives. Mean and variance have derivatives of any order, values at
    risk and tail means first ones only: higher ones are NaN, also where they are asked for beside others.

    Attributes:
        paths: paths drawn, int32.
        mean, mean_error: of the shortfall, and its standard error; currency.
        variance, variance_error: currency².
        levels: (levels,) of the quantiles.
        value_at_risk, value_at_risk_error: (levels,) quantiles of the shortfall, currency.
        conditional_value_at_risk, conditional_value_at_risk_error: (levels,) mean of the shortfalls beyond, currency.
        least, greatest: of all shortfalls drawn.
        centre, scale: currency; the bins of the histogram lie between centre ± 16 scale.
        counts: (bins,) paths in each bin.
        status: OK; NONFINITE_INPUT; INFEASIBLE for trades without volume or beyond a cap; NONFINITE_INTERNAL.
    """

    paths: Int[Array, ""]
    mean: Float[Array, ""]
    mean_error: Float[Array, ""]
    variance: Float[Array, ""]
    variance_error: Float[Array, ""]
    levels: Float[Array, " levels"]
    value_at_risk: Float[Array, " levels"]
    value_at_risk_error: Float[Array, " levels"]
    conditional_value_at_risk: Float[Array, " levels"]
    conditional_value_at_risk_error: Float[Array, " levels"]
    least: Float[Array, ""]
    greatest: Float[Array, ""]
    centre: Float[Array, ""]
    scale: Float[Array, ""]
    counts: Int[Array, " bins"]
    status: Int[Array, ""]

    def bins(self) -> np.ndarray:
        """(bins + 1,) ends of the histogram's bins, currency. Concrete, unbatched results only."""
        host = self._host("bins")
        return float(host.centre) + float(host.scale) * edges()

    def table(self):
        """Estimates and standard errors, as a `presentation.Table`. Concrete, unbatched results only."""
        from jaxexec.presentation import Table

        host = self._host("table")
        rows: list[tuple[str, float, float]] = [("mean", host.mean, host.mean_error)]
        spread = np.sqrt(host.variance)
        rows.append(("standard deviation", spread, host.variance_error / (2 * spread) if spread > 0 else 0.0))
        tails = (
            ("value at risk", host.value_at_risk, host.value_at_risk_error),
            (
                "mean beyond it",
                host.conditional_value_at_risk,
                host.conditional_value_at_risk_error,
            ),
        )
        for name, values, errors in tails:
            rows += [
                (f"{name}, {100 * level:g} %", value, error)
                for level, value, error in zip(host.levels, values, errors, strict=True)
            ]
        footer = f"{Status(int(host.status)).name}; {int(host.paths):,} paths; a positive shortfall is a cost"
        cells = [(name, float(value), float(error)) for name, value, error in rows]
        return Table("Implementation shortfall", ("statistic", "currency", "standard error"), cells, footer)

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def plot(self):
        """The distribution with its mean and quantiles, a matplotlib Figure."""
        from jaxexec.presentation import figures

        host = self._host("plot")
        marks = {"mean": float(host.mean)}
        for level, value in zip(host.levels, host.value_at_risk, strict=True):
            marks[f"{100 * level:g} % quantile"] = float(value)
        spread = float(np.sqrt(host.variance))
        curve = None
        if spread > 0:
            x = np.linspace(host.least, host.greatest, 200)
            curve = x, np.exp(-0.5 * ((x - host.mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        title, xlabel = f"Shortfall of {int(host.paths):,} paths", "implementation shortfall (currency)"
        return figures.distribution(self.bins(), host.counts, title, xlabel, marks=marks, curve=curve)

    def to_polars(self):
        """One row a level: level, value_at_risk, conditional_value_at_risk and their errors (polars DataFrame)."""
        import polars

        host = self._host("to_polars")
        names = ("value_at_risk", "value_at_risk_error")
        names += ("conditional_value_at_risk", "conditional_value_at_risk_error")
        return polars.DataFrame({"level": host.levels} | {name: getattr(host, name) for name in names})

    def _host(self, what: str) -> Any:
        if not is_concrete(self.mean) or self.mean.ndim:
            raise ValueError(
                f"{what} needs one concrete simulation; pick one of a batch with jax.tree.map(lambda x: x[i], found)"
            )
        return jax.tree.map(np.asarray, self)


__all__ = ["Simulation"]
