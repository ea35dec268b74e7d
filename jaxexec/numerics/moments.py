"""Moments that merge, least squares on them, and the windows of Newey and West.

Every array here has its batch **last**: a matrix is (k, k, lanes), a vector (k, lanes), so that each scalar of the
small algebra is one contiguous vector over the lanes. The matrices are tiny (k up to about 6) and inverted by sweeping
their columns: no LAPACK call, which neither batches well nor survives ahead-of-time compilation.

Least squares from moments loses the square of the condition number. Three things keep that harmless: columns are
centred and scaled to unit length, the condition number is computed and reported, and callers add one step of
iterative refinement on the residuals (the corrected semi-normal equations of Björck, Linear Algebra Appl. 88/89, 1987).
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

BLOCKS = 16  # first-stage sums of `sum_time`


class Moments(eqx.Module):
    """Count, mean and centred co-moments of k columns: the sufficient statistics of a regression.

    Attributes:
        count: Number of rows, (lanes,).
        mean: Column means, (k, lanes).
        comoment: Σ (x_i − mean_i)(x_j − mean_j), (k, k, lanes); not divided by the count.
    """

    count: Float[Array, "*lanes"]
    mean: Float[Array, "k ..."]
    comoment: Float[Array, "k k *lanes"]

    @staticmethod
    def from_gram(gram: Float[Array, "k1 k1 *lanes"], shift: Float[Array, "k ..."] | None = None) -> "Moments":
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
        dependent: True for a column that is constant or a combination of those before it, (k, lanes).
    """

    slopes: Float[Array, "k ..."]
    intercept: Float[Array, "*lanes"]
    inverse: Float[Array, "k k *lanes"]
    residual_sum: Float[Array, "*lanes"]
    condition: Float[Array, "*lanes"]
    deficient: Bool[Array, "*lanes"]
    dependent: Bool[Array, "k ..."]


def gram(
    columns: Sequence[Float[Array, "time ..."]],
    others: Sequence[Float[Array, "time ..."]] | None = None,
):
    """Σ_t a_i b_j over the first axis, (k, k, lanes), symmetric; `others` are the columns times a weight or mask.

    Only the upper triangle is computed.
    """
    others = columns if others is None else others
    k = len(columns)
    sums = {(i, j): sum_time(others[i] * columns[j]) for i in range(k) for j in range(i, k)}
    return jnp.stack([jnp.stack([sums[min(i, j), max(i, j)] for j in range(k)]) for i in range(k)])


