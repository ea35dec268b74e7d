"""The fronts of all periods in equilibrium, with the derivative of the equations and not of the search.

Each front follows from the next by F_{t−1} = f(F_t, θ_t), the last is (0, z), and z is such that the log variance of
the first is 0. So with the partial derivatives of f at the solution, elementwise and all at once,

    dF_{t−1} = f_F dF_t + f_θ dθ_t,    dF_T = (0, dz),

and dz is what makes d log Σ_0 vanish: one linear recurrence for dθ at dz = 0, one for dz that does not depend on dθ.
It is written with differentiable operations, so it holds in forward and reverse mode and to any order.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxexec.kyle.recursion import Front, Game, Preference, backward, before
from jaxexec.kyle.terminal import last_log_variance


class Fronts(NamedTuple):
    """The fronts (periods,) in equilibrium, the residual log Σ_0 of the root, and the passes that found it."""

    periods: Front
    residual: Float[Array, ""]
    passes: Int[Array, ""]


def fronts(game: Game, preference: Preference) -> Fronts:
    """The equilibrium. Traced; differentiable with respect to `game`."""
    later, log_variance, residual, passes = _solved(game, preference)
    return Fronts(Front(later, log_variance), residual, passes.astype(jnp.int32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _solved(game: Game, preference: Preference) -> tuple[Array, Array, Array, Array]:
    z, passes = last_log_variance(game, preference)
    first, rows = backward(z, game, preference)
    return rows.later, rows.log_variance, first.log_variance, passes.astype(z.dtype)


@_solved.defjvp
def _solved_jvp(preference, primals, tangents):
    (game,), (moved,) = primals, tangents
    later, log_variance, residual, passes = _solved(game, preference)
    front = Front(later, log_variance)
    wide = Game(*(jnp.broadcast_to(x, later.shape) for x in game))
    forcing = Game(*(jnp.broadcast_to(x, later.shape) for x in moved))
    zeros, ones = jnp.zeros_like(later), jnp.ones_like(later)

    _, to_front = jax.linearize(lambda f: before(f, wide, preference), front)
    by_later, by_log = to_front(Front(ones, zeros)), to_front(Front(zeros, ones))
    by_game = jax.jvp(lambda g: before(front, g, preference), (wide,), (forcing,))[1]

    def travel(last: Front, push: Front) -> tuple[Front, Front]:
        def step(f: Front, row: tuple[Front, Front, Front]) -> tuple[Front, Front]:
            left, right, pushed = row
            new = (x * f.later + y * f.log_variance + p for x, y, p in zip(left, right, pushed, strict=True))
            return Front(*new), f

        return lax.scan(step, last, (by_later, by_log, push), reverse=True)

    nothing, whole = jnp.zeros_like(residual), jnp.ones_like(residual)
    slope, rise = travel(Front(nothing, whole), Front(zeros, zeros))
    gone, change = travel(Front(nothing, nothing), by_game)
    dz = -gone.log_variance / slope.log_variance
    tangent = [c + r * dz for c, r in zip(change, rise, strict=True)]
    return (later, log_variance, residual, passes), (*tangent, nothing, nothing)
