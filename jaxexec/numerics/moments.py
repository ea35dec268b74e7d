"""Moments that merge, least squares on them, and the windows of Newey and West.

Every array here has its batch **last**: a matrix is (k, k, lanes), a vector (k, lanes), so that each scalar of the small
algebra is one contiguous vector over the lanes. The matrices are tiny (k up to about 6), so the Cholesky factorisation
is written out: no LAPACK call, which neither batches well nor survives ahead-of-time compilation.

Least squares from moments loses the square of the condition number. Three things keep that harmless: columns are
centred and scaled to unit length, the condition number is computed and reported, and callers add one step of
iterative refinement on the residuals (the corrected semi-normal equations of Björck, Linear Algebra Appl. 88/89, 1987).
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Moments(eqx.Module):
    """Count, mean and centred co-moments of k columns: the sufficient statistics of a regression.

    Attributes:
        count: Number of rows, (lanes,).
        mean: Column means, (k, lanes).
        comoment: Σ (x_i − mean_i)(x_j − mean_j), (k, k, lanes); not divided by the count.
    """

    count: Float[Array, "*lanes"]
    mean: Float[Array, "k *lanes"]
    comoment: Float[Array, "k k *lanes"]

    @staticmethod
    def from_gram(gram: Float[Array, "k1 k1 *lanes"], shift: Float[Array, "k *lanes"] | None = None) -> "Moments":
        """Moments from the Gram matrix of (1, x_1 − shift_1, …, x_k − shift_k).

        The subtraction n·mean² is harmless only where `shift` is near the mean: choose it so. Gram matrices about
        the same shift merge by addition.
        """
        count = gram[0, 0]
        mean = gram[0, 1:] / jnp.where(count > 0, count, 1)[None]
        comoment = gram[1:, 1:] - count[None, None] * mean[:, None] * mean[None]
        return Moments(count, mean if shift is None else mean + shift, comoment)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows (Chan, Golub and LeVeque 1979; Pébay 2008): no cancellation."""
        count = self.count + other.count
        share = other.count / jnp.where(count > 0, count, 1)
        delta = other.mean - self.mean
        between = (self.count * share)[None, None] * delta[:, None] * delta[None]
        return Moments(count, self.mean + share[None] * delta, self.comoment + other.comoment + between)


class Fit(eqx.Module):
    """Least squares of the last column of some `Moments` on the others, with an intercept.

    Attributes:
        slopes: (k, lanes).
        intercept: (lanes,).
        inverse: Inverse of the centred cross-product matrix of the regressors, (k, k, lanes).
        residual_sum: Residual sum of squares from the moments, (lanes,); loses digits where the fit is near perfect.
        condition: 2-norm condition number of the regressors, centred and scaled to unit length, (lanes,); infinite
            where a column is constant or a combination of the others. Carries no derivative.
        deficient: True where the regressors are not of full rank; the other fields are then finite placeholders.
    """

    slopes: Float[Array, "k *lanes"]
    intercept: Float[Array, "*lanes"]
    inverse: Float[Array, "k k *lanes"]
    residual_sum: Float[Array, "*lanes"]
    condition: Float[Array, "*lanes"]
    deficient: Bool[Array, "*lanes"]


def gram(
    columns: Sequence[Float[Array, "time *lanes"]],
    others: Sequence[Float[Array, "time *lanes"]] | None = None,
):
    """Σ_t a_i b_j over the first axis, (k, k, lanes), symmetric; `others` are the columns times a weight or mask.

    Only the upper triangle is computed.
    """
    others = columns if others is None else others
    k = len(columns)
    stacked = jnp.stack(columns, 1)
    rows = [sum_time(others[i][:, None] * stacked[:, i:]) for i in range(k)]
    return jnp.stack([jnp.stack([rows[min(i, j)][abs(i - j)] for j in range(k)]) for i in range(k)])


