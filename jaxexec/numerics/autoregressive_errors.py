"""Feasible generalised least squares for errors u_t = ρ u_{t−1} + e_t: Cochrane and Orcutt, Prais and Winsten.

ρ and the coefficients are iterated until neither moves. Every step needs only products of the columns with themselves
and with their own past: with S₀₀ = Σ z_t z_tᵀ, S₀₁ = Σ z_t z_{t−1}ᵀ, S₁₁ = Σ z_{t−1} z_{t−1}ᵀ over neighbouring rows,

    Σ (z_t − ρ z_{t−1})(z_t − ρ z_{t−1})ᵀ = S₀₀ − ρ (S₀₁ + S₀₁ᵀ) + ρ² S₁₁,

so that the rows are read once, however many steps it takes. The columns come orthonormal (regressors) and as residuals
of ordinary least squares (response): nothing is lost by working with products.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.long_run import ages, earlier, products
from jaxexec.numerics.moments import inverse_definite, times

Estimator = Literal["ols", "cochrane-orcutt", "prais-winsten"]
Autocorrelation = Literal["yule-walker", "regression", "correlation"]


class AutoregressiveErrors(NamedTuple):
    """ρ of each lane, (lanes,); `broken` where |ρ| ≥ 1, ρ being 0 then."""

    rho: Float[Array, " lanes"]
    iterations: Int[Array, " lanes"]
    unfinished: Bool[Array, " lanes"]
    broken: Bool[Array, " lanes"]


class _Products(NamedTuple):
    """Products of (regressors, response, one): of all rows, and of neighbouring rows t and t − 1, (m, m, lanes)."""

    rows: Float[Array, "m m lanes"]
    now: Float[Array, "m m lanes"]
    across: Float[Array, "m m lanes"]
    before: Float[Array, "m m lanes"]


def transformed(
    columns: Float[Array, "k time lanes"], row: Bool[Array, "time lanes"], rho: Float[Array, " lanes"], kind: Estimator
) -> tuple[Float[Array, "k time lanes"], Bool[Array, "time lanes"]]:
    """z_t − ρ z_{t−1}, and √(1 − ρ²) z_t at the first row of a stretch or no such row; and what is a row then."""
    pair = ages(row) >= 1
    moved = jnp.where(pair[None], columns - rho[None, None] * earlier(columns), 0)
    if kind == "cochrane-orcutt":
        return moved, pair
    head = jnp.where((row & ~pair)[None], jnp.sqrt(1 - rho**2)[None, None] * columns, 0)
    return moved + head, row


def estimate(
    columns: Float[Array, "m time lanes"],
    row: Bool[Array, "time lanes"],
    *,
    estimator: Estimator,
    autocorrelation: Autocorrelation,
    max_iterations: int,
) -> AutoregressiveErrors:
    """The ρ that its own generalised least squares leaves behind.

    Args:
        columns: Preconditioned regressors, residuals of ordinary least squares, and ones; zero outside rows.

    The derivative is that of the fixed point, not of the steps towards it.
    """
    pair = ages(row) >= 1
    now, before = jnp.where(pair[None], columns, 0), jnp.where(pair[None], earlier(columns), 0)
    sums = _Products(products(columns, columns), products(now, now), products(now, before), products(before, before))
    # Numbers of the size of one: the response may be in any unit.
    size = jnp.sqrt(jnp.where(sums.rows[-2, -2] > 0, sums.rows[-2, -2], 1))
    unit = jnp.ones_like(sums.rows[0]).at[-2].set(1 / size)
    sums = jax.tree.map(lambda x: x * unit[:, None] * unit[None], sums)

    def next_rho(rho, sums):
        return _autocorrelation(_residual_weights(sums, rho, estimator), sums, autocorrelation)

    fixed = lax.stop_gradient(sums)
    found, iterations, settled = _iterated(
        lambda r: next_rho(r, fixed), jnp.zeros_like(sums.rows[0, 0]), max_iterations
    )
    broken = ~(jnp.abs(found) < 1)
    usable = settled & ~broken
    start = jnp.where(usable, found, 0)

    def tangent_solve(linear, value):
        slope = linear(jnp.ones_like(value))
        return value / jnp.where(slope == 0, 1, slope)

    rho = lax.custom_root(lambda r: r - next_rho(r, sums), start, lambda _, guess: guess, tangent_solve)
    return AutoregressiveErrors(jnp.where(usable, rho, 0), iterations, ~settled & ~broken, broken)


def _residual_weights(sums: _Products, rho: Float[Array, " lanes"], kind: Estimator) -> Float[Array, "m lanes"]:
    """w such that wᵀ(regressors, response, one) are the residuals of generalised least squares at ρ."""
    across = sums.across + jnp.swapaxes(sums.across, 0, 1)
    wide = rho[None, None]
    gram = sums.now - wide * across + wide**2 * sums.before
    if kind == "prais-winsten":
        gram = gram + (1 - wide**2) * (sums.rows - sums.now)
    k = gram.shape[0] - 2
    # A constant nearly vanishes where ρ is near 1: scaled, its product is 1 like all others.
    square = jnp.stack([gram[i, i] for i in range(k)])
    scale = 1 / jnp.sqrt(jnp.where(square > 0, square, 1))
    inverse, _ = inverse_definite(gram[:k, :k] * scale[:, None] * scale[None])
    change = scale * times(inverse, scale * gram[:k, k])
    return jnp.concatenate([-change, jnp.ones_like(change[:1]), jnp.zeros_like(change[:1])])


def _autocorrelation(w: Float[Array, "m lanes"], sums: _Products, kind: Autocorrelation) -> Float[Array, " lanes"]:
    """ρ of the residuals wᵀz.

    "yule-walker": about the mean, each mean of products over its own number of terms (statsmodels' GLSAR);
    "regression": Σ u_t u_{t−1} / Σ u_{t−1}² (Stata's and Gretl's default, R's orcutt); "correlation": the same over
    Σ u_t² of all rows (Stata's `rhotype(tscorr)`).
    """

    def quadratic(matrix):
        return ((matrix * w[None]).sum(1) * w).sum(0)

    def ratio(a, b):
        return a / jnp.where(b > 0, b, 1)

    lagged, before, all_rows = (quadratic(x) for x in (sums.across, sums.before, sums.rows))
    if kind == "regression":
        return ratio(lagged, before)
    if kind == "correlation":
        return ratio(lagged, all_rows)
    count, pairs = jnp.maximum(sums.rows[-1, -1], 1), jnp.maximum(sums.across[-1, -1], 1)
    mean = (w * sums.rows[:, -1]).sum(0) / count
    ends = (w * (sums.now[:, -1] + sums.before[:, -1])).sum(0)
    return ratio((lagged - mean * ends) / pairs + mean**2, all_rows / count - mean**2)


def _iterated(step, first: Float[Array, " lanes"], most: int):
    """ρ ← step(ρ) until it moves by rounding only; a lane that has settled or left (−1, 1) stays as it is."""
    tolerance = 50 * float(jnp.finfo(first.dtype).eps)

    def going(carry):
        _, _, done, at = carry
        return (~done).any() & (at < most)

    def body(carry):
        rho, iterations, done, at = carry
        new = step(rho)
        over = (jnp.abs(new - rho) <= tolerance) | ~(jnp.abs(new) < 1)
        return (
            jnp.where(done, rho, new),
            jnp.where(done, iterations, iterations + 1),
            done | over,
            at + 1,
        )

    nothing = jnp.zeros(first.shape, jnp.int32)
    rho, iterations, done, _ = lax.while_loop(going, body, (first, nothing, nothing > 0, 0))
    return rho, iterations, done
