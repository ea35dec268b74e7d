"""One order over several venues."""

import functools
import operator
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import beyond, check_curve, checked_costs, replaced
from jaxexec.numerics.arrays import as_float, check, is_concrete, unify
from jaxexec.numerics.roots import monotone_root

_SUM_TOLERANCE = 1e-6


class VenueSplit(ExecutionCost):
    """The cheapest way to trade on several venues at once: the infimal convolution of their costs,

        L(ρ) = min Σ_i f_i L_i(ρ_i)   subject to   Σ_i f_i ρ_i = ρ,        H(p) = Σ_i f_i H_i(p)

    with f_i venue i's share of the market's volume and ρ_i own volume over the others' on that venue. Hamiltonians add
    where costs split. Every venue is used up to the same marginal cost y = L'(ρ), the root of Σ f_i H_i'(y) = ρ; one
    whose spread is above y is not used. `split` says how much goes where.

    Args:
        costs: the venues' costs, each of its own rate.
        fractions: f_i, one a venue, > 0, that sum to 1 (to 1e-6); scalars or (steps,) arrays.

    Raises:
        ValueError: not as many fractions as costs, or a concrete fraction that breaks the above; field and index named.

    Source: Guéant 2016, ch. 3, for H; Rockafellar, Convex Analysis (1970), theorem 16.4, for the conjugate.
    """

    costs: tuple[ExecutionCost, ...]
    fractions: tuple[Float[Array, "*#steps"], ...]

    def __init__(self, costs: Iterable[ExecutionCost], fractions: Sequence[ArrayLike] | Array):
        members = checked_costs("costs", costs)
        shares = _checked_fractions(fractions, len(members))
        normal = unify({"costs": members, "fractions": shares})
        self.costs = normal["costs"]
        self.fractions = normal["fractions"]

    def value(self, rate):
        rate, (low, high) = jnp.asarray(rate), self.bounds()
        spread, bare = self._apart()
        left = bare._marginal_of(jnp.clip(rate, low, high))
        # The dual, which is flat in y: what a bound or a spread adds needs no case of its own.
        within = jnp.isfinite(left)
        left = jnp.where(within, left, 0)
        value = spread * jnp.abs(rate) + (rate * left - bare.hamiltonian(left))
        return jnp.where(self._is_outside(rate), jnp.inf, jnp.where(within, value, jnp.nan))

    def marginal(self, rate):
        rate, (low, high) = jnp.asarray(rate), self.bounds()
        spread, bare = self._apart()
        inside = jnp.sign(rate) * spread + bare._marginal_of(jnp.clip(rate, low, high))
        return jnp.where(self._is_outside(rate), jnp.sign(rate) * jnp.inf, inside)

    def curvature(self, rate):
        rate, (low, high) = jnp.asarray(rate), self.bounds()
        _, bare = self._apart()
        slope = bare.rate_slope(bare._marginal_of(jnp.clip(rate, low, high)))
        bent = slope > 0
        inside = jnp.where(bent, 1 / jnp.where(bent, slope, 1), jnp.where(jnp.isnan(slope), jnp.nan, jnp.inf))
        return jnp.where(self._is_outside(rate), jnp.inf, inside)

    def hamiltonian(self, marginal):
        return self._sum(cost.hamiltonian(marginal) for cost in self.costs)

    def optimal_rate(self, marginal):
        return self._sum(cost.optimal_rate(marginal) for cost in self.costs)

    def rate_slope(self, marginal):
        return self._sum(cost.rate_slope(marginal) for cost in self.costs)

    def curve_point(self, rate, marginal, keep_rate):
        low, high = self.bounds()
        spread, bare = self._apart()
        rate, marginal = jnp.broadcast_arrays(rate, marginal)
        kept = jnp.clip(rate, low, high)
        wanted = lax.cond(
            jnp.any(keep_rate), lambda: bare._marginal_of(kept).astype(rate.dtype), lambda: jnp.zeros_like(rate)
        )
        left = jnp.where(keep_rate, wanted, jnp.sign(marginal) * beyond(marginal, spread))
        never = jnp.zeros_like(keep_rate)
        points = [cost.curve_point(jnp.zeros_like(rate), left, never) for cost in bare.costs]
        found, slope, intercept = (
            self._sum(getattr(point, name) for point in points) for name in ("rate", "slope", "intercept")
        )
        sign = jnp.sign(jnp.where(keep_rate, rate, marginal))
        beyond_bound = keep_rate & (kept != rate)
        return CurvePoint(
            jnp.where(keep_rate, kept, found),
            jnp.where(keep_rate, left + sign * spread, marginal),
            jnp.where(beyond_bound, 0, slope),
            jnp.where(beyond_bound, kept, intercept - slope * sign * spread),
        )

    def split(self, rate: Float[Array, "*#steps"]) -> Float[Array, "venues *steps"]:
        """f_i ρ_i, what each venue takes of the rate ρ: per share of the whole market's volume, Σ f_i ρ_i = ρ.

        Times the market's volume it is shares; over f_i it is the participation on that venue. NaN beyond the bounds.
        """
        rate, (low, high) = jnp.asarray(rate), self.bounds()
        _, bare = self._apart()
        left = bare._marginal_of(jnp.clip(rate, low, high))
        reachable = ~self._is_outside(rate)
        parts = [f * cost.optimal_rate(left) for f, cost in zip(self.fractions, bare.costs, strict=True)]
        return jnp.stack([jnp.where(reachable, part, jnp.nan) for part in jnp.broadcast_arrays(*parts)])

    def bounds(self):
        lows, highs = zip(*(cost.bounds() for cost in self.costs), strict=True)
        if all(isinstance(bound, float) for bound in lows + highs):
            return -jnp.inf, jnp.inf  # no cap: known without tracing
        return self._sum_of_bounds(lows, -jnp.inf), self._sum_of_bounds(highs, jnp.inf)

    def half_spread(self):
        return functools.reduce(jnp.minimum, [cost.half_spread() for cost in self.costs])

    def less_spread(self, spread):
        return replaced(self, costs=tuple(cost.less_spread(spread) for cost in self.costs))

    def is_convex(self, rates):
        positive = [fraction > 0 for fraction in self.fractions]
        whole = jnp.abs(functools.reduce(operator.add, self.fractions) - 1) < _SUM_TOLERANCE
        # One venue may have to take the whole order.
        reaches = [rates / jnp.where(p, f, 1) for p, f in zip(positive, self.fractions, strict=True)]
        each = [cost.is_convex(reach) for cost, reach in zip(self.costs, reaches, strict=True)]
        return functools.reduce(operator.and_, [*each, *positive]) & whole

    def in_units(self, rate, marginal):
        return replaced(self, costs=tuple(cost.in_units(rate, marginal) for cost in self.costs))

    def less_permanent(self, permanent):
        return self, (permanent == 0).all()

    def _sum(self, terms):
        return functools.reduce(operator.add, [f * term for f, term in zip(self.fractions, terms, strict=True)])

    def _sum_of_bounds(self, bounds, endless: float):
        """Σ f_i b_i, masked where a venue has no bound: infinity times the derivative of a fraction is not a number."""
        bounded = [jnp.isfinite(bound) for bound in bounds]
        total = self._sum(jnp.where(b, bound, 0) for b, bound in zip(bounded, bounds, strict=True))
        return jnp.where(functools.reduce(operator.and_, bounded), total, endless)

    def _apart(self) -> "tuple[Array, VenueSplit]":
        """The spread, and the venues without it. Any constant taken off all would do: it carries no derivative."""
        spread = lax.stop_gradient(self.half_spread())
        return spread, self.less_spread(spread)

    def _marginal_of(self, rate: Array) -> Array:
        """y with Σ f_i H_i'(y) = ρ, on the side of ρ; where all venues are full, the y that fills the last."""
        sign = jnp.sign(rate)
        low, high = self.bounds()
        limit = jnp.where(sign < 0, -low, high).astype(rate.dtype)
        bounded = jnp.isfinite(limit)
        full = bounded & (sign * rate >= limit * (1 - 8 * jnp.finfo(rate.dtype).eps)) & (limit > 0)
        side = jnp.where(sign < 0, -1, 1).astype(rate.dtype)
        size = monotone_root(_size_of_rate, (self, side), jnp.where(full, 0, sign * rate))
        lasts = [_last_marginal(cost, sign) for cost in self.costs]
        return sign * jnp.where(full, functools.reduce(jnp.maximum, lasts), size)

    def _is_outside(self, rate: Array) -> Array:
        low, high = self.bounds()
        slack = 1 + float(jnp.finfo(rate.dtype).eps) ** 0.6
        return (rate > slack * high) | (rate < slack * low)


