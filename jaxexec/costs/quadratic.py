"""Linear temporary impact."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import beyond, checked_parameters, is_beyond, replaced


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
        parameters = checked_parameters(eta=eta, psi=psi)
        self.eta = parameters["eta"]
        self.psi = parameters["psi"]

    def value(self, rate):
        return self.eta * rate**2 + self.psi * jnp.abs(rate)

    def marginal(self, rate):
        return 2 * self.eta * rate + self.psi * jnp.sign(rate)

    def curvature(self, rate):
        return 2 * self.eta * jnp.ones_like(rate)

    def hamiltonian(self, marginal):
        return beyond(marginal, self.psi) ** 2 / (4 * self.eta)

    def optimal_rate(self, marginal):
        return jnp.sign(marginal) * beyond(marginal, self.psi) / (2 * self.eta)

    def rate_slope(self, marginal):
        return jnp.where(is_beyond(marginal, self.psi), 1 / (2 * self.eta), 0)

    def curve_point(self, rate, marginal, keep_rate):
        free = self.optimal_rate(marginal)
        kept = jnp.where(keep_rate, rate, free)
        marginal = jnp.where(keep_rate, self.marginal(rate), marginal)
        slope = jnp.where(keep_rate, 1 / (2 * self.eta), self.rate_slope(marginal))
        return CurvePoint(kept, marginal, slope, -slope * self.psi * jnp.sign(kept))

    def bounds(self):
        return -jnp.inf, jnp.inf

    def half_spread(self):
        return self.psi

    def less_spread(self, spread):
        return replaced(self, psi=self.psi - spread)

    def is_convex(self, rates):
        return (self.eta > 0) & (self.psi >= 0)

    def in_units(self, rate, marginal):
        return replaced(self, eta=self.eta * (rate / marginal), psi=self.psi / marginal)

    def less_permanent(self, permanent):
        return replaced(self, eta=self.eta - permanent / 2), jnp.asarray(True)
