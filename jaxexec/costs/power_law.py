"""Temporary impact that is a power of the rate."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import beyond, checked_parameters, replaced
from jaxexec.numerics.arrays import safe_power


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
        parameters = checked_parameters(eta=eta, phi=phi, psi=psi)
        self.eta = parameters["eta"]
        self.phi = parameters["phi"]
        self.psi = parameters["psi"]

    def value(self, rate):
        size = jnp.abs(rate)
        return self.eta * safe_power(size, 1 + self.phi) + self.psi * size

    def marginal(self, rate):
        return jnp.sign(rate) * (self._scale * safe_power(jnp.abs(rate), self.phi) + self.psi)

    def curvature(self, rate):
        size = jnp.abs(rate)
        inside = jnp.where(size > 0, size, 1)
        at_rest = jnp.where(self.phi < 1, jnp.inf, jnp.where(self.phi > 1, 0, 2 * self.eta))
        return jnp.where(size > 0, self._scale * self.phi * jnp.exp((self.phi - 1) * jnp.log(inside)), at_rest)

    def hamiltonian(self, marginal):
        left = beyond(marginal, self.psi)
        return self.phi / (1 + self.phi) * left * safe_power(left / self._scale, 1 / self.phi)

    def optimal_rate(self, marginal):
        return jnp.sign(marginal) * safe_power(beyond(marginal, self.psi) / self._scale, 1 / self.phi)

    def rate_slope(self, marginal):
        left = beyond(marginal, self.psi)
        positive = left > 0
        rate = safe_power(left / self._scale, 1 / self.phi)
        return jnp.where(positive, rate / (self.phi * jnp.where(positive, left, 1)), 0)

    def curve_point(self, rate, marginal, keep_rate):
        # One power and one division a step: ρ^φ on the way to p, or (p/η(1+φ))^{1/φ} on the way to ρ.
        inverse, reciprocal = 1 / self.phi, 1 / self._scale
        base = jnp.where(keep_rate, jnp.abs(rate), beyond(marginal, self.psi) * reciprocal)
        powered = safe_power(base, jnp.where(keep_rate, self.phi, inverse))
        size = jnp.where(keep_rate, jnp.abs(rate), powered)
        left = jnp.where(keep_rate, self._scale * powered, beyond(marginal, self.psi))
        sign = jnp.where(keep_rate, jnp.sign(rate), jnp.sign(marginal))
        positive = left > 0
        slope = jnp.where(positive, inverse * size / jnp.where(positive, left, 1), 0)
        on_curve = jnp.where(keep_rate, sign * (left + self.psi), marginal)
        intercept = sign * (size * (1 - inverse) - slope * self.psi)
        return CurvePoint(sign * size, on_curve, slope, intercept)

    def bounds(self):
        return -jnp.inf, jnp.inf

    def half_spread(self):
        return self.psi

    def less_spread(self, spread):
        return replaced(self, psi=self.psi - spread)

    def is_convex(self, rates):
        return (self.eta > 0) & (self.phi > 0) & (self.psi >= 0)

    def in_units(self, rate, marginal):
        return replaced(self, eta=self.eta * safe_power(rate, self.phi) / marginal, psi=self.psi / marginal)

    def less_permanent(self, permanent):
        # η|ρ|^{1+φ} − ½cρ² is not convex on the line for any φ ≠ 1; at φ = 1 it is the quadratic cost.
        possible = (permanent == 0).all() | (self.phi == 1).all()
        return replaced(self, eta=self.eta - permanent / 2), possible

    @property
    def _scale(self):
        return self.eta * (1 + self.phi)
