"""Kyle's equilibrium: an informed trader, noise, and a market maker who learns. It shares floor 0 only."""

from jaxexec.kyle.calibration import EquilibriumFit, fit
from jaxexec.kyle.closed_forms import ContinuousLimit, OnePeriod, continuous_limit, one_period
from jaxexec.kyle.equilibrium import Equilibrium, solve
from jaxexec.kyle.simulation import Deviation, EquilibriumPaths, deviate, simulate

__all__ = [
    "ContinuousLimit",
    "Deviation",
    "Equilibrium",
    "EquilibriumFit",
    "EquilibriumPaths",
    "OnePeriod",
    "continuous_limit",
    "deviate",
    "fit",
    "one_period",
    "simulate",
    "solve",
]
