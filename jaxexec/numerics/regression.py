"""Least squares by rows with robust errors: the one regression behind the estimators of many stocks.

Arrays are (k, time, lanes): a regressor, a step of time, a stock. Unlike `moments`, which needs only sums and can
therefore be added up over pieces of a tape, this file sees all rows at once, and so loses one condition number where
sums lose its square.

    Z = Q R by Gram–Schmidt, twice        R only preconditions; it has no derivative
    W = Z R⁻¹, G = WᵀW ≈ I                so the normal equations of W are harmless
    b = R⁻¹ G⁻¹ Wᵀy, refined once         exactly least squares whatever R is: all derivatives are right
    Cov b = R⁻¹ G⁻¹ M G⁻¹ R⁻ᵀ             M from the scores W_t u_t: free of the units of the regressors
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics import autoregressive_errors
from jaxexec.numerics.arrays import namespace
from jaxexec.numerics.autoregressive_errors import Autocorrelation, Estimator
from jaxexec.numerics.long_run import (
    LongRun,
    Rule,
    ages,
    combine,
    earlier,
    long_run,
    multiply,
    products,
    sum_rows,
    transpose,
)
from jaxexec.numerics.moments import inverse_definite, largest_eigenvalue, times

Covariance = Literal["hac", "ols", "hc0", "hc1", "hc2", "hc3"]
Convention = Literal["statsmodels", "sandwich", "stata"]


@dataclass(frozen=True)
class Method:
    """How a regression is made; every field is static.

    Attributes:
        estimator: "ols", or iterated feasible GLS for AR(1) errors without ("cochrane-orcutt") or with
            ("prais-winsten") the first row of each stretch.
        covariance: Kind of standard errors.
        lags: Number of lags of "hac", or the rule that finds it.
        prewhiten: Whether scores pass through a VAR(1) first ("hac").
        convention: Whose small-sample factors and units of the automatic bandwidths.
        autocorrelation: How ρ is taken from residuals.
        max_iterations: Most values of ρ that are tried.
    """

    estimator: Estimator = "ols"
    covariance: Covariance = "hac"
    lags: Rule | int = "newey-west-fixed"
    prewhiten: bool = False
    convention: Convention = "statsmodels"
    autocorrelation: Autocorrelation = "yule-walker"
    max_iterations: int = 100


class Factors(NamedTuple):
    """What Gram–Schmidt found; carries no derivative.

    Attributes:
        inverse: R⁻¹, (k, k, lanes).
        triangle: R, (k, k, lanes).
        condition: 2-norm condition number of the regressors, centred where there is a constant and scaled to unit
            length, (lanes,).
        deficient: True where the rank is not full; the others are then identities.
        dependent: True for a regressor that is constant or a combination of those before it, (k, lanes).
    """

    inverse: Float[Array, "k k lanes"]
    triangle: Float[Array, "k k lanes"]
    condition: Float[Array, " lanes"]
    deficient: Bool[Array, " lanes"]
    dependent: Bool[Array, "k lanes"]


class LaneFit(NamedTuple):
    """A regression a lane; numbers are finite placeholders where `deficient`, `few` or `broken`.

    Attributes:
        coefficients: (k, lanes).
        covariance: (k, k, lanes).
        residual_sum: Σ u², (lanes,).
        r2: Of the transformed rows, centred where there is a constant, (lanes,).
        durbin_watson: Within stretches, (lanes,).
        condition: See `Factors`.
        rows: Rows of the (transformed) regression, (lanes,).
        lags, bandwidth: See `LongRun`; 0 and 1 where the errors are not "hac".
        rho: Autocorrelation of the errors, (lanes,); 0 for "ols".
        iterations: Values of ρ tried, (lanes,).
        deficient: True where regressors are not of full rank.
        dependent: See `Factors`, (k, lanes).
        few: True where there are no more rows than regressors, or than lags.
        unfinished: True where ρ did not settle.
        broken: True where |ρ| ≥ 1, a row has leverage 1 (HC2, HC3) or pre-whitened scores do not forget.
    """

    coefficients: Float[Array, "k lanes"]
    covariance: Float[Array, "k k lanes"]
    residual_sum: Float[Array, " lanes"]
    r2: Float[Array, " lanes"]
    durbin_watson: Float[Array, " lanes"]
    condition: Float[Array, " lanes"]
    rows: Int[Array, " lanes"]
    lags: Int[Array, " lanes"]
    bandwidth: Float[Array, " lanes"]
    rho: Float[Array, " lanes"]
    iterations: Int[Array, " lanes"]
    deficient: Bool[Array, " lanes"]
    dependent: Bool[Array, "k lanes"]
    few: Bool[Array, " lanes"]
    unfinished: Bool[Array, " lanes"]
    broken: Bool[Array, " lanes"]


def regress_lanes(
    design: Float[Array, "k time lanes"],
    response: Float[Array, "time lanes"],
    row: Bool[Array, "time lanes"],
    method: Method,
    *,
    constant: bool,
) -> LaneFit:
    """One regression a lane.

    Args:
        design: Regressors; the first is one throughout where `constant`. What is not a row is not read.
        row: Rows of the regression. One that is missing ends a stretch: nothing serial crosses it.
    """
    # Barriers: what many sums read is computed once and not again within each of them.
    design, response = lax.optimization_barrier((jnp.where(row[None], design, 0), jnp.where(row, response, 0)))
    zero = jnp.zeros_like(response[0])
    rho, iterations, unfinished = zero, jnp.zeros(zero.shape, jnp.int32), jnp.zeros(zero.shape, bool)
    broken = unfinished
    if method.estimator != "ols":
        plain = _solved(design, response, row, constant)
        found = autoregressive_errors.estimate(
            jnp.concatenate([plain.columns, plain.residual[None], row[None].astype(response.dtype)]),
            row,
            estimator=method.estimator,
            autocorrelation=method.autocorrelation,
            max_iterations=method.max_iterations,
        )
        rho, iterations, unfinished, broken = found
        both = jnp.concatenate([design, response[None]])
        both, row = autoregressive_errors.transformed(both, row, rho, method.estimator)
        both = lax.optimization_barrier(both)
        design, response = both[:-1], both[-1]
    solved = _solved(design, response, row, constant)
    return _concluded(solved, response, row, method, constant, rho, iterations, unfinished, broken)


class _Solved(NamedTuple):
    factors: Factors
    columns: Float[Array, "k time lanes"]  # W
    inverse: Float[Array, "k k lanes"]  # G⁻¹
    coefficients: Float[Array, "k lanes"]
    residual: Float[Array, "time lanes"]
    few: Bool[Array, " lanes"]


def _solved(design, response, row, constant: bool) -> _Solved:
    factors = factorise(lax.stop_gradient(design), constant)
    columns = lax.optimization_barrier(combine(factors.inverse, design))
    gram = products(columns, columns)
    few = row.sum(0) <= design.shape[0]
    identity = jnp.eye(gram.shape[0], dtype=gram.dtype)[..., None]
    lost = factors.deficient | ~jnp.isfinite(gram).all((0, 1))
    gram = jnp.where(lost[None, None], identity, gram)
    inverse, _ = inverse_definite(gram)
    coefficients, residual = jnp.zeros_like(design[:, 0]), response
    for _ in range(2):
        step = times(inverse, sum_rows(columns * residual[None]))
        coefficients = coefficients + times(factors.inverse, step)
        residual = response - sum(coefficients[i][None] * design[i] for i in range(design.shape[0]))
    return _Solved(factors, columns, inverse, coefficients, residual, few)


def factorise(design: Float[Array, "k time lanes"], constant: bool) -> Factors:
    """R of Z = QR by Gram–Schmidt with every projection made twice, which is enough (Giraud and others 2005)."""
    k = design.shape[0]
    eps = float(jnp.finfo(design.dtype).eps)
    size = jnp.sqrt(sum_rows(design**2))
    scale = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    scaled = design / scale[:, None]

    def body(at, carry):
        basis, triangle = carry
        v = lax.dynamic_index_in_dim(scaled, at, 0, keepdims=False)
        weights = jnp.zeros_like(triangle[0])
        for _ in range(2):
            part = sum_rows(basis * v[None])
            v = v - combine(part[:, None], basis)[0]
            weights = weights + part
        pivot = jnp.sqrt(sum_rows(v**2))
        weights = jnp.where(jnp.arange(k)[:, None] == at, pivot[None], weights)
        unit = v / jnp.where(pivot > 0, pivot, 1)[None]
        basis = lax.dynamic_update_index_in_dim(basis, unit, at, 0)
        return basis, lax.dynamic_update_index_in_dim(triangle, weights, at, 1)

    start = (jnp.zeros_like(scaled), jnp.zeros((k, *scaled.shape[:1], scaled.shape[-1]), scaled.dtype))
    _, triangle = lax.fori_loop(0, k, body, start)
    diagonal = jnp.stack([triangle[i, i] for i in range(k)])
    first = 1 if constant else 0
    spread = jnp.sqrt((triangle[first:, first:] ** 2).sum(0))  # length of each regressor about its mean
    flat = spread <= 1e3 * eps
    small = diagonal[first:] <= 1e3 * eps * spread
    dependent = jnp.concatenate([jnp.zeros((first, *flat.shape[1:]), bool), flat | small])
    deficient = dependent.any(0) | ~(diagonal > 0).all(0) | ~jnp.isfinite(triangle).all((0, 1))
    identity = jnp.broadcast_to(jnp.eye(k, dtype=scaled.dtype)[..., None], triangle.shape)
    safe = jnp.where(deficient[None, None], identity, triangle)
    inverse = _inverse_triangle(safe)
    spread = jnp.where(deficient[None], 1, spread)
    unit = safe[first:, first:] / spread[None]
    back = inverse[first:, first:] * spread[:, None]
    condition = jnp.ones_like(size[0])
    if k > first:
        pair = jnp.stack([multiply(transpose(unit), unit), multiply(back, transpose(back))], 2)
        condition = jnp.sqrt(largest_eigenvalue(pair).prod(0))
    scale = jnp.where(deficient[None], 1, scale)
    condition = jnp.where(deficient, jnp.inf, condition)
    return Factors(inverse / scale[:, None], safe * scale[None], condition, deficient, dependent)


def _inverse_triangle(triangle: Float[Array, "k k lanes"]) -> Float[Array, "k k lanes"]:
    """Inverse of an upper triangle, from the last row up."""
    k = triangle.shape[0]
    identity = jnp.broadcast_to(jnp.eye(k, dtype=triangle.dtype)[..., None], triangle.shape)

    def body(turn, inverse):
        at = k - 1 - turn
        row = lax.dynamic_index_in_dim(triangle, at, 0, keepdims=False)
        pivot = lax.dynamic_index_in_dim(row, at, 0, keepdims=False)
        target = lax.dynamic_index_in_dim(identity, at, 0, keepdims=False)
        # Rows from `at` up are still zero: only those below it count.
        solved = (target - (row[:, None] * inverse).sum(0)) / pivot[None]
        return lax.dynamic_update_index_in_dim(inverse, solved, at, 0)

    return lax.fori_loop(0, k, body, jnp.zeros_like(triangle))


def _concluded(
    solved: _Solved, response, row, method: Method, constant: bool, rho, iterations, unfinished, broken
) -> LaneFit:
    """Covariance and the figures that describe a fit."""
    k = solved.coefficients.shape[0]
    count = row.sum(0, dtype=jnp.int32)
    rows = count.astype(response.dtype)
    squares = sum_rows(solved.residual**2)
    meat, serial, odd = _meat(solved, row, method, constant, squares / jnp.maximum(rows - k, 1))
    half = multiply(solved.factors.inverse, solved.inverse)
    matrix = multiply(multiply(half, meat), transpose(half)) * small_sample_factor(method, rows, k)[None, None]
    age = ages(row)
    step = jnp.where(age >= 1, solved.residual - earlier(solved.residual), 0)
    safe = jnp.where(squares > 0, squares, 1)
    middle = sum_rows(response) / jnp.maximum(rows, 1) if constant else jnp.zeros_like(rows)
    total = sum_rows(jnp.where(row, response - middle[None], 0) ** 2)
    return LaneFit(
        coefficients=solved.coefficients,
        covariance=matrix,
        residual_sum=squares,
        r2=1 - squares / jnp.where(total > 0, total, 1),
        durbin_watson=sum_rows(step**2) / safe,
        condition=solved.factors.condition,
        rows=count,
        lags=serial.lags,
        bandwidth=serial.bandwidth,
        rho=rho,
        iterations=iterations,
        deficient=solved.factors.deficient,
        dependent=solved.factors.dependent,
        few=solved.few | (count <= serial.lags),
        unfinished=unfinished,
        broken=broken | serial.unit_root | odd,
    )


def _meat(solved: _Solved, row, method: Method, constant: bool, variance):
    """M of the sandwich in the preconditioned regressors, the lags it used, and where a row has leverage 1."""
    columns, k = solved.columns, solved.coefficients.shape[0]
    never = jnp.zeros(variance.shape, bool)
    none = LongRun(jnp.zeros_like(solved.inverse), jnp.zeros(variance.shape, jnp.int32), jnp.ones_like(variance), never)
    if method.covariance == "ols":
        # G itself: the inverse on either side leaves one.
        return products(columns, columns) * variance[None, None], none, never
    residual, odd = solved.residual, never
    if method.covariance in ("hc2", "hc3"):
        fitted = combine(solved.inverse, columns)
        left = jnp.where(row, 1 - (fitted * columns).sum(0), 1)
        full = left <= 1e3 * float(jnp.finfo(left.dtype).eps)
        odd = full.any(0)
        left = jnp.where(full, 1, left)
        residual = residual / (jnp.sqrt(left) if method.covariance == "hc2" else left)
    scores = lax.optimization_barrier(columns * residual[None])
    if method.covariance != "hac":
        return products(scores, scores), none, odd
    weight = jnp.array([0.0] * (constant and k > 1) + [1.0] * (k - (constant and k > 1)))
    serial = long_run(
        scores,
        ages(row),
        solved.factors.triangle,
        weight,
        rule=method.lags,
        prewhiten=method.prewhiten,
        free_of_units=method.convention != "sandwich",
    )
    return serial.meat, serial, odd


def small_sample_factor(method: Method, rows: Any, parameters: int) -> Any:
    """What multiplies the covariance: 1 or n/(n − k).

    "hac" has n/(n − k) in Stata's `newey` and in R's `sandwich::kernHAC` (Andrews' bandwidth), and has none in
    statsmodels (unless `use_correction`) and in R's `sandwich::NeweyWest`.
    """
    corrected = method.covariance == "hc1" or (
        method.covariance == "hac"
        and (method.convention == "stata" or (method.convention == "sandwich" and method.lags == "andrews"))
    )
    xp = namespace(rows)
    return rows / xp.maximum(rows - parameters, 1) if corrected else xp.ones_like(rows)