def sum_time(x: Float[Array, "time *lanes"], blocks: int = 16) -> Float[Array, "*lanes"]:
    """Sum over the first axis in two stages: shorter chains of rounding, and vectors even for a single lane."""
    length = x.shape[0] // blocks * blocks
    if length == 0:
        return x.sum(0)
    head = x[:length].reshape(blocks, length // blocks, *x.shape[1:]).sum(0).sum(0)
    return head if length == x.shape[0] else head + x[length:].sum(0)


def least_squares(moments: Moments) -> Fit:
    """Regress the last column on the others and an intercept, one regression a lane."""
    k = moments.mean.shape[0] - 1
    eps = float(jnp.finfo(moments.mean.dtype).eps)
    total = moments.comoment[k, k]
    square = _diagonal(moments.comoment)[:k]
    # A constant column leaves rounding of size eps times its raw second moment.
    constant = square <= 1e3 * eps * (square + moments.count[None] * moments.mean[:k] ** 2)
    scale = 1 / jnp.sqrt(jnp.where(constant, 1, square))
    correlation = moments.comoment[:k, :k] * scale[:, None] * scale[None]
    correlation = jnp.where(_expand(np.eye(k, dtype=bool), correlation), 1, correlation)
    smallest = cholesky(lax.stop_gradient(correlation))[1]
    deficient = ~(smallest > 50 * eps) | constant.any(0) | ~jnp.isfinite(total)
    identity = _expand(np.eye(k), correlation).astype(correlation.dtype)
    safe = jnp.where(deficient[None, None], identity, correlation)
    factor = cholesky(safe)[0]
    inverse = cholesky_solve(factor, jnp.broadcast_to(identity, safe.shape))
    cross = moments.comoment[:k, k]
    slopes = scale * cholesky_solve(factor, scale * cross)
    extremes = largest_eigenvalue(lax.stop_gradient(safe)) * largest_eigenvalue(lax.stop_gradient(inverse))
    condition = jnp.where(deficient, jnp.inf, jnp.sqrt(extremes))
    intercept = moments.mean[k] - (slopes * moments.mean[:k]).sum(0)
    inverse = inverse * scale[:, None] * scale[None]
    return Fit(slopes, intercept, inverse, total - (slopes * cross).sum(0), condition, deficient)


def cholesky(matrix: Float[Array, "k k *lanes"]) -> tuple[Float[Array, "k k *lanes"], Float[Array, "*lanes"]]:
    """Lower factor and smallest pivot (before its root) of symmetric positive definite matrices, batch last.

    Right-looking: column j is final once the outer products of the earlier ones are taken off. A pivot that is not
    positive is replaced by 1, so the factor stays finite: look at the pivot.
    """
    k = matrix.shape[0]
    columns, pivots = [], []
    for j in range(k):
        pivot = matrix[0, 0]
        pivots.append(pivot)
        column = matrix[0] / jnp.sqrt(jnp.where(pivot > 0, pivot, 1))[None]
        columns.append(jnp.concatenate([jnp.zeros((j, *column.shape[1:]), column.dtype), column]))
        matrix = matrix[1:, 1:] - column[1:, None] * column[None, 1:]
    return jnp.stack(columns, 1), jnp.stack(pivots).min(0)


def cholesky_solve(factor: Float[Array, "k k *lanes"], rhs: Float[Array, "k *columns_lanes"]) -> Array:
    """Solve L Lᵀ x = rhs for a vector (k, lanes) or for columns (k, columns, lanes)."""
    k = factor.shape[0]
    if rhs.ndim == factor.ndim:
        factor = factor[:, :, None]
    half, rest = [], rhs
    for i in range(k):
        half.append(rest[0] / factor[i, i])
        rest = rest[1:] - factor[i + 1 :, i] * half[i][None]
    full, rest = [], jnp.stack(half)
    for i in reversed(range(k)):
        full.append(rest[i] / factor[i, i])
        rest = rest[:i] - factor[i, :i] * full[-1][None]
    return jnp.stack(full[::-1])


def largest_eigenvalue(matrix: Float[Array, "k k *lanes"]) -> Float[Array, "*lanes"]:
    """Largest eigenvalue of symmetric positive definite matrices, batch last.

    The power method by repeated squaring: with M = A^(2^20), tr(AM)/tr(M) is off by at most 4e-7 of itself, and
    by nothing unless the two largest eigenvalues agree to five digits.
    """

    def square(_, m):
        m = (m[:, :, None] * m[None]).sum(1)
        return m / _trace(m)[None, None]

    power = lax.fori_loop(0, 20, square, matrix / _trace(matrix)[None, None])
    return (matrix * power).sum((0, 1)) / _trace(power)


def _trace(matrix: Float[Array, "k k *lanes"]) -> Float[Array, "*lanes"]:
    return _diagonal(matrix).sum(0)


def newey_west_lags(rows: Int[Array, "..."] | int, longest: int) -> Int[Array, "..."]:
    """⌊4 (n/100)^{2/9}⌋ (Newey and West 1994), exactly: thresholds in integers, no fractional power to round.

    Args:
        rows: Number of observations n.
        longest: Largest number of lags that can occur; results are clipped to it.
    """
    thresholds = np.array([_first_length(k) for k in range(1, longest + 1)], dtype=np.int64)
    thresholds = jnp.asarray(np.minimum(thresholds, np.iinfo(np.int32).max).astype(np.int32))
    rows = jnp.asarray(rows, jnp.int32)
    return (rows[..., None] >= jnp.expand_dims(thresholds, tuple(range(rows.ndim)))).sum(-1, dtype=jnp.int32)


def most_newey_west_lags(rows: int) -> int:
    """⌊4 (n/100)^{2/9}⌋ for a Python integer."""
    lags = 0
    while _first_length(lags + 1) <= rows:
        lags += 1
    return lags


def _first_length(lags: int) -> int:
    """Smallest n with 4 (n/100)^{2/9} >= lags, that is 4⁹ n² >= 10⁴ lags⁹."""
    square = -(-(lags**9) * 10**4 // 4**9)
    root = math.isqrt(square)
    return root if root * root == square else root + 1


def bartlett_windows(
    scores: Float[Array, "time *lanes"], lags: Int[Array, "*lanes"], longest: int
) -> Float[Array, "time *lanes"]:
    """W_t = Σ_{j=0}^{lags} s_{t−j} along the first axis, with its own number of lags in each lane.

    Σ_t W_t W_tᵀ / (lags + 1) is exactly Newey and West's estimator with Bartlett weights 1 − j/(lags + 1), provided
    that `scores` ends in at least `lags` zeros: positive semidefinite by construction. Windows are assembled from
    sums over 1, 2, 4, … steps according to the bits of lags + 1, so every shift is static and nothing is gathered.
    """
    width = lags + 1
    power, window = scores, jnp.zeros_like(scores)
    for bit in range((longest + 1).bit_length()):
        step = 1 << bit
        taken = ((width >> bit) & 1) == 1
        window = jnp.where(taken[None], power + _delay(window, step), window)
        power = power + _delay(power, step)
    return window


def _delay(x: Float[Array, "time *lanes"], steps: int) -> Float[Array, "time *lanes"]:
    if steps >= x.shape[0]:
        return jnp.zeros_like(x)
    return jnp.concatenate([jnp.zeros_like(x[:steps]), x[:-steps]])


def sandwich(bread: Float[Array, "k k *lanes"], meat: Float[Array, "k k *lanes"]) -> Float[Array, "k k *lanes"]:
    """bread · meat · bread for symmetric matrices, batch last."""
    k = bread.shape[0]
    half = [[sum(bread[i, m] * meat[m, j] for m in range(k)) for j in range(k)] for i in range(k)]
    return jnp.stack([jnp.stack([sum(half[i][m] * bread[m, j] for m in range(k)) for j in range(k)]) for i in range(k)])


def _diagonal(matrix: Float[Array, "k k *lanes"]) -> Float[Array, "k *lanes"]:
    return jnp.stack([matrix[i, i] for i in range(matrix.shape[0])])


def _expand(constant: np.ndarray, like: Array) -> Array:
    return jnp.asarray(constant.reshape(constant.shape + (1,) * (like.ndim - constant.ndim)))
