"""The three passes over a block of tape, and the small regressions between them.

A `Block` has time first and lanes last. A lane is one stock, or one piece of a stock that carries enough of its past
(the halo) to stand alone, so that the sums of all pieces of a stock add up to the stock:

    pass 1   order-flow products              →  autoregression, expected flow, σ_ε
    pass 2   products of the columns          →  coefficients
    pass 3   residuals and score windows      →  refinement, R², Durbin–Watson, covariance

`glosten_harris_arrays`, which has all rows of a stock at hand, takes pass 1 and the regressors from here and leaves the
rest to `numerics.regression`.
"""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact.normal_flow import expected_sign
from jaxexec.numerics.moments import Fit, Moments, gram, least_squares, sum_time
from jaxexec.numerics.regression import Covariance

Form = Literal["difference", "level"]
Term = Literal["permanent_fixed", "permanent_variable", "transitory_fixed", "transitory_variable"]


class Block(eqx.Module):
    """Trades of many lanes.

    Attributes:
        flow: Signed size D·V in shares, (halo + steps, lanes).
        sign: D, +1 buyer-initiated, −1 seller-initiated, 0 unknown, as floats, (halo + steps, lanes).
        change: Price change since the previous trade, currency, (halo + steps, lanes).
        row: True where the trade is a row of the regressions: it and the `order` trades before it are real and of
            one segment, (halo + steps, lanes). The first `order` entries are False.
        halo: Steps at the front that belong to another lane and are summed there.
    """

    flow: Float[Array, "time lanes"]
    sign: Float[Array, "time lanes"]
    change: Float[Array, "time lanes"]
    row: Bool[Array, "time lanes"]
    halo: int = eqx.field(static=True)


class OrderFlow(eqx.Module):
    """Autoregression of signed size, one a lane.

    Attributes:
        mean: Provisional mean of signed size about which the products were taken, shares, (lanes,).
        sign_mean: The same for the sign, (lanes,).
        intercept: Shares, (lanes,).
        coefficients: Weight of the trade 1, 2, … trades ago, (order, lanes).
        residual_std: σ_ε with rows − order − 1 degrees of freedom, shares, (lanes,).
        rows: Number of rows, (lanes,).
        failed: True where it could not be fitted; the numbers are then finite placeholders.
    """

    mean: Float[Array, " lanes"]
    sign_mean: Float[Array, " lanes"]
    intercept: Float[Array, " lanes"]
    coefficients: Float[Array, "order lanes"]
    residual_std: Float[Array, " lanes"]
    rows: Int[Array, " lanes"]
    failed: Bool[Array, " lanes"]


class ScoreSums(eqx.Module):
    """What pass 3 returns, summed over the rows of a lane.

    Attributes:
        gradient: Σ u_t z_t with z centred, (terms, lanes).
        squares: Σ u_t², (lanes,).
        neighbours: Σ (u_t − u_{t−1})² over rows whose predecessor is a row of the same segment, (lanes,).
        meat: Σ W_t W_tᵀ of windows, not yet divided by lags + 1 ("hac"), or Σ s_t s_tᵀ of scores ("hc0", "hc1"), or
            zero ("ols"), (terms, terms, lanes).
    """

    gradient: Float[Array, "k lanes"]
    squares: Float[Array, " lanes"]
    neighbours: Float[Array, " lanes"]
    meat: Float[Array, "k k lanes"]


def _back(x: Float[Array, "time lanes"], start: int, lag: int) -> Float[Array, "steps lanes"]:
    """The entries `lag` steps before those from `start` on."""
    return x[start - lag : x.shape[0] - lag]


def flow_products(block: Block, mean: Float[Array, " lanes"], order: int) -> Float[Array, "k k lanes"]:
    """Pass 1: Gram matrix of (1, DV_{t−1}, …, DV_{t−order}, DV_t), flows taken about `mean`."""
    row = block.row[block.halo :].astype(block.flow.dtype)
    flow = block.flow - mean[None]
    lagged = [_back(flow, block.halo, j) for j in (*range(1, order + 1), 0)]
    return gram([jnp.ones_like(row), *lagged], [row, *(row * x for x in lagged)])


