"""What a solver must do, and what it hands back: the seam between `solve` and the algorithms."""

import abc
from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

from jaxexec.liquidation import Liquidation
from jaxexec.solvers.program import Certificate


class Plan(NamedTuple):
    """A schedule before its status: numbers with derivatives attached, and a proof without.

    Every number must be finite, even where the solver failed (`finite` is then False), so that `solve` can poison the
    lane without a NaN of its own making in a derivative.
    """

    inventory: Float[Array, " nodes"]
    trades: Float[Array, " steps"]
    costate: Float[Array, " steps"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    proof: Certificate
    finite: Bool[Array, ""]
    iterations: Int[Array, ""]


class ScheduleSolver(eqx.Module):
    """A method for one order. Its fields are static options; `solve` deals with refusals, statuses and NaN."""

    @abc.abstractmethod
    def check(self, problem: Liquidation) -> None:
        """Refuse, with a ValueError, what the method cannot take and can be seen before tracing."""

    @abc.abstractmethod
    def plan(self, problem: Liquidation, guess: Float[Array, " steps"]) -> Plan:
        """Solve a problem whose inputs are sound, and attach the derivatives of the answer.

        Args:
            guess: costates that are thought to be near; not finite where there are none.
        """
