"""Glosten–Harris/Sadka impact estimates on arrays: traced, batched, differentiable."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact import passes
from jaxexec.impact.passes import Block, Covariance, Form, OrderFlow, ScoreSums
from jaxexec.numerics.arrays import as_float, unify
from jaxexec.numerics.moments import (
    BLOCKS,
    Fit,
    Moments,
    least_squares,
    most_newey_west_lags,
    newey_west_lags,
    sandwich,
)
from jaxexec.numerics.status import Status, poison, replace_where

COEFFICIENTS = ("permanent_fixed", "permanent_variable", "transitory_fixed", "transitory_variable")
PARAMETERS = 5  # the four coefficients and the intercept


class ImpactEstimates(eqx.Module):
    """Impact coefficients of one stock (no leading axis) or of a batch of stocks.

    The last axis of `coefficients`, `std_errors` and `t` runs over permanent_fixed C, permanent_variable λ,
    transitory_fixed ζ, transitory_variable ℓ: currency, currency per share, currency, currency per share.

    Attributes:
        coefficients: (..., 4).
        std_errors: (..., 4), by the convention of `covariance_type`, without a small-sample factor for "hac" and "hc0".
        covariance: Covariance matrix of the coefficients, (..., 4, 4).
        t: Coefficient over standard error, (..., 4); infinite where the fit is perfect.
        intercept: Mean price change that is not explained, currency per trade, (...).
        n: Rows used, (...). The first `order` trades of a stock's every segment are used up by the autoregression.
        r2: Coefficient of determination, (...).
        durbin_watson: Of the residuals, within segments, (...).
        condition: 2-norm condition number of the four regressors, centred and scaled to unit length, (...).
        order_flow: Intercept (shares) and weights of the autoregression of signed size, (..., 1 + order).
        order_flow_std: σ_ε, shares, (...).
        lags: Newey–West lags used (0 for other covariances), (...).
        status: `Status`, (...). OK_INACCURATE means a condition number beyond eps^(−1/4).
        form: "difference" or "level".
        covariance_type: "hac", "hc0" or "ols".
    """

    coefficients: Float[Array, "*stocks 4"]
    std_errors: Float[Array, "*stocks 4"]
    covariance: Float[Array, "*stocks 4 4"]
    t: Float[Array, "*stocks 4"]
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


def glosten_harris_arrays(
    price: ArrayLike,
    size: ArrayLike,
    sign: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    form: Form = "difference",
    covariance: Covariance = "hac",
    lags: int | Literal["newey-west-fixed"] | None = None,
    order: int = 5,
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
            segment: no lag or difference crosses it. Put at least `lags` of them between two days, so that no
            Newey–West product crosses either.
        form: See above.
        covariance: "hac" (Newey–West with Bartlett weights), "hc0" (White) or "ols", each as statsmodels has it without
            small-sample correction.
        lags: Newey–West lags, at least 0 and fewer than the trades; None or "newey-west-fixed" is ⌊4 (n/100)^{2/9}⌋ of
            each stock's rows n.
        order: Order of the autoregression.

    Returns:
        `ImpactEstimates`. A stock that cannot be estimated has NaN values, NaN derivatives and a status:
        NONFINITE_INPUT (also a negative size or a sign that is none), INSUFFICIENT_DATA (n ≤ order + 1, n ≤ 5 or
        n ≤ lags), RANK_DEFICIENT (one-sided flow, constant size, …), ILL_CONDITIONED (condition beyond eps^(−1/3)).
        Differentiable with respect to `price` and `size` for given signs. In float64 estimates agree with statsmodels
        to 1e-9; in float32 to about 1e-3 where the condition is below 50, prices being the limit: pass them less their
        first value.

    Raises:
        ValueError: shapes, `form`, `covariance`, `lags` or `order` are not as above.
    """
    check_options(form, covariance, lags, order)
    arrays = unify((as_float("price", price), as_float("size", size), as_float("sign", sign)))
    return _checked(arrays, mask, form=form, covariance=covariance, lags=lags, order=order)


def check_options(form: str, covariance: str, lags, order: int) -> None:
    """Raise a ValueError that names the option and what it may be."""
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {get_args(Form)}, got {form!r}")
    if covariance not in get_args(Covariance):
        raise ValueError(f"covariance must be one of {get_args(Covariance)}, got {covariance!r}")
    whole = isinstance(lags, int | np.integer) and not isinstance(lags, bool) and lags >= 0
    if not (whole or lags is None or lags == "newey-west-fixed"):
        raise ValueError(f"lags must be 'newey-west-fixed' or a whole number that is not negative, got {lags!r}")
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"order must be a positive whole number, got {order!r}")


