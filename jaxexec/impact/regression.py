"""Linear regression of many stocks at once, with errors robust to heteroskedasticity and serial correlation."""

from functools import partial
from typing import cast, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact.inference import all_finite, first_status, inference, poisoned, precision_flags
from jaxexec.numerics.arrays import as_float, unify
from jaxexec.numerics.autoregressive_errors import Autocorrelation, Estimator
from jaxexec.numerics.long_run import Rule
from jaxexec.numerics.moments import spare_rows
from jaxexec.numerics.regression import Convention, Covariance, LaneFit, Method, regress_lanes
from jaxexec.numerics.status import Status, replace_where


class Regression(eqx.Module):
    """A regression of one stock (no leading axis) or one a stock.

    Attributes:
        coefficients: (..., k); the intercept comes first where there is one.
        std_errors: (..., k).
        covariance: (..., k, k).
        t: Coefficient over standard error, (..., k); infinite where the fit is perfect.
        p: Two-sided probability of such a t under the normal distribution, (..., k).
        residual_sum: Σ u², (...).
        r2: Coefficient of determination of the transformed rows, about their mean where there is an intercept, (...).
        durbin_watson: Of the transformed residuals, within stretches of rows, (...).
        condition: 2-norm condition number of the regressors, centred where there is an intercept and scaled to unit
            length, (...).
        n: Rows of the (transformed) regression, (...).
        lags: Largest lag with a weight in the covariance, (...); 0 unless it is "hac".
        bandwidth: S of the weights 1 − j/S, (...).
        rho: Autocorrelation of the errors, (...); 0 for "ols".
        iterations: Values of ρ that were tried, (...).
        status: `Status`, (...).
        dependent: True for regressors because of which the status is RANK_DEFICIENT, (..., k): constant beside the
            intercept, or a combination of those before it.
        method: Options, as `Method`.
    """

    coefficients: Float[Array, "*stocks k"]
    std_errors: Float[Array, "*stocks k"]
    covariance: Float[Array, "*stocks k k"]
    t: Float[Array, "*stocks k"]
    p: Float[Array, "*stocks k"]
    residual_sum: Float[Array, "*stocks"]
    r2: Float[Array, "*stocks"]
    durbin_watson: Float[Array, "*stocks"]
    condition: Float[Array, "*stocks"]
    n: Int[Array, "*stocks"]
    lags: Int[Array, "*stocks"]
    bandwidth: Float[Array, "*stocks"]
    rho: Float[Array, "*stocks"]
    iterations: Int[Array, "*stocks"]
    status: Int[Array, "*stocks"]
    dependent: Bool[Array, "*stocks k"]
    method: Method = eqx.field(static=True)

    @property
    def flags(self) -> Int[Array, "*stocks"]:
        """Bits of `Flag`, int32: FLOAT32 where the sums were taken in 32 bits."""
        return precision_flags(self.coefficients, self.status)


