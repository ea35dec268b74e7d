"""Measures of liquidity of all stocks of a tape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxexec.impact.by_stock import ByStock, place_of
from jaxexec.impact.comparison import winsorised
from jaxexec.impact.measured import Measured
from jaxexec.impact.realised_variance import RealisedVariance
from jaxexec.numerics.status import Status

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

_FEW = 6  # stocks up to which each is shown


def joined(parts: Sequence[Measures]) -> Measures:
    """The same measures of several tapes that share no stock, in one.

    Raises:
        ValueError: There are none, or a stock is in two.
    """
    if not parts:
        raise ValueError("there is nothing to join")
    symbols = tuple(symbol for part in parts for symbol in part.symbols)
    if len(set(symbols)) < len(symbols):
        twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
        raise ValueError(f"symbol {twice!r} is in two tapes: pool them first (jaxexec.tape.pool)")
    estimates = jax.tree.map(lambda *x: np.concatenate(x), *(part.estimates for part in parts))
    return replace(parts[0], symbols=symbols, estimates=estimates)


@dataclass(frozen=True, repr=False)
class Measures(ByStock):
    """Measures of liquidity, one stock after the other.

    Attributes:
        title: What was measured.
        symbols: Names of the stocks, verbatim.
        estimates: `Measured` (of volatility `RealisedVariance`) with leading axis (stocks,), as NumPy arrays.
        units: Unit of each measure.
        convention: How it was measured, in a sentence or two.
    """

    title: str
    symbols: tuple[str, ...]
    estimates: Measured | RealisedVariance
    units: tuple[str, ...]
    convention: str

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.estimates[name])

    @property
    def usable(self) -> np.ndarray:
        """True for stocks whose numbers can be used, (stocks,)."""
        return np.asarray(self.estimates.status) <= Status.LOCAL

    def table(self) -> pl.DataFrame:
        """A row a stock and measure: symbol, measure, unit, estimate, std_error, t, n, status.

        Numbers of stocks that could not be estimated are null; `status` is a name.
        """
        import polars as pl

        e, stocks, k = self.estimates, len(self.symbols), len(self.units)
        names = {int(s): s.name for s in Status}
        values, errors = np.asarray(e.values), np.asarray(e.std_errors)
        exact = errors == 0
        t = values / np.where(exact, 1, errors)
        t = np.where(exact & (values != 0), np.copysign(np.inf, values), t)
        frame = pl.DataFrame(
            {
                "symbol": pl.Series([s for s in self.symbols for _ in range(k)], dtype=pl.String),
                "measure": pl.Series(list(e.names) * stocks, dtype=pl.String),
                "unit": pl.Series(list(self.units) * stocks, dtype=pl.String),
                "estimate": values.ravel(),
                "std_error": errors.ravel(),
                "t": t.ravel(),
                "n": np.repeat(np.asarray(e.n, np.int64), k),
                "status": pl.Series([names[int(s)] for s in np.repeat(np.asarray(e.status), k)], dtype=pl.String),
            }
        )
        return frame.with_columns(pl.col("estimate", "std_error", "t").fill_nan(None))

    def presentation(self) -> Any:
        """What `summary()` shows, as a `presentation.Table`."""
        from jaxexec.presentation import Table

        stocks, good = len(self.symbols), self.usable
        failed = stocks - int(good.sum())
        footer = self.convention + (f" {failed} of {stocks} stocks could not be estimated." if failed else "")
        if stocks <= _FEW:
            frame = self.table()
            return Table(self.title, frame.columns, frame.rows(), footer)
        columns = ("measure", "unit", "stocks", "lower quartile", "median", "upper quartile")
        values = np.asarray(self.estimates.values)[good]
        quartiles = (
            np.quantile(values, [0.25, 0.5, 0.75], axis=0) if len(values) else np.full((3, len(self.units)), np.nan)
        )
        rows = [
            (name, unit, int(good.sum()), *(None if np.isnan(q) else float(q) for q in quartiles[:, k]))
            for k, (name, unit) in enumerate(zip(self.estimates.names, self.units, strict=True))
        ]
        return Table(f"{self.title}, {stocks:,} stocks", columns, rows, footer)

    def sheets(self, symbol: str) -> tuple[Any, ...]:
        """The measures of one stock."""
        from jaxexec.presentation import Table

        at = place_of(self.symbols, symbol)
        status = Status(int(np.asarray(self.estimates.status)[at]))
        rows = self.table()[at * len(self.units) : (at + 1) * len(self.units)].drop("symbol", "status")
        remedy = "" if status == Status.OK else f" {status.name}: {status.remedy}"
        return (Table(f"{self.title} of {symbol}", rows.columns, rows.rows(), self.convention + remedy),)

    def plot(self, winsorise: tuple[float, float] | None = (0.01, 0.99)) -> Figure:
        """Violins of the cross-section, each measure in its own unit; intervals where there are at most six stocks.

        Args:
            winsorise: Quantiles to which more extreme values are drawn in, measure by measure; None for none.
        """
        from jaxexec.presentation import interval_panels, violin_panels

        names = self.estimates.names
        values, errors = np.asarray(self.estimates.values).T, np.asarray(self.estimates.std_errors).T
        if len(self.symbols) <= _FEW:
            samples = {name: (value, error) for name, value, error in zip(names, values, errors, strict=True)}
            return interval_panels(self.symbols, samples, self.units, f"{self.title}, ± 1.96 standard errors")
        section = {name: winsorised(x[self.usable], winsorise) for name, x in zip(names, values, strict=True)}
        return violin_panels(section, self.units, f"{self.title} across {int(self.usable.sum()):,} stocks")
