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

__all__ = [
    "Table",
    "band",
    "bars",
    "curves",
    "distribution",
    "error_bars",
    "fan",
    "format_number",
    "frontier",
    "protected",
    "steps_curve",
    "table_of",
    "to_png",
    "to_svg",
    "trajectories",
    "unprotected",
    "violins",
    "visible",
    "waterfall",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxexec.presentation' has no attribute {name!r}")
    home = "export" if name in ("to_png", "to_svg") else "figures"
    return getattr(importlib.import_module(f"jaxexec.presentation.{home}"), name)