def regress(
    response: ArrayLike,
    regressors: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    intercept: bool = True,
    estimator: Estimator = "ols",
    covariance: Covariance = "hac",
    lags: int | Rule = "newey-west-fixed",
    prewhiten: bool = False,
    convention: Convention = "statsmodels",
    autocorrelation: Autocorrelation = "yule-walker",
    max_iterations: int = 100,
) -> Regression:
    """Least squares y = a + X b + u, or feasible generalised least squares for u_t = ρ u_{t−1} + e_t.

    Args:
        response: y, (rows,) for one stock or (stocks, rows).
        regressors: X, (rows, k) or (stocks, rows, k), without a column of ones.
        mask: True for a real row, (rows,) or (stocks, rows). A False slot ends a stretch of rows (a trading day): no
            residual, score or lag is carried across it.
        intercept: Whether there is an a.
        estimator: "ols"; "cochrane-orcutt" iterates ρ and the coefficients to rest and loses the first row of each
            stretch; "prais-winsten" keeps it, times √(1 − ρ²).
        covariance: "ols" (s² with n − k degrees of freedom), "hc0", "hc1", "hc2", "hc3" (White; MacKinnon and White, J.
            Econometrics 29, 1985), or "hac" (Newey and West, Econometrica 55, 1987, Bartlett weights).
        lags: Of "hac": a number, at least 0 and fewer than the rows; "newey-west-fixed", ⌊4 (n/100)^{2/9}⌋;
            "newey-west-1994", from the scores (Rev. Econ. Studies 61); or "andrews", a bandwidth that need not be
            whole, from an AR(1) of each score (Econometrica 59, 1991).
        prewhiten: Take a VAR(1) out of the scores first and put it back after (Andrews and Monahan, Econometrica 60,
            1992; without their bound on its roots).
        convention: Small-sample factors, and whether automatic bandwidths see the units of the regressors:

            | factor | "statsmodels" | "sandwich" (R) | "stata" |
            |---|---|---|---|
            | "ols" | n/(n − k), within s² | n/(n − k) | n/(n − k) |
            | "hc0", "hc2", "hc3" | 1 | 1 | 1 |
            | "hc1" | n/(n − k) | n/(n − k) | n/(n − k) (`robust`) |
            | "hac" | 1 (`use_correction=False`) | 1 (`NeweyWest`) | n/(n − k) (`newey`) |
            | "hac", "andrews" | 1 | n/(n − k) (`kernHAC`) | n/(n − k) |

            Automatic bandwidths look at each score over its root mean square, so that units do not matter; in
            "sandwich", as there, at the scores as they are: what counts as one share then moves the bandwidth.
        autocorrelation: How ρ is taken from residuals: "yule-walker" (about the mean, each mean over its own number
            of products: statsmodels' GLSAR), "regression" (Σ u_t u_{t−1}/Σ u_{t−1}²: Gretl, Stata's default, R's
            orcutt) or "correlation" (over Σ u_t²: Stata's `rhotype(tscorr)`).
        max_iterations: Most values of ρ that are tried.

    Returns:
        `Regression`. A stock that cannot be estimated has NaN values, NaN derivatives and a status: NONFINITE_INPUT,
        INSUFFICIENT_DATA (no more rows than coefficients, or than lags), RANK_DEFICIENT, ILL_CONDITIONED (condition
        beyond eps^(−3/4); |ρ| ≥ 1; a row of leverage 1 under "hc2" or "hc3"; pre-whitened scores with a unit root),
        MAX_STEPS. OK_INACCURATE: condition beyond eps^(−1/2). Differentiable in `response` and `regressors`; the
        number of lags of "newey-west-1994" is whole and has no derivative, the bandwidth of "andrews" has one.

    Raises:
        ValueError: an option or a shape is not as above.
    """
    method = checked_method(estimator, covariance, lags, prewhiten, convention, autocorrelation, max_iterations)
    if not isinstance(intercept, bool | np.bool_):
        raise ValueError(f"intercept must be True or False, got {intercept!r}")
    y, x = unify((as_float("response", response), as_float("regressors", regressors)))
    if y.ndim not in (1, 2):
        raise ValueError(f"response must have shape (rows,) or (stocks, rows), got {y.shape}")
    if x.ndim != y.ndim + 1 or x.shape[:-1] != y.shape:
        raise ValueError(f"regressors must have the shape of response, {y.shape}, and one axis more, got {x.shape}")
    if x.shape[-1] + intercept < 1:
        raise ValueError("regressors must have a column where there is no intercept")
    mask = jnp.ones(y.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if mask.shape != y.shape:
        raise ValueError(f"mask must have the shape of response, {y.shape}, got {mask.shape}")
    check_lags(method, y.shape[-1])
    return _regress(y, x, mask, method, bool(intercept))


def checked_method(estimator, covariance, lags, prewhiten, convention, autocorrelation, max_iterations) -> Method:
    """`Method`, or a ValueError that names the option and what it may be."""
    choices = {
        "estimator": (estimator, Estimator),
        "covariance": (covariance, Covariance),
        "convention": (convention, Convention),
        "autocorrelation": (autocorrelation, Autocorrelation),
    }
    for name, (value, allowed) in choices.items():
        if value not in get_args(allowed):
            raise ValueError(f"{name} must be one of {get_args(allowed)}, got {value!r}")
    lags = "newey-west-fixed" if lags is None else lags
    whole = isinstance(lags, int | np.integer) and not isinstance(lags, bool) and lags >= 0
    if not whole and not (isinstance(lags, str) and lags in get_args(Rule)):
        raise ValueError(f"lags must be one of {get_args(Rule)} or a whole number that is not negative, got {lags!r}")
    if not isinstance(prewhiten, bool | np.bool_):
        raise ValueError(f"prewhiten must be True or False, got {prewhiten!r}")
    if prewhiten and covariance != "hac":
        raise ValueError(f"prewhiten is for covariance='hac', got covariance={covariance!r}")
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int | np.integer) or max_iterations < 1:
        raise ValueError(f"max_iterations must be a positive whole number, got {max_iterations!r}")
    rule = lags if isinstance(lags, str) else int(lags)
    return Method(
        estimator, covariance, cast(Rule | int, rule), bool(prewhiten), convention, autocorrelation, int(max_iterations)
    )


