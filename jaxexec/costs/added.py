"""What every sum of costs does alike: values add, tangents add, and H' is the root of the added marginal costs."""

import abc

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxexec.costs.conjugate import hamiltonian_by_root, rate_by_root, slope_of
from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import beyond, is_beyond


class AddedCosts(ExecutionCost):
    """A cost L(ρ) = Σ_i L_i(ρ), however its members are kept."""

    @abc.abstractmethod
    def tangents(self, rate: Array, marginal: Array) -> tuple[Array, Array]:
        """Σ 1/slope and Σ intercept/slope of the members at `rate`; a member without a slope counts by its curvature.

        Each member's tangent is p ≈ (ρ − intercept)/slope: so they add.
        """

    def hamiltonian(self, marginal):
        spread, bare = self._apart()
        return hamiltonian_by_root(bare, jnp.sign(marginal) * beyond(marginal, spread))

    def optimal_rate(self, marginal):
        spread, bare = self._apart()
        return rate_by_root(bare, jnp.sign(marginal) * beyond(marginal, spread))

    def rate_slope(self, marginal):
        spread, bare = self._apart()
        rate = rate_by_root(bare, jnp.sign(marginal) * beyond(marginal, spread))
        low, high = self.bounds()
        capped = (rate >= high) | (rate <= low)
        slope = slope_of(bare.curvature(jnp.where(capped, 0, rate)))
        return jnp.where(~capped & is_beyond(marginal, spread), slope, 0)

    def curve_point(self, rate, marginal, keep_rate):
        low, high = self.bounds()
        rate, marginal = jnp.broadcast_arrays(rate, marginal)
        free = lax.cond(jnp.all(keep_rate), lambda: rate, lambda: self.optimal_rate(marginal).astype(rate.dtype))
        rate = jnp.where(keep_rate, rate, free)
        kept = jnp.clip(rate, low, high)
        marginal = jnp.where(keep_rate, self.marginal(kept), marginal)
        bend, offset = self.tangents(kept, marginal)
        flat = jnp.where(keep_rate, kept != rate, (rate == 0) & ~is_beyond(marginal, self.half_spread()))
        flat = flat | (~keep_rate & ((rate >= high) | (rate <= low)))
        slope = jnp.where(flat, 0, slope_of(bend))
        return CurvePoint(kept, marginal, slope, jnp.where(slope > 0, slope * offset, kept))

    def _share(self, spread):
        """How much of each member's spread is `spread` of the whole: in proportion, so that none turns negative."""
        total = self.half_spread()
        return jnp.where(total > 0, spread / jnp.where(total > 0, total, 1), 0)

    def _apart(self):
        """The spread, and the sum without it."""
        spread = jax.tree.map(lax.stop_gradient, self.half_spread())
        return spread, self.less_spread(spread)