def _checked(arrays: tuple[Array, Array, Array], mask: ArrayLike | None, *, form, covariance, lags, order: int):
    price, size, sign = arrays
    if price.ndim not in (1, 2):
        raise ValueError(f"price must have shape (trades,) or (stocks, trades), got {price.shape}")
    mask = jnp.ones(price.shape, bool) if mask is None else jnp.asarray(mask, bool)
    for name, value in (("size", size), ("sign", sign), ("mask", mask)):
        if value.shape != price.shape:
            raise ValueError(f"{name} must have the shape of price, {price.shape}, got {value.shape}")
    fixed = None if lags in (None, "newey-west-fixed") else int(lags)
    if fixed is not None and covariance == "hac" and fixed >= max(price.shape[-1], 1):
        raise ValueError(f"lags must be fewer than the {price.shape[-1]} trades, got {fixed}")
    return _estimate(price, size, sign, mask, form=form, covariance=covariance, lags=fixed, order=order)


@partial(jax.jit, static_argnames=("form", "covariance", "lags", "order"))
def _estimate(price, size, sign, mask, *, form: Form, covariance: Covariance, lags: int | None, order: int):
    single = price.ndim == 1
    price, size, sign, mask = (x[:, None] if single else x.T for x in (price, size, sign, mask))
    valid = jnp.isfinite(price) & (size >= 0) & jnp.isfinite(size) & ((sign == 0) | (jnp.abs(sign) == 1))
    bad = (mask & ~valid).any(0)
    # A bad lane is computed with zeros; its NaN still finds the input that caused it.
    price, size, sign = (
        replace_where(jnp.broadcast_to(bad[None], x.shape), x, jnp.zeros_like(x)) for x in (price, size, sign)
    )
    price, size, sign = (jnp.where(mask, x, 0) for x in (price, size, sign))
    longest = 0
    if covariance == "hac":
        longest = most_newey_west_lags(price.shape[0]) if lags is None else lags
    block, mean, sign_mean = _block(price, size, sign, mask, order, longest)
    flow_fit = passes.fit_order_flow(passes.flow_products(block, mean, order), mean, sign_mean)
    used = jnp.zeros_like(flow_fit.rows)
    if covariance == "hac":
        used = newey_west_lags(flow_fit.rows, longest) if lags is None else jnp.full_like(flow_fit.rows, lags)
    moments = Moments.from_gram(passes.impact_products(block, flow_fit, form))
    fit = least_squares(moments)
    sums = passes.score_sums(block, flow_fit, moments, fit, used, form=form, covariance=covariance, longest=longest)
    result = conclude(flow_fit, moments, fit, sums, used, bad, form=form, covariance=covariance)
    return jax.tree.map(lambda x: x[0], result) if single else result


def _block(price, size, sign, mask, order: int, longest: int) -> tuple[Block, Array, Array]:
    """The lanes with room for the lags in front and for the last windows behind, and the means of flow and sign."""
    count = jnp.maximum(mask.sum(0, dtype=price.dtype), 1)
    front = order + max(longest, 1)
    behind = longest + -(price.shape[0] + longest) % BLOCKS
    room = ((front, behind), (0, 0))
    flow = sign * size
    change = price - jnp.concatenate([jnp.zeros_like(price[:1]), price[:-1]])
    real = jnp.pad(mask, room)
    row = real
    for lag in range(1, order + 1):
        row = row & jnp.concatenate([jnp.zeros_like(real[:lag]), real[:-lag]])
    padded = Block(jnp.pad(flow, room), jnp.pad(sign, room), jnp.pad(change, room), row, front)
    mean = lax.stop_gradient(flow.sum(0) / count)
    return padded, mean, lax.stop_gradient(sign.sum(0) / count)


