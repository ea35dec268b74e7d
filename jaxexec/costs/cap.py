"""A limit on how fast may be traded."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import check_curve, checked_cost, replaced, speck
from jaxexec.costs.quadratic import QuadraticCost
from jaxexec.costs.sum import SumCost
from jaxexec.numerics.arrays import as_float, check, is_concrete, unify


class ParticipationCap(ExecutionCost):
    """L(ρ) = the cost's L(ρ) where rho_min ≤ ρ ≤ rho_max, infinite elsewhere: a cap on the participation rate.

    With c the bound that L'(c) passes p at,  H'(p) = min(max(H'(p), rho_min), rho_max)  and  H(p) = p c − L(c) beyond.
    A rate that passes a bound by rounding only (4e-10 of it in float64, 7e-5 in float32) still counts as within: trades
    are differences of inventories, and inherit their rounding.

    Args:
        cost: L within the bounds.
        rho_max: ρ_max, highest rate, own volume over the others', ≥ 0; scalar or (steps,). A limit of 10 % of the whole
            market, own shares included, is ρ_max = 0.1/(1 − 0.1). Zero forbids sales in that step.
        rho_min: ρ_min, lowest rate, ≤ 0; scalar or (steps,). None is −ρ_max; 0 allows sales only.

    Raises:
        ValueError: `cost` is not a cost, or a concrete bound is not finite or breaks its sign; field and index named.
    """

    cost: ExecutionCost
    rho_max: Float[Array, "*#steps"]
    rho_min: Float[Array, "*#steps"] | None

    def __init__(self, cost: ExecutionCost, rho_max: ArrayLike, rho_min: ArrayLike | None = None):
        given = {"rho_max": rho_max} | ({} if rho_min is None else {"rho_min": rho_min})
        limits = unify({name: as_float(name, value) for name, value in given.items()})
        _check_limits(limits)
        self.cost = checked_cost("cost", cost)
        self.rho_max = limits["rho_max"]
        self.rho_min = limits.get("rho_min")

    def value(self, rate):
        within = ~self._is_outside(rate)
        return jnp.where(within, self.cost.value(jnp.where(within, rate, 0)), jnp.inf)

    def marginal(self, rate):
        within = ~self._is_outside(rate)
        return jnp.where(within, self.cost.marginal(jnp.where(within, rate, 0)), jnp.sign(rate) * jnp.inf)

    def curvature(self, rate):
        within = ~self._is_outside(rate)
        return jnp.where(within, self.cost.curvature(jnp.where(within, rate, 0)), jnp.inf)

    def hamiltonian(self, marginal):
        capped, edge = self._capped(marginal)
        beyond = marginal * edge - self.cost.value(edge)
        return jnp.where(capped, beyond, self.cost.hamiltonian(jnp.where(capped, 0, marginal)))

    def optimal_rate(self, marginal):
        capped, _ = self._capped(marginal)
        low, high = self.bounds()
        free = self.cost.optimal_rate(jnp.where(capped, 0, marginal))
        free = free - lax.stop_gradient(free - jnp.clip(free, low, high))  # rounding, just below a bound
        return jnp.where(capped, jnp.where(marginal < 0, low, high), free)

    def rate_slope(self, marginal):
        capped, _ = self._capped(marginal)
        return jnp.where(capped, 0, self.cost.rate_slope(jnp.where(capped, 0, marginal)))

    def curve_point(self, rate, marginal, keep_rate):
        low, high = self.bounds()
        past, _ = self._capped(marginal)
        capped = jnp.where(keep_rate, (rate > high) | (rate < low), past)
        bound = jnp.where(jnp.where(keep_rate, rate, marginal) < 0, low, high)
        within = jnp.where(past, 0, marginal)
        point = self.cost.curve_point(jnp.clip(rate, low, high), within, keep_rate)
        return CurvePoint(
            jnp.where(capped, bound, jnp.clip(point.rate, low, high)),
            jnp.where(capped & ~keep_rate, marginal, point.marginal),
            jnp.where(capped, 0, point.slope),
            jnp.where(capped, bound, point.intercept),
        )

    def bounds(self):
        low, high = self._own_bounds()
        inner_low, inner_high = self.cost.bounds()
        return jnp.maximum(low, inner_low), jnp.minimum(high, inner_high)

    def half_spread(self):
        return self.cost.half_spread()

    def less_spread(self, spread):
        return replaced(self, cost=self.cost.less_spread(spread))

    def is_convex(self, rates):
        low, high = self._own_bounds()
        reach = jnp.minimum(jnp.abs(rates), jnp.maximum(high, -low))
        return (low <= 0) & (high >= 0) & self.cost.is_convex(reach)

    def in_units(self, rate, marginal):
        low = None if self.rho_min is None else self.rho_min / rate
        return replaced(self, cost=self.cost.in_units(rate, marginal), rho_max=self.rho_max / rate, rho_min=low)

    def less_permanent(self, permanent):
        if isinstance(self.cost, QuadraticCost):
            less, possible = self.cost.less_permanent(permanent)
            return replaced(self, cost=less), possible
        return SumCost((self,)).less_permanent(permanent)  # convex within the bounds is enough

    def _own_bounds(self) -> tuple[Array, Array]:
        return (-self.rho_max if self.rho_min is None else self.rho_min), self.rho_max

    def _capped(self, marginal: Array) -> tuple[Array, Array]:
        """Whether p passes L' at the bound on its side, and that bound: beyond the spread's kink even where it is 0."""
        low, high = self.bounds()
        edge = jnp.where(marginal < 0, low - speck(low.dtype), high + speck(high.dtype))
        passed = self.cost.marginal(edge)
        return jnp.where(marginal < 0, marginal < passed, marginal > passed), edge

    def _is_outside(self, rate: Array) -> Array:
        low, high = self._own_bounds()
        slack, least = 1 + float(jnp.finfo(high.dtype).eps) ** 0.6, 2 * speck(high.dtype)
        return (rate > slack * high + least) | (rate < slack * low - least)


def _check_limits(limits: dict[str, Array]) -> None:
    for name, array in limits.items():
        check_curve(name, array)
    check("rho_max", limits["rho_max"], lambda v: v >= 0, "at least 0")
    if "rho_min" not in limits:
        return
    if is_concrete(limits["rho_max"]):
        high = np.asarray(limits["rho_max"])
        check(
            "rho_min",
            limits["rho_min"],
            lambda v: np.broadcast_to(v, np.broadcast_shapes(v.shape, high.shape)) <= high,
            "at most rho_max",
        )
    check("rho_min", limits["rho_min"], lambda v: v <= 0, "at most 0")
