"""Figures of several axes, for quantities that share no unit: each has an axis of its own."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaxexec.presentation.cells import format_number
from jaxexec.presentation.figures import like, two_lines, violin
from jaxexec.presentation.style import FAINT, INK, color, drawing_grid, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 2000
_IN_A_ROW = 4


def violin_panels(samples: Mapping[str, ArrayLike], units: Sequence[str], title: str) -> "Figure":
    """Distributions of quantities with different units: density, the middle half as a bar, the median as a dot.

    Args:
        samples: Name of each quantity, to its values, shape (values,); what is not finite is left out.
        units: Unit of each.
        title: Title.

    Raises:
        ValueError: There are not as many units as quantities.
    """
    _as_many("units", units, samples)
    columns = [_finite(values) for values in samples.values()]
    with _row_of_axes(title, len(samples), 3.3) as (figure, places):
        for axes, name, values, (scale, text) in zip(places, samples, columns, scales(columns, units), strict=False):
            violin(axes, 0, values * scale, color(0))
            axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
            axes.set_xticks([])
            axes.set_xlim(-0.6, 0.6)
            axes.set_title(_titled(name), fontsize=9)
            axes.set_ylabel(_shown(text))
    return figure


def interval_panels(
    labels: Sequence[str], samples: Mapping[str, tuple[ArrayLike, ArrayLike]], units: Sequence[str], title: str
) -> "Figure":
    """Estimates of several quantities with their intervals of 1.96 standard errors, one line for each label.

    Args:
        labels: Of the lines, read from the top.
        samples: Name of each quantity, to its estimates and standard errors, shape (labels,) each.
        units: Unit of each.
        title: Title.

    Raises:
        ValueError: The lengths differ.
    """
    _as_many("units", units, samples)
    places, count = np.arange(len(labels))[::-1], len(labels)
    pairs = [(like(name, x, count), 1.96 * like(name, e, count)) for name, (x, e) in samples.items()]
    sizes = scales([np.concatenate([x - half, x + half]) for x, half in pairs], units)
    with _row_of_axes(title, len(samples), min(max(1.5 + 0.3 * count, 2.1), 9.0)) as (figure, grid):
        for at, (axes, name) in enumerate(zip(grid, samples, strict=False)):
            (centre, half), (scale, text) = pairs[at], sizes[at]
            axes.axvline(0, color=FAINT, lw=0.8)
            bars = {"fmt": "o", "ms": 4.5, "lw": 1.6, "capsize": 2.5, "color": color(0)}
            axes.errorbar(centre * scale, places, xerr=half * scale, **bars)
            axes.set_yticks(places, [label(str(x), 20) for x in labels] if at % _IN_A_ROW == 0 else [""] * count)
            axes.set_ylim(-0.6, count - 0.4)
            axes.set_title(_titled(name), fontsize=9)
            axes.set_xlabel(_shown(text))
            axes.grid(visible=False, axis="y")
            axes.margins(x=0.08)
            _few_ticks(axes)
    return figure


def scatter_matrix(samples: Mapping[str, ArrayLike], units: Sequence[str], title: str) -> "Figure":
    """Every pair of quantities: points and their least-squares line below the diagonal, correlations above it.

    At most 2,000 points of a pair are drawn, evenly taken; lines and correlations are of all.

    Args:
        samples: Name of each quantity, to its values, shape (values,), in the same order for all.
        units: Unit of each.
        title: Title.

    Raises:
        ValueError: The lengths differ.
    """
    _as_many("units", units, samples)
    names, k = list(samples), len(samples)
    columns = [np.asarray(values, float) for values in samples.values()]
    table = np.array([like(name, x, len(columns[0])) for name, x in zip(names, columns, strict=True)])
    table = table[:, np.isfinite(table).all(0)]
    sizes = scales(list(table), units)
    with drawing_grid(title, k, k, (1.0 + 1.55 * k, 0.9 + 1.4 * k)) as (figure, grid):
        for i, row in enumerate(grid):
            for j, axes in enumerate(row):
                x, y = table[j] * sizes[j][0], table[i] * sizes[i][0]
                if i == j:
                    _histogram(axes, x)
                elif i > j:
                    _points_and_line(axes, x, y)
                else:
                    _correlations(axes, x, y)
                _few_ticks(axes, 3)
                axes.tick_params(labelsize=7.5, labelbottom=i == k - 1, labelleft=j == 0 and i > 0)
                if i == k - 1:
                    axes.set_xlabel(_named(names[j], sizes[j][1]), fontsize=8)
                if j == 0:
                    axes.set_ylabel(_named(names[i], sizes[i][1]), fontsize=8)
    return figure


def agreement(
    samples: Mapping[str, tuple[ArrayLike, Mapping[str, ArrayLike]]], units: Sequence[str], title: str, first: str
) -> "Figure":
    """How other ways to estimate agree with a first one: a row of axes each, with the line on which they are equal.

    Args:
        samples: Name of each quantity, to its values by the first way, shape (values,), and by name those by the
            others (NaN where there is none), which are the same for all quantities.
        units: Unit of each quantity.
        title: Title.
        first: Name of the first way.

    Raises:
        ValueError: The lengths differ.
    """
    _as_many("units", units, samples)
    others = list(next(iter(samples.values()))[1]) if samples else []
    columns = [np.asarray(x, float) for x, _ in samples.values()]
    sizes = scales(columns, units)
    size = (1.2 + 1.9 * max(len(samples), 1), 1.1 + 1.7 * max(len(others), 1))
    with drawing_grid(title, max(len(others), 1), max(len(samples), 1), size) as (figure, grid):
        for row, other in zip(grid, others, strict=False):
            for at, (axes, (name, (_, found))) in enumerate(zip(row, samples.items(), strict=True)):
                x, (scale, text) = columns[at], sizes[at]
                y, shown = like(other, found[other], len(x)), _some(len(x))
                axes.plot(x[shown] * scale, y[shown] * scale, "o", ms=2.8, alpha=0.4, mew=0, color=color(0))
                axes.axline((0, 0), slope=1, color=INK, lw=0.8, ls="--")
                _few_ticks(axes)
                axes.tick_params(labelsize=7.5, labelbottom=row is grid[-1])
                if row is grid[0]:
                    axes.set_title(_titled(name), fontsize=9)
                if row is grid[-1]:
                    axes.set_xlabel(f"{label(first, 28)}\n{_shown(text)}", fontsize=8)
        for row, other in zip(grid, others, strict=False):
            row[0].set_ylabel(label(other, 28))
    return figure


def scales(columns: Sequence[np.ndarray], units: Sequence[str]) -> list[tuple[float, str]]:
    """For each column a power of a thousand that makes its numbers readable, and the unit that goes with it.

    Columns of one unit have one scale, so that they can be compared.
    """
    largest: dict[str, float] = {}
    for column, unit in zip(columns, units, strict=True):
        sizes = np.abs(column[np.isfinite(column)])
        largest[unit] = max(largest.get(unit, 0.0), float(np.max(sizes, initial=0.0)))
    return [_scale(largest[unit], unit) for unit in units]


def _scale(largest: float, unit: str) -> tuple[float, str]:
    if largest == 0 or 0.1 <= largest < 1e4:
        return 1.0, "" if unit == "1" else _broken(unit)
    power = 3 * math.floor(math.log10(largest) / 3)
    text = f"1e{power}".replace("-", "−") + ("" if unit == "1" else f" {unit}")
    return 10.0**-power, _broken(text)


def _broken(text: str) -> str:
    """A unit in two lines where it is long: it stands beside a small pair of axes."""
    return text.replace(" per ", "\nper ", 1) if len(text) > 20 else text


def _shown(text: str) -> str:
    """A unit as a label of an axis, line by line."""
    return "\n".join(label(line) for line in text.split("\n"))


def _titled(name: str) -> str:
    return two_lines(label(name.replace("_", " "), 32))


def _named(name: str, unit: str) -> str:
    return f"{label(name.replace('_', ' '), 32)}\n{_shown(unit)}"


def _few_ticks(axes: "Axes", count: int = 4) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(count))


@contextlib.contextmanager
def _row_of_axes(title: str, count: int, height: float) -> "Iterator[tuple[Figure, list[Axes]]]":
    """Axes for `count` quantities, at most four in a row, and those left over switched off."""
    columns, rows = min(max(count, 1), _IN_A_ROW), max(1, math.ceil(count / _IN_A_ROW))
    with drawing_grid(title, rows, columns, (max(1.2 + 1.9 * columns, 4.5), height * rows)) as (figure, grid):
        places = [axes for row in grid for axes in row]
        for axes in places[count:]:
            axes.set_axis_off()
        yield figure, places


def _as_many(name: str, given: Sequence[str], samples: Mapping) -> None:
    if len(given) != len(samples):
        raise ValueError(f"{name} has {len(given)} entries where {len(samples)} are needed")


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def _some(count: int) -> np.ndarray:
    """Places of at most `_MOST_POINTS` of so many points."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(int)) if count else np.zeros(0, int)


def _histogram(axes: "Axes", x: np.ndarray) -> None:
    if len(x):
        axes.hist(x, bins=min(40, max(5, int(len(x) ** 0.5))), color=color(0), alpha=0.35)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")


def _points_and_line(axes: "Axes", x: np.ndarray, y: np.ndarray) -> None:
    shown = _some(len(x))
    axes.plot(x[shown], y[shown], "o", ms=2.2, alpha=0.35, mew=0, color=color(0))
    spread = np.square(x - x.mean()).sum() if len(x) else 0.0
    if spread > 0:
        slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, y.mean() + slope * (ends - x.mean()), color=color(1), lw=1.6)


def _correlations(axes: "Axes", x: np.ndarray, y: np.ndarray) -> None:
    text = "r = –"
    if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
        text = f"r = {format_number(float(np.corrcoef(x, y)[0, 1]), 2)}"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9.5, color=INK)
    axes.set_axis_off()
