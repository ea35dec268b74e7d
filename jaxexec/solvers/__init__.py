"""Floor 3: one algorithm a file, one `solve`."""

from jaxexec.solvers.accuracy import Resolved, solve_to
from jaxexec.solvers.block_ladder import BlockLadderNewton
from jaxexec.solvers.bound import Bound, certify
from jaxexec.solvers.collocation import Collocation
from jaxexec.solvers.descent import LocalSchedule, descend
from jaxexec.solvers.ladder_newton import LadderNewton
from jaxexec.solvers.multiple_shooting import MultipleShooting
from jaxexec.solvers.shooting import Shooting
from jaxexec.solvers.solve import solve

__all__ = [
    "BlockLadderNewton",
    "Bound",
    "Collocation",
    "LadderNewton",
    "LocalSchedule",
    "MultipleShooting",
    "Resolved",
    "Shooting",
    "certify",
    "descend",
    "solve",
    "solve_to",
]
