"""A line search along which only a slope is looked at, never a value: values of the dual cancel.

The slope of a convex function grows along any line. From s(0) < 0 the search brackets its zero and stops at the first
t at which |s(t)| is half of |s(0)|, or at t = 1 if the function still falls there. Scalars, or lanes on the last axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_MOST_TRIES = 14


class _Bracket(NamedTuple):
    t: Float[Array, "*lanes"]
    seen: Array
    low: Float[Array, "*lanes"]
    low_slope: Float[Array, "*lanes"]
    high: Float[Array, "*lanes"]
    searching: Bool[Array, "*lanes"]
    tries: Int[Array, ""]


def line_search(
    slope_along: Callable[[Float[Array, "*lanes"]], tuple[Float[Array, "*lanes"], Array]],
    fall: Float[Array, "*lanes"],
    seen: Array,
    active: Bool[Array, "*lanes"],
) -> tuple[Float[Array, "*lanes"], Array]:
    """A step t in (0, 1], and what `slope_along` saw there.

    Args:
        slope_along: t to the slope at t, and an array made on the way that the caller wants back.
        fall: the slope at 0.
        seen: that array at 0; its last axes are those of the lanes.
        active: lanes to search in; the others get t = 1 and what they had seen.
    """
    one, zero = jnp.ones_like(fall), jnp.zeros_like(fall)
    enough = jnp.abs(fall) / 2
    before = tuple(range(seen.ndim - fall.ndim))

    def narrow(s: _Bracket) -> _Bracket:
        slope, seen = slope_along(s.t)
        beyond = slope > 0
        last = s.tries == _MOST_TRIES - 1
        done = (jnp.abs(slope) <= enough) | (~beyond & (s.t >= 1)) | ~jnp.isfinite(slope) | last
        low, low_slope = jnp.where(beyond, s.low, s.t), jnp.where(beyond, s.low_slope, slope)
        high = jnp.where(beyond, s.t, s.high)
        share = jnp.clip(-low_slope / (jnp.where(beyond, slope, enough) - low_slope), 0.05, 0.9)
        go = s.searching & ~done
        t = jnp.where(go, low + (high - low) * share, s.t)
        kept = jnp.where(jnp.expand_dims(s.searching, before), seen, s.seen)
        return _Bracket(t, kept, low, low_slope, high, go, s.tries + 1)

    start = _Bracket(one, seen, zero, fall, one, active, jnp.asarray(0, jnp.int32))
    end = lax.while_loop(lambda s: jnp.any(s.searching) & (s.tries < _MOST_TRIES), narrow, start)
    return end.t, end.seen
