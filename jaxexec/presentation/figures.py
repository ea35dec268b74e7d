"""The figures of the house: plain arrays in, a `matplotlib.figure.Figure` out, no global state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxexec.presentation.style import FAINT, INK, color, dashes, drawing, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves(
    x: ArrayLike,
    ys: Mapping[str, ArrayLike],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> "Figure":
    """Lines over one axis.

    Args:
        x: Abscissae, shape (points,).
        ys: Name of each line, to its ordinates, shape (points,); a NaN leaves a gap.
        title: Title, at best a sentence that says what is seen.
        xlabel: Name and unit of the abscissa.
        ylabel: Name and unit of the ordinate.
        log_x: Logarithmic abscissa.
        log_y: Logarithmic ordinate.

    Raises:
        ValueError: A line has another length than `x`.
    """
    with drawing(title, xlabel, ylabel) as (figure, axes):
        _lines(axes, x, ys)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
    return figure


def steps_curve(
    edges: ArrayLike,
    values: Mapping[str, ArrayLike],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    from_zero: bool = True,
) -> "Figure":
    """Piecewise-constant curves, such as volume and volatility through the day.

    Args:
        edges: Ends of the steps, shape (steps + 1,).
        values: Name of each curve, to its values, shape (steps,).
        title: Title.
        xlabel: Name and unit of the abscissa.
        ylabel: Name and unit of the ordinate.
        from_zero: Whether the ordinate starts at zero.

    Raises:
        ValueError: A curve has another number of values than there are steps.
    """
    with drawing(title, xlabel, ylabel) as (figure, axes):
        ends = np.asarray(edges)
        for index, (name, y) in enumerate(values.items()):
            heights = _like(name, y, len(ends) - 1)
            axes.stairs(heights, ends, baseline=None, color=color(index), lw=1.8, label=label(name, 28))
            if len(values) == 1:
                axes.stairs(heights, ends, baseline=0, fill=True, color=color(index), alpha=0.12)
        if from_zero:
            axes.set_ylim(bottom=0)
    return figure


def error_bars(
    labels: Sequence[str],
    estimates: ArrayLike,
    errors: ArrayLike,
    title: str,
    xlabel: str,
    *,
    truth: ArrayLike | None = None,
    level: float = 1.96,
) -> "Figure":
    """Estimates with their intervals, one a line, read from the top; the true values where they are known.

    Args:
        labels: Names, shape (estimates,).
        estimates: Shape (estimates,).
        errors: Standard errors, shape (estimates,).
        title: Title.
        xlabel: Name and unit of what is estimated.
        truth: True values, shape (estimates,), of a synthetic case.
        level: Half-width of an interval, in standard errors.

    Raises:
        ValueError: The lengths differ.
    """
    with drawing(title, xlabel, "") as (figure, axes):
        count = len(labels)
        figure.set_figheight(min(max(1.5 + 0.3 * count, 2.2), 12.0))
        places = np.arange(count)[::-1]
        centre, half = _like("estimates", estimates, count), level * _like("errors", errors, count)
        axes.axvline(0, color=FAINT, lw=0.8)
        name = f"estimate ± {level:g} s.e."
        axes.errorbar(centre, places, xerr=half, fmt="o", ms=4.5, lw=1.6, capsize=2.5, color=color(0), label=name)
        if truth is not None:
            exact = _like("truth", truth, count)
            axes.errorbar(exact, places, fmt="D", ms=5, mfc="none", mew=1.4, color=color(1), label="truth")
        axes.set_yticks(places, [label(str(name), 30) for name in labels])
        axes.set_ylim(-0.6, count - 0.4)
        axes.grid(visible=False, axis="y")
    return figure


def violins(
    samples: Mapping[str, ArrayLike], title: str, ylabel: str, *, xlabel: str = "", log_y: bool = False
) -> "Figure":
    """Distributions side by side: density, the middle half as a bar, the median as a dot.

    Args:
        samples: Name of each distribution, to its values, shape (values,); what is not finite is left out.
        title: Title.
        ylabel: Name and unit of the values.
        xlabel: What the distributions are of.
        log_y: Show log10 of the values; those that are not positive are left out.
    """
    with drawing(title, xlabel, f"log10 of {ylabel}" if log_y else ylabel) as (figure, axes):
        for place, values in enumerate(samples.values()):
            _violin(axes, place, _kept(values, log_y), color(0))
        axes.set_xticks(range(len(samples)), [_two_lines(label(name, 28)) for name in samples])
        axes.set_xlim(-0.6, len(samples) - 0.4)
        axes.grid(visible=False, axis="x")
    return figure


def trajectories(
    times: ArrayLike,
    inventories: Mapping[str, ArrayLike],
    title: str = "Shares left to trade",
    xlabel: str = "time (trading days)",
    ylabel: str = "inventory (shares)",
) -> "Figure":
    """Schedules as what is left to trade over time.

    Args:
        times: Nodes, shape (nodes,).
        inventories: Name of each schedule, to its inventory, shape (nodes,).
        title: Title.
        xlabel: Name and unit of the abscissa.
        ylabel: Name and unit of the ordinate.
    """
    with drawing(title, xlabel, ylabel) as (figure, axes):
        _lines(axes, times, inventories)
        axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
    return figure


def frontier(
    risk: ArrayLike,
    cost: ArrayLike,
    title: str = "Efficient frontier",
    xlabel: str = "standard deviation of the cost (currency)",
    ylabel: str = "expected cost (currency)",
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
) -> "Figure":
    """Expected cost against its risk, with named strategies for comparison.

    Args:
        risk: Standard deviations or variances, shape (points,).
        cost: Expected costs, shape (points,).
        title: Title.
        xlabel: Name and unit of the risk.
        ylabel: Name and unit of the cost.
        points: Name of each strategy, to its risk and cost.
    """
    with drawing(title, xlabel, ylabel) as (figure, axes):
        x = np.asarray(risk)
        y = _like("cost", cost, len(x))
        order = np.argsort(x)
        axes.plot(x[order], y[order], color=color(0), label="efficient")
        axes.plot(x, y, "o", ms=3.5, color=color(0))
        for index, (name, place) in enumerate((points or {}).items(), start=1):
            axes.plot(*place, "D", ms=6, color=color(index), mec="white", mew=0.8, label=label(name, 28))
        axes.margins(0.06, 0.08)
    return figure


def _lines(axes: "Axes", x: ArrayLike, ys: Mapping[str, ArrayLike]) -> None:
    """Lines over one axis, and their legend."""
    abscissa = np.asarray(x)
    for index, (name, y) in enumerate(ys.items()):
        ordinate = _like(name, y, len(abscissa))
        axes.plot(abscissa, ordinate, dashes(index), color=color(index), label=label(name, 28))


def _violin(axes: "Axes", place: int, values: np.ndarray, shade: str) -> None:
    """One distribution; too few values for a density are drawn as dots."""
    if len(values) < 5 or np.ptp(values) == 0:
        axes.plot(np.full(len(values), place), values, "o", ms=4, color=shade)
        return
    body = axes.violinplot(values, [place], widths=0.8, showextrema=False, points=200)["bodies"]
    for part in body:  # pyright: ignore[reportGeneralTypeIssues]
        part.set(facecolor=shade, alpha=0.25, edgecolor=shade, linewidth=1.2)
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
    axes.vlines(place, lower, upper, color=shade, lw=5)
    axes.plot(place, median, "o", ms=4.5, color="white", mec=INK, mew=0.8)


def _kept(values: ArrayLike, log: bool) -> np.ndarray:
    """The values that can be shown."""
    kept = np.asarray(values, dtype=float)
    kept = kept[np.isfinite(kept)]
    return np.log10(kept[kept > 0]) if log else kept


def _like(name: str, values: ArrayLike, length: int) -> np.ndarray:
    """`values` as an array of one axis of that length."""
    array = np.asarray(values, dtype=float)
    if array.shape != (length,):
        raise ValueError(f"{name} has shape {array.shape} where ({length},) is needed")
    return array


def _two_lines(text: str) -> str:
    """A tick label broken at the blank or underscore nearest its middle."""
    breaks = [i for i, c in enumerate(text) if c in " _"]
    if len(text) < 12 or not breaks:
        return text
    middle = min(breaks, key=lambda i: abs(i - len(text) / 2))
    return text[:middle] + "\n" + text[middle + 1 :]
