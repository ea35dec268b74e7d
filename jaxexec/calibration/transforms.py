"""Bounds by transformation: a parameter with bounds is a smooth function of one without.

| bounds | natural value | |
|---|---|---|
| (None, None) | u | |
| (low, None) | low + e^u | |
| (None, high) | high − e^u | |
| (low, high) | low + (high − low)/(1 + e^{−u}) | |
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid
from jaxtyping import Array, Float

Bound = tuple[float | None, float | None]
FREE: Bound = (None, None)
POSITIVE: Bound = (0.0, None)


def checked_bounds(
    names: Sequence[str], bounds: Mapping[str, Bound] | None, default: Mapping[str, Bound]
) -> list[Bound]:
    """One bound a parameter, in the order of `names`.

    Raises:
        ValueError: a bound for what is no parameter, not a pair, not finite, or low not below high.
    """
    given = {**default, **(bounds or {})}
    for name, pair in given.items():
        if name not in names:
            raise ValueError(f"bounds names {name!r}, which is none of the parameters {', '.join(names)}")
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"bounds[{name!r}] must be a pair (low, high), None for no bound, got {pair!r}")
        low, high = pair
        if any(end is not None and not np.isfinite(end) for end in pair):
            raise ValueError(f"bounds[{name!r}] must be finite or None, got {pair!r}")
        if low is not None and high is not None and not low < high:
            raise ValueError(f"bounds[{name!r}] must increase, got {pair!r}")
    return [given.get(name, FREE) for name in names]


def to_natural(u: Float[Array, "..."], bound: Bound) -> Float[Array, "..."]:
    """The parameter itself."""
    low, high = bound
    if low is None:
        return u if high is None else high - jnp.exp(u)
    return low + (jnp.exp(u) if high is None else (high - low) * sigmoid(u))


def to_free(value: Float[Array, "..."], bound: Bound) -> Float[Array, "..."]:
    """u of a parameter within its bounds; NaN outside, infinite at a bound."""
    low, high = bound
    if low is None:
        return value if high is None else jnp.log(high - value)
    return jnp.log(value - low) - (0.0 if high is None else jnp.log(high - value))


def is_inside(value: Float[Array, "..."], bound: Bound) -> Array:
    """Whether a value lies strictly between its bounds."""
    low, high = bound
    inside = jnp.isfinite(value)
    inside = inside if low is None else inside & (value > low)
    return inside if high is None else inside & (value < high)


def slope(u: Float[Array, "..."], bound: Bound) -> Float[Array, "..."]:
    """Derivative of the parameter by u."""
    low, high = bound
    if low is None:
        return jnp.ones_like(u) if high is None else -jnp.exp(u)
    return jnp.exp(u) if high is None else (high - low) * sigmoid(u) * sigmoid(-u)


def unit_of(bound: Bound) -> float:
    """What is no small change of u: 1 for a transformed parameter, 0 for one that has its own unit."""
    return 0.0 if bound == FREE else 1.0
