"""jaxexec: optimal order execution in JAX, from trades and quotes to certified, differentiable schedules.

Names are loaded when first used (PEP 562), so `import jaxexec` is light and creates no array. `__init__.pyi` tells
editors and type checkers what is here.
"""

import importlib
from typing import Any

from jaxexec._version import __version__

_HOMES = {
    "jaxexec.numerics.status": ("Status", "Flag"),
    "jaxexec.market": ("TimeGrid", "Market"),
    "jaxexec.costs": ("ExecutionCost", "QuadraticCost", "PowerLawCost"),
    "jaxexec.liquidation": ("Liquidation", "Schedule", "expected_cost", "variance", "objective"),
    "jaxexec.solvers": ("solve", "LadderNewton"),
    "jaxexec.schedules": ("almgren_chriss", "immediate", "twap", "vwap"),
    "jaxexec.frontier": ("efficient_frontier", "Frontier"),
    "jaxexec.calibration": ("calibrate", "Calibration"),
}
_ROOMS = ("tape", "impact", "storage", "presentation", "calibration", "report")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Calibration",
    "ExecutionCost",
    "Flag",
    "Frontier",
    "LadderNewton",
    "Liquidation",
    "Market",
    "PowerLawCost",
    "QuadraticCost",
    "Schedule",
    "Status",
    "TimeGrid",
    "__version__",
    "almgren_chriss",
    "calibrate",
    "calibration",
    "efficient_frontier",
    "expected_cost",
    "immediate",
    "impact",
    "objective",
    "presentation",
    "report",
    "solve",
    "storage",
    "tape",
    "twap",
    "variance",
    "vwap",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"jaxexec.{name}")
    else:
        raise AttributeError(f"module 'jaxexec' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
