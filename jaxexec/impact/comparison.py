"""Panels of the same stocks side by side: other sign rules, other equations, other errors, other days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxexec.impact.by_stock import ByStock, place_of
from jaxexec.impact.estimates import COEFFICIENTS, UNITS

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from jaxexec.impact.panel import Panel


@dataclass(frozen=True, repr=False)
class Comparison(ByStock):
    """Estimates of several panels, the first of which is the reference. NaN where a panel has none.

    Attributes:
        names: Of the panels, the reference first.
        symbols: Stocks that any panel could estimate, sorted.
        terms: Coefficients that any panel has.
        units: Of the coefficients.
        estimates: (panels, stocks, terms).
        std_errors: (panels, stocks, terms).
    """

    names: tuple[str, ...]
    symbols: tuple[str, ...]
    terms: tuple[str, ...]
    units: tuple[str, ...]
    estimates: np.ndarray
    std_errors: np.ndarray

    def table(self) -> pl.DataFrame:
        """A row a stock, coefficient and panel that is not the reference.

        Columns: symbol, coefficient, panel, estimate, reference, difference, std_error, reference_std_error,
        error_ratio (std_error over that of the reference).
        """
        import polars as pl

        others, stocks, terms = len(self.names) - 1, len(self.symbols), len(self.terms)
        values, errors = (np.moveaxis(x, 0, -1) for x in (self.estimates, self.std_errors))
        first, first_error = (np.repeat(x[..., :1], others, -1).ravel() for x in (values, errors))
        estimate, error = values[..., 1:].ravel(), errors[..., 1:].ravel()
        frame = pl.DataFrame(
            {
                "symbol": pl.Series(np.repeat(np.array(self.symbols, object), terms * others), dtype=pl.String),
                "coefficient": pl.Series([t for t in self.terms for _ in range(others)] * stocks, dtype=pl.String),
                "panel": pl.Series(list(self.names[1:]) * (terms * stocks), dtype=pl.String),
                "estimate": estimate,
                "reference": first,
                "difference": estimate - first,
                "std_error": error,
                "reference_std_error": first_error,
                "error_ratio": _ratio(error, first_error),
            }
        )
        return frame.fill_nan(None)

    def presentation(self) -> Any:
        """What `summary()` shows: a row a coefficient and panel, over the stocks that it and the reference have."""
        from jaxexec.presentation import Table

        columns = ("coefficient", "panel", "stocks", "reference", "difference", "in s.e.", "s.e. ratio", "rank corr.")
        rows = [(term, name, *self._compared(j, k)) for k, term in enumerate(self.terms) for j, name in self._others()]
        footer = (
            f"Medians over stocks of the estimates of {self.names[0]} (the reference), of the differences from them, "
            "of the size of these in the reference's standard errors, and of the ratio of standard errors; Spearman's "
            "rank correlation. Panels of the same trades are not independent: this is no test. "
            "Fixed in currency, variable in currency per share."
        )
        return Table(f"{', '.join(self.names)}: side by side", columns, rows, footer)

    def sheets(self, symbol: str) -> tuple[Any, ...]:
        """All panels' estimates of one stock."""
        from jaxexec.presentation import Table

        at = place_of(self.symbols, symbol)
        rows = [
            (term, name, *(float(x) for x in (value, error, _ratio(value, error))))
            for k, term in enumerate(self.terms)
            for name, value, error in zip(self.names, self.estimates[:, at, k], self.std_errors[:, at, k], strict=True)
        ]
        columns = ("coefficient", "panel", "estimate", "std. error", "t")
        return (Table(f"Price impact of {symbol}, side by side", columns, rows),)

    def plot(self) -> Figure:
        """Each panel's estimates against those of the reference, drawn in to their 1 and 99 % quantiles."""
        from jaxexec.presentation import agreement

        samples = {
            term: (
                winsorised(self.estimates[0, :, k]),
                {name: winsorised(self.estimates[j, :, k]) for j, name in self._others()},
            )
            for k, term in enumerate(self.terms)
        }
        return agreement(samples, self.units, "Stock by stock", self.names[0])

    def _others(self):
        return list(enumerate(self.names))[1:]

    def _compared(self, panel: int, term: int) -> tuple[Any, ...]:
        first, other = self.estimates[0, :, term], self.estimates[panel, :, term]
        both = np.isfinite(first) & np.isfinite(other)
        if not both.any():
            return 0, *[None] * 5
        first, other = first[both], other[both]
        errors, others = self.std_errors[0, both, term], self.std_errors[panel, both, term]
        difference = other - first
        numbers = (
            np.median(first),
            np.median(difference),
            np.median(_ratio(np.abs(difference), errors)),
            np.median(_ratio(others, errors)),
            rank_correlation(first, other),
        )
        return int(both.sum()), *(None if np.isnan(x) else float(x) for x in numbers)


