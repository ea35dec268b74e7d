"""What an answer owes to each of its inputs, how sure it is of itself, and what it costs to be wrong.

print(sensitivities(order).summary())
bands = delta_method(order, covariance, parameters=("eta", "volatility"))
"""

from jaxexec.sensitivity.answers import BlockPremium, FrontierPoints, InformedTrading, OptimalCost, OptimalSchedule
from jaxexec.sensitivity.attribution import ForecastAttribution, attribute
from jaxexec.sensitivity.derivatives import Sensitivities, sensitivities
from jaxexec.sensitivity.regret import PlanningRegret, planning_regret
from jaxexec.sensitivity.robust import RobustSchedule, blend, robust_schedule
from jaxexec.sensitivity.uncertainty import Bands, Draws, delta_method, draw

__all__ = [
    "Bands",
    "BlockPremium",
    "Draws",
    "ForecastAttribution",
    "FrontierPoints",
    "InformedTrading",
    "OptimalCost",
    "OptimalSchedule",
    "PlanningRegret",
    "RobustSchedule",
    "Sensitivities",
    "attribute",
    "blend",
    "delta_method",
    "draw",
    "planning_regret",
    "robust_schedule",
    "sensitivities",
]
