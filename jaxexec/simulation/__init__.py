"""Simulation: price paths, the shortfall along them, and what it is on average and in the tail."""

from jaxexec.simulation.estimates import Simulation
from jaxexec.simulation.exact import ShortfallMoments, shortfall_moments
from jaxexec.simulation.impact_functions import CustomImpact, ImpactFunction, PowerImpact
from jaxexec.simulation.minimise import minimise
from jaxexec.simulation.monte_carlo import simulate
from jaxexec.simulation.process import MeanReverting, PriceProcess
from jaxexec.simulation.sample import PricePaths, price_paths, shortfalls

__all__ = [
    "CustomImpact",
    "ImpactFunction",
    "MeanReverting",
    "PowerImpact",
    "PricePaths",
    "PriceProcess",
    "ShortfallMoments",
    "Simulation",
    "minimise",
    "price_paths",
    "shortfall_moments",
    "shortfalls",
    "simulate",
]