def compare(panels: Mapping[str, Panel]) -> Comparison:
    """Panels of the same stocks side by side, the first being the reference.

    Args:
        panels: Name of each panel, to it; two or more. They may differ in anything: sign rule, form, terms, errors,
            days. A stock is matched by its symbol.

    Returns:
        `Comparison`.

    Raises:
        ValueError: There are fewer than two panels, or something is no panel.
    """
    if len(checked_panels(panels)) < 2:
        raise ValueError(f"panels must be two or more, got {len(panels)}")
    symbols = sorted({s for p in panels.values() for s, good in zip(p.symbols, p.usable, strict=True) if good})
    terms = tuple(t for t in COEFFICIENTS if any(t in p.estimates.terms for p in panels.values()))
    stock = {name: i for i, name in enumerate(symbols)}
    shape = (len(panels), len(symbols), len(terms))
    estimates, errors = np.full(shape, np.nan), np.full(shape, np.nan)
    for j, panel in enumerate(panels.values()):
        rows = np.flatnonzero(panel.usable)
        place = np.ix_([stock[panel.symbols[i]] for i in rows], [terms.index(t) for t in panel.estimates.terms])
        estimates[j][place] = np.asarray(panel.estimates.coefficients)[rows]
        errors[j][place] = np.asarray(panel.estimates.std_errors)[rows]
    units = tuple(UNITS[t] for t in terms)
    return Comparison(tuple(panels), tuple(symbols), terms, units, estimates, errors)


def checked_panels(panels: Any) -> Mapping[str, Panel]:
    """Names of panels, to them; a ValueError where something is none."""
    if not isinstance(panels, Mapping):
        raise ValueError(f"panels must be a dictionary of panels by their names, got a {type(panels).__name__}")
    for name, panel in panels.items():
        if not hasattr(panel, "estimates") or not hasattr(panel.estimates, "terms"):
            raise ValueError(f"panels[{name!r}] must be a panel, as glosten_harris gives, got a {type(panel).__name__}")
    return panels


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation, ties at their mean rank; NaN where there is none."""
    ranks = [_ranks(np.asarray(values)) for values in (x, y)]
    if len(x) < 2 or any(np.ptp(r) == 0 for r in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[group]


def winsorised(values: np.ndarray, quantiles: tuple[float, float] | None = (0.01, 0.99)) -> np.ndarray:
    """More extreme values drawn in to two quantiles (linearly interpolated) of those that are finite.

    Raises:
        ValueError: The quantiles are not an increasing pair within [0, 1].
    """
    if quantiles is not None and not (np.shape(quantiles) == (2,) and 0 <= quantiles[0] < quantiles[1] <= 1):
        raise ValueError(f"winsorise must be None or a pair 0 <= low < high <= 1, got {quantiles!r}")
    known = values[np.isfinite(values)]
    if quantiles is None or not len(known):
        return values
    return np.clip(values, *np.quantile(known, quantiles))


def _ratio(above: Any, below: Any) -> np.ndarray:
    """NaN where `below` is zero."""
    return np.asarray(above) / np.where(np.asarray(below) == 0, np.nan, below)
