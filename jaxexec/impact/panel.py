"""Impact estimates of all stocks of a tape, and their cross-section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np

from jaxexec.impact.estimates import COEFFICIENTS, ImpactEstimates, check_options
from jaxexec.impact.lanes import Segments
from jaxexec.impact.passes import Covariance, Form
from jaxexec.impact.tape_estimates import estimate_tape
from jaxexec.numerics.status import Status

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from matplotlib.figure import Figure

_ESTIMATORS = ("ols",)
_UNITS = ("currency", "currency per share", "currency", "currency per share")
_FEW = 6  # stocks up to which a plot shows error bars instead of distributions
_CONVENTIONS = {
    "hac": "Newey–West standard errors: Bartlett weights, {lags}, no small-sample correction, products within a date",
    "hc0": "White (HC0) standard errors, no small-sample correction",
    "ols": "classical standard errors, residual variance with n − 5 degrees of freedom",
}


@runtime_checkable
class Tape(Protocol):
    """Anything that hands out signed trades by segments, such as `jaxexec.tape.SignedTape`."""

    def segments(self) -> Segments: ...


@dataclass(frozen=True)
class Panel:
    """Impact estimates, one stock after the other.

    Attributes:
        symbols: Names of the stocks, verbatim.
        estimates: `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.
        estimator: "ols".
        lags: As asked for: "newey-west-fixed" or a number.
    """

    symbols: tuple[str, ...]
    estimates: ImpactEstimates
    estimator: str
    lags: int | str

    @property
    def usable(self) -> np.ndarray:
        """True for stocks whose numbers can be used, (stocks,)."""
        return np.asarray(self.estimates.status) <= Status.LOCAL

    @property
    def convention(self) -> str:
        """One sentence on the regression and its standard errors."""
        e = self.estimates
        lags = "4(n/100)^(2/9) lags" if self.lags == "newey-west-fixed" else f"{self.lags} lags"
        errors = _CONVENTIONS[e.covariance_type].format(lags=lags)
        return f"Glosten–Harris, {e.form} form, {self.estimator.upper()}. {errors}."

    def table(self) -> pl.DataFrame:
        """A row a stock and coefficient: symbol, coefficient, estimate, std_error, t, n, r2, condition, status.

        `estimate` and `std_error` are in currency (fixed) or currency per share (variable); `status` is a name.
        """
        import polars as pl

        e, k = self.estimates, len(COEFFICIENTS)
        names = {int(s): s.name for s in Status}
        return pl.DataFrame(
            {
                "symbol": pl.Series([s for s in self.symbols for _ in range(k)], dtype=pl.String),
                "coefficient": pl.Series(list(COEFFICIENTS) * len(self.symbols), dtype=pl.String),
                "estimate": np.asarray(e.coefficients).ravel(),
                "std_error": np.asarray(e.std_errors).ravel(),
                "t": np.asarray(e.t).ravel(),
                "n": np.repeat(np.asarray(e.n, np.int64), k),
                "r2": np.repeat(np.asarray(e.r2), k),
                "condition": np.repeat(np.asarray(e.condition), k),
                "status": pl.Series([names[int(s)] for s in np.repeat(np.asarray(e.status), k)], dtype=pl.String),
            }
        )

    def to_polars(self) -> pl.DataFrame:
        """The same as `table()`."""
        return self.table()

    def to_pandas(self) -> pd.DataFrame:
        """`table()` as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.table().to_dict(as_series=False))

    def summary(self) -> str:
        """Text: the estimates of a few stocks, the cross-section of many."""
        return self.presentation().text()

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return self.presentation().html()

    def presentation(self) -> Any:
        """What `summary()` shows, as a `presentation.Table`."""
        from jaxexec.presentation import Table

        failed = len(self.symbols) - int(self.usable.sum())
        footer = self.convention + (
            f" {failed} of {len(self.symbols)} stocks could not be estimated." if failed else ""
        )
        if len(self.symbols) <= _FEW:
            frame, title = self.table(), "Price impact"
        else:
            frame, title = summarise(self).drop("unit"), f"Price impact, {int(self.usable.sum()):,} stocks"
            footer += " Cross-section winsorised at 1% and 99%; fixed in currency, variable in currency per share."
        return Table(title, frame.columns, frame.rows(), footer)

    def plot(self, winsorise: tuple[float, float] | None = (0.01, 0.99)) -> Figure:
        """Violins of the winsorised cross-section, or error bars where there are at most six stocks.

        Coefficients are divided by their cross-sectional standard deviation, so that one axis serves all four; for
        a few stocks t statistics are shown, with their unit intervals.
        """
        from jaxexec.presentation import error_bars, violins

        if len(self.symbols) <= _FEW:
            labels = [f"{s} {c}" for s in self.symbols for c in COEFFICIENTS]
            t = np.asarray(self.estimates.t).ravel()
            return error_bars(labels, t, np.ones_like(t), "Price impact", "estimate over its standard error")
        samples = {}
        for k, name in enumerate(COEFFICIENTS):
            values = _winsorised(np.asarray(self.estimates.coefficients)[self.usable, k], winsorise)
            spread = values.std(ddof=1) if len(values) > 1 else 1.0
            samples[f"{name} ({_UNITS[k]})"] = values / (spread or 1.0)
        return violins(samples, "Price impact across stocks", "coefficient over its standard deviation")


def glosten_harris(
    tape: Tape | Iterable[Tape],
    form: Form = "difference",
    estimator: Literal["ols"] = "ols",
    covariance: Covariance = "hac",
    lags: int | Literal["newey-west-fixed"] = "newey-west-fixed",
    order: int = 5,
) -> Panel:
    """Glosten–Harris/Sadka price impact of every stock of a tape; see `glosten_harris_arrays` for the equations.

    A stock's dates are pooled: one autoregression, one regression. Lags, differences and Newey–West products stay
    within a date (statsmodels calls this "hac-panel"), so the first `order` trades of each date are used up.
    Computed in float64 whatever JAX's 64-bit flag says.

    Args:
        tape: A `jaxexec.tape.SignedTape`, or several that share no stock, such as a `jaxexec.tape.stream`: they are
            estimated one after the other.
        form: "difference" (Glosten and Harris, Sadka) or "level" (the thesis).
        estimator: "ols".
        covariance: "hac", "hc0" or "ols".
        lags: Newey–West lags, or "newey-west-fixed" for ⌊4 (n/100)^{2/9}⌋ of each stock's pooled rows n.
        order: Order of the order-flow autoregression.

    Returns:
        `Panel`; stocks that cannot be estimated carry a status and NaN.

    Raises:
        ValueError: An option is none of the above, or a size is not positive.
    """
    check_options(form, covariance, lags, order)
    if estimator not in _ESTIMATORS:
        raise ValueError(f"estimator must be one of {_ESTIMATORS}, got {estimator!r}")
    if not isinstance(tape, Tape):
        return _joined([glosten_harris(part, form, estimator, covariance, lags, order) for part in tape])
    segments = tape.segments()
    wrong = np.flatnonzero(np.asarray(segments.size) <= 0)
    if wrong.size:
        raise ValueError(f"size[{wrong[0]}] must be positive, got {segments.size[wrong[0]]}")
    fixed = None if isinstance(lags, str) else int(lags)
    estimates = estimate_tape(segments, form=form, covariance=covariance, lags=fixed, order=order)
    return Panel(tuple(segments.symbols), estimates, estimator, lags)


def _joined(panels: Sequence[Panel]) -> Panel:
    """One panel of the stocks of several, in their order."""
    if not panels:
        raise ValueError("there is no tape: a stream of them gave none")
    first = panels[0]
    symbols = tuple(symbol for panel in panels for symbol in panel.symbols)
    if len(set(symbols)) < len(symbols):
        twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
        raise ValueError(f"symbol {twice!r} is in two tapes: its trades must be in one to be estimated together")
    estimates = jax.tree.map(lambda *parts: np.concatenate(parts), *(panel.estimates for panel in panels))
    return Panel(symbols, estimates, first.estimator, first.lags)


def summarise(panel: Panel, winsorise: tuple[float, float] | None = (0.01, 0.99)) -> pl.DataFrame:
    """The thesis's Table 1: the cross-section of each coefficient over the stocks that could be estimated.

    Args:
        panel: Estimates.
        winsorise: Quantiles (linearly interpolated) to which more extreme values are drawn in, coefficient by
            coefficient; None for none.

    Returns:
        A row a coefficient: coefficient, unit, n, mean, std (n − 1 degrees of freedom), min, median, max. Statistics
        of too few stocks are null.

    Raises:
        ValueError: `winsorise` is not an increasing pair within [0, 1].
    """
    import polars as pl

    if winsorise is not None and not 0 <= winsorise[0] < winsorise[1] <= 1:
        raise ValueError(f"winsorise must be None or a pair 0 <= low < high <= 1, got {winsorise!r}")
    rows = []
    for k, name in enumerate(COEFFICIENTS):
        x = _winsorised(np.asarray(panel.estimates.coefficients)[panel.usable, k], winsorise)
        some, two = len(x) > 0, len(x) > 1
        rows.append(
            {
                "coefficient": name,
                "unit": _UNITS[k],
                "n": len(x),
                "mean": float(x.mean()) if some else None,
                "std": float(x.std(ddof=1)) if two else None,
                "min": float(x.min()) if some else None,
                "median": float(np.median(x)) if some else None,
                "max": float(x.max()) if some else None,
            }
        )
    numbers = dict.fromkeys(("mean", "std", "min", "median", "max"), pl.Float64)
    return pl.DataFrame(rows, schema={"coefficient": pl.String, "unit": pl.String, "n": pl.Int64, **numbers})


def _winsorised(values: np.ndarray, quantiles: tuple[float, float] | None) -> np.ndarray:
    if quantiles is None or not len(values):
        return values
    low, high = np.quantile(values, quantiles)
    return np.clip(values, low, high)
