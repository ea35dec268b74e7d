"""From a block of tape to the regressors of its price changes.

A `Block` has time first and lanes last. A lane is one stock, or one piece of a stock that carries enough of its past
(the halo) to stand alone.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact.normal_flow import expected_sign
from jaxexec.numerics.moments import Moments, gram, least_squares

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


def _back(x: Float[Array, "time lanes"], start: int, lag: int) -> Float[Array, "steps lanes"]:
    """The entries `lag` steps before those from `start` on."""
    return x[start - lag : x.shape[0] - lag]


def flow_products(block: Block, mean: Float[Array, " lanes"], order: int) -> Float[Array, "k k lanes"]:
    """Gram matrix of (1, DV_{t−1}, …, DV_{t−order}, DV_t), flows taken about `mean`."""
    row = block.row[block.halo :].astype(block.flow.dtype)
    flow = block.flow - mean[None]
    lagged = [_back(flow, block.halo, j) for j in (*range(1, order + 1), 0)]
    return gram([jnp.ones_like(row), *lagged], [row, *(row * x for x in lagged)])


def fit_order_flow(
    products: Float[Array, "k k lanes"], mean: Float[Array, " lanes"], sign_mean: Float[Array, " lanes"]
) -> OrderFlow:
    """The autoregression from `flow_products`."""
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
    # A stock of years may have more rows than 32 bits count; where JAX has but these, no array is that long.
    rows = moments.count.astype(dtypes.canonicalize_dtype(np.int64))
    return OrderFlow(mean, sign_mean, intercept, slopes, jnp.sqrt(variance), rows, failed)


class Lagged(NamedTuple):
    """What the regressors read: some steps, and the same steps shifted.

    Attributes:
        flow: Signed size 0, 1, …, order trades ago, each (steps, lanes).
        sign: Sign 0 and 1 trades ago.
        change: Price change.
    """

    flow: Sequence[Float[Array, "steps lanes"]]
    sign: Sequence[Float[Array, "steps lanes"]]
    change: Float[Array, "steps lanes"]


def lagged(block: Block, order: int) -> Lagged:
    """The steps of a block behind its halo."""
    flow, sign = ([_back(x, block.halo, lag) for lag in range(order + 1)] for x in (block.flow, block.sign))
    return Lagged(flow, sign, _back(block.change, block.halo, 0))


def expected_flow(trades: Lagged, flow_fit: OrderFlow) -> Float[Array, "steps lanes"]:
    """E[DV_t] given the trades before t."""
    flow = flow_fit.intercept[None]
    for lag in range(1, len(trades.flow)):
        flow = flow + flow_fit.coefficients[lag - 1][None] * trades.flow[lag]
    return flow


def expectations(trades: Lagged, flow_fit: OrderFlow) -> tuple[Array, Array]:
    """E[DV_t] and E[D_t] given the trades before t, (steps, lanes)."""
    flow = expected_flow(trades, flow_fit)
    return flow, expected_sign(flow, flow_fit.residual_std[None])


def regressors(
    trades: Lagged, expected: tuple[Array, Array] | None, flow_fit: OrderFlow, form: Form, terms: tuple[Term, ...]
) -> list[Float[Array, "steps lanes"]]:
    """The columns of `terms` and Δp.

    D − E[D], DV − E[DV], then ΔD and Δ(DV) (`form="difference"`; Glosten and Harris 1988, Sadka 2006), or D and DV
    about their means (`form="level"`, as the thesis prints it).

    Args:
        expected: What `expectations` returns; needed by permanent terms only.
    """
    flow, sign = trades.flow, trades.sign
    columns = {}
    if expected is not None:
        columns["permanent_fixed"] = sign[0] - expected[1]
        columns["permanent_variable"] = flow[0] - expected[0]
    if form == "difference":
        columns["transitory_fixed"] = sign[0] - sign[1]
        columns["transitory_variable"] = flow[0] - flow[1]
    else:
        columns["transitory_fixed"] = sign[0] - flow_fit.sign_mean[None]
        columns["transitory_variable"] = flow[0] - flow_fit.mean[None]
    return [*(columns[term] for term in terms), trades.change]


def has_permanent(terms: tuple[Term, ...]) -> bool:
    """Whether an equation needs order flow to be predicted."""
    return any(term.startswith("permanent") for term in terms)