def check_lags(method: Method, rows: int) -> None:
    """Refuse a number of lags that no stock has rows for."""
    if method.covariance == "hac" and isinstance(method.lags, int) and method.lags >= max(rows, 1):
        raise ValueError(f"lags must be fewer than the {rows} rows, got {method.lags}")


@partial(jax.jit, static_argnames=("method", "intercept"))
def _regress(y, x, mask, method: Method, intercept: bool) -> Regression:
    single = y.ndim == 1
    if single:
        y, x, mask = y[None], x[None], mask[None]
    y, mask = y.T, mask.T  # (time, lanes)
    x = jnp.moveaxis(x, -1, 0).swapaxes(1, 2)  # (k, time, lanes)
    bad = (mask & ~(jnp.isfinite(y) & jnp.isfinite(x).all(0))).any(0)
    # A bad lane is computed with zeros; its NaN still finds the input that caused it.
    y, x = (replace_where(jnp.broadcast_to(bad[(None,) * (v.ndim - 1)], v.shape), v, jnp.zeros_like(v)) for v in (y, x))
    spare = spare_rows(y.shape[0])
    y, mask = (jnp.pad(v, ((0, spare), (0, 0))) for v in (y, mask))
    x = jnp.pad(x, ((0, 0), (0, spare), (0, 0)))
    design = jnp.concatenate([jnp.ones_like(y)[None], x]) if intercept else x
    result = _reported(regress_lanes(design, y, mask, method, constant=intercept), bad, method)
    return jax.tree.map(lambda v: v[0], result) if single else result


def _reported(fit: LaneFit, bad, method: Method) -> Regression:
    errors, t, p = inference(fit.coefficients, fit.covariance)
    eps = float(jnp.finfo(fit.r2.dtype).eps)
    values = (fit.coefficients, errors, fit.covariance, fit.residual_sum, fit.r2, fit.durbin_watson, fit.rho)
    status = first_status(
        bad.shape,
        (bad, Status.NONFINITE_INPUT),
        (fit.few, Status.INSUFFICIENT_DATA),
        (fit.deficient, Status.RANK_DEFICIENT),
        ((fit.condition > eps ** (-3 / 4)) | fit.broken, Status.ILL_CONDITIONED),
        (fit.unfinished, Status.MAX_STEPS),
        (~all_finite(values), Status.NONFINITE_INTERNAL),
        (fit.condition > eps ** (-1 / 2), Status.OK_INACCURATE),
    )
    values = poisoned((*values, t, p, fit.bandwidth), status > Status.LOCAL)
    return Regression(
        coefficients=values[0],
        std_errors=values[1],
        covariance=values[2],
        t=values[7],
        p=values[8],
        residual_sum=values[3],
        r2=values[4],
        durbin_watson=values[5],
        condition=jnp.where(bad | (status == Status.INSUFFICIENT_DATA), jnp.nan, fit.condition),
        n=fit.rows,
        lags=fit.lags,
        bandwidth=values[9],
        rho=values[6],
        iterations=fit.iterations,
        status=status,
        dependent=fit.dependent.T & (status == Status.RANK_DEFICIENT)[:, None],
        method=method,
    )
