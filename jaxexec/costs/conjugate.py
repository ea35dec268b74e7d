"""H and H' of a cost that only knows its L and L', and convexity looked for in samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from jaxexec.costs.contract import ExecutionCost
from jaxexec.numerics.roots import monotone_root

# How far along the range that is asked for convexity is looked at: near rest, and evenly.
_SHARES = np.unique(np.concatenate([np.logspace(-5, 0, 21), np.linspace(0, 1, 13)[1:]]))


def rate_by_root(cost: ExecutionCost, marginal: Array) -> Array:
    """H'(p) of a cost without spread: the root of L'(ρ) = p, at most at a bound."""
    marginal = jnp.asarray(marginal)
    sign = jnp.where(marginal < 0, -1, 1).astype(marginal.dtype)
    low, high = (jnp.asarray(bound) for bound in cost.bounds())
    limit = jnp.where(sign < 0, -low, high).astype(marginal.dtype)
    bounded = jnp.isfinite(limit)
    edge = jnp.where(bounded, limit, 1)
    capped = bounded & (sign * marginal >= sign * cost.marginal(sign * edge))
    size = monotone_root(_size_of_marginal, (cost, sign), jnp.where(capped, 0, sign * marginal))
    return sign * jnp.where(capped, limit, size)


def hamiltonian_by_root(cost: ExecutionCost, marginal: Array) -> Array:
    """H(p) of a cost without spread: pρ − L(ρ) at its root; infinite where L' never reaches p."""
    rate = rate_by_root(cost, marginal)
    endless = jnp.isinf(rate)
    rate = jnp.where(endless, 0, rate)
    return jnp.where(endless, jnp.inf, rate * marginal - cost.value(rate))


def _size_of_marginal(size: Array, arguments: tuple[ExecutionCost, Array]) -> Array:
    cost, sign = arguments
    return sign * cost.marginal(sign * size)


def slope_of(curvature: Array) -> Array:
    """1/L'', zero where L'' is infinite and, by convention, where it is zero."""
    usable = (curvature > 0) & jnp.isfinite(curvature)
    return jnp.where(usable, 1 / jnp.where(usable, curvature, 1), jnp.where(jnp.isnan(curvature), jnp.nan, 0))


def looks_convex(cost: ExecutionCost, rates: ArrayLike) -> Bool[Array, "*#steps"]:
    """True where, at samples between −|rates| and |rates| and the bounds, L' rises from 0 and L'' is positive."""
    low, high = (jnp.asarray(bound) for bound in cost.bounds())
    reach = jnp.abs(jnp.asarray(rates))
    reach = jnp.where(reach > 0, reach, 1)
    return _side_looks_convex(cost, jnp.minimum(reach, high), 1) & _side_looks_convex(
        cost, jnp.minimum(reach, -low), -1
    )


def _side_looks_convex(cost: ExecutionCost, reach: Array, sign: int) -> Array:
    open_ = reach > 0
    reach = jnp.where(open_, reach, 1)

    def look(share: Array) -> tuple[Array, Array]:
        rate = sign * share * reach
        curvature = cost.curvature(rate)
        return sign * cost.marginal(rate), (curvature > 0) & jnp.isfinite(curvature)

    marginal, curved = jax.vmap(look)(jnp.asarray(_SHARES, reach.dtype))
    rises = jnp.all(jnp.diff(marginal, axis=0) > 0, axis=0) & (marginal[0] >= 0)
    return ~open_ | (rises & jnp.all(curved, axis=0))
