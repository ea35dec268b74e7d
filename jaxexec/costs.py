"""Execution costs L(ρ): what it costs to take the fraction ρ of the others' volume, per share of that volume.

L is strictly convex with L(0) = 0. A solver sees a cost only through its convex conjugate

    H(p) = sup_ρ (ρ p − L(ρ)),    H'(p) = the rate at which the marginal cost L' is p,    H''(p) = 1 / L''(ρ)

(Guéant 2016, ch. 3; here ρ > 0 and p > 0 in a sale), so that a new cost touches no solver and a new solver no cost.
Parameters may be scalars or (steps,) arrays.
"""

import abc
from typing import NamedTuple, Self, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.numerics.arrays import as_float, check, safe_power, unify

Cost = TypeVar("Cost", bound="ExecutionCost")


class CurvePoint(NamedTuple):
    """A point of the curve p = L'(ρ) with its tangent ρ ≈ slope · p + intercept.

    The intercept ρ − slope · p is formed without cancellation: it is exactly zero for a quadratic cost.
    """

    rate: Float[Array, " steps"]
    marginal: Float[Array, " steps"]
    slope: Float[Array, " steps"]
    intercept: Float[Array, " steps"]


class ExecutionCost(eqx.Module):
    """Contract of an execution cost. Rates ρ are dimensionless; L, L', H are in currency per share."""

    @abc.abstractmethod
    def value(self, rate: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """L(ρ)."""

    @abc.abstractmethod
    def marginal(self, rate: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """L'(ρ); at a kink, the middle of the subdifferential."""

    @abc.abstractmethod
    def hamiltonian(self, marginal: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """H(p), the convex conjugate of L."""

    @abc.abstractmethod
    def optimal_rate(self, marginal: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """H'(p)."""

    @abc.abstractmethod
    def rate_slope(self, marginal: Float[Array, "*#steps"]) -> Float[Array, "*steps"]:
        """H''(p); zero where H' is flat (inside the spread) and, by convention, where it is infinite."""

    @abc.abstractmethod
    def curve_point(
        self, rate: Float[Array, " steps"], marginal: Float[Array, " steps"], keep_rate: Bool[Array, " steps"]
    ) -> CurvePoint:
        """The point of p = L'(ρ) with this `rate` where `keep_rate`, else the one with this `marginal`."""

    @abc.abstractmethod
    def half_spread(self) -> Float[Array, "*#steps"]:
        """ψ, the coefficient of the proportional part ψ|ρ|."""

    @abc.abstractmethod
    def less_spread(self, spread: Float[Array, ""]) -> Self:
        """L(ρ) − spread · |ρ|."""

    @abc.abstractmethod
    def is_convex(self) -> Bool[Array, "*#steps"]:
        """True where the parameters make L strictly convex."""

    @abc.abstractmethod
    def less_permanent(self, permanent: Float[Array, " steps"]) -> tuple[Self, Bool[Array, ""]]:
        """L(ρ) − ½ permanent · ρ², and whether that can be convex: Almgren and Chriss's η̃ (2000, eq. 20)."""


class QuadraticCost(ExecutionCost):
    """L(ρ) = ηρ² + ψ|ρ|: linear temporary impact and a half-spread (Almgren and Chriss 2000).

    Args:
        eta: η, currency per share, > 0; scalar or (steps,). Selling at the rate of the whole market moves the price
            by η, so η n²/(τV) is paid for n shares; Almgren and Chriss's own coefficient is η/V.
        psi: ψ, half-spread in currency per share, ≥ 0; scalar or (steps,). Typically half a cent to a few cents.

    Raises:
        ValueError: a concrete parameter is not finite or breaks its sign; field and index named.
    """

    eta: Float[Array, "*#steps"]
    psi: Float[Array, "*#steps"]

    def __init__(self, eta: ArrayLike, psi: ArrayLike = 0.0):
        parameters = unify({"eta": as_float("eta", eta), "psi": as_float("psi", psi)})
        _check_parameters(parameters)
        self.eta = parameters["eta"]
        self.psi = parameters["psi"]

    def value(self, rate):
        return self.eta * rate**2 + self.psi * jnp.abs(rate)

    def marginal(self, rate):
        return 2 * self.eta * rate + self.psi * jnp.sign(rate)

    def hamiltonian(self, marginal):
        return _beyond(marginal, self.psi) ** 2 / (4 * self.eta)

    def optimal_rate(self, marginal):
        return jnp.sign(marginal) * _beyond(marginal, self.psi) / (2 * self.eta)

    def rate_slope(self, marginal):
        return jnp.where(_is_beyond(marginal, self.psi), 1 / (2 * self.eta), 0)

    def curve_point(self, rate, marginal, keep_rate):
        free = self.optimal_rate(marginal)
        kept = jnp.where(keep_rate, rate, free)
        marginal = jnp.where(keep_rate, self.marginal(rate), marginal)
        slope = jnp.where(keep_rate, 1 / (2 * self.eta), self.rate_slope(marginal))
        return CurvePoint(kept, marginal, slope, -slope * self.psi * jnp.sign(kept))

    def half_spread(self):
        return self.psi

    def less_spread(self, spread):
        return _with(self, psi=self.psi - spread)

    def is_convex(self):
        return (self.eta > 0) & (self.psi >= 0)

    def less_permanent(self, permanent):
        return _with(self, eta=self.eta - permanent / 2), jnp.asarray(True)


class PowerLawCost(ExecutionCost):
    """L(ρ) = η|ρ|^{1+φ} + ψ|ρ|: concave temporary impact ηρ^φ and a half-spread (Almgren 2003; Guéant 2016, ch. 3).

    Args:
        eta: η, currency per share, > 0; scalar or (steps,). The price paid per share at ρ = 1.
        phi: φ, exponent of the temporary impact, > 0; scalar or (steps,). Almgren et al. (2005) find 0.6; 1 is the
            quadratic cost; above 1 an order can be finished before its horizon.
        psi: ψ, half-spread in currency per share, ≥ 0; scalar or (steps,).

    Raises:
        ValueError: a concrete parameter is not finite or breaks its sign; field and index named.
    """

    eta: Float[Array, "*#steps"]
    phi: Float[Array, "*#steps"]
    psi: Float[Array, "*#steps"]

    def __init__(self, eta: ArrayLike, phi: ArrayLike, psi: ArrayLike = 0.0):
        parameters = unify({"eta": as_float("eta", eta), "phi": as_float("phi", phi), "psi": as_float("psi", psi)})
        _check_parameters(parameters)
        self.eta = parameters["eta"]
        self.phi = parameters["phi"]
        self.psi = parameters["psi"]

    def value(self, rate):
        size = jnp.abs(rate)
        return self.eta * safe_power(size, 1 + self.phi) + self.psi * size

    def marginal(self, rate):
        return jnp.sign(rate) * (self._scale * safe_power(jnp.abs(rate), self.phi) + self.psi)

    def hamiltonian(self, marginal):
        beyond = _beyond(marginal, self.psi)
        return self.phi / (1 + self.phi) * beyond * safe_power(beyond / self._scale, 1 / self.phi)

    def optimal_rate(self, marginal):
        return jnp.sign(marginal) * safe_power(_beyond(marginal, self.psi) / self._scale, 1 / self.phi)

    def rate_slope(self, marginal):
        beyond = _beyond(marginal, self.psi)
        positive = beyond > 0
        rate = safe_power(beyond / self._scale, 1 / self.phi)
        return jnp.where(positive, rate / (self.phi * jnp.where(positive, beyond, 1)), 0)

    def curve_point(self, rate, marginal, keep_rate):
        # One power a step: ρ^φ on the way to p, or (p/η(1+φ))^{1/φ} on the way to ρ.
        base = jnp.where(keep_rate, jnp.abs(rate), _beyond(marginal, self.psi) / self._scale)
        powered = safe_power(base, jnp.where(keep_rate, self.phi, 1 / self.phi))
        size = jnp.where(keep_rate, jnp.abs(rate), powered)
        beyond = jnp.where(keep_rate, self._scale * powered, _beyond(marginal, self.psi))
        sign = jnp.where(keep_rate, jnp.sign(rate), jnp.sign(marginal))
        positive = beyond > 0
        slope = jnp.where(positive, size / (self.phi * jnp.where(positive, beyond, 1)), 0)
        on_curve = jnp.where(keep_rate, sign * (beyond + self.psi), marginal)
        intercept = sign * (size * (1 - 1 / self.phi) - slope * self.psi)
        return CurvePoint(sign * size, on_curve, slope, intercept)

    def half_spread(self):
        return self.psi

    def less_spread(self, spread):
        return _with(self, psi=self.psi - spread)

    def is_convex(self):
        return (self.eta > 0) & (self.phi > 0) & (self.psi >= 0)

    def less_permanent(self, permanent):
        # η|ρ|^{1+φ} − ½cρ² is not convex on the line for any φ ≠ 1; at φ = 1 it is the quadratic cost.
        possible = jnp.all(permanent == 0) | jnp.all(self.phi == 1)
        return _with(self, eta=self.eta - permanent / 2), possible

    @property
    def _scale(self):
        return self.eta * (1 + self.phi)


def _beyond(marginal: Array, psi: Array) -> Array:
    """(|p| − ψ)⁺: the marginal cost that is left when the spread is paid."""
    return jnp.maximum(jnp.abs(marginal) - psi, 0)


def _is_beyond(marginal: Array, psi: Array) -> Array:
    return (jnp.abs(marginal) > psi) | (psi == 0)


def _with(cost: Cost, **changes: Array) -> Cost:
    names = tuple(changes)
    return eqx.tree_at(lambda c: [getattr(c, n) for n in names], cost, [changes[n] for n in names])


def _check_parameters(parameters: dict[str, Array]) -> None:
    for name, array in parameters.items():
        if array.ndim > 1:
            raise ValueError(f"{name} must be a scalar or have shape (steps,), got shape {array.shape}")
        check(name, array, np.isfinite, "finite")
        if name == "psi":
            check(name, array, lambda v: v >= 0, "at least 0")
        else:
            check(name, array, lambda v: v > 0, "positive (the cost must be strictly convex)")
