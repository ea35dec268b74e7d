"""Eigenvalues and eigenvectors of small symmetric matrices, batch last: Jacobi's rotations, pair by pair.

For the matrices of a handful of parameters: all entries, small eigenvalues too, come to rounding of the largest, there
is no LAPACK call, and each rotation is a few vector operations over the lanes (Golub and Van Loan, Matrix
Computations, section 8.5).
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_MOST_SWEEPS = 10  # convergence is quadratic once sweeps have begun to bite: six do for ten columns


def symmetric_eigen(
    matrix: Float[Array, "k k *lanes"],
) -> tuple[Float[Array, "k ..."], Float[Array, "k k *lanes"]]:
    """Eigenvalues in increasing order, (k, lanes), and unit eigenvectors as columns, (k, k, lanes). No derivative."""
    matrix = lax.stop_gradient(matrix)
    k, lanes = matrix.shape[0], matrix.shape[2:]
    vectors = jnp.broadcast_to(jnp.eye(k, dtype=matrix.dtype).reshape(k, k, *[1] * len(lanes)), matrix.shape)
    if k > 1:
        matrix, vectors = _swept(matrix, vectors)
    values = jnp.stack([matrix[i, i] for i in range(k)])
    order = jnp.argsort(values, axis=0)
    return jnp.take_along_axis(values, order, 0), jnp.take_along_axis(vectors, order[None], 1)


def _swept(matrix: Array, vectors: Array) -> tuple[Array, Array]:
    """Sweeps over all pairs, until nothing is left off the diagonal of any lane."""
    k = matrix.shape[0]
    pairs = jnp.asarray(np.array(np.triu_indices(k, 1), np.int32).T)
    apart = ~jnp.eye(k, dtype=bool)
    eps = float(jnp.finfo(matrix.dtype).eps)

    def left(a: Array) -> Array:
        off = jnp.where(_expanded(apart, a), jnp.abs(a), 0).max((0, 1))
        return off > eps * jnp.abs(a).max((0, 1))

    def unfinished(state: tuple) -> Array:
        return (state[0] < _MOST_SWEEPS) & jnp.any(left(state[1]))

    def sweep(state: tuple) -> tuple:
        sweeps, *both = state
        # A lane that has nothing left keeps its bits, whatever its neighbours need.
        both, _ = lax.scan(functools.partial(_rotated, left(both[0])), tuple(both), pairs)
        return sweeps + 1, *both

    _, matrix, vectors = lax.while_loop(unfinished, sweep, (jnp.asarray(0, jnp.int32), matrix, vectors))
    return matrix, vectors


def _expanded(x: Array, like: Array) -> Array:
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def _rotated(moving: Array, carry: tuple[Array, Array], pair: Array) -> tuple[tuple[Array, Array], None]:
    """One rotation in the plane of a pair, the one that makes its entry off the diagonal zero."""
    a, v = carry
    i, j = pair[0], pair[1]
    row_i, row_j = _row(a, i), _row(a, j)
    off, apart = _row(row_i, j), _row(row_j, j) - _row(row_i, i)
    zero = off == 0
    ratio = apart / (2 * jnp.where(zero, 1, off))
    # The smaller root of t² + 2 t ratio − 1 = 0; a ratio that overflows makes it zero.
    tangent = jnp.where(ratio < 0, -1, 1) / (jnp.abs(ratio) + jnp.hypot(ratio, jnp.ones_like(ratio)))
    tangent = jnp.where(zero | ~moving, 0, tangent)
    cosine = 1 / jnp.hypot(tangent, jnp.ones_like(tangent))
    sine = cosine * tangent
    a = _turned(a, i, j, cosine, sine, 0)
    a = _turned(a, i, j, cosine, sine, 1)
    return (a, _turned(v, i, j, cosine, sine, 1)), None


def _turned(x: Array, i: Array, j: Array, cosine: Array, sine: Array, axis: int) -> Array:
    first, second = _row(x, i, axis), _row(x, j, axis)
    x = lax.dynamic_update_index_in_dim(x, cosine[None] * first - sine[None] * second, i, axis)
    return lax.dynamic_update_index_in_dim(x, sine[None] * first + cosine[None] * second, j, axis)


def _row(x: Array, at: Array, axis: int = 0) -> Array:
    return lax.dynamic_index_in_dim(x, at, axis, keepdims=False)
