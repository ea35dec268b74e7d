"""Glosten–Harris/Sadka impact estimates on arrays: traced, batched, differentiable."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact import passes
from jaxexec.impact.inference import all_finite, first_status, inference, poisoned, precision_flags
from jaxexec.impact.passes import Block, Form, OrderFlow, Term
from jaxexec.impact.regression import check_lags, checked_method
from jaxexec.numerics.arrays import as_float, unify
from jaxexec.numerics.autoregressive_errors import Autocorrelation, Estimator
from jaxexec.numerics.long_run import Rule
from jaxexec.numerics.moments import spare_rows
from jaxexec.numerics.regression import Convention, Covariance, LaneFit, Method, regress_lanes
from jaxexec.numerics.status import Status, replace_where

COEFFICIENTS: tuple[Term, ...] = get_args(Term)
UNITS: dict[str, str] = dict(zip(COEFFICIENTS, ("currency", "currency per share") * 2, strict=True))


@dataclass(frozen=True)
class Model:
    """What is regressed on what, and how; every field is static.

    Attributes:
        form: "difference" or "level".
        terms: Names of the coefficients, a part of `COEFFICIENTS` in its order.
        order: Order of the order-flow autoregression.
        method: See `Method`.
    """

    form: Form
    terms: tuple[Term, ...]
    order: int
    method: Method


class ImpactEstimates(eqx.Module):
    """Impact coefficients of one stock (no leading axis) or of a batch of stocks.

    The last axis of `coefficients`, `std_errors`, `t` and `p` runs over `terms`: of permanent_fixed C,
    permanent_variable λ, transitory_fixed ζ and transitory_variable ℓ (currency, currency per share, currency, currency
    per share) those that were asked for.

    Attributes:
        coefficients: (..., terms).
        std_errors: (..., terms), by `covariance_type` and the convention asked for.
        covariance: Covariance matrix of the coefficients, (..., terms, terms).
        t: Coefficient over standard error, (..., terms); infinite where the fit is perfect.
        p: Two-sided probability of such a t under the normal distribution, (..., terms).
        intercept: Mean price change that is not explained, currency per trade, (...).
        n: Rows used, (...). The first `order` trades of a stock's every segment are used up by the autoregression, one
            more by Cochrane and Orcutt's differences.
        r2: Coefficient of determination, (...); of the transformed rows where errors are autoregressive.
        durbin_watson: Of the (transformed) residuals, within segments, (...).
        condition: 2-norm condition number of the regressors, centred and scaled to unit length, (...).
        order_flow: Intercept (shares) and weights of the autoregression of signed size, (..., 1 + order); NaN where it
            cannot be fitted and no permanent term needs it.
        order_flow_std: σ_ε, shares, (...); NaN in the same case.
        lags: Largest lag with a weight in a "hac" covariance (0 for others), (...).
        bandwidth: S of its weights 1 − j/S, (...).
        rho: Autocorrelation of the errors, (...); 0 for estimator "ols".
        iterations: Values of ρ that were tried, (...).
        status: `Status`, (...). OK_INACCURATE means a condition number beyond eps^(−1/4).
        dependent: True for terms because of which the status is RANK_DEFICIENT, (..., terms): constant, a combination
            of those before it, or permanent where order flow follows no autoregression.
        form: "difference" or "level".
        covariance_type: "hac", "ols", "hc0", "hc1", "hc2" or "hc3".
        terms: Names along the last axis.
    """

    coefficients: Float[Array, "*stocks terms"]
    std_errors: Float[Array, "*stocks terms"]
    covariance: Float[Array, "*stocks terms terms"]
    t: Float[Array, "*stocks terms"]
    intercept: Float[Array, "*stocks"]
    n: Int[Array, "*stocks"]
    r2: Float[Array, "*stocks"]
    durbin_watson: Float[Array, "*stocks"]
    condition: Float[Array, "*stocks"]
    order_flow: Float[Array, "*stocks k"]
    order_flow_std: Float[Array, "*stocks"]
    lags: Int[Array, "*stocks"]
    status: Int[Array, "*stocks"]
    form: Form = eqx.field(static=True)
    covariance_type: Covariance = eqx.field(static=True)
    terms: tuple[Term, ...] = eqx.field(static=True, default=COEFFICIENTS)
    # Estimates that come from elsewhere may lack these.
    p: Float[Array, "*stocks terms"] | None = None
    bandwidth: Float[Array, "*stocks"] | None = None
    rho: Float[Array, "*stocks"] | None = None
    iterations: Int[Array, "*stocks"] | None = None
    dependent: Bool[Array, "*stocks terms"] | None = None

    @property
    def flags(self) -> Int[Array, "*stocks"]:
        """Bits of `Flag`, int32: FLOAT32 where the sums were taken in 32 bits."""
        return precision_flags(self.coefficients, self.status)


def glosten_harris_arrays(
    price: ArrayLike,
    size: ArrayLike,
    sign: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    form: Form = "difference",
    covariance: Covariance = "hac",
    lags: int | Rule | None = None,
    order: int = 5,
    terms: Sequence[Term] = COEFFICIENTS,
    estimator: Estimator = "ols",
    prewhiten: bool = False,
    convention: Convention = "statsmodels",
    autocorrelation: Autocorrelation = "yule-walker",
    max_iterations: int = 100,
) -> ImpactEstimates:
    """Price impact of signed trades, fixed and per share, permanent and transitory.

    Signed size DV follows an autoregression with intercept, estimated by least squares; its fitted value is E[DV], its
    residual deviation σ_ε, and E[D] = erf(E[DV]/(σ_ε√2)). Then, by least squares over trades t = order+1, order+2, …,

        Δp_t = y + C (D_t − E[D_t]) + λ (DV_t − E[DV_t]) + ζ ΔD_t + ℓ Δ(DV)_t + u_t          form="difference"
        Δp_t = y + C (D_t − E[D_t]) + λ (DV_t − E[DV_t]) + ζ D_t  + ℓ DV_t    + u_t          form="level"

    The difference form is Glosten and Harris (J. Financial Econ. 21, 1988) and Sadka (J. Financial Econ. 80, 2006); the
    level form is the thesis's, identified only through the predictability of order flow.

    Args:
        price: Trade prices, currency, (trades,) for one stock or (stocks, trades).
        size: Trade sizes, shares, not negative, same shape.
        sign: +1 buyer-initiated, −1 seller-initiated, 0 unknown, same shape.
        mask: True for a real trade, same shape; padding belongs at the end of a row. A False slot within a row ends a
            segment: no lag, difference or Newey–West product crosses it.
        form: See above.
        covariance: "hac" (Newey–West with Bartlett weights), "ols", or White's "hc0" to "hc3".
        lags: Newey–West lags, at least 0 and fewer than the trades; None or "newey-west-fixed" is ⌊4 (n/100)^{2/9}⌋ of
            each stock's rows n; "newey-west-1994" and "andrews" look at the scores.
        order: Order of the autoregression.
        terms: Which of the four coefficients are in the equation, by their names in `COEFFICIENTS`; results are in that
            order. Without permanent terms order flow need not be predictable.
        estimator: "ols"; "cochrane-orcutt" or "prais-winsten" for errors u_t = ρ u_{t−1} + e_t within a segment.
        prewhiten, convention, autocorrelation, max_iterations: As in `regress`, where small-sample factors are listed.

    Returns:
        `ImpactEstimates`. A stock that cannot be estimated has NaN values, NaN derivatives and a status:
        NONFINITE_INPUT (also a negative size or a sign that is none), INSUFFICIENT_DATA (n ≤ order + 1, n ≤ terms + 1
        or n ≤ lags), RANK_DEFICIENT (one-sided flow, constant size, …), ILL_CONDITIONED (condition beyond eps^(−1/3),
        |ρ| ≥ 1, and the other causes `regress` names), MAX_STEPS (ρ did not settle).
        Differentiable with respect to `price` and `size` for given signs. In float64 estimates agree with statsmodels
        to 1e-9; in float32, which `flags` says, coefficients are within 1e-3 standard errors of those of float64 if
        prices are passed less their first value, and what float32 cannot tell apart is ILL_CONDITIONED.

    Raises:
        ValueError: a shape or an option is not as above.
    """
    method = checked_method(estimator, covariance, lags, prewhiten, convention, autocorrelation, max_iterations)
    model = checked_model(form, terms, order, method)
    arrays = unify((as_float("price", price), as_float("size", size), as_float("sign", sign)))
    return _checked(arrays, mask, model)


def check_options(form: str, covariance: str, lags, order: int) -> None:
    """Raise a ValueError that names the option and what it may be."""
    checked_model(
        form, COEFFICIENTS, order, checked_method("ols", covariance, lags, False, "statsmodels", "yule-walker", 1)
    )


def checked_model(form, terms, order, method: Method) -> Model:
    """`Model`, or a ValueError that names the option and what it may be."""
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {get_args(Form)}, got {form!r}")
    names = () if isinstance(terms, str) else tuple(terms)
    if not names or len(set(names)) < len(names) or not set(names) <= set(COEFFICIENTS):
        raise ValueError(f"terms must be different names out of {COEFFICIENTS}, got {terms!r}")
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < 1:
        raise ValueError(f"order must be a positive whole number, got {order!r}")
    return Model(form, tuple(term for term in COEFFICIENTS if term in names), int(order), method)


def _checked(arrays: tuple[Array, Array, Array], mask: ArrayLike | None, model: Model) -> ImpactEstimates:
    price, size, sign = arrays
    if price.ndim not in (1, 2):
        raise ValueError(f"price must have shape (trades,) or (stocks, trades), got {price.shape}")
    mask = jnp.ones(price.shape, bool) if mask is None else jnp.asarray(mask, bool)
    for name, value in (("size", size), ("sign", sign), ("mask", mask)):
        if value.shape != price.shape:
            raise ValueError(f"{name} must have the shape of price, {price.shape}, got {value.shape}")
    check_lags(model.method, price.shape[-1])
    return estimate_lanes(price, size, sign, mask, model)


@partial(jax.jit, static_argnames=("model",))
def estimate_lanes(price: Array, size: Array, sign: Array, mask: Array, model: Model) -> ImpactEstimates:
    """`glosten_harris_arrays` of arguments that have been checked."""
    single = price.ndim == 1
    price, size, sign, mask = (x[:, None] if single else x.T for x in (price, size, sign, mask))
    valid = jnp.isfinite(price) & (size >= 0) & jnp.isfinite(size) & ((sign == 0) | (jnp.abs(sign) == 1))
    bad = (mask & ~valid).any(0)
    # A bad lane is computed with zeros; its NaN still finds the input that caused it.
    price, size, sign = (
        replace_where(jnp.broadcast_to(bad[None], x.shape), x, jnp.zeros_like(x)) for x in (price, size, sign)
    )
    price, size, sign = (jnp.where(mask, x, 0) for x in (price, size, sign))
    block, mean, sign_mean = _block(price, size, sign, mask, model.order)
    flow_fit = passes.fit_order_flow(passes.flow_products(block, mean, model.order), mean, sign_mean)
    trades = passes.lagged(block, model.order)
    expected = passes.expectations(trades, flow_fit) if passes.has_permanent(model.terms) else None
    *columns, change = passes.regressors(trades, expected, flow_fit, model.form, model.terms)
    design = jnp.stack([jnp.ones_like(change), *columns])
    fit = regress_lanes(design, change, block.row[block.halo :], model.method, constant=True)
    intercept = fit.coefficients[0]
    fit = fit._replace(
        coefficients=fit.coefficients[1:], covariance=fit.covariance[1:, 1:], dependent=fit.dependent[1:]
    )
    result = report(flow_fit, fit, intercept, bad, model)
    return jax.tree.map(lambda x: x[0], result) if single else result


def _block(price, size, sign, mask, order: int) -> tuple[Block, Array, Array]:
    """The lanes with room for the lags in front, and the means of flow and sign."""
    count = jnp.maximum(mask.sum(0, dtype=price.dtype), 1)
    room = ((order, spare_rows(price.shape[0])), (0, 0))
    flow = sign * size
    change = price - jnp.concatenate([jnp.zeros_like(price[:1]), price[:-1]])
    real = jnp.pad(mask, room)
    row = real
    for lag in range(1, order + 1):
        row = row & jnp.concatenate([jnp.zeros_like(real[:lag]), real[:-lag]])
    padded = Block(jnp.pad(flow, room), jnp.pad(sign, room), jnp.pad(change, room), row, order)
    mean = lax.stop_gradient(flow.sum(0) / count)
    return padded, mean, lax.stop_gradient(sign.sum(0) / count)


def report(
    flow_fit: OrderFlow, fit: LaneFit, intercept: Float[Array, " lanes"], bad: Bool[Array, " lanes"], model: Model
) -> ImpactEstimates:
    """Estimates, errors and statuses of a regression of `model`; lanes come first in the result.

    Args:
        fit: Without the intercept.
        intercept: That of the columns as `passes.regressors` makes them.
        bad: Lanes with an input that is none.
    """
    if model.form == "level":
        shift = {"transitory_fixed": flow_fit.sign_mean, "transitory_variable": flow_fit.mean}
        for at, term in enumerate(model.terms):
            intercept = intercept - fit.coefficients[at] * shift.get(term, 0)
    errors, t, p = inference(fit.coefficients, fit.covariance)
    order_flow = jnp.concatenate([flow_fit.intercept[None], flow_fit.coefficients, flow_fit.residual_std[None]])
    values = (fit.coefficients, errors, fit.covariance, intercept, fit.r2, fit.durbin_watson, order_flow, fit.rho)
    status = _status(flow_fit, fit, values, bad, model)
    lost = status > Status.LOCAL
    values = poisoned((*values[:6], fit.rho, t, p, fit.bandwidth), lost)
    order_flow = poisoned((order_flow,), lost | flow_fit.failed)[0]
    condition = jnp.where(bad | (status == Status.INSUFFICIENT_DATA), jnp.nan, fit.condition)
    return ImpactEstimates(
        coefficients=values[0],
        std_errors=values[1],
        covariance=values[2],
        t=values[7],
        p=values[8],
        intercept=values[3],
        n=fit.rows,
        r2=values[4],
        durbin_watson=values[5],
        condition=condition,
        order_flow=order_flow[:, :-1],
        order_flow_std=order_flow[:, -1],
        lags=fit.lags,
        bandwidth=values[9],
        rho=values[6],
        iterations=fit.iterations,
        status=status,
        dependent=_dependent(flow_fit, fit, status, model),
        form=model.form,
        covariance_type=model.method.covariance,
        terms=model.terms,
    )


def _dependent(flow_fit: OrderFlow, fit: LaneFit, status, model: Model) -> Bool[Array, "lanes terms"]:
    """Which terms made a lane RANK_DEFICIENT."""
    permanent = jnp.array([term.startswith("permanent") for term in model.terms])
    named = jnp.where(flow_fit.failed[:, None], permanent[None], fit.dependent.T)
    return named & (status == Status.RANK_DEFICIENT)[:, None]


def _status(flow_fit: OrderFlow, fit: LaneFit, values, bad, model: Model) -> Int[Array, " lanes"]:
    eps = float(jnp.finfo(flow_fit.mean.dtype).eps)
    needed = passes.has_permanent(model.terms)
    few = fit.few | (flow_fit.rows <= model.order + 1)
    # Sums lose the square of the condition number; at eps^(−1/3), refined, standard errors keep 1e-5 in float64.
    return first_status(
        bad.shape,
        (bad, Status.NONFINITE_INPUT),
        (few, Status.INSUFFICIENT_DATA),
        ((flow_fit.failed & needed) | fit.deficient, Status.RANK_DEFICIENT),
        ((fit.condition > eps ** (-1 / 3)) | fit.broken, Status.ILL_CONDITIONED),
        (fit.unfinished, Status.MAX_STEPS),
        (~all_finite(values), Status.NONFINITE_INTERNAL),
        (fit.condition > eps ** (-1 / 4), Status.OK_INACCURATE),
    )
