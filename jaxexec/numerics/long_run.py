"""Long-run covariance of serially correlated scores: Bartlett weights, automatic bandwidths, pre-whitening.

Scores are (k, time, lanes). `age` counts the rows before a row in its own stretch of rows, so that a stretch (a trading
day) never meets the next: no product and no autoregression crosses it, whatever the bandwidth.

With weights w_j = 1 − j/S for lags j < S the estimator is M + Mᵀ − Σ s_t s_tᵀ, M = Σ_t s_t (Σ_{j<S} w_j s_{t−j})ᵀ. The
inner sum needs Σ s_{t−j} and Σ j s_{t−j} over the lags of each lane; both are put together from sums over 1, 2, 4, …
steps, so that the number of lags may differ from lane to lane and depend on the data, while every shift is static.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.arrays import safe_power
from jaxexec.numerics.moments import BLOCKS, inverse_definite, most_newey_west_lags, newey_west_lags

Rule = Literal["newey-west-fixed", "newey-west-1994", "andrews"]
_MOST_TAPS = 24  # beyond so many lags, sums over 1, 2, 4, … steps are less work
_BARTLETT = 1.1447  # of both automatic rules, for Bartlett weights
_LARGEST_ROOT = 0.97  # beyond it the bandwidth of Andrews' rule explodes (Andrews and Monahan 1992)


class LongRun(NamedTuple):
    """Long-run covariance of scores.

    Attributes:
        meat: Sum of weighted score products, not divided by the rows, (k, k, lanes).
        lags: Largest lag with a weight that is not zero, (lanes,).
        bandwidth: S in the weights 1 − j/S, (lanes,); a whole number of lags L has S = L + 1.
        unit_root: True where pre-whitening found scores that do not forget, (lanes,).
    """

    meat: Float[Array, "k k lanes"]
    lags: Int[Array, " lanes"]
    bandwidth: Float[Array, " lanes"]
    unit_root: Bool[Array, " lanes"]


def sum_rows(x: Float[Array, "*k time lanes"]) -> Float[Array, "*k lanes"]:
    """Sum over the axis before the last, in two stages where its length allows: shorter chains of rounding."""
    *front, time, lanes = x.shape
    if time % BLOCKS or time == 0:
        return x.sum(-2)
    return x.reshape(*front, BLOCKS, time // BLOCKS, lanes).sum(-2).sum(-2)


def products(a: Float[Array, "k time lanes"], b: Float[Array, "m time lanes"]) -> Float[Array, "k m lanes"]:
    """Σ_t a_i b_j."""
    return jnp.stack([sum_rows(a[i][None] * b) for i in range(a.shape[0])])


def combine(matrix: Float[Array, "k m lanes"], columns: Float[Array, "k time lanes"]) -> Float[Array, "m time lanes"]:
    """matrixᵀ · column vector, at every step."""
    # A chain of sums and not a reduction, which would neither vectorise nor fuse.
    return sum(
        (matrix[i][:, None] * columns[i][None] for i in range(1, matrix.shape[0])),
        matrix[0][:, None] * columns[0][None],
    )


def multiply(a: Float[Array, "k m lanes"], b: Float[Array, "m n lanes"]) -> Float[Array, "k n lanes"]:
    """Product of small matrices, batch last."""
    return (a[:, :, None] * b[None]).sum(1)


def transpose(a: Float[Array, "k m lanes"]) -> Float[Array, "m k lanes"]:
    """Transposed small matrices, batch last."""
    return jnp.swapaxes(a, 0, 1)


def ages(row: Bool[Array, "time lanes"]) -> Int[Array, "time lanes"]:
    """Rows that stand directly before each, without a gap: 0 at the first of a stretch, −1 where there is no row."""
    step = jnp.broadcast_to(jnp.arange(row.shape[0], dtype=jnp.int32)[:, None], row.shape)
    # Many read it: the scan is not to be made again within each of them.
    return lax.optimization_barrier(step - lax.cummax(jnp.where(row, -1, step), axis=0) - 1)


def earlier(x: Array, steps: int = 1) -> Array:
    """What stood `steps` earlier, (…, time, lanes); zero at the front."""
    if steps >= x.shape[-2]:
        return jnp.zeros_like(x)
    return jnp.concatenate([jnp.zeros_like(x[..., :steps, :]), x[..., :-steps, :]], axis=-2)


def trailing_sums(
    scores: Float[Array, "*k time lanes"], age: Int[Array, "time lanes"], lags: Int[Array, " lanes"], longest: int
) -> tuple[Float[Array, "*k time lanes"], Float[Array, "*k time lanes"]]:
    """Σ_{j=0}^{lags} s_{t−j} and Σ_{j=0}^{lags} j s_{t−j} within the stretch of each row.

    Args:
        lags: At least 0, at most `longest`.
    """
    width = lags + 1
    power, power_first = scores, jnp.zeros_like(scores)
    total, first = jnp.zeros_like(scores), jnp.zeros_like(scores)
    bits = (longest + 1).bit_length()
    for bit in range(bits):
        step = 1 << bit
        reached = age >= step

        def joined(sums, moments, newest, newest_moments, step=step, reached=reached):
            """`newest` covers the last `step` rows; the others, moved back by so many, what came before."""
            old = jnp.where(_like(reached, sums), earlier(sums, step), 0)
            old_moments = jnp.where(_like(reached, sums), earlier(moments, step), 0)
            return newest + old, newest_moments + old_moments + step * old

        taken = _like((((width >> bit) & 1) == 1)[None], scores)
        grown = joined(total, first, power, power_first)
        total, first = jnp.where(taken, grown[0], total), jnp.where(taken, grown[1], first)
        if bit + 1 < bits:
            power, power_first = joined(power, power_first, power, power_first)
    return total, first


def _like(x: Array, like: Array) -> Array:
    """`x` with axes of length one in front, as many as `like` has."""
    return x.reshape((1,) * (like.ndim - x.ndim) + x.shape)


def bartlett(
    scores: Float[Array, "k time lanes"],
    age: Int[Array, "time lanes"],
    bandwidth: Float[Array, " lanes"],
    lags: Int[Array, " lanes"],
    longest: int,
) -> Float[Array, "k k lanes"]:
    """Σ_j (1 − |j|/S) Σ_t s_t s_{t−j}ᵀ over lags |j| ≤ `lags` within stretches; `scores` are zero where is no row."""
    own = products(scores, scores)
    if longest == 0:
        return own
    if longest <= _MOST_TAPS:
        weighted = _weighted_taps(scores, age, bandwidth, lags, longest)
    else:
        total, first = trailing_sums(scores, age, lags, longest)
        weighted = total - first / bandwidth[None, None]
    # Computed once, and not again within each of the sums that read it.
    half = products(scores, lax.optimization_barrier(weighted))
    return half + transpose(half) - own


def _weighted_taps(scores, age, bandwidth, lags, longest: int) -> Float[Array, "k time lanes"]:
    """Σ_j (1 − j/S) s_{t−j}, lag by lag: one pass that reads each score once a lag, the least work for few lags."""
    before = lax.optimization_barrier(jnp.pad(scores, ((0, 0), (longest, 0), (0, 0))))
    time, weighted = scores.shape[1], scores
    for lag in range(1, longest + 1):
        weight = jnp.where(lag <= lags, 1 - lag / bandwidth, 0)
        here = jnp.where(age >= lag, weight[None], 0)
        weighted = weighted + here[None] * before[:, longest - lag : longest - lag + time]
    return weighted


def longest_lag(rule: Rule | int, time: int) -> int:
    """The largest number of lags that can come of a rule for `time` steps."""
    if isinstance(rule, int):
        return rule
    return most_newey_west_lags(time) if rule == "newey-west-fixed" else max(time - 1, 0)


def long_run(
    scores: Float[Array, "k time lanes"],
    age: Int[Array, "time lanes"],
    own: Float[Array, "k k lanes"],
    weight: Float[Array, " k"],
    *,
    rule: Rule | int,
    prewhiten: bool,
    free_of_units: bool,
) -> LongRun:
    """Newey and West's covariance of scores.

    Args:
        scores: Zero where there is no row.
        own: Matrix O such that Oᵀ s are the scores that the automatic bandwidths look at.
        weight: What each of those counts in the bandwidth: 1, or 0 for the intercept.
        rule: Number of lags, or how it is found.
        prewhiten: Take out a VAR(1) without intercept first and put it back (Andrews and Monahan, Econometrica 60,
            1992), without their bound on its roots.
        free_of_units: Divide each score by its root mean square before the bandwidth is found.
    """
    time = scores.shape[-2]
    rows = (age >= 0).sum(0, dtype=jnp.int32)
    unit_root = jnp.zeros(rows.shape, bool)
    recolour = None
    if prewhiten:
        scores, age, recolour, unit_root = _whitened(scores, age)
    longest = longest_lag(rule, time)
    lags, bandwidth = jnp.full_like(rows, longest), None
    if rule == "newey-west-fixed":
        lags = newey_west_lags(rows, longest)
    elif not isinstance(rule, int):
        seen = combine(own, scores)
        if free_of_units:
            size = sum_rows(seen**2)
            seen = seen / jnp.sqrt(jnp.where(size > 0, size, 1))[:, None]
        weight = weight[:, None].astype(scores.dtype)
        if rule == "newey-west-1994":
            lags = _newey_west_1994((weight[:, None] * seen).sum(0), age, rows, 3 if prewhiten else 4)
        else:
            lags, bandwidth = _andrews(seen, age, (age >= 0).sum(0, dtype=jnp.int32), weight)
    bandwidth = (lags + 1).astype(scores.dtype) if bandwidth is None else bandwidth
    meat = bartlett(scores, age, bandwidth, lags, longest)
    if recolour is not None:
        meat = multiply(multiply(recolour, meat), transpose(recolour))
    return LongRun(meat, lags, bandwidth, unit_root)


def _newey_west_1994(
    score: Float[Array, "time lanes"], age: Int[Array, "time lanes"], rows: Int[Array, " lanes"], multiple: int
) -> Int[Array, " lanes"]:
    """⌊1.1447 ((s₁/s₀)² n)^{1/3}⌋ (Newey and West, Rev. Econ. Studies 61, 1994, table II), a whole number of lags.

    s₀ and s₁ are Σ_j σ_j and Σ_j |j| σ_j over the autocovariances of the weighted score to lag ⌊4 (n/100)^{2/9}⌋.
    """
    score = lax.stop_gradient(score)
    most = longest_lag("newey-west-fixed", score.shape[0])
    total, first = trailing_sums(score, age, newey_west_lags(rows, most, multiple), most)
    s0 = 2 * sum_rows(score * total) - sum_rows(score**2)
    s1 = 2 * sum_rows(score * first)
    ratio = s1 / jnp.where(s0 == 0, 1, s0)
    # The limit comes first, so that the conversion to integers cannot overflow.
    limit = jnp.maximum(rows - 1, 0)
    lags = _BARTLETT * jnp.cbrt(ratio**2 * rows.astype(score.dtype))
    return jnp.floor(jnp.minimum(lags, limit.astype(score.dtype))).astype(jnp.int32)


def _andrews(
    scores: Float[Array, "k time lanes"], age: Int[Array, "time lanes"], rows: Int[Array, " lanes"], weight: Array
) -> tuple[Int[Array, " lanes"], Float[Array, " lanes"]]:
    """Lags and S = 1.1447 (α(1) n)^{1/3} from an AR(1) with intercept of each score (Andrews, Econometrica 59, 1991).

    α(1) = Σ w 4ρ²σ⁴/((1−ρ)⁶(1+ρ)²) / Σ w σ⁴/(1−ρ)⁴, his equation (6.4).
    """
    pair = (age >= 1).astype(scores.dtype)
    count = jnp.maximum(pair.sum(0), 1)
    x, y = earlier(scores) * pair[None], scores * pair[None]
    mean_x, mean_y = sum_rows(x) / count[None], sum_rows(y) / count[None]
    x, y = (x - mean_x[:, None]) * pair[None], (y - mean_y[:, None]) * pair[None]
    xx, xy, yy = sum_rows(x**2), sum_rows(x * y), sum_rows(y**2)
    root = jnp.clip(xy / jnp.where(xx > 0, xx, 1), -_LARGEST_ROOT, _LARGEST_ROOT)
    fourth = weight * (yy - 2 * root * xy + root**2 * xx) ** 2
    above = (4 * root**2 * fourth / ((1 - root) ** 6 * (1 + root) ** 2)).sum(0)
    below = (fourth / (1 - root) ** 4).sum(0)
    alpha = above / jnp.where(below > 0, below, 1)
    size = rows.astype(scores.dtype)
    # A bandwidth of at most 1 has no lag; keeping it at 1 leaves the weight of lag 0 alone.
    bandwidth = jnp.clip(_BARTLETT * safe_power(alpha * size, jnp.asarray(1 / 3, size.dtype)), 1, jnp.maximum(size, 1))
    return (jnp.ceil(bandwidth) - 1).astype(jnp.int32), bandwidth


def _whitened(scores: Float[Array, "k time lanes"], age: Int[Array, "time lanes"]):
    """Residuals of h_t = A h_{t−1} + e_t, their ages, (I − A)⁻¹, and where that is not to be had."""
    pair = (age >= 1).astype(scores.dtype)
    before, now = earlier(scores) * pair[None], scores * pair[None]
    square = products(before, before)
    size = jnp.stack([square[i, i] for i in range(square.shape[0])])
    scale = 1 / jnp.sqrt(jnp.where(size > 0, size, 1))
    inverse, smallest = inverse_definite(square * scale[:, None] * scale[None])
    inverse = inverse * scale[:, None] * scale[None]
    # Scores that are collinear, or all zero as in a perfect fit, are left as they are.
    fitted = smallest > 1e3 * float(jnp.finfo(scores.dtype).eps)
    weights = jnp.where(fitted[None, None], multiply(products(now, before), inverse), 0)
    residual = now - combine(transpose(weights), before)
    identity = jnp.eye(scores.shape[0], dtype=scores.dtype)[..., None]
    left = identity - weights
    norm = (left**2).sum((0, 1))
    inverse, smallest = inverse_definite(multiply(transpose(left), left) / norm[None, None])
    unit_root = ~(smallest > 1e3 * float(jnp.finfo(scores.dtype).eps))
    recolour = multiply(jnp.where(unit_root[None, None], identity, inverse / norm[None, None]), transpose(left))
    return residual, age - 1, recolour, unit_root