def conclude(
    flow_fit: OrderFlow,
    moments: Moments,
    fit: Fit,
    sums: ScoreSums,
    lags: Int[Array, " lanes"],
    bad: Bool[Array, " lanes"],
    *,
    form: Form,
    covariance: Covariance,
) -> ImpactEstimates:
    """Estimates, errors and statuses from the sums of the three passes; lanes come first in the result."""
    correction = (fit.inverse * sums.gradient[None]).sum(1)
    slopes = fit.slopes + correction
    squares = jnp.maximum(sums.squares - (correction * sums.gradient).sum(0), 0)
    shift = jnp.stack([flow_fit.sign_mean, flow_fit.mean]) if form == "level" else jnp.zeros_like(slopes[2:])
    intercept = moments.mean[4] - (slopes * moments.mean[:4]).sum(0) - (slopes[2:] * shift).sum(0)
    freedom = jnp.maximum(moments.count - PARAMETERS, 1)
    if covariance == "ols":
        matrix = fit.inverse * (squares / freedom)[None, None]
    else:
        matrix = sandwich(fit.inverse, sums.meat / (lags + 1).astype(squares.dtype)[None, None])
    errors = _root(jnp.stack([matrix[k, k] for k in range(4)]))
    t = jnp.where(errors > 0, slopes / jnp.where(errors > 0, errors, 1), jnp.sign(slopes) * jnp.inf)
    total = moments.comoment[4, 4]
    r2 = 1 - squares / jnp.where(total > 0, total, 1)
    durbin_watson = sums.neighbours / jnp.where(sums.squares > 0, sums.squares, 1)
    order_flow = jnp.concatenate([flow_fit.intercept[None], flow_fit.coefficients])
    values = (slopes, errors, matrix, intercept, r2, durbin_watson, order_flow, flow_fit.residual_std)
    status = _status(flow_fit, fit, values, lags, bad)
    values = _poisoned((*values, t), status > Status.LOCAL)
    condition = jnp.where(status == Status.INSUFFICIENT_DATA, jnp.nan, fit.condition)
    return ImpactEstimates(
        coefficients=values[0],
        std_errors=values[1],
        covariance=values[2],
        t=values[8],
        intercept=values[3],
        n=flow_fit.rows,
        r2=values[4],
        durbin_watson=values[5],
        condition=jnp.where(bad, jnp.nan, condition),
        order_flow=values[6],
        order_flow_std=values[7],
        lags=lags,
        status=status,
        form=form,
        covariance_type=covariance,
    )


def _status(flow_fit: OrderFlow, fit: Fit, values, lags, bad) -> Int[Array, " lanes"]:
    """One status a lane; the causes that explain the others come first."""
    order = flow_fit.coefficients.shape[0]
    eps = float(jnp.finfo(flow_fit.mean.dtype).eps)
    few = (flow_fit.rows <= max(order + 1, PARAMETERS)) | (flow_fit.rows <= lags)
    # One refinement leaves (condition² eps)²: below 1e-10 in float64 at eps^(−1/3), where standard errors keep 1e-5.
    finite = jnp.stack([jnp.isfinite(x).all(tuple(range(x.ndim - 1))) for x in values]).all(0)
    return jnp.select(
        [
            bad,
            few,
            flow_fit.failed | fit.deficient,
            fit.condition > eps ** (-1 / 3),
            ~finite,
            fit.condition > eps ** (-1 / 4),
        ],
        [
            jnp.full_like(lags, status)
            for status in (
                Status.NONFINITE_INPUT,
                Status.INSUFFICIENT_DATA,
                Status.RANK_DEFICIENT,
                Status.ILL_CONDITIONED,
                Status.NONFINITE_INTERNAL,
                Status.OK_INACCURATE,
            )
        ],
        jnp.full_like(lags, Status.OK),
    )


def _root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """√x with a zero derivative at 0 (a perfect fit)."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _poisoned(values: Sequence[Array], failed: Bool[Array, " lanes"]) -> list[Array]:
    """All values, NaN in failed lanes, lanes first; poisoned in one piece, which compiles nine times faster."""
    lanes = failed.shape[0]
    flat = jnp.concatenate([x.reshape(math.prod(x.shape[:-1]), lanes) for x in values])
    lost = jnp.broadcast_to(failed[None], flat.shape)
    # `poison` wants finite numbers inside failed lanes.
    flat = poison(jnp.where(lost & ~jnp.isfinite(flat), 0, flat), lost).T
    ends = np.cumsum([math.prod(x.shape[:-1]) for x in values])
    parts = jnp.split(flat, ends[:-1], axis=1)
    return [part.reshape(lanes, *x.shape[:-1]) for part, x in zip(parts, values, strict=True)]
