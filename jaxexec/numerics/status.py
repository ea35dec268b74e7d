"""The one `Status` every result carries, and the poison that a failed lane spreads over its values."""

import enum
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float


class Status(enum.IntEnum):
    """What happened to one problem, one stock or one row. Stored as an int32 array in results.

    `OK` and `OK_INACCURATE` (converged, but only to a looser tolerance than was asked) carry numbers that can
    be used; `LOCAL` is a stationary point of a problem that is not convex. Every other status comes with NaN
    values and NaN derivatives in its lane, and leaves the other lanes of a batch as they are.
    """

    OK = 0
    OK_INACCURATE = 1
    LOCAL = 2
    MAX_STEPS = 3
    INFEASIBLE = 4
    UNBOUNDED = 5
    NONCONVEX = 6
    NONFINITE_INPUT = 7
    NONFINITE_INTERNAL = 8
    INSUFFICIENT_DATA = 9
    RANK_DEFICIENT = 10
    ILL_CONDITIONED = 11

    @property
    def remedy(self) -> str:
        """One sentence: what the user can do about it."""
        return _REMEDIES[self]


class Flag(enum.IntFlag):
    """Bits that accompany a status: things done on the way that a careful reader wants to know."""

    NONE = 0
    GUESS_IGNORED = 1
    CLIPPED = 2
    FLOAT32 = 4


_REMEDIES = {
    Status.OK: "Nothing to do.",
    Status.OK_INACCURATE: "Usable; for more digits switch on float64 (jax_enable_x64) or raise max_steps.",
    Status.LOCAL: "The cost is not convex: try other starting points and compare the objectives.",
    Status.MAX_STEPS: "The solver ran out of steps: raise max_steps, or check the units of the inputs.",
    Status.INFEASIBLE: "The order cannot be completed: market volume is zero throughout, or a cap is too tight.",
    Status.UNBOUNDED: "The objective has no minimum: check the signs of the costs and the drift.",
    Status.NONCONVEX: "The cost is not strictly convex: it needs eta > 0, phi > 0, psi >= 0, risk_aversion >= 0, "
    "and under the 'almgren-chriss' convention eta V - permanent_impact tau V^2 / 2 > 0.",
    Status.NONFINITE_INPUT: "An input is NaN or infinite, a time does not increase, or a volume is negative.",
    Status.NONFINITE_INTERNAL: "Numbers overflowed inside the solver: check the units of the inputs.",
    Status.INSUFFICIENT_DATA: "Too few observations for the number of parameters: use more data.",
    Status.RANK_DEFICIENT: "Regressors are constant or collinear: drop one, or use data that vary.",
    Status.ILL_CONDITIONED: "The regressors are nearly collinear: drop one, use data that vary more, or use float64.",
}


def is_usable(status: ArrayLike) -> Bool[Array, "..."]:
    """True where a status carries numbers that can be used (OK, OK_INACCURATE, LOCAL)."""
    return jnp.asarray(status) <= Status.LOCAL


def poison(x: Float[Array, "..."], failed: Bool[Array, "..."]) -> Float[Array, "..."]:
    """NaN where `failed`, with a derivative that is NaN only where something is asked of it.

    The tangent of a failed entry is zero where the incoming tangent is zero and NaN otherwise; the same holds for
    the cotangent. A loss that masks failed lanes (cotangent zero) therefore trains on, and one that forgets to
    sees NaN. `x` must be finite inside failed lanes if gradients are to stay finite there.

    The rule is carried by `lax.custom_linear_solve`, because it is the one linear primitive of JAX whose forward
    and transposed action can both be given.
    """
    failed = jnp.broadcast_to(failed, x.shape)
    linear = _linear(lambda v: jnp.where(failed & (v != 0), jnp.nan, v), x)
    return jnp.where(failed, jnp.nan, 0).astype(x.dtype) + linear


def taint(inputs: Any, failed: Bool[Array, ""]) -> Float[Array, ""]:
    """0. Added to an output of a failed problem it sends NaN back to every input, used or not; elsewhere nothing.

    `poison` alone cannot: inputs that the harmless numbers of a failed lane do not depend on would keep a zero.
    """
    return _linear(lambda v: jnp.where(failed & (v != 0), jnp.nan, jnp.zeros_like(v)), _nothing(inputs, failed))


def _linear(action: Callable[[Array], Array], x: Array) -> Array:
    """A symmetric linear `action` on x, the same forward and transposed."""
    return lax.custom_linear_solve(lambda v: v, x, lambda _, v: action(v), transpose_solve=lambda _, v: action(v))


@jax.custom_jvp
def _nothing(inputs: Any, failed: Bool[Array, ""]) -> Array:
    """0, with the sum of all tangents of `inputs` as its tangent."""
    # Made of `failed`, so that it is batched where that is: custom_linear_solve wants both alike.
    return 0 * failed.astype(jnp.result_type(*jax.tree.leaves(inputs)))


@_nothing.defjvp
def _nothing_jvp(primals, tangents):
    return _nothing(*primals), functools.reduce(operator.add, [jnp.sum(x) for x in jax.tree.leaves(tangents[0])])


@jax.custom_jvp
def replace_where(bad: Bool[Array, "..."], x: Float[Array, "..."], safe: Float[Array, "..."]) -> Float[Array, "..."]:
    """`safe` where `bad`, else `x`; the derivative with respect to `x` passes straight through.

    Used where inputs enter: a bad lane is computed with harmless numbers, and `poison` at the exit can still send
    its NaN back to the very input that caused it.
    """
    return jnp.where(bad, safe, x)


@replace_where.defjvp
def _replace_where_jvp(primals, tangents):
    bad, x, safe = primals
    return replace_where(bad, x, safe), tangents[1]
