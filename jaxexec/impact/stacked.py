"""Errors of impact estimates that own up to the order-flow autoregression behind their regressors.

Glosten–Harris regressors hold E[DV] and E[D], which are themselves estimated. Standard errors of the regression alone
take them for known. Here all equations are solved as one set of moment conditions,

    Σ z_t (DV_t − z_t'a) = 0        Σ [(DV_t − z_t'a)² − s² (n − k)/n] = 0        Σ x_t(a, s) (Δp_t − x_t(a, s)'b) = 0

with z_t = (1, DV_{t−1}, …). Its matrix of derivatives is triangular, so that the influence of a trade on b is

    ψ_t^b  =  (Σ x x')⁻¹ x_t u_t  +  ∂b/∂a ψ_t^a  +  ∂b/∂s ψ_t^s

and the covariance of (a, s, b) is the Newey–West covariance of (ψ^a, ψ^s, ψ^b).

Sources: Newey, A method of moments interpretation of sequential estimators, Econ. Letters 14 (1984); Murphy and Topel,
J. Bus. Econ. Stat. 3 (1985); Pagan, Int. Econ. Rev. 25 (1984).
"""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.impact import passes
from jaxexec.impact.estimates import COEFFICIENTS, checked_model
from jaxexec.impact.inference import all_finite, first_status, poisoned, square_root
from jaxexec.impact.influence import before, newey_west, regress, unbroken
from jaxexec.impact.measured import Entered, Lags, check_arrays, check_lags, enter, is_sign
from jaxexec.impact.passes import Form, OrderFlow, Term
from jaxexec.impact.regression import checked_method
from jaxexec.numerics.moments import most_newey_west_lags, newey_west_lags
from jaxexec.numerics.status import Status


class StackedEstimates(eqx.Module):
    """Impact coefficients b with two covariances: of the regression alone, and of the stacked equations.

    Attributes:
        coefficients: b, (..., terms), as of `glosten_harris_arrays`.
        std_errors: of the stacked equations, (..., terms).
        covariance: of the stacked equations, (..., terms, terms): what to carry on.
        plain_covariance: of the regression alone, E[DV] and E[D] taken for known, (..., terms, terms).
        order_flow: intercept (shares) and weights a of the autoregression, then s (shares), (..., order + 2).
        joint_covariance: of (a, s, b), (..., order + 2 + terms, order + 2 + terms).
        n: rows used, (...).
        lags: Newey–West lags, (...).
        condition: condition number of the regressors, centred and scaled, (...).
        status: a `Status`, (...).
        terms: names of the coefficients.
    """

    coefficients: Float[Array, "*stocks terms"]
    std_errors: Float[Array, "*stocks terms"]
    covariance: Float[Array, "*stocks terms terms"]
    plain_covariance: Float[Array, "*stocks terms terms"]
    order_flow: Float[Array, "*stocks k"]
    joint_covariance: Float[Array, "*stocks m m"]
    n: Int[Array, "*stocks"]
    lags: Int[Array, "*stocks"]
    condition: Float[Array, "*stocks"]
    status: Int[Array, "*stocks"]
    terms: tuple[Term, ...] = eqx.field(static=True)

    @property
    def plain_std_errors(self) -> Float[Array, "*stocks terms"]:
        """Standard errors of the regression alone, (..., terms)."""
        return square_root(jnp.diagonal(self.plain_covariance, axis1=-2, axis2=-1))


