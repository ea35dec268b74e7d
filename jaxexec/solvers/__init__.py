"""Floor 3: one algorithm a file, one `solve`."""

from jaxexec.solvers.ladder_newton import LadderNewton
from jaxexec.solvers.solve import solve

__all__ = ["LadderNewton", "solve"]
