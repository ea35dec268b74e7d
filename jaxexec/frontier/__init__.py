"""Expected cost against risk: the efficient frontier, and the point on it that a quantile of the cost asks for."""

from jaxexec.frontier.efficient import Frontier, efficient_frontier
from jaxexec.frontier.lvar import LvarOptimum, lvar_optimum

__all__ = ["Frontier", "LvarOptimum", "efficient_frontier", "lvar_optimum"]
