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
    "jaxexec.costs": (
        "CustomCost",
        "ExecutionCost",
        "ParticipationCap",
        "PowerLawCost",
        "QuadraticCost",
        "SumCost",
        "TwoSidedCost",
        "VenueSplit",
    ),
    "jaxexec.liquidation": ("Liquidation", "Schedule", "expected_cost", "variance", "objective"),
    "jaxexec.basket": ("Basket", "BasketSchedule", "FactorCovariance"),
    "jaxexec.solvers": (
        "BlockLadderNewton",
        "Bound",
        "Collocation",
        "LadderNewton",
        "MultipleShooting",
        "Resolved",
        "Shooting",
        "certify",
        "solve",
        "solve_to",
    ),
    "jaxexec.scale": ("orders_from", "solve_many"),
    "jaxexec.schedules": (
        "almgren_chriss",
        "exponential",
        "front_loaded",
        "gueant_quadratic",
        "immediate",
        "infinite_horizon",
        "pov",
        "twap",
        "vwap",
    ),
    "jaxexec.pricing": ("best_participation", "block_price"),
    "jaxexec.frontier": ("efficient_frontier", "Frontier"),
    "jaxexec.calibration": ("calibrate", "Calibration"),
}
_ROOMS = ("tape", "impact", "storage", "presentation", "calibration", "report")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Basket",
    "BasketSchedule",
    "BlockLadderNewton",
    "Bound",
    "Calibration",
    "Collocation",
    "CustomCost",
    "ExecutionCost",
    "FactorCovariance",
    "Flag",
    "Frontier",
    "LadderNewton",
    "Liquidation",
    "Market",
    "MultipleShooting",
    "ParticipationCap",
    "PowerLawCost",
    "QuadraticCost",
    "Resolved",
    "Schedule",
    "Shooting",
    "Status",
    "SumCost",
    "TimeGrid",
    "TwoSidedCost",
    "VenueSplit",
    "__version__",
    "almgren_chriss",
    "best_participation",
    "block_price",
    "calibrate",
    "calibration",
    "certify",
    "efficient_frontier",
    "expected_cost",
    "exponential",
    "front_loaded",
    "gueant_quadratic",
    "immediate",
    "impact",
    "infinite_horizon",
    "objective",
    "orders_from",
    "pov",
    "presentation",
    "report",
    "solve",
    "solve_many",
    "solve_to",
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