def sum_time(x: Float[Array, "time ..."]) -> Float[Array, "*lanes"]:
    """Sum over the first axis; in two stages where its length is a multiple of `BLOCKS`.

    That makes the chains of rounding shorter, and gives vectors to work on even for a single lane.
    """
    if x.shape[0] % BLOCKS or x.shape[0] == 0:
        return x.sum(0)
    return x.reshape(BLOCKS, x.shape[0] // BLOCKS, *x.shape[1:]).sum(0).sum(0)


def spare_rows(rows: int) -> int:
    """Rows that are missing to a multiple of `BLOCKS`, of which there is at least one."""
    return -rows % BLOCKS if rows else BLOCKS


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
    identity = _expand_like(jnp.eye(k, dtype=scale.dtype), correlation)
    finite = jnp.isfinite(moments.comoment).all((0, 1))
    correlation = jnp.where((identity == 1) | ~finite[None, None], identity, correlation)
    inverse, pivots = inverse_and_pivots(correlation)
    dependent = ~(pivots > 50 * eps) | constant
    deficient = dependent.any(0) | ~finite
    # A lane without full rank gets the identity, so that all its numbers stay finite.
    inverse = jnp.where(deficient[None, None], identity, inverse)
    cross = scale * moments.comoment[:k, k]
    slopes = times(inverse, cross)
    slopes = slopes + times(inverse, cross - times(correlation, slopes))
    residual_sum = total - (slopes * cross).sum(0)
    slopes = scale * slopes
    pair = lax.stop_gradient(jnp.stack([correlation, inverse], 2))
    condition = jnp.where(deficient, jnp.inf, jnp.sqrt(largest_eigenvalue(pair).prod(0)))
    intercept = moments.mean[k] - (slopes * moments.mean[:k]).sum(0)
    inverse = inverse * scale[:, None] * scale[None]
    return Fit(slopes, intercept, inverse, residual_sum, condition, deficient, dependent)


def inverse_definite(
    matrix: Float[Array, "k k *lanes"],
) -> tuple[Float[Array, "k k *lanes"], Float[Array, "*lanes"]]:
    """Inverse and smallest pivot of symmetric positive definite matrices, batch last; see `inverse_and_pivots`."""
    inverse, pivots = inverse_and_pivots(matrix)
    return inverse, pivots.min(0)


@jax.custom_jvp
def inverse_and_pivots(
    matrix: Float[Array, "k k *lanes"],
) -> tuple[Float[Array, "k k *lanes"], Float[Array, "k ..."]]:
    """Inverse and pivots of symmetric positive definite matrices, batch last.

    The pivots are those of Cholesky: what of a column is left once the earlier ones are projected out. One that is
    not positive is replaced by 1, so that the inverse stays finite: look at the pivots, which have no derivative.
    d(A⁻¹) = −A⁻¹ dA A⁻¹ is given, not found by going through the elimination.
    """

    def sweep(a, at):
        column = lax.dynamic_index_in_dim(a, at, 0, keepdims=False)
        pivot = lax.dynamic_index_in_dim(column, at, 0, keepdims=False)
        divisor = jnp.where(pivot > 0, pivot, 1)
        row = _expand_like(jnp.arange(a.shape[0]) == at, column)
        scaled = column / divisor[None]
        swept = a - column[:, None] * scaled[None]
        swept = jnp.where(row[:, None], scaled[None], jnp.where(row[None], scaled[:, None], swept))
        swept = jnp.where(row[:, None] & row[None], -1 / divisor[None, None], swept)
        return swept, jnp.where(jnp.isnan(pivot), -jnp.inf, pivot)

    swept, pivots = lax.scan(sweep, matrix, jnp.arange(matrix.shape[0]))
    return -swept, pivots


@inverse_and_pivots.defjvp
def _inverse_and_pivots_jvp(primals, tangents):
    inverse, pivots = inverse_and_pivots(*primals)
    return (inverse, pivots), (-sandwich(inverse, tangents[0]), jnp.zeros_like(pivots))


def times(matrix: Float[Array, "k k *lanes"], vector: Float[Array, "k ..."]) -> Float[Array, "k ..."]:
    """Matrix times vector, batch last."""
    return (matrix * vector[None]).sum(1)


def sandwich(bread: Float[Array, "k k *lanes"], meat: Float[Array, "k k *lanes"]) -> Float[Array, "k k *lanes"]:
    """bread · meat · bread, batch last; bread symmetric."""
    half = (bread[:, :, None] * meat[None]).sum(1)
    return (half[:, :, None] * bread[None]).sum(1)


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


def newey_west_lags(rows: Int[Array, "..."] | int, longest: int, multiple: int = 4) -> Int[Array, "..."]:
    """⌊4 (n/100)^{2/9}⌋ (Newey and West 1994), exactly: thresholds in integers, no fractional power to round.

    Args:
        rows: Number of observations n.
        longest: Largest number of lags that can occur; results are clipped to it.
        multiple: The 4; it is 3 for scores that have been pre-whitened.
    """
    thresholds = np.array([_first_length(k, multiple) for k in range(1, longest + 1)], dtype=np.int64)
    thresholds = jnp.asarray(np.minimum(thresholds, np.iinfo(np.int32).max).astype(np.int32))
    rows = jnp.asarray(rows, jnp.int32)
    return (rows[..., None] >= jnp.expand_dims(thresholds, tuple(range(rows.ndim)))).sum(-1, dtype=jnp.int32)


def most_newey_west_lags(rows: int) -> int:
    """⌊4 (n/100)^{2/9}⌋ for a Python integer."""
    lags = 0
    while _first_length(lags + 1) <= rows:
        lags += 1
    return lags


def _first_length(lags: int, multiple: int = 4) -> int:
    """Smallest n with 4 (n/100)^{2/9} >= lags, that is 4⁹ n² >= 10⁴ lags⁹."""
    square = -(-(lags**9) * 10**4 // multiple**9)
    root = math.isqrt(square)
    return root if root * root == square else root + 1


def bartlett_windows(
    scores: Float[Array, "time ..."], lags: Int[Array, "*lanes"], longest: int
) -> Float[Array, "time ..."]:
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


def _delay(x: Float[Array, "time ..."], steps: int) -> Float[Array, "time ..."]:
    if steps >= x.shape[0]:
        return jnp.zeros_like(x)
    return jnp.concatenate([jnp.zeros_like(x[:steps]), x[:-steps]])


def _diagonal(matrix: Float[Array, "k k *lanes"]) -> Float[Array, "k ..."]:
    return jnp.stack([matrix[i, i] for i in range(matrix.shape[0])])


def _expand_like(x: Array, like: Array) -> Array:
    """`x` with axes of length one behind, as many as `like` has."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))
