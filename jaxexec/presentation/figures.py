"""The figures of the house: plain arrays in, a `matplotlib.figure.Figure` out, no global state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxexec.presentation.cells import format_number
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
    errors: Mapping[str, ArrayLike] | None = None,
) -> "Figure":
    """Piecewise-constant curves, such as volume and volatility through the day.

    Args:
        edges: Ends of the steps, shape (steps + 1,).
        values: Name of each curve, to its values, shape (steps,).
        title: Title.
        xlabel: Name and unit of the abscissa.
        ylabel: Name and unit of the ordinate.
        from_zero: Whether the ordinate starts at zero.
        errors: Standard errors by the name of a curve, shape (steps,): 95 % intervals are shaded; a NaN has none.

    Raises:
        ValueError: A curve has another number of values than there are steps.
    """
    with drawing(title, xlabel, ylabel) as (figure, axes):
        ends = np.asarray(edges)
        for index, (name, y) in enumerate(values.items()):
            heights = like(name, y, len(ends) - 1)
            axes.stairs(heights, ends, baseline=None, color=color(index), lw=1.8, label=label(name, 28))
            if errors is not None and name in errors:
                half = 1.96 * np.nan_to_num(like(f"errors of {name}", errors[name], len(ends) - 1), nan=0.0)
                low = np.maximum(heights - half, 0) if from_zero else heights - half
                axes.stairs(heights + half, ends, baseline=low, fill=True, color=color(index), alpha=0.22)
            elif len(values) == 1:
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
        centre, half = like("estimates", estimates, count), level * like("errors", errors, count)
        axes.axvline(0, color=FAINT, lw=0.8)
        name = f"estimate ± {level:g} s.e."
        axes.errorbar(centre, places, xerr=half, fmt="o", ms=4.5, lw=1.6, capsize=2.5, color=color(0), label=name)
        if truth is not None:
            exact = like("truth", truth, count)
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
            violin(axes, place, _kept(values, log_y), color(0))
        axes.set_xticks(range(len(samples)), [two_lines(label(name, 28)) for name in samples])
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
        y = like("cost", cost, len(x))
        order = np.argsort(x)
        axes.plot(x[order], y[order], color=color(0), label="efficient")
        axes.plot(x, y, "o", ms=3.5, color=color(0))
        for index, (name, place) in enumerate((points or {}).items(), start=1):
            axes.plot(*place, "D", ms=6, color=color(index), mec="white", mew=0.8, label=label(name, 28))
        axes.margins(0.06, 0.08)
    return figure


def distribution(
    edges: ArrayLike,
    counts: ArrayLike,
    title: str,
    xlabel: str,
    *,
    marks: Mapping[str, float] | None = None,
    curve: tuple[ArrayLike, ArrayLike] | None = None,
) -> "Figure":
    """A histogram, with marked values and a density to compare it with.

    Fine bins are joined until about a hundred cover what was drawn.

    Args:
        edges: Ends of the bins, shape (bins + 1,).
        counts: Values in each bin, shape (bins,).
        title: Title.
        xlabel: Name and unit of the values.
        marks: Name of each marked value, to the value.
        curve: Abscissae and densities of a curve to compare with, shape (points,) each.

    Raises:
        ValueError: `counts` has another length than there are bins.
    """
    ends, held = np.asarray(edges, float), np.asarray(counts, float)
    held = like("counts", held, len(ends) - 1)
    used = np.flatnonzero(held)
    if used.size:
        ends, held = ends[used[0] : used[-1] + 2], held[used[0] : used[-1] + 1]
    joined = max(1, len(held) // 100)
    starts = np.arange(0, len(held), joined)
    held, ends = np.add.reduceat(held, starts), np.append(ends[starts], ends[-1])
    share, width = 100 * held / max(held.sum(), 1), ends[1] - ends[0]
    with drawing(title, xlabel, "share of all (%)") as (figure, axes):
        axes.stairs(share, ends, fill=True, color=color(0), alpha=0.25)
        axes.stairs(share, ends, color=color(0), lw=1.2, label="drawn")
        if curve is not None:
            x, y = np.asarray(curve[0]), 100 * width * np.asarray(curve[1])
            axes.plot(x, y, color=INK, lw=1.0, ls="--", label="normal")
        for index, (name, value) in enumerate((marks or {}).items(), start=1):
            axes.axvline(value, color=color(index), lw=1.4, ls=dashes(index), label=label(name, 28))
        axes.set_ylim(bottom=0)
    return figure


def fan(times: ArrayLike, paths: ArrayLike, title: str, xlabel: str, ylabel: str) -> "Figure":
    """Many paths over one axis of time, with their mean and the range that holds nine in ten.

    Args:
        times: Times, shape (nodes,).
        paths: One path a row, shape (paths, nodes).
        title: Title.
        xlabel: Name and unit of time.
        ylabel: Name and unit of the paths.

    Raises:
        ValueError: `paths` is not two-dimensional, or its rows have another length than `times`.
    """
    x, y = np.asarray(times, float), np.asarray(paths, float)
    if y.ndim != 2 or y.shape[1] != len(x):
        raise ValueError(f"paths must have shape (paths, {len(x)}), got {y.shape}")
    low, high = np.quantile(y, [0.05, 0.95], axis=0)
    with drawing(title, xlabel, ylabel) as (figure, axes):
        axes.plot(x, y[:60].T, color=FAINT, lw=0.6)
        axes.fill_between(x, low, high, color=color(0), alpha=0.15, lw=0, label="nine in ten")
        axes.plot(x, y.mean(axis=0), color=color(0), label="mean")
    return figure


def bars(labels: Sequence[str], values: ArrayLike, title: str, xlabel: str) -> "Figure":
    """Signed amounts as bars, one a line, the largest at the top.

    Args:
        labels: Names, shape (values,).
        values: Shape (values,); what is not finite has no bar.
        title: Title.
        xlabel: Name and unit of the values.

    Raises:
        ValueError: The lengths differ.
    """
    heights = like("values", values, len(labels))
    order = np.argsort(np.where(np.isfinite(heights), np.abs(heights), -1), kind="stable")
    with drawing(title, xlabel, "") as (figure, axes):
        figure.set_figheight(min(max(1.5 + 0.3 * len(order), 2.2), 12.0))
        shown = np.where(np.isfinite(heights), heights, 0)[order]
        axes.barh(np.arange(len(order)), shown, height=0.62, color=[color(1 if x > 0 else 2) for x in shown])
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_yticks(np.arange(len(order)), [label(str(labels[i]), 30) for i in order])
        axes.grid(visible=False, axis="y")
    return figure


def band(
    x: ArrayLike,
    centre: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    name: str = "95 %",
) -> "Figure":
    """A line with the band that holds it.

    Args:
        x: Abscissae, shape (points,).
        centre: The line, shape (points,).
        low: Lower edge of the band, shape (points,).
        high: Upper edge, shape (points,).
        title: Title.
        xlabel: Name and unit of the abscissa.
        ylabel: Name and unit of the ordinate.
        name: What the band is.

    Raises:
        ValueError: The lengths differ.
    """
    abscissa = np.asarray(x, float)
    lines = {word: like(word, y, len(abscissa)) for word, y in (("centre", centre), ("low", low), ("high", high))}
    with drawing(title, xlabel, ylabel) as (figure, axes):
        axes.fill_between(abscissa, lines["low"], lines["high"], color=color(0), alpha=0.18, lw=0, label=name)
        axes.plot(abscissa, lines["centre"], color=color(0), label="estimate")
    return figure


def waterfall(
    parts: Mapping[str, float],
    title: str,
    ylabel: str = "cost (currency)",
    *,
    total: str = "total",
) -> "Figure":
    """What a total is made of: each part begins where the one before it ended, and the total stands at the end.

    Args:
        parts: Name of each part, to its amount; what is not finite is left out of the sum and marked as missing.
        title: Title.
        ylabel: Name and unit of the amounts.
        total: Name of the sum.
    """
    amounts = np.asarray(list(parts.values()), dtype=float)
    counted = np.where(np.isfinite(amounts), amounts, 0)
    ends = np.cumsum(counted)
    heights, bottoms = np.append(counted, counted.sum()), np.append(ends - counted, 0)
    places, tops = np.arange(len(heights)), np.maximum(bottoms, bottoms + heights)
    low, high = min(0.0, np.min(bottoms + heights)), np.max(tops)
    room = 0.08 * max(high - low, np.finfo(float).tiny)
    with drawing(title, "", ylabel) as (figure, axes):
        shades = [color(1) if amount > 0 else color(2) for amount in counted] + [color(0)]
        axes.bar(places, heights, bottom=bottoms, width=0.62, color=shades, edgecolor=shades, linewidth=1, zorder=2)
        axes.hlines(ends, places[:-1] + 0.31, places[1:] - 0.31, color=FAINT, lw=0.8, zorder=1)
        axes.axhline(0, color=INK, lw=0.8, zorder=3)
        texts = _alike(np.append(amounts, counted.sum()))
        for place, top, text in zip(places, tops, texts, strict=True):
            axes.annotate(text, (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=8, color=INK)
        axes.set_xticks(places, [two_lines(label(str(name), 28)) for name in (*parts, total)])
        axes.set_xlim(-0.6, len(places) - 0.4)
        axes.set_ylim(low - (room if low < 0 else 0), high + room)
        axes.grid(visible=False, axis="x")
    return figure


def _alike(values: np.ndarray) -> list[str]:
    """Numbers with the decimals that leave three significant digits of the largest."""
    sizes = np.abs(values[np.isfinite(values)])
    largest = float(np.max(sizes, initial=0.0))
    if largest == 0 or not 1e-3 <= largest < 1e9:
        return [format_number(float(value), 3) for value in values]
    decimals = max(0, 2 - int(np.floor(np.log10(largest))))
    rounded = np.round(values, decimals) + 0.0  # no minus before a zero
    return [f"{x:,.{decimals}f}".replace("-", "−") if np.isfinite(x) else format_number(float(x)) for x in rounded]


def _lines(axes: "Axes", x: ArrayLike, ys: Mapping[str, ArrayLike]) -> None:
    """Lines over one axis, and their legend."""
    abscissa = np.asarray(x)
    for index, (name, y) in enumerate(ys.items()):
        ordinate = like(name, y, len(abscissa))
        axes.plot(abscissa, ordinate, dashes(index), color=color(index), label=label(name, 28))


def violin(axes: "Axes", place: int, values: np.ndarray, shade: str) -> None:
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


def like(name: str, values: ArrayLike, length: int) -> np.ndarray:
    """`values` as an array of one axis of that length."""
    array = np.asarray(values, dtype=float)
    if array.shape != (length,):
        raise ValueError(f"{name} has shape {array.shape} where ({length},) is needed")
    return array


def two_lines(text: str) -> str:
    """A tick label broken at the blank or underscore nearest its middle."""
    breaks = [i for i, c in enumerate(text) if c in " _"]
    if len(text) < 12 or not breaks:
        return text
    middle = min(breaks, key=lambda i: abs(i - len(text) / 2))
    return text[:middle] + "\n" + text[middle + 1 :]