def glosten_harris_stacked_arrays(
    price: ArrayLike,
    size: ArrayLike,
    sign: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    form: Form = "difference",
    order: int = 5,
    terms: Sequence[Term] = COEFFICIENTS,
    lags: Lags = None,
) -> StackedEstimates:
    """`glosten_harris_arrays` with errors of the stacked equations: those of generated regressors.

    Args:
        price, size, sign, mask, form, order, terms: as in `glosten_harris_arrays`.
        lags: Newey–West lags of all moments; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `StackedEstimates`. A stock that cannot be estimated is NaN with the status that `glosten_harris_arrays` gives.
        Differentiable with respect to `price` and `size` for given signs.

    Raises:
        ValueError: a shape or an option is not as above.
    """
    arrays, where = check_arrays(mask, price=price, size=size, sign=sign)
    model = checked_model(
        form, terms, order, checked_method("ols", "hac", None, False, "statsmodels", "yule-walker", 1)
    )
    return _stacked(arrays, where, model.form, model.terms, order, check_lags(lags, where.shape[-1]))


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _stacked(arrays, mask, form: Form, terms: tuple[Term, ...], order: int, lags: int | None) -> StackedEstimates:
    entered = enter(arrays, mask, {"sign": is_sign, "size": lambda x: jnp.isfinite(x) & (x >= 0)})
    row = unbroken(entered.mask, order)
    rows = row.sum(0, dtype=jnp.int32)
    flow = entered.arrays["sign"] * entered.arrays["size"]
    past = jnp.stack([before(flow, lag) for lag in range(1, order + 1)], 1)
    fit = regress(past, flow, row)
    freedom = rows - (order + 1)
    squares = jnp.sum(fit.residual**2, 0)
    unpredictable = squares > 50 * float(jnp.finfo(flow.dtype).eps) * fit.total
    flow_failed = fit.deficient | (freedom < 1) | ~unpredictable
    variance = jnp.where(flow_failed, 1, squares / jnp.maximum(freedom, 1).astype(flow.dtype))
    deviation = jnp.sqrt(variance)
    flow_fit = jnp.concatenate([fit.intercept[None], fit.slopes, deviation[None]])
    # s² is Σ e²/(n − k): the residuals' own dependence on a is of no first order, as Σ z e = 0.
    share = jnp.maximum(rows, 1).astype(flow.dtype) / jnp.maximum(freedom, 1).astype(flow.dtype)
    of_variance = jnp.where(row, fit.residual**2 * share[None] - variance[None], 0) * fit.weight
    first = jnp.concatenate(
        [fit.intercept_influence()[:, None], fit.slope_influence(), (of_variance / (2 * deviation[None]))[:, None]], 1
    )

    def impact(nuisance: Array):
        columns, change = _regressors(entered, nuisance, form, terms, order)
        return regress(columns, change, row)

    second = impact(flow_fit)
    # Every lane has its own nuisance parameters: one tangent serves all lanes at once.
    _, push = jax.linearize(lambda nuisance: impact(nuisance).slopes, flow_fit)
    basis = jnp.eye(order + 2, dtype=flow.dtype)
    bends = jax.vmap(lambda e: push(jnp.broadcast_to(e[:, None], flow_fit.shape)), out_axes=1)(basis)
    plain = second.slope_influence()
    carried = jnp.stack([(first * bends[k][None]).sum(1) for k in range(len(terms))], 1)
    influence = jnp.concatenate([first, plain + carried], 1)
    longest = most_newey_west_lags(mask.shape[-1]) if lags is None else lags
    used = newey_west_lags(rows, longest) if lags is None else jnp.full_like(rows, lags)
    whole = newey_west(jnp.concatenate([influence, plain], 1), used, longest)
    stacked = slice(order + 2, order + 2 + len(terms))
    joint, own = whole[: stacked.stop, : stacked.stop], whole[stacked.stop :, stacked.stop :]
    values = (second.slopes, _errors(joint[stacked, stacked]), joint[stacked, stacked], own, flow_fit, joint)
    status = _status(entered, second, flow_failed, rows, used, values, order, terms)
    slopes, errors, covariance, own, flow_fit, joint = poisoned(values, status > Status.LOCAL)
    result = StackedEstimates(
        coefficients=slopes,
        std_errors=errors,
        covariance=covariance,
        plain_covariance=own,
        order_flow=flow_fit,
        joint_covariance=joint,
        n=rows,
        lags=used,
        condition=jnp.where(status > Status.LOCAL, jnp.nan, second.condition),
        status=status,
        terms=terms,
    )
    return jax.tree.map(lambda x: x[0], result) if mask.ndim == 1 else result


def _regressors(entered: Entered, nuisance: Array, form: Form, terms: tuple[Term, ...], order: int):
    """The columns of the impact regression for given parameters of order flow, and the price changes."""
    price, sign = entered.arrays["price"], entered.arrays["sign"]
    flow = sign * entered.arrays["size"]
    trades = passes.Lagged([before(flow, lag) for lag in range(order + 1)], [sign, before(sign)], price - before(price))
    zero = jnp.zeros_like(nuisance[0])  # columns are centred in the regression, whatever they are taken about here
    never = jnp.zeros(zero.shape, bool)
    fit = OrderFlow(zero, zero, nuisance[0], nuisance[1:-1], nuisance[-1], jnp.zeros(zero.shape, jnp.int32), never)
    expected = passes.expectations(trades, fit) if passes.has_permanent(terms) else None
    *columns, change = passes.regressors(trades, expected, fit, form, terms)
    return jnp.stack(columns, 1), change


def _errors(covariance: Float[Array, "k k lanes"]) -> Float[Array, "k lanes"]:
    return square_root(jnp.stack([covariance[i, i] for i in range(covariance.shape[0])]))


def _status(entered: Entered, fit, flow_failed, rows, lags, values, order: int, terms) -> Int[Array, " lanes"]:
    eps = float(jnp.finfo(values[0].dtype).eps)
    few = (rows <= order + 1) | (rows <= len(terms) + 1) | (rows <= lags)
    return first_status(
        rows.shape,
        (entered.bad, Status.NONFINITE_INPUT),
        (few, Status.INSUFFICIENT_DATA),
        (flow_failed | fit.deficient, Status.RANK_DEFICIENT),
        (fit.condition > eps ** (-1 / 3), Status.ILL_CONDITIONED),
        (~all_finite(values), Status.NONFINITE_INTERNAL),
        (fit.condition > eps ** (-1 / 4), Status.OK_INACCURATE),
    )
