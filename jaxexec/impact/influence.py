"""Least squares over lanes of trades, the influence of every row, and Newey and West's errors of whatever follows.

An estimator that solves its moment conditions is, to first order, the truth plus a sum over the rows: row t moves it
by its *influence* ψ_t. The covariance of any set of estimates is then the long-run covariance of Σ ψ_t, and a smooth
function of estimates has the influence that its derivative makes of theirs (the delta method). So means, regressions,
moment estimators and what is computed of them share one file: each states its influence, none derives a sandwich.

Arrays have time first and the lanes (stocks) last, as in `numerics.moments`.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.moments import Moments, bartlett_windows, least_squares, sum_time, times


class Regression(eqx.Module):
    """Least squares of a response on k columns and an intercept, one regression a lane.

    Attributes:
        slopes: (k, lanes).
        intercept: (lanes,).
        mean: Means of the columns over the rows, (k, lanes).
        centred: Columns less their means, zero where there is no row, (time, k, lanes).
        residual: Zero where there is no row, (time, lanes).
        inverse: Inverse of the centred cross-products, (k, k, lanes).
        weight: 1 / n at the rows and 0 elsewhere, (time, lanes).
        total: Σ (y − ȳ)², (lanes,).
        condition: 2-norm condition number of the columns, centred and scaled, (lanes,).
        deficient: True where the columns are not of full rank; the numbers are then finite placeholders.
    """

    slopes: Float[Array, "k lanes"]
    intercept: Float[Array, " lanes"]
    mean: Float[Array, "k lanes"]
    centred: Float[Array, "time k lanes"]
    residual: Float[Array, "time lanes"]
    inverse: Float[Array, "k k lanes"]
    weight: Float[Array, "time lanes"]
    total: Float[Array, " lanes"]
    condition: Float[Array, " lanes"]
    deficient: Bool[Array, " lanes"]

    def slope_influence(self, combinations: Float[Array, "m k"] | None = None) -> Float[Array, "time m lanes"]:
        """Influence of the slopes, or of linear combinations of them."""
        inverse = self.inverse
        if combinations is not None:
            inverse = (combinations[:, :, None, None] * inverse[None]).sum(1)
        return (inverse[None] * self.centred[:, None]).sum(2) * self.residual[:, None]

    def intercept_influence(self) -> Float[Array, "time lanes"]:
        """Influence of the intercept."""
        weights = times(self.inverse, self.mean)
        return self.residual * (self.weight - (weights[None] * self.centred).sum(1))


def regress(
    columns: Float[Array, "time k lanes"], response: Float[Array, "time lanes"], row: Bool[Array, "time lanes"]
) -> Regression:
    """Least squares over the rows: centred before products are taken, refined once on the residuals."""
    weight, count = row_weights(row, response.dtype)
    joined = jnp.where(row[:, None], jnp.concatenate([columns, response[:, None]], 1), 0)
    mean = sum_time(joined) / jnp.maximum(count, 1)[None]
    joined = jnp.where(row[:, None], joined - mean[None], 0)
    # One column against all others at a time: a small programme, whatever the number of columns.
    products = lax.map(lambda column: sum_time(joined * column[:, None]), jnp.moveaxis(joined, 1, 0))
    fit = least_squares(Moments(count, mean, products))
    centred, change = joined[:, :-1], joined[:, -1]
    residual = change - (fit.slopes[None] * centred).sum(1)
    correction = times(fit.inverse, sum_time(centred * residual[:, None]))
    slopes = fit.slopes + correction
    residual = residual - (correction[None] * centred).sum(1)
    intercept = mean[-1] - (slopes * mean[:-1]).sum(0)
    return Regression(
        slopes,
        intercept,
        mean[:-1],
        centred,
        residual,
        fit.inverse,
        weight,
        products[-1, -1],
        fit.condition,
        fit.deficient,
    )


def row_weights(row: Bool[Array, "time lanes"], dtype) -> tuple[Float[Array, "time lanes"], Float[Array, " lanes"]]:
    """1 / n at the rows, and their number n."""
    ones = row.astype(dtype)
    count = sum_time(ones)
    return ones / jnp.maximum(count, 1)[None], count


def weighted_means(
    values: Float[Array, "time k lanes"], weights: Float[Array, "time k lanes"]
) -> tuple[Float[Array, "k lanes"], Float[Array, "time k lanes"]]:
    """Σ w x / Σ w of each column and its influence w (x − mean) / Σ w; zero where all weights are."""
    total = sum_time(weights)
    share = weights / jnp.where(total > 0, total, 1)[None]
    mean = sum_time(share * values)
    return mean, share * (values - mean[None])


def through_origin(
    x: Float[Array, "time lanes"], y: Float[Array, "time lanes"]
) -> tuple[Float[Array, " lanes"], Float[Array, "time lanes"], Bool[Array, " lanes"]]:
    """Slope Σ x y / Σ x² of y on x without an intercept, its influence, and True where x is all zero."""
    square = sum_time(x**2)
    nothing = ~(square > 0)
    square = jnp.where(nothing, 1, square)
    slope = sum_time(x * y) / square
    return slope, x * (y - slope[None] * x) / square[None], nothing


def newey_west(
    influence: Float[Array, "time m lanes"], lags: Int[Array, " lanes"], longest: int
) -> Float[Array, "m m lanes"]:
    """Σ_j w_j Σ_t ψ_t ψ_{t−j}ᵀ with Bartlett weights w_j = 1 − |j| / (lags + 1); no small-sample factor.

    Args:
        lags: Of each lane, at most `longest`.
    """
    windows = influence
    if longest:
        windows = jnp.pad(influence, ((0, longest), (0, 0), (0, 0)))
        windows = bartlett_windows(windows, jnp.broadcast_to(lags[None], windows.shape[1:]), longest)
    outer = lax.map(lambda column: sum_time(windows * column[:, None]), jnp.moveaxis(windows, 1, 0))
    return outer / (lags + 1).astype(outer.dtype)[None, None]


def delta_method(
    function: Callable[[Float[Array, "k lanes"]], Float[Array, "m lanes"]],
    estimates: Float[Array, "k lanes"],
    influence: Float[Array, "time k lanes"],
) -> tuple[Float[Array, "m lanes"], Float[Array, "time m lanes"]]:
    """A function of estimates and its influence; each lane of the function depends on that lane alone."""
    values, push = jax.linearize(function, estimates)
    return values, jax.vmap(push)(influence)


def before(x: Array, lag: int = 1) -> Array:
    """The entries `lag` steps earlier along the first axis, zero (False) where there are none."""
    if lag >= x.shape[0]:
        return jnp.zeros_like(x)
    return jnp.concatenate([jnp.zeros_like(x[:lag]), x[: x.shape[0] - lag]]) if lag else x


def unbroken(mask: Bool[Array, "time lanes"], lags: int) -> Bool[Array, "time lanes"]:
    """True where a trade and the `lags` trades before it are real."""
    row = mask
    for lag in range(1, lags + 1):
        row = row & before(mask, lag)
    return row
