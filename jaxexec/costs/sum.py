"""Several costs paid for the same trade."""

import functools
import operator
from collections.abc import Iterable

import jax.numpy as jnp

from jaxexec.costs.added import AddedCosts
from jaxexec.costs.conjugate import looks_convex
from jaxexec.costs.contract import ExecutionCost
from jaxexec.costs.parameters import checked_costs, replaced
from jaxexec.costs.quadratic import QuadraticCost
from jaxexec.numerics.arrays import unify


class SumCost(AddedCosts):
    """L(ρ) = Σ_i L_i(ρ): every member is paid for every trade. `first + second` makes one.

    Costs add, Hamiltonians do not: H' is the root of Σ L_i'(ρ) = p, H(p) = pρ − L(ρ) there. The bounds are the
    narrowest of the members'.

    Args:
        costs: the members; sums among them are taken apart.

    Raises:
        ValueError: not a sequence of at least one cost; field and index named.
    """

    costs: tuple[ExecutionCost, ...]

    def __init__(self, costs: Iterable[ExecutionCost]):
        members = checked_costs("costs", costs)
        parts = [part for cost in members for part in (cost.costs if isinstance(cost, SumCost) else (cost,))]
        self.costs = unify(tuple(parts))

    def value(self, rate):
        return _total(cost.value(rate) for cost in self.costs)

    def marginal(self, rate):
        return _total(cost.marginal(rate) for cost in self.costs)

    def curvature(self, rate):
        return _total(cost.curvature(rate) for cost in self.costs)

    def tangents(self, rate, marginal):
        points = [cost.curve_point(rate, marginal, jnp.ones_like(rate, bool)) for cost in self.costs]
        known = [point.slope > 0 for point in points]
        inverse = [1 / jnp.where(k, p.slope, 1) for k, p in zip(known, points, strict=True)]
        bends = [jnp.where(k, i, c.curvature(rate)) for k, i, c in zip(known, inverse, self.costs, strict=True)]
        offsets = [jnp.where(k, i * p.intercept, 0) for k, i, p in zip(known, inverse, points, strict=True)]
        return _total(bends), _total(offsets)

    def bounds(self):
        lows, highs = zip(*(cost.bounds() for cost in self.costs), strict=True)
        if all(isinstance(bound, float) for bound in lows + highs):
            return max(lows), min(highs)  # no cap: known without tracing
        return functools.reduce(jnp.maximum, lows), functools.reduce(jnp.minimum, highs)

    def half_spread(self):
        return _total(cost.half_spread() for cost in self.costs)

    def less_spread(self, spread):
        share = self._share(spread)
        return replaced(self, costs=tuple(cost.less_spread(share * cost.half_spread()) for cost in self.costs))

    def is_convex(self, rates):
        each = [cost.is_convex(rates) for cost in self.costs]
        return functools.reduce(operator.and_, each) | looks_convex(self, rates)

    def in_units(self, rate, marginal):
        return replaced(self, costs=tuple(cost.in_units(rate, marginal) for cost in self.costs))

    def less_permanent(self, permanent):
        # −½cρ² is one more member; its like is convex on a bounded range at most.
        low, high = self.bounds()
        zero = jnp.zeros_like(permanent)
        less = replaced(QuadraticCost(1.0, 0.0), eta=-permanent / 2, psi=zero)
        possible = (permanent == 0).all() | jnp.all(jnp.isfinite(low) & jnp.isfinite(high))
        return replaced(self, costs=(*self.costs, less)), possible


def _total(terms):
    return functools.reduce(operator.add, terms)
