"""Sales and purchases that cost differently."""

import jax.numpy as jnp
import numpy as np

from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import checked_cost, replaced, speck
from jaxexec.numerics.arrays import check, unify


class TwoSidedCost(ExecutionCost):
    """L(ρ) = sell's L(ρ) for ρ > 0, buy's L(ρ) for ρ < 0: a book that is deeper on one side.

    H(p) is sell's for p > 0 and buy's for p < 0. At rest L' jumps from −ψ of `buy` to ψ of `sell`; the half-spread is
    the smaller of the two, what the other has above it stays in that side's cost.

    Args:
        sell: the cost of sales.
        buy: the cost of purchases, a function of negative rates: the symmetric costs serve as they are.

    Raises:
        ValueError: not a cost, or concrete ones whose marginal cost falls at rest; the field is named.
    """

    sell: ExecutionCost
    buy: ExecutionCost

    def __init__(self, sell: ExecutionCost, buy: ExecutionCost):
        sides = unify({"sell": checked_cost("sell", sell), "buy": checked_cost("buy", buy)})
        self.sell = sides["sell"]
        self.buy = sides["buy"]
        for name, slope in zip(("sell", "buy"), self._slopes_at_rest(), strict=True):
            # Each side rises from 0, so the two together are convex.
            check(f"{name}'s marginal cost at rest", slope, lambda v: (v >= 0) | np.isnan(v), "at least 0 in size")

    def value(self, rate):
        return self.sell.value(_positive(rate)) + self.buy.value(_negative(rate))

    def marginal(self, rate):
        at_rest = (self.sell.half_spread() - self.buy.half_spread()) / 2
        moving = jnp.where(rate > 0, self.sell.marginal(_positive(rate)), self.buy.marginal(_negative(rate)))
        return jnp.where(rate == 0, at_rest, moving)

    def curvature(self, rate):
        return jnp.where(rate < 0, self.buy.curvature(_negative(rate)), self.sell.curvature(_positive(rate)))

    def hamiltonian(self, marginal):
        return self.sell.hamiltonian(_positive(marginal)) + self.buy.hamiltonian(_negative(marginal))

    def optimal_rate(self, marginal):
        return self.sell.optimal_rate(_positive(marginal)) + self.buy.optimal_rate(_negative(marginal))

    def rate_slope(self, marginal):
        buys = self.buy.rate_slope(_negative(marginal))
        return jnp.where(marginal < 0, buys, self.sell.rate_slope(_positive(marginal)))

    def curve_point(self, rate, marginal, keep_rate):
        buying = jnp.where(keep_rate, rate, marginal) < 0
        sell = self.sell.curve_point(jnp.where(buying, 0, rate), jnp.where(buying, 0, marginal), keep_rate)
        buy = self.buy.curve_point(jnp.where(buying, rate, 0), jnp.where(buying, marginal, 0), keep_rate)
        return CurvePoint(*(jnp.where(buying, b, s) for b, s in zip(buy, sell, strict=True)))

    def bounds(self):
        return self.buy.bounds()[0], self.sell.bounds()[1]

    def half_spread(self):
        return jnp.minimum(self.sell.half_spread(), self.buy.half_spread())

    def less_spread(self, spread):
        return replaced(self, sell=self.sell.less_spread(spread), buy=self.buy.less_spread(spread))

    def is_convex(self, rates):
        sell, buy = self._slopes_at_rest()
        return self.sell.is_convex(rates) & self.buy.is_convex(rates) & (sell >= 0) & (buy >= 0)

    def in_units(self, rate, marginal):
        return replaced(self, sell=self.sell.in_units(rate, marginal), buy=self.buy.in_units(rate, marginal))

    def less_permanent(self, permanent):
        sell, sell_can = self.sell.less_permanent(permanent)
        buy, buy_can = self.buy.less_permanent(permanent)
        return replaced(self, sell=sell, buy=buy), sell_can & buy_can

    def _slopes_at_rest(self):
        """L'(0+) of sales and −L'(0−) of purchases."""
        right = speck(jnp.result_type(self.sell.half_spread()))
        dtype = jnp.result_type(self.sell.half_spread())
        return self.sell.marginal(jnp.asarray(right, dtype)), -self.buy.marginal(jnp.asarray(-right, dtype))


def _positive(x):
    return jnp.where(x >= 0, x, 0)


def _negative(x):
    return jnp.where(x < 0, x, 0)
