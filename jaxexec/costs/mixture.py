"""The sum of many costs of one kind, held side by side: as many as one likes, in one programme of one size."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxexec.costs.added import AddedCosts
from jaxexec.costs.contract import ExecutionCost
from jaxexec.costs.parameters import replaced


class MixedCost(AddedCosts):
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

    def tangents(self, rate, marginal):
        everywhere = jnp.ones_like(rate, bool)
        points = self._each(lambda cost: cost.curve_point(rate, marginal, everywhere))
        known = points.slope > 0
        inverse = 1 / jnp.where(known, points.slope, 1)
        bends = jnp.where(known, inverse, self._each(lambda cost: cost.curvature(rate)))
        return jnp.sum(bends, 0), jnp.sum(jnp.where(known, inverse * points.intercept, 0), 0)

    def bounds(self):
        first = jax.tree.map(lambda x: x[0], self.member).bounds()
        if all(isinstance(bound, float) for bound in first):
            return first  # no cap: known without tracing
        lows, highs = self._each(lambda cost: tuple(jnp.asarray(bound) for bound in cost.bounds()))
        return jnp.max(lows, 0), jnp.min(highs, 0)

    def half_spread(self):
        return self._total("half_spread")

    def less_spread(self, spread):
        share = self._share(spread)
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


def stacked(costs: ExecutionCost, steps: int) -> ExecutionCost:
    """A batch of costs, leaves (members,) or (members, steps), with every leaf (members, steps)."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x.reshape(x.shape[0], -1), (x.shape[0], steps)), costs)
