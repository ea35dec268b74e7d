"""Benchmarks and closed forms. They call no solver, and no solver calls them: the one checks the other."""

from jaxexec.schedules.almgren_chriss import AlmgrenChriss, almgren_chriss
from jaxexec.schedules.benchmarks import exponential, front_loaded, immediate, pov, twap, vwap
from jaxexec.schedules.gueant import GueantQuadratic, gueant_quadratic
from jaxexec.schedules.infinite_horizon import InfiniteHorizon, infinite_horizon
from jaxexec.schedules.obizhaeva_wang import ObizhaevaWang, obizhaeva_wang
from jaxexec.schedules.pretrade import ImpactModel, PretradeCost, almgren_2005, almgren_2005_model
from jaxexec.schedules.serial_correlation import SerialCorrelation, serial_correlation
from jaxexec.schedules.symmetric_basket import SymmetricBasket, symmetric_basket

__all__ = [
    "AlmgrenChriss",
    "GueantQuadratic",
    "ImpactModel",
    "InfiniteHorizon",
    "ObizhaevaWang",
    "PretradeCost",
    "SerialCorrelation",
    "SymmetricBasket",
    "almgren_2005",
    "almgren_2005_model",
    "almgren_chriss",
    "exponential",
    "front_loaded",
    "gueant_quadratic",
    "immediate",
    "infinite_horizon",
    "obizhaeva_wang",
    "pov",
    "serial_correlation",
    "symmetric_basket",
    "twap",
    "vwap",
]
