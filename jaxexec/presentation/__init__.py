"""Plain arrays and records in, tables and figures out; what a result shows of itself goes through here.

The figures are loaded when first used, so that a command line without figures starts without NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxexec.presentation.cells import format_number, visible
from jaxexec.presentation.table import Table, protected, table_of, unprotected

if TYPE_CHECKING:
    from jaxexec.presentation.export import to_png, to_svg
    from jaxexec.presentation.figures import (
        band,
        bars,
        curves,
        distribution,
        error_bars,
        fan,
        frontier,
        steps_curve,
        trajectories,
        violins,
        waterfall,
    )
    from jaxexec.presentation.fits import correlogram, fitted_curve, residual_panels
    from jaxexec.presentation.panels import agreement, interval_panels, scatter_matrix, violin_panels

__all__ = [
    "Table",
    "agreement",
    "band",
    "bars",
    "correlogram",
    "curves",
    "distribution",
    "error_bars",
    "fan",
    "fitted_curve",
    "format_number",
    "frontier",
    "interval_panels",
    "protected",
    "residual_panels",
    "scatter_matrix",
    "steps_curve",
    "table_of",
    "to_png",
    "to_svg",
    "trajectories",
    "unprotected",
    "violin_panels",
    "violins",
    "visible",
    "waterfall",
]


_HOMES = {
    "export": ("to_png", "to_svg"),
    "fits": ("correlogram", "fitted_curve", "residual_panels"),
    "panels": ("agreement", "interval_panels", "scatter_matrix", "violin_panels"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxexec.presentation' has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "figures")
    return getattr(importlib.import_module(f"jaxexec.presentation.{home}"), name)
