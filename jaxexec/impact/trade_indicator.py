"""The trade-indicator regression: price changes on the present and past signs of trades."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact.influence import Regression, before, regress, through_origin, unbroken
from jaxexec.impact.measured import Entered, enter, is_sign


class SignRegression(NamedTuple):
    """Price changes on signs, and the persistence of signs, over the same rows.

    Attributes:
        entered: Price and sign as lanes.
        row: Trades whose `order` predecessors are real, (time, lanes).
        rows: Their number, (lanes,).
        fit: Δp_t on D_t, D_{t−1}, …, D_{t−order} and an intercept.
        persistence: ρ = Σ D_{t−order+1} D_{t−order} / Σ D²_{t−order}, (lanes,).
        persistence_influence: (time, lanes).
        deficient: Lanes without full rank, (lanes,).
    """

    entered: Entered
    row: Bool[Array, "time lanes"]
    rows: Int[Array, " lanes"]
    fit: Regression
    persistence: Float[Array, " lanes"]
    persistence_influence: Float[Array, "time lanes"]
    deficient: Bool[Array, " lanes"]


def sign_regression(arrays: dict[str, Array], mask: Array, order: int) -> SignRegression:
    """Both least-squares problems of the trade-indicator models, from prices and signs."""
    entered = enter(arrays, mask, {"sign": is_sign})
    price, sign = entered.arrays["price"], entered.arrays["sign"]
    row = unbroken(entered.mask, order)
    columns = jnp.stack([before(sign, lag) for lag in range(order + 1)], 1)
    fit = regress(columns, price - before(price), row)
    oldest, next_oldest = (jnp.where(row, columns[:, lag], 0) for lag in (order, order - 1))
    slope, influence, nothing = through_origin(oldest, next_oldest)
    rows = row.sum(0, dtype=jnp.int32)
    return SignRegression(entered, row, rows, fit, slope, influence, fit.deficient | nothing)
