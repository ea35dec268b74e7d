"""Execution costs L(ρ): what it costs to take the fraction ρ of the others' volume, per share of that volume.

L is strictly convex where it is finite, least at 0, and L(0) = 0. A solver sees it through its convex conjugate

    H(p) = sup_ρ (ρ p − L(ρ)),    H'(p) = the rate at which the marginal cost L' is p,    H''(p) = 1 / L''(ρ)

(Guéant 2016, ch. 3; here ρ > 0 and p > 0 in a sale), so that a new cost touches no solver and a new solver no cost.
Parameters may be scalars or (steps,) arrays. Every method is elementwise and broadcasts.
"""

import abc
from typing import NamedTuple, Self

import equinox as eqx
from jaxtyping import Array, Bool, Float


class CurvePoint(NamedTuple):
    """A point of the curve p = L'(ρ) with its tangent ρ ≈ slope · p + intercept.

    The intercept ρ − slope · p is formed without cancellation: it is exactly zero for a quadratic cost.
    """

    rate: Float[Array, " steps"]
    marginal: Float[Array, " steps"]
    slope: Float[Array, " steps"]
    intercept: Float[Array, " steps"]


class ExecutionCost(eqx.Module):
    """Contract of an execution cost. Rates ρ are dimensionless; L, L', H are in currency per share.

    `first + second` is the `SumCost` of the two: costs add, their Hamiltonians do not.
    """

    @abc.abstractmethod
    def value(self, rate: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """L(ρ); infinite beyond `bounds`."""

    @abc.abstractmethod
    def marginal(self, rate: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """L'(ρ); at a kink, the middle of the subdifferential; at a bound, the derivative from inside."""

    @abc.abstractmethod
    def curvature(self, rate: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """L''(ρ) for ρ ≠ 0 away from kinks."""

    @abc.abstractmethod
    def hamiltonian(self, marginal: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """H(p), the convex conjugate of L."""

    @abc.abstractmethod
    def optimal_rate(self, marginal: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """H'(p)."""

    @abc.abstractmethod
    def rate_slope(self, marginal: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """H''(p); zero where H' is flat (inside the spread, at a bound) and, by convention, where it is infinite."""

    @abc.abstractmethod
    def curve_point(
        self, rate: Float[Array, " steps"], marginal: Float[Array, " steps"], keep_rate: Bool[Array, " steps"]
    ) -> CurvePoint:
        """The point of p = L'(ρ) with this `rate` where `keep_rate`, else the one with this `marginal`.

        A rate beyond a bound is moved to the bound, with slope zero.
        """

    @abc.abstractmethod
    def bounds(self) -> tuple[Array | float, Array | float]:
        """The lowest and the highest rate that L is finite at; infinite where no cap is."""

    @abc.abstractmethod
    def half_spread(self) -> Float[Array, "*#steps"]:
        """ψ, the coefficient of the proportional part ψ|ρ|."""

    @abc.abstractmethod
    def less_spread(self, spread: Float[Array, ""]) -> Self:
        """L(ρ) − spread · |ρ|."""

    @abc.abstractmethod
    def is_convex(self, rates: Float[Array, "*#steps"]) -> Bool[Array, "*#steps"]:
        """True where L is strictly convex and least at 0, as far as the parameters tell.

        Args:
            rates: how far to look where they do not: between −|rates| and |rates|.
        """

    @abc.abstractmethod
    def less_permanent(self, permanent: Float[Array, " steps"]) -> "tuple[ExecutionCost, Bool[Array, '']]":
        """L(ρ) − ½ permanent · ρ², and whether that can be convex: Almgren and Chriss's η̃ (2000, eq. 20)."""

    @abc.abstractmethod
    def in_units(self, rate: Float[Array, ""], marginal: Float[Array, ""]) -> Self:
        """The same cost with rates counted in `rate` and marginal costs in `marginal`: L(rate·ρ)/(rate·marginal)."""

    def __add__(self, other: "ExecutionCost") -> "ExecutionCost":
        """L + other L."""
        from jaxexec.costs.sum import SumCost  # a sum is itself a cost: the one circle in this room

        if not isinstance(other, ExecutionCost):
            return NotImplemented
        return SumCost((self, other))
