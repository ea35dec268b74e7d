"""Symmetric positive definite systems, and how far the matrix is from losing that.

Both methods meet the pivots of the same factorisation: the k-th over the k-th diagonal entry is what is left of
variable k once those before it are known. The least of these ratios is 1 for a diagonal matrix, zero for a singular
one, and below that the matrix is not positive definite.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

_Solve = Callable[[Array], Array]


def solve_positive_definite(
    matrix: Float[Array, "n n"], right_side: Float[Array, " n"], *, toeplitz: bool
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """The solution and the least pivot ratio. Where that is not positive the solution is finite and means nothing.

    Differentiable in both modes and to any order, by solves and not through the factorisation: the matrix is
    symmetric, so a reverse pass is one more solve. One step of refinement gives back what the recursion loses.

    LAPACK's Cholesky is ten times faster than one in XLA's loops at a hundred unknowns, forty times at four hundred.
    Levinson's recursion, O(n²), is as fast as it there and several times faster at two thousand.

    Args:
        matrix: symmetric.
        toeplitz: entries depend on |i − j| alone; only the first row is then looked at.
    """
    known = lax.stop_gradient(matrix)
    once, least = _by_levinson(known[0]) if toeplitz else _by_cholesky(known)

    def solve(_, right_side):
        rough = once(right_side)
        return rough + once(right_side - known @ rough)

    return lax.custom_linear_solve(lambda v: matrix @ v, right_side, solve, symmetric=True), least


def _by_cholesky(matrix: Array) -> tuple[_Solve, Array]:
    lower = jnp.linalg.cholesky(matrix, symmetrize_input=False)
    failed = ~jnp.all(jnp.isfinite(lower))
    least = jnp.where(failed, -1, jnp.min(jnp.diagonal(lower) ** 2 / jnp.diagonal(matrix)))
    lower = jnp.where(failed, jnp.eye(matrix.shape[0], dtype=matrix.dtype), lower)
    return lambda v: solve_triangular(lower, solve_triangular(lower, v, lower=True), lower=True, trans=1), least


class _Predictor(NamedTuple):
    """What Levinson's recursion knows of the leading k by k system, in vectors that are zero from entry k on.

    The solution for the right side (0, …, 0, pivot) is `back`, with 1 as its last entry; for (pivot, 0, …, 0) it is the
    same read backwards, `front`.
    """

    front: Float[Array, " n"]
    back: Float[Array, " n"]
    pivot: Float[Array, ""]
    sound: Bool[Array, ""]


def _by_levinson(row: Array) -> tuple[_Solve, Array]:
    """Inverse Σ_k back_k back_kᵀ/pivot_k by Levinson's recursion (Golub and Van Loan, Matrix Computations, §4.7)."""
    n = row.shape[0]
    mirrored = jnp.concatenate([row[:0:-1], row])
    first = jnp.zeros_like(row).at[0].set(1)
    usable = row[0] > 0
    begin = _Predictor(first, first, jnp.where(usable, row[0], 1), usable)

    def extend(s: _Predictor, k: Array) -> tuple[_Predictor, tuple[Array, Array, Array]]:
        shifted = jnp.concatenate([jnp.zeros_like(s.back[:1]), s.back[:-1]])
        reflection = -(lax.dynamic_slice(mirrored, (n - 1 - k,), (n,)) @ s.front) / s.pivot
        pivot = s.pivot * (1 - reflection**2)
        # A pivot that is not positive ends the matter: from there on the recursion stands still, and stays finite.
        sound = s.sound & (pivot > 0)
        least = jnp.where(s.sound, pivot, s.pivot)
        reflection, pivot = jnp.where(sound, reflection, 0), jnp.where(sound, pivot, s.pivot)
        after = _Predictor(s.front + reflection * shifted, shifted + reflection * s.front, pivot, sound)
        return after, (after.back, pivot, least)

    _, (backs, pivots, leasts) = lax.scan(extend, begin, jnp.arange(1, n))
    backs, pivots = jnp.concatenate([first[None], backs]), jnp.concatenate([begin.pivot[None], pivots])
    least = jnp.min(jnp.append(leasts, begin.pivot)) / begin.pivot
    return lambda v: ((backs @ v) / pivots) @ backs, jnp.where(usable, least, -1)