def _size_of_rate(marginal: Array, arguments: tuple[VenueSplit, Array]) -> Array:
    split, sign = arguments
    return sign * split.optimal_rate(sign * marginal)


def _last_marginal(cost: ExecutionCost, sign: Array) -> Array:
    """|L'| where this venue is full; 0 where it has no bound on that side."""
    low, high = cost.bounds()
    limit = jnp.where(sign < 0, low, high).astype(sign.dtype)
    bounded = jnp.isfinite(limit)
    return jnp.where(bounded, jnp.abs(cost.marginal(jnp.where(bounded, limit, 0))), 0)


def _checked_fractions(fractions: Sequence[ArrayLike] | Array, venues: int) -> tuple[Array, ...]:
    try:
        count = len(fractions)
    except TypeError:
        raise ValueError(f"fractions must be a sequence of {venues}, got {fractions!r}") from None
    if count != venues:
        raise ValueError(f"fractions must be as many as costs, {venues}, got {count}")
    shares = tuple(as_float(f"fractions[{i}]", fraction) for i, fraction in enumerate(fractions))
    for i, share in enumerate(shares):
        check_curve(f"fractions[{i}]", share)
        check(f"fractions[{i}]", share, lambda v: v > 0, "positive")
    if all(is_concrete(share) for share in shares):
        total = functools.reduce(operator.add, [np.asarray(share, np.float64) for share in shares])
        if not np.all(np.abs(total - 1) <= _SUM_TOLERANCE):
            raise ValueError(f"fractions must sum to 1, got {total}")
    return shares
