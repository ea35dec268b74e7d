"""One look for every figure: quiet axes, a palette that the colour-blind can read, text that is only text."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxexec.presentation.cells import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0b6fa4", "#d9600a", "#10916b", "#c2619b", "#b88a00", "#4aa3d8", "#6b6f76")
"""After Okabe and Ito (2008), darkened until each stands out from white."""

INK = "#22303c"
FAINT = "#8a97a3"
GRID = "#dfe5ea"
SIZE = (6.4, 3.6)
"""Width and height of a figure, inches."""

_PARAMETERS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 6),
    "axes.formatter.use_mathtext": False,
    "axes.formatter.use_locale": False,
    "axes.unicode_minus": True,
    "axes.xmargin": 0.02,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "jaxexec",
    "svg.fonttype": "path",
    "path.simplify_threshold": 0.3,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look, for as long as the context lasts; the user's own settings come back after it."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_PARAMETERS)
        yield


@contextlib.contextmanager
def drawing(title: str, xlabel: str, ylabel: str) -> "Iterator[tuple[Figure, Axes]]":
    """A figure with one pair of axes to draw on; the layout is settled, once for all, where the context ends.

    The figure belongs to no window and to no global list, so it is freed when it is no longer used.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=SIZE, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(label(title, 90), loc="left", fontsize=10.5, fontweight="bold", pad=9)
        axes.set_xlabel(label(xlabel))
        axes.set_ylabel(label(ylabel))
        axes.tick_params(which="both", length=0, pad=5)
        yield figure, axes
        legend_above(axes)
        readable_ticks(axes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


@contextlib.contextmanager
def drawing_grid(
    title: str, rows: int, columns: int, size: tuple[float, float]
) -> "Iterator[tuple[Figure, list[list[Axes]]]]":
    """A figure with a grid of axes, row by row, and one title; else as `drawing`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        figure.suptitle(label(title, 90), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        for axes in grid.flat:
            axes.tick_params(which="both", length=0, pad=4)
        yield figure, grid.tolist()
        for axes in grid.flat:
            readable_ticks(axes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def label(text: str, limit: int = 60) -> str:
    """A text for a figure: short, on one line, nothing hidden in it."""
    return visible(text, limit)


def color(index: int) -> str:
    """The colour of the `index`-th thing in a figure."""
    return PALETTE[index % len(PALETTE)]


def dashes(index: int) -> str:
    """The line style that goes with `color`: dashed once the colours repeat."""
    return ("-", "--", ":")[index // len(PALETTE) % 3]


def legend_above(axes: "Axes") -> None:
    """A legend in rows between title and data, where it hides nothing; none for a single entry."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) < 2:
        return
    columns = min(max(1, 84 // (max(map(len, names)) + 7)), len(names), 5)
    axes.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        borderaxespad=0.1,
        handlelength=1.6,
        columnspacing=1.6,
    )
    rows = -(-len(names) // columns)
    title = axes.get_title(loc="left")
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=9 + 15 * rows)


def readable_ticks(axes: "Axes") -> None:
    """Tick labels in plain text: thousands separated, millions as M, powers of ten on logarithmic axes."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        largest = max(map(abs, axis.get_view_interval()))
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(_power))
            axis.set_minor_formatter(NullFormatter())
        elif largest >= 2e6:
            axis.set_major_formatter(FuncFormatter(_millions))
        elif largest >= 1e4:
            axis.set_major_formatter(FuncFormatter(_thousands))


def _power(value: float, _: float) -> str:
    if 1e-3 <= value < 1e6:
        return f"{value:,.10g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")


def _millions(value: float, _: float) -> str:
    return "0" if value == 0 else f"{value / 1e6:,.6g} M".replace("-", "−")


def _thousands(value: float, _: float) -> str:
    return f"{value:,.10g}".replace("-", "−")
