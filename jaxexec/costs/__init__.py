"""Execution costs: one a file, one contract for all."""

from jaxexec.costs.cap import ParticipationCap
from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.custom import CustomCost
from jaxexec.costs.power_law import PowerLawCost
from jaxexec.costs.quadratic import QuadraticCost
from jaxexec.costs.sum import SumCost
from jaxexec.costs.two_sided import TwoSidedCost
from jaxexec.costs.venue_split import VenueSplit

__all__ = [
    "CurvePoint",
    "CustomCost",
    "ExecutionCost",
    "ParticipationCap",
    "PowerLawCost",
    "QuadraticCost",
    "SumCost",
    "TwoSidedCost",
    "VenueSplit",
]