def fit_order_flow(
    products: Float[Array, "k k lanes"], mean: Float[Array, " lanes"], sign_mean: Float[Array, " lanes"]
) -> OrderFlow:
    """The autoregression from the sums of pass 1."""
    order = products.shape[0] - 2
    moments = Moments.from_gram(products)
    fit = least_squares(moments)
    eps = float(jnp.finfo(mean.dtype).eps)
    freedom = moments.count - (order + 1)
    total = moments.comoment[order, order]
    predictable = ~(fit.residual_sum > 50 * eps * total)
    failed = fit.deficient | predictable | (freedom < 1)
    variance = jnp.where(failed, 1, fit.residual_sum) / jnp.where(failed, 1, freedom)
    slopes = jnp.where(failed[None], 0, fit.slopes)
    intercept = jnp.where(failed, 0, fit.intercept + mean * (1 - slopes.sum(0)))
    rows = moments.count.astype(jnp.int32)
    return OrderFlow(mean, sign_mean, intercept, slopes, jnp.sqrt(variance), rows, failed)


def regressors(
    block: Block, flow_fit: OrderFlow, form: Form, terms: tuple[Term, ...], start: int
) -> list[Float[Array, "steps lanes"]]:
    """The columns of `terms` and Δp from step `start` on.

    D − E[D], DV − E[DV], then ΔD and Δ(DV) (`form="difference"`; Glosten and Harris 1988, Sadka 2006), or D and DV
    about their means (`form="level"`, as the thesis prints it).
    """
    order = flow_fit.coefficients.shape[0]
    flow, sign = _back(block.flow, start, 0), _back(block.sign, start, 0)
    columns = {}
    if "permanent_fixed" in terms or "permanent_variable" in terms:
        expected = flow_fit.intercept[None]
        for j in range(order):
            expected = expected + flow_fit.coefficients[j][None] * _back(block.flow, start, j + 1)
        columns["permanent_variable"] = flow - expected
        if "permanent_fixed" in terms:
            columns["permanent_fixed"] = sign - expected_sign(expected, flow_fit.residual_std[None])
    if form == "difference":
        columns["transitory_fixed"] = sign - _back(block.sign, start, 1)
        columns["transitory_variable"] = flow - _back(block.flow, start, 1)
    else:
        columns["transitory_fixed"] = sign - flow_fit.sign_mean[None]
        columns["transitory_variable"] = flow - flow_fit.mean[None]
    return [*(columns[term] for term in terms), _back(block.change, start, 0)]


def impact_products(
    block: Block, flow_fit: OrderFlow, form: Form, terms: tuple[Term, ...]
) -> Float[Array, "k k lanes"]:
    """Pass 2: Gram matrix of (1, regressors, Δp)."""
    row = block.row[block.halo :].astype(block.flow.dtype)
    columns = regressors(block, flow_fit, form, terms, block.halo)
    return gram([jnp.ones_like(row), *columns], [row, *(row * x for x in columns)])


def residual_scores(
    block: Block, flow_fit: OrderFlow, moments: Moments, fit: Fit, form: Form, terms: tuple[Term, ...], start: int
) -> tuple[Float[Array, "steps lanes"], Float[Array, "steps k lanes"]]:
    """Residuals u and scores z·u of the centred regressors from step `start` on, zero where there is no row.

    The intercept needs no score: about their means the regressors are orthogonal to it, so the slopes' covariance is
    the sandwich of the centred columns alone.
    """
    k = len(terms)
    *columns, change = regressors(block, flow_fit, form, terms, start)
    centred = jnp.stack(columns, 1) - moments.mean[None, :k]
    fitted = sum((fit.slopes[i][None] * centred[:, i] for i in range(k)), moments.mean[k][None])
    residual = jnp.where(block.row[start:], change - fitted, 0)
    return residual, centred * residual[:, None]


def collect(
    residual: Float[Array, "steps lanes"],
    previous: Float[Array, "steps lanes"],
    scores: Float[Array, "steps k lanes"],
    windows: Float[Array, "steps k lanes"],
    row: Bool[Array, "steps lanes"],
    pair: Bool[Array, "steps lanes"],
    covariance: Covariance,
) -> ScoreSums:
    """Sums over the steps that belong to a lane.

    Args:
        previous: Residuals one step earlier.
        windows: Window sums of the scores, zero at steps that belong to another lane; read for "hac" only.
        row: Rows that belong to the lane.
        pair: Those of them whose predecessor is a row.
    """
    own = jnp.where(row, residual, 0)
    own_scores = jnp.where(row[:, None], scores, 0)
    step = jnp.where(pair, residual - previous, 0)
    outer = {"hac": windows, "ols": jnp.zeros_like(own_scores)}.get(covariance, own_scores)
    meat = gram([outer[:, i] for i in range(outer.shape[1])])
    return ScoreSums(sum_time(own_scores), sum_time(own**2), sum_time(step**2), meat)
