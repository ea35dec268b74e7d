"""The three passes over a block of tape, and the small regressions between them.

A `Block` has time first and lanes last. A lane is one stock, or one piece of a stock that carries enough of its past
(the halo) to stand alone, so that the sums of all pieces of a stock add up to the stock. Both users of this file, the
differentiable `glosten_harris_arrays` and the tape-sized `lanes`, therefore run the same arithmetic:

    pass 1   order-flow products              →  autoregression, expected flow, σ_ε
    pass 2   products of the five columns     →  coefficients
    pass 3   residuals and score windows      →  refinement, R², Durbin–Watson, covariance
"""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact.expected_sign import expected_sign
from jaxexec.numerics.moments import Fit, Moments, bartlett_windows, gram, least_squares, sum_time

Form = Literal["difference", "level"]
Covariance = Literal["hac", "hc0", "ols"]


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
        gradient: Σ u_t z_t with z centred, (4, lanes).
        squares: Σ u_t², (lanes,).
        neighbours: Σ (u_t − u_{t−1})² over rows whose predecessor is a row of the same segment, (lanes,).
        meat: Σ W_t W_tᵀ of windows, not yet divided by lags + 1 ("hac"), or Σ s_t s_tᵀ of scores ("hc0"), or zero
            ("ols"), (4, 4, lanes).
    """

    gradient: Float[Array, "4 lanes"]
    squares: Float[Array, " lanes"]
    neighbours: Float[Array, " lanes"]
    meat: Float[Array, "4 4 lanes"]


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


def regressors(block: Block, flow_fit: OrderFlow, form: Form, start: int) -> list[Float[Array, "steps lanes"]]:
    """The four columns and Δp from step `start` on.

    D − E[D], DV − E[DV], then ΔD and Δ(DV) (`form="difference"`; Glosten and Harris 1988, Sadka 2006), or D and DV
    about their means (`form="level"`, as the thesis prints it).
    """
    order = flow_fit.coefficients.shape[0]
    flow, sign = _back(block.flow, start, 0), _back(block.sign, start, 0)
    expected = flow_fit.intercept[None]
    for j in range(order):
        expected = expected + flow_fit.coefficients[j][None] * _back(block.flow, start, j + 1)
    surprise = sign - expected_sign(expected, flow_fit.residual_std[None])
    if form == "difference":
        transitory = [sign - _back(block.sign, start, 1), flow - _back(block.flow, start, 1)]
    else:
        transitory = [sign - flow_fit.sign_mean[None], flow - flow_fit.mean[None]]
    return [surprise, flow - expected, *transitory, _back(block.change, start, 0)]


def impact_products(block: Block, flow_fit: OrderFlow, form: Form) -> Float[Array, "6 6 lanes"]:
    """Pass 2: Gram matrix of (1, four regressors, Δp)."""
    row = block.row[block.halo :].astype(block.flow.dtype)
    columns = regressors(block, flow_fit, form, block.halo)
    return gram([jnp.ones_like(row), *columns], [row, *(row * x for x in columns)])


def residual_scores(
    block: Block, flow_fit: OrderFlow, moments: Moments, fit: Fit, form: Form, start: int
) -> tuple[Float[Array, "steps lanes"], Float[Array, "steps 4 lanes"]]:
    """Residuals u and scores z·u of the centred regressors from step `start` on, zero where there is no row.

    The intercept needs no score: about their means the regressors are orthogonal to it, so the slopes' covariance is
    the sandwich of the centred columns alone.
    """
    *columns, change = regressors(block, flow_fit, form, start)
    centred = jnp.stack(columns, 1) - moments.mean[None, :4]
    fitted = sum((fit.slopes[k][None] * centred[:, k] for k in range(4)), moments.mean[4][None])
    residual = jnp.where(block.row[start:], change - fitted, 0)
    return residual, centred * residual[:, None]


def collect(
    residual: Float[Array, "steps lanes"],
    previous: Float[Array, "steps lanes"],
    scores: Float[Array, "steps 4 lanes"],
    windows: Float[Array, "steps 4 lanes"],
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
    outer = {"hac": windows, "hc0": own_scores, "ols": jnp.zeros_like(own_scores)}[covariance]
    meat = gram([outer[:, k] for k in range(4)])
    return ScoreSums(sum_time(own_scores), sum_time(own**2), sum_time(step**2), meat)


def score_sums(
    block: Block,
    flow_fit: OrderFlow,
    moments: Moments,
    fit: Fit,
    lags: Int[Array, " lanes"],
    *,
    form: Form,
    covariance: Covariance,
    longest: int,
) -> ScoreSums:
    """Pass 3 over whole lanes, each with its own number of lags.

    Args:
        lags: Newey–West lags of each lane; at most `longest`, and the halo is at least `order + max(longest, 1)`.
    """
    reach = max(longest, 1)
    residual, scores = residual_scores(block, flow_fit, moments, fit, form, block.halo - reach)
    windows = bartlett_windows(scores, jnp.broadcast_to(lags[None], scores.shape[1:]), longest) if longest else scores
    row, before = block.row[block.halo :], block.row[block.halo - 1 : -1]
    previous = residual[reach - 1 : -1]
    return collect(residual[reach:], previous, scores[reach:], windows[reach:], row, row & before, covariance)
