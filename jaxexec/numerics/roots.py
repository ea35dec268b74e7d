"""Roots of increasing functions, elementwise, with the derivative of the equation and not of the search."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_MOST_STEPS = 150  # bisection of the whole range takes ten steps to a factor of e and fifty to the last digit


def monotone_root(
    function: Callable[[Array, Any], Array], arguments: Any, target: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The x ≥ 0 at which the increasing function(x, arguments) is `target`: elementwise and to rounding.

    Newton's method on log f against log x, which is exact for a power and approaches a sum of powers from one side,
    kept within a bracket by bisection of log x: x may lie anywhere between 1e-300 and 1e300 (1e-35 and 1e35 in
    float32). The derivative is the implicit function theorem's, dx = (d target − ∂f dθ)/f', in both modes and to any
    order that f has; zero where x is 0 or infinite and where f' is 0 or infinite.

    Args:
        function: f, elementwise in x > 0, with values f ≥ 0 of the shape that x and `arguments` broadcast to. A value
            that is not a number counts as too high, so that f may end somewhere.
        arguments: any pytree of arrays; everything f depends on that has a derivative.
        target: f's value at the root.

    Returns:
        The root; 0 where the target is not above f(0+), infinite where f stays below it, NaN where f or the target is
        NaN at the end of the search.
    """
    shape = jax.eval_shape(function, target, arguments).shape
    return _root(function, arguments, jnp.broadcast_to(target, shape))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(function, arguments, target):
    return _search(function, arguments, target)


@_root.defjvp
def _root_jvp(function, primals, tangents):
    arguments, target = primals
    root = _root(function, arguments, target)
    alive = (root > 0) & jnp.isfinite(root)
    inside = jnp.where(alive, root, 1)
    change = _change_with_arguments(function, inside, arguments, tangents[0])
    slope = _value_and_slope(function, inside, arguments)[1]
    alive = alive & (slope > 0) & jnp.isfinite(slope)
    moved = (tangents[1] - change) / jnp.where(alive, slope, 1)
    return root, jnp.where(alive, moved, jnp.where(jnp.isnan(root), jnp.nan, 0))


def _change_with_arguments(function, x: Array, arguments: Any, tangents: Any) -> Array:
    return jax.jvp(lambda a: function(x, a), (arguments,), (tangents,))[1]


def _value_and_slope(function, x: Array, arguments: Any) -> tuple[Array, Array]:
    return jax.jvp(lambda at: function(at, arguments), (x,), (jnp.ones_like(x),))


class _Search(NamedTuple):
    """Brackets low < root ≤ high, the point that is looked at next, and the last Newton step in log x."""

    low: Float[Array, "..."]
    high: Float[Array, "..."]
    x: Float[Array, "..."]
    step: Float[Array, "..."]
    done: Bool[Array, "..."]
    steps: Int[Array, ""]


def _search(function, arguments: Any, target: Array) -> Array:
    finfo = jnp.finfo(target.dtype)
    least, most, eps = float(finfo.tiny) * 1024, float(finfo.max) / 1024, float(finfo.eps)
    lowest, highest = jnp.full_like(target, least), jnp.full_like(target, most)
    at_rest = function(lowest, arguments)
    zero = target <= at_rest
    hopeless = jnp.isnan(target) | jnp.isnan(at_rest)
    log_target = jnp.log(jnp.where(target > 0, target, 1))

    def unfinished(s: _Search):
        return (s.steps < _MOST_STEPS) & ~jnp.all(s.done)

    def narrow(s: _Search) -> _Search:
        value, slope = _value_and_slope(function, s.x, arguments)
        below = value < target
        low, high = jnp.where(below, s.x, s.low), jnp.where(below, s.high, s.x)
        miss = (value - target) / target
        near = jnp.abs(miss) < 0.5
        apart = jnp.where(near, jnp.log1p(jnp.where(near, miss, 0)), jnp.log(value) - log_target)
        step = -apart * (value / target) / (s.x * (slope / target))
        newton = s.x * jnp.exp(step)
        shrinks = jnp.abs(step) <= 0.5 * jnp.abs(s.step)
        # Far out a slope may overflow, and a step of zero then tells nothing. A bound may be the root itself: a step
        # that lands on it is taken.
        usable = jnp.isfinite(step) & jnp.isfinite(slope) & (slope > 0)
        sound = usable & (newton >= low) & (newton <= high)
        settled = sound & ((jnp.abs(step) <= 4 * eps) | (~shrinks & (jnp.abs(step) <= eps**0.75)))
        middle = jnp.sqrt(low) * jnp.sqrt(high)
        closed = high <= low * (1 + 2 * eps)
        x = jnp.where(sound & (shrinks | settled), newton, jnp.where(closed, high, middle))
        done = s.done | settled | closed
        return _Search(
            jnp.where(s.done, s.low, low),
            jnp.where(s.done, s.high, high),
            jnp.where(s.done, s.x, x),
            jnp.where(sound, step, s.step / 2),
            done,
            s.steps + 1,
        )

    begin = _Search(
        lowest,
        highest,
        jnp.ones_like(target),
        jnp.full_like(target, jnp.inf),
        zero | hopeless,
        jnp.asarray(0, jnp.int32),
    )
    end = lax.while_loop(unfinished, narrow, begin)
    x = jnp.where(end.x >= most * (1 - 8 * eps), jnp.inf, end.x)
    lost = hopeless | jnp.isnan(function(end.x, arguments))
    return jnp.where(lost, jnp.nan, jnp.where(zero, 0, x))
