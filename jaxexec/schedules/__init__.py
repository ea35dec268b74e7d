"""Benchmarks and closed forms. They call no solver, and no solver calls them: the one checks the other."""

from jaxexec.schedules.almgren_chriss import AlmgrenChriss, almgren_chriss
from jaxexec.schedules.benchmarks import exponential, front_loaded, immediate, pov, twap, vwap
from jaxexec.schedules.gueant import GueantQuadratic, gueant_quadratic
from jaxexec.schedules.infinite_horizon import InfiniteHorizon, infinite_horizon

__all__ = [
    "AlmgrenChriss",
    "GueantQuadratic",
    "InfiniteHorizon",
    "almgren_chriss",
    "exponential",
    "front_loaded",
    "gueant_quadratic",
    "immediate",
    "infinite_horizon",
    "pov",
    "twap",
    "vwap",
]
