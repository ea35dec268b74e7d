"""How much is left unknown at the end: the one root of the equilibrium, in z = log(Σ_T/Σ_0).

A pass from the last period to the first turns z into log Σ_0; the right z is where that is what it should be. For one
insider and a risk-neutral market maker log Σ_0 rises with z from −∞ to ∞, so that there is one root and one linear
equilibrium. Several insiders or a risk-averse market maker alone leave it so in all scans; both together, with noise
that jumps for a hundred periods, make it dip by some hundredths in places. If nobody minds risk it is z plus a
constant, and a single pass solves it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.kyle.recursion import Front, Game, Preference, backward, before

_MOST_STEPS = 100
_FAR = 4.0
_DISCRETE = 24.0  # seen at 50, 100 and 1,000 periods: how far these are from their limit


class Search(NamedTuple):
    """Where to look next, the ends of the bracket, whether each has been looked at, the last residual."""

    z: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    seen: Bool[Array, "2"]
    residual: Float[Array, ""]
    done: Bool[Array, ""]
    steps: Int[Array, ""]


def last_log_variance(game: Game, preference: Preference) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """(z, passes). Newton's method, of which a step counts only if the residual has halved since the one before.

    Without that condition it runs in a cycle of two where log Σ_0 is a sigmoid of z: CARA, Γ = 1, 50 periods.
    """
    start = _start(game, preference)
    dtype, periods = start.dtype, game.swing.shape[0]
    eps = float(jnp.finfo(dtype).eps)
    enough = eps**0.55  # the Newton step that follows squares it

    def unfinished(s: Search) -> Array:
        return ~s.done & (s.steps < _MOST_STEPS)

    def narrow(s: Search) -> Search:
        residual, slope = residual_and_slope(s.z, game, preference)
        below = residual < 0
        low, high = jnp.where(below, s.z, s.low), jnp.where(below, s.high, s.z)
        seen = s.seen | jnp.stack([below, ~below])
        newton = s.z - residual / jnp.where(slope > 0, slope, 1)
        settled = (jnp.abs(residual) <= enough) & (slope > 0)
        closer = jnp.abs(residual) <= 0.5 * jnp.abs(s.residual)
        sound = (slope > 0) & (newton > low) & (newton < high) & closer
        # While the root has been seen from one side only: rather beyond it than short of it.
        outward = s.z - residual * jnp.maximum(_FAR, 1 / jnp.where(slope > 0, slope, 1))
        safe = jnp.where(jnp.all(seen), (low + high) / 2, jnp.clip(outward, low, high))
        closed = high - low <= 2 * eps * jnp.maximum(1, jnp.abs(s.z))
        done = settled | closed | ~jnp.isfinite(residual)
        z = jnp.where(settled | sound, newton, safe)
        return Search(jnp.where(jnp.isfinite(residual), z, s.z), low, high, seen, residual, done, s.steps + 1)

    # No period can teach more than a last one of risk-neutral insiders: Σ_t ≥ Σ_{t−1}/(m + 1).
    least = -periods * jnp.log1p(game.insiders)
    begin = Search(
        z=jnp.maximum(start, least),
        low=least,
        high=jnp.zeros_like(start),
        seen=jnp.zeros(2, bool),
        residual=jnp.full_like(start, jnp.inf),
        done=jnp.asarray(False),
        steps=jnp.asarray(0, jnp.int32),
    )
    end = lax.while_loop(unfinished, narrow, begin)
    return end.z, end.steps


def _start(game: Game, preference: Preference) -> Float[Array, ""]:
    """z where nobody minds risk; under CARA, less by as much as the limit of many periods is.

    There Σ just before the end is proportional to (1 − t)/(1 + αλ_0 t) with λ_0 = (α + √(α² + 4))/2, α = 2Γ√T.
    """
    # A zero of its own: the pass is one for a whole batch that shares its noise.
    nothing = jnp.zeros((), game.swing.dtype)
    neutral = game._replace(risk=nothing, maker_risk=nothing)
    start = -backward(nothing, neutral, preference)[0].log_variance + jnp.zeros_like(game.risk)
    if preference == "local":
        return start
    periods = game.swing.shape[0]
    alpha = 2 * game.risk * periods**0.5
    hurried = jnp.log1p(alpha * (alpha + jnp.sqrt(alpha * alpha + 4)) / 2)
    return start - jnp.maximum(hurried - _DISCRETE / periods * jnp.log1p(alpha), 0)


def residual_and_slope(
    z: Float[Array, ""], game: Game, preference: Preference
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """log Σ_0 that z leads to, less what it should be, which is 0; and its derivative with respect to z."""

    def step(fronts: tuple[Front, Front], row: tuple[Array, Array]) -> tuple[tuple[Front, Front], None]:
        here = game._replace(swing=row[0], step=row[1])
        return jax.jvp(lambda front: before(front, here, preference), (fronts[0],), (fronts[1],)), None

    nothing, whole = jnp.zeros_like(z), jnp.ones_like(z)
    last = Front(nothing, z), Front(nothing, whole)
    (first, moved), _ = lax.scan(step, last, (game.swing, game.step), reverse=True)
    return first.log_variance, moved.log_variance
