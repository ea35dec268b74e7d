"""The sum of many costs of one kind, held side by side: as many as one likes, in one programme of one size."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxexec.costs.conjugate import hamiltonian_by_root, rate_by_root, slope_of
from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import beyond, is_beyond, replaced


class MixedCost(ExecutionCost):
    """L(ρ) = Σ_i L_i(ρ), as `SumCost`, for members that differ in their numbers only.

    Args:
        member: a cost with a leading axis (members,) on every leaf, (members, steps): that of `stacked`.
    """

    member: ExecutionCost

    def value(self, rate):
        return self._total("value", rate)

    def marginal(self, rate):
        return self._total("marginal", rate)

    def curvature(self, rate):
        return self._total("curvature", rate)

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
        everywhere = jnp.ones_like(kept, bool)
        # Each member's tangent is p ≈ (ρ − intercept)/slope: so they add.
        points = self._each(lambda cost: cost.curve_point(kept, marginal, everywhere))
        known = points.slope > 0
        inverse = 1 / jnp.where(known, points.slope, 1)
        bends = jnp.where(known, inverse, self._each(lambda cost: cost.curvature(kept)))
        flat = jnp.where(keep_rate, kept != rate, (rate == 0) & ~is_beyond(marginal, self.half_spread()))
        flat = flat | (~keep_rate & ((rate >= high) | (rate <= low)))
        slope = jnp.where(flat, 0, slope_of(jnp.sum(bends, 0)))
        offset = jnp.sum(jnp.where(known, inverse * points.intercept, 0), 0)
        return CurvePoint(kept, marginal, slope, jnp.where(slope > 0, slope * offset, kept))

    def bounds(self):
        first = jax.tree.map(lambda x: x[0], self.member).bounds()
        if all(isinstance(bound, float) for bound in first):
            return first  # no cap: known without tracing
        lows, highs = self._each(lambda cost: tuple(jnp.asarray(bound) for bound in cost.bounds()))
        return jnp.max(lows, 0), jnp.min(highs, 0)

    def half_spread(self):
        return self._total("half_spread")

    def less_spread(self, spread):
        # In proportion, so that no member's spread turns negative and all of it comes off exactly.
        total = self.half_spread()
        share = jnp.where(total > 0, spread / jnp.where(total > 0, total, 1), 0)
        return replaced(self, member=self._each(lambda cost: cost.less_spread(share * cost.half_spread())))

    def is_convex(self, rates):
        return jnp.all(self._each(lambda cost: cost.is_convex(rates)), 0)

    def in_units(self, rate, marginal):
        return replaced(self, member=self._each(lambda cost: cost.in_units(rate, marginal)))

    def less_permanent(self, permanent):
        count = jax.tree.leaves(self.member)[0].shape[0]
        members, possible = self._each(lambda cost: cost.less_permanent(permanent / count))
        return replaced(self, member=members), jnp.all(possible)

    def _each(self, function) -> Any:
        """What `function` makes of every member, on a leading axis."""
        return jax.vmap(function)(self.member)

    def _total(self, method: str, *arguments):
        return jnp.sum(self._each(lambda cost: getattr(cost, method)(*arguments)), 0)

    def _apart(self):
        """The spread, and the mixture without it."""
        spread = lax.stop_gradient(self.half_spread())
        return spread, self.less_spread(spread)


def stacked(costs: ExecutionCost, steps: int) -> ExecutionCost:
    """A batch of costs, leaves (members,) or (members, steps), with every leaf (members, steps)."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x.reshape(x.shape[0], -1), (x.shape[0], steps)), costs)
