"""Impact estimates of all stocks of a tape, and their cross-section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import jax
import numpy as np

from jaxexec.impact.batches import estimate_in_batches
from jaxexec.impact.by_stock import ByStock, place_of
from jaxexec.impact.comparison import Comparison, checked_panels, compare, winsorised
from jaxexec.impact.days import DatedTape, checked_segments, estimate_days, pool_segments
from jaxexec.impact.estimates import COEFFICIENTS, UNITS, ImpactEstimates, Model, checked_model
from jaxexec.impact.lanes import Segments
from jaxexec.impact.passes import Form, Term
from jaxexec.impact.regression import checked_method
from jaxexec.impact.stock_report import normal_interval, regression_sheets
from jaxexec.impact.tape_estimates import adds_up, estimate_tape
from jaxexec.numerics.autoregressive_errors import Autocorrelation, Estimator
from jaxexec.numerics.long_run import Rule
from jaxexec.numerics.regression import Convention, Covariance, Method, small_sample_factor
from jaxexec.numerics.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from matplotlib.figure import Figure

_FEW = 6  # stocks up to which a plot shows error bars instead of distributions
_RULES = {
    "newey-west-fixed": "4(n/100)^(2/9) lags",
    "newey-west-1994": "lags of Newey and West (1994)",
    "andrews": "the bandwidth of Andrews (1991)",
}
_ERRORS = {
    "hac": "Newey–West standard errors: Bartlett weights, {lags}, {factor}, products within a date",
    "hc0": "White (HC0) standard errors, no small-sample correction",
    "hc1": "White (HC1) standard errors, factor n/(n − {k})",
    "hc2": "White (HC2) standard errors: squares over 1 − leverage",
    "hc3": "White (HC3) standard errors: squares over (1 − leverage)²",
    "ols": "classical standard errors, residual variance with n − {k} degrees of freedom",
}
_ESTIMATORS = {"ols": "OLS", "cochrane-orcutt": "Cochrane–Orcutt", "prais-winsten": "Prais–Winsten"}


@runtime_checkable
class Tape(Protocol):
    """Anything that hands out signed trades by segments, such as `jaxexec.tape.SignedTape`."""

    def segments(self) -> Segments: ...


@dataclass(frozen=True, repr=False)
class Panel(ByStock):
    """Impact estimates, one stock after the other.

    Attributes:
        symbols: Names of the stocks, verbatim.
        estimates: `ImpactEstimates` with leading axis (stocks,), as NumPy arrays.
        estimator: "ols", "cochrane-orcutt" or "prais-winsten".
        lags: As asked for: a rule's name or a number.
        method: All options of the regression and its errors; None where estimates come from elsewhere.
    """

    symbols: tuple[str, ...]
    estimates: ImpactEstimates
    estimator: str
    lags: int | str
    method: Method | None = None

    @property
    def usable(self) -> np.ndarray:
        """True for stocks whose numbers can be used, (stocks,)."""
        return np.asarray(self.estimates.status) <= Status.LOCAL

    @property
    def convention(self) -> str:
        """One sentence on the regression and its standard errors."""
        e, k = self.estimates, len(self.estimates.terms) + 1
        method = self.method or Method()
        lags = _RULES.get(str(self.lags), f"{self.lags} lags") + (", pre-whitened" if method.prewhiten else "")
        corrected = small_sample_factor(method, np.array(100.0), k) > 1
        factor = f"factor n/(n − {k})" if corrected else "no small-sample correction"
        errors = _ERRORS[e.covariance_type].format(lags=lags, factor=factor, k=k)
        some = "" if e.terms == COEFFICIENTS else f" with {', '.join(e.terms)}"
        return f"Glosten–Harris, {e.form} form{some}, {_ESTIMATORS[self.estimator]}. {errors}."

    def table(self, level: float = 0.95) -> pl.DataFrame:
        """A row a stock and coefficient.

        Columns: symbol, coefficient, estimate, std_error, t, n, r2, condition, status, p, durbin_watson, rho, low,
        high. `estimate`, `std_error` and the interval from `low` to `high` are in currency (fixed) or currency per
        share (variable); `status` is a name.

        Args:
            level: Of the interval, which is the estimate ± a normal quantile of standard errors.
        """
        import polars as pl

        low, high = normal_interval(self.estimates.coefficients, self.estimates.std_errors, level)

        e, k = self.estimates, len(self.estimates.terms)
        names = {int(s): s.name for s in Status}
        return pl.DataFrame(
            {
                "symbol": pl.Series([s for s in self.symbols for _ in range(k)], dtype=pl.String),
                "coefficient": pl.Series(list(e.terms) * len(self.symbols), dtype=pl.String),
                "estimate": np.asarray(e.coefficients).ravel(),
                "std_error": np.asarray(e.std_errors).ravel(),
                "t": np.asarray(e.t).ravel(),
                "n": np.repeat(np.asarray(e.n, np.int64), k),
                "r2": np.repeat(np.asarray(e.r2), k),
                "condition": np.repeat(np.asarray(e.condition), k),
                "status": pl.Series([names[int(s)] for s in np.repeat(np.asarray(e.status), k)], dtype=pl.String),
                "p": None if e.p is None else np.asarray(e.p).ravel(),
                "durbin_watson": np.repeat(np.asarray(e.durbin_watson), k),
                "rho": None if e.rho is None else np.repeat(np.asarray(e.rho), k),
                "low": low.ravel(),
                "high": high.ravel(),
            }
        )

    def collinear(self, symbol: str) -> tuple[str, ...]:
        """Names of the terms because of which a stock is RANK_DEFICIENT; empty for any other stock.

        Without them the rest can be estimated: `glosten_harris(tape, terms=…)`.

        Raises:
            KeyError: The panel has no such stock.
        """
        if symbol not in self.symbols:
            raise KeyError(symbol)
        if self.estimates.dependent is None:
            return ()
        named = np.asarray(self.estimates.dependent)[self.symbols.index(symbol)]
        return tuple(term for term, wrong in zip(self.estimates.terms, named, strict=True) if wrong)

    def presentation(self, winsorise: tuple[float, float] | None = (0.01, 0.99)) -> Any:
        """What `summary()` shows, a `presentation.Table`: the estimates of a few stocks, the cross-section of many."""
        from jaxexec.presentation import Table

        failed = len(self.symbols) - int(self.usable.sum())
        footer = self.convention + (
            f" {failed} of {len(self.symbols)} stocks could not be estimated." if failed else ""
        )
        if len(self.symbols) <= _FEW:
            frame, title = _narrow(self.table()), "Price impact"
        else:
            frame, title = summarise(self, winsorise).drop("unit"), f"Price impact, {int(self.usable.sum()):,} stocks"
            cut = (
                "" if winsorise is None else " winsorised at {:.4g}% and {:.4g}%".format(*(100 * q for q in winsorise))
            )
            footer += f" Cross-section{cut}; fixed in currency, variable in currency per share."
        return Table(title, frame.columns, frame.rows(), footer)

    def sheets(self, symbol: str, level: float = 0.95) -> tuple[Any, ...]:
        """What `summary(symbol)` shows: the regression of one stock, and its coefficients with intervals.

        Raises:
            ValueError: There is no such stock, or `level` is not between 0 and 1.
        """
        at = place_of(self.symbols, symbol)
        return regression_sheets(symbol, at, self.estimates, UNITS, self.convention, level)

    def compare(self, others: Panel | Mapping[str, Panel], name: str = "this") -> Comparison:
        """This panel beside others of the same stocks: differences, ratios of errors, rank correlations.

        Args:
            others: Another panel, or several by name.
            name: What to call this one.

        Raises:
            ValueError: A name is given twice, or something is no panel.
        """
        given = {"other": others} if isinstance(others, Panel) else dict(checked_panels(others))
        if name in given:
            raise ValueError(f"name {name!r} is given to two panels")
        return compare({name: self, **given})

    def plot(
        self,
        winsorise: tuple[float, float] | None = (0.01, 0.99),
        *,
        kind: Literal["distributions", "pairs"] = "distributions",
    ) -> Figure:
        """The estimates as a picture, each coefficient in its own unit.

        Args:
            winsorise: As in `summarise`.
            kind: "distributions": violins of the cross-section (the thesis's figure 1), or intervals where there are
                at most six stocks. "pairs": every coefficient against every other, with least-squares lines and
                correlations (its figure 2).

        Raises:
            ValueError: An option is none of the above.
        """
        from jaxexec.presentation import interval_panels, scatter_matrix, violin_panels

        if kind not in ("distributions", "pairs"):
            raise ValueError(f"kind must be 'distributions' or 'pairs', got {kind!r}")
        e, units = self.estimates, [UNITS[term] for term in self.estimates.terms]
        if kind == "distributions" and len(self.symbols) <= _FEW:
            values, errors = np.asarray(e.coefficients).T, np.asarray(e.std_errors).T
            samples = {str(name): (value, error) for name, value, error in zip(e.terms, values, errors, strict=True)}
            return interval_panels(self.symbols, samples, units, "Price impact, ± 1.96 standard errors")
        section = _cross_section(self, winsorise)
        number = int(self.usable.sum())
        if kind == "pairs":
            return scatter_matrix(section, units, f"Price impact of {number:,} stocks, pair by pair")
        return violin_panels(section, units, f"Price impact across {number:,} stocks")


def glosten_harris(
    tape: Tape | Sequence[DatedTape] | Iterable[Tape],
    form: Form = "difference",
    estimator: Estimator = "ols",
    covariance: Covariance = "hac",
    lags: int | Rule = "newey-west-fixed",
    order: int = 5,
    *,
    terms: Sequence[Term] = COEFFICIENTS,
    prewhiten: bool = False,
    convention: Convention = "statsmodels",
    autocorrelation: Autocorrelation = "yule-walker",
    max_iterations: int = 100,
) -> Panel:
    """Glosten–Harris/Sadka price impact of every stock of a tape; see `glosten_harris_arrays` for the equations.

    A stock's dates are pooled: one autoregression, one regression. Lags, differences and Newey–West products stay
    within a date (statsmodels calls this "hac-panel"), so the first `order` trades of each date are used up.
    Computed in float64 whatever JAX's 64-bit flag says.

    Ordinary least squares with errors "hac" (a number of lags, or "newey-west-fixed"), "ols", "hc0" or "hc1" needs only
    sums over trades and reads the tape in three passes. All else goes stock by stock, in padded batches: slower, and a
    batch holds at least one stock as a whole.

    Args:
        tape: A `jaxexec.tape.SignedTape` of any number of days, from files or from frames in memory. Or a list (any
            sequence) of them, a day or several each: estimates are those of all days together, from the sums of each
            day, and a tape is let go before the next is asked for its trades (three times each; methods that need whole
            stocks hold all). Or any other iterable of tapes that share no stock, such as a `jaxexec.tape.stream`: they
            are estimated one after the other.
        form: "difference" (Glosten and Harris, Sadka) or "level" (the thesis).
        estimator: "ols"; "cochrane-orcutt" or "prais-winsten" for errors that follow an AR(1) within a date.
        covariance: "hac", "ols", "hc0", "hc1", "hc2" or "hc3".
        lags: Newey–West lags; "newey-west-fixed" for ⌊4 (n/100)^{2/9}⌋ of each stock's pooled rows n;
            "newey-west-1994" or "andrews" to find them from the scores.
        order: Order of the order-flow autoregression.
        terms: Which of the four coefficients are in the equation, by their names in `COEFFICIENTS`.
        prewhiten, convention, autocorrelation, max_iterations: As in `regress`, where small-sample factors are listed.

    Returns:
        `Panel`; stocks that cannot be estimated carry a status and NaN.

    Raises:
        ValueError: An option is none of the above, `tape` is no tape or a part of it is none, a size is not positive,
            or a stock has a date in two tapes.
    """
    method = checked_method(estimator, covariance, lags, prewhiten, convention, autocorrelation, max_iterations)
    model = checked_model(form, terms, order, method)
    if isinstance(tape, Tape) or _is_no_collection(tape):
        return _estimated(cast(Tape, tape), method, model)
    if isinstance(tape, Sequence):
        return _of_days(cast("Sequence[DatedTape]", tape), method, model)
    return _joined([_estimated(part, method, model) for part in tape])


def _is_no_collection(tape: Any) -> bool:
    """Paths, tables and what else iterates over something that is no tape, or not at all."""
    return isinstance(tape, str | Mapping) or hasattr(tape, "columns") or not hasattr(tape, "__iter__")


def _estimated(tape: Tape, method: Method, model: Model) -> Panel:
    segments = checked_segments(tape)
    # Pieces and tiles are cut to a processor's caches; an accelerator takes all rows of many stocks at once.
    in_pieces = adds_up(method) and jax.default_backend() == "cpu"
    estimates = (estimate_tape if in_pieces else estimate_in_batches)(segments, model)
    return Panel(tuple(segments.symbols), estimates, method.estimator, method.lags, method)


def _narrow(frame: pl.DataFrame) -> pl.DataFrame:
    """What a terminal is wide enough for; `Panel.sheets` has the rest. The status is left out where all is well."""
    import polars as pl

    fine = (frame["status"] == "OK").all()
    columns = ("symbol", "coefficient", "estimate", "std_error", "t", "p", "n", "r2", *(() if fine else ("status",)))
    return frame.select(columns).with_columns(pl.col("p").round(3))


def _of_days(tapes: Sequence[DatedTape], method: Method, model: Model) -> Panel:
    """One panel of all the days of several tapes."""
    if not tapes:
        raise ValueError("there is no tape: the list of them is empty")
    if adds_up(method):
        symbols, estimates = estimate_days(tapes, model)
    else:
        pooled = pool_segments(tapes)
        symbols, estimates = pooled.symbols, estimate_in_batches(pooled, model)
    return Panel(tuple(symbols), estimates, method.estimator, method.lags, method)


def _joined(panels: Sequence[Panel]) -> Panel:
    """One panel of the stocks of several, in their order."""
    if not panels:
        raise ValueError("there is no tape: a stream of them gave none")
    first = panels[0]
    symbols = tuple(symbol for panel in panels for symbol in panel.symbols)
    if len(set(symbols)) < len(symbols):
        twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
        raise ValueError(f"symbol {twice!r} is in two parts of a stream: pass a list of tapes to pool their days")
    estimates = jax.tree.map(lambda *parts: np.concatenate(parts), *(panel.estimates for panel in panels))
    return Panel(symbols, estimates, first.estimator, first.lags, first.method)


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

    rows = []
    for name, x in _cross_section(panel, winsorise).items():
        some, two = len(x) > 0, len(x) > 1
        rows.append(
            {
                "coefficient": name,
                "unit": UNITS[name],
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


def _cross_section(panel: Panel, quantiles: tuple[float, float] | None) -> dict[str, np.ndarray]:
    """Winsorised estimates of the usable stocks by coefficient."""
    usable = np.asarray(panel.estimates.coefficients)[panel.usable]
    return {name: winsorised(usable[:, k], quantiles) for k, name in enumerate(panel.estimates.terms)}
