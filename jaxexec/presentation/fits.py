"""Pictures of a fit: the data with the curve and its band, what is left over, and whether that remembers."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxexec.presentation.cells import format_number
from jaxexec.presentation.figures import like
from jaxexec.presentation.style import FAINT, INK, color, drawing, drawing_grid, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 1500
_GROUPS = 12
_FEWEST_A_GROUP = 5


def fitted_curve(
    x: ArrayLike,
    y: ArrayLike,
    along: ArrayLike,
    centre: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    log_x: bool = False,
    means: bool = True,
) -> "Figure":
    """Observations, their means in groups of equal number, and the fitted curve with its band.

    Args:
        x: Where the observations are, shape (rows,).
        y: What was observed, shape (rows,); rows that are not finite are left out.
        along: Abscissae of the curve, shape (points,).
        centre: The fitted curve, shape (points,).
        low: Lower edge of its band, shape (points,).
        high: Upper edge, shape (points,).
        title: Title.
        xlabel: Name and unit of the abscissa.
        ylabel: Name and unit of the ordinate.
        log_x: Logarithmic abscissa.
        means: Whether to draw means of groups, with intervals of two standard errors; else the observations alone.

    Raises:
        ValueError: The lengths differ.
    """
    rows = np.asarray(x, float)
    observed = like("y", y, len(rows))
    points = np.asarray(along, float)
    lines = {
        word: like(word, values, len(points)) for word, values in (("centre", centre), ("low", low), ("high", high))
    }
    kept = np.isfinite(rows) & np.isfinite(observed)
    rows, observed = rows[kept], observed[kept]
    with drawing(title, xlabel, ylabel) as (figure, axes):
        shown = _some(len(rows))
        grouped = means and len(rows) >= 2 * _FEWEST_A_GROUP
        dots = (
            {"ms": 2.6, "alpha": 0.45, "color": FAINT, "zorder": 1}
            if grouped
            else {"ms": 4.2, "color": INK, "zorder": 3}
        )
        axes.plot(rows[shown], observed[shown], "o", mew=0, label="data", **dots)
        axes.fill_between(points, lines["low"], lines["high"], color=color(1), alpha=0.22, lw=0, label="95 % band")
        axes.plot(points, lines["centre"], color=color(1), label="fit")
        seen = [lines["low"], lines["high"]]
        if grouped:
            middle, mean, error = _group_means(rows, observed)
            axes.errorbar(
                middle,
                mean,
                yerr=2 * error,
                fmt="o",
                ms=4,
                lw=1.3,
                capsize=2,
                color=INK,
                label="mean ± 2 s.e.",
                zorder=3,
            )
            seen += [mean - 2 * error, mean + 2 * error]
        if len(observed):
            # Noise is often many times the curve: a few per cent of the rows may lie outside.
            seen.append(np.quantile(observed, [0.03, 0.97]) if grouped else observed)
        _limits(axes, np.concatenate(seen))
        if log_x:
            axes.set_xscale("log")
    return figure


def residual_panels(fitted: ArrayLike, residuals: ArrayLike, title: str, unit: str, *, log_x: bool = False) -> "Figure":
    """What a fit leaves over: beside what it says, with means in groups, and its quantiles beside those of a normal.

    Args:
        fitted: What the fit says of each row, shape (rows,).
        residuals: Observed less fitted, in standard deviations, shape (rows,); what is not finite is left out.
        title: Title.
        unit: Name and unit of what is fitted.
        log_x: Logarithmic abscissa beside what is fitted, which must be positive.

    Raises:
        ValueError: The lengths differ.
    """
    said = np.asarray(fitted, float)
    left = like("residuals", residuals, len(said))
    kept = np.isfinite(said) & np.isfinite(left)
    said, left = said[kept], left[kept]
    with drawing_grid(title, 1, 2, (6.4, 3.0)) as (figure, ((beside, normal),)):
        shown = _some(len(said))
        beside.axhline(0, color=FAINT, lw=0.9)
        beside.plot(said[shown], left[shown], "o", ms=2.2, mew=0, alpha=0.3, color=color(0))
        if len(said) >= 2 * _FEWEST_A_GROUP:
            middle, mean, error = _group_means(said, left)
            beside.errorbar(middle, mean, yerr=2 * error, fmt="o", ms=4, lw=1.3, capsize=2, color=INK)
        if log_x:
            beside.set_xscale("log")
        beside.set_xlabel(label(unit))
        beside.set_ylabel("residual (std. deviations)")
        ranked = np.sort(left)[_some(len(left))]
        expected = _normal_scores(len(ranked))
        normal.plot(expected, expected, color=FAINT, lw=0.9)
        normal.plot(expected, ranked, "o", ms=2.6, mew=0, color=color(0))
        normal.set_xlabel("quantile of a normal distribution")
        normal.set_ylabel("quantile of the residuals")
    return figure


def correlogram(correlations: ArrayLike, bound: float, title: str, xlabel: str) -> "Figure":
    """Autocorrelations by lag, and the bound that 95 % of those of white noise stay within.

    Args:
        correlations: At lags 1, 2, …, shape (lags,).
        bound: 1.96/√n.
        title: Title.
        xlabel: What a lag is.
    """
    heights = np.asarray(correlations, float)
    with drawing(title, xlabel, "autocorrelation") as (figure, axes):
        lags = np.arange(1, len(heights) + 1)
        name = f"± {format_number(float(bound), 2)}: 95 % of white noise"
        axes.axhspan(-bound, bound, color=color(0), alpha=0.14, lw=0, label=name)
        axes.axhline(0, color=FAINT, lw=0.9)
        axes.vlines(lags, 0, heights, color=color(0), lw=2.2, label="residuals")
        axes.margins(y=0.15)
    return figure


def _group_means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of x and of y, and the standard error of the latter, in groups of equal number along x."""
    order = np.argsort(x, kind="stable")
    count = max(2, min(_GROUPS, len(x) // _FEWEST_A_GROUP))
    groups = np.array_split(order, count)
    middle = np.array([x[g].mean() for g in groups])
    mean = np.array([y[g].mean() for g in groups])
    return middle, mean, np.array([y[g].std(ddof=1) / len(g) ** 0.5 for g in groups])


def _limits(axes: "Axes", seen: np.ndarray) -> None:
    finite = seen[np.isfinite(seen)]
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        room = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - room, high + room)


def _normal_scores(count: int) -> np.ndarray:
    """Expected order statistics of a standard normal sample, about: quantiles at (i − ½)/n."""
    from statistics import NormalDist

    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])


def _some(count: int) -> np.ndarray:
    """Places of at most `_MOST_POINTS` of so many rows, evenly chosen."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(int)) if count else np.zeros(0, int)
