"""Hasbrouck's vector autoregression of price changes and trades: how much of a trade stays in the price."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.impact.influence import Regression, before, delta_method, regress, unbroken
from jaxexec.impact.measured import Lags, Measured, check_arrays, check_lags, conclude, enter, poisoned
from jaxexec.numerics.moments import sum_time
from jaxexec.numerics.status import Status

HASBROUCK = ("immediate_response", "permanent_response", "information_share", "random_walk_std")
_DOUBLINGS = 12  # the companion matrix to the power 2^12


class TradeResponses(eqx.Module):
    """The vector autoregression of one stock (no leading axis) or of a batch of stocks.

    Attributes:
        measured: `Measured` with `HASBROUCK`: the response of the price to a unit of unexpected flow at once (b₀) and
            for good, currency per unit of flow; the share of the variance of the random-walk price that trades
            explain; the deviation of that random walk, currency per √trade.
        response: Cumulative response of the price 0, 1, … trades after a unit of unexpected flow, (..., horizon + 1).
        change_on_change: a_1 … a_p, (..., order).
        change_on_flow: b_0 … b_p, (..., order + 1).
        flow_on_change: c_1 … c_p, (..., order).
        flow_on_flow: d_1 … d_p, (..., order).
        status: `Status`, that of `measured`, (...).
    """

    measured: Measured
    response: Float[Array, "*stocks horizon"]
    change_on_change: Float[Array, "*stocks order"]
    change_on_flow: Float[Array, "*stocks order1"]
    flow_on_change: Float[Array, "*stocks order"]
    flow_on_flow: Float[Array, "*stocks order"]

    @property
    def status(self):
        return self.measured.status


def hasbrouck_arrays(
    change: ArrayLike,
    flow: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    order: int = 5,
    horizon: int = 20,
    lags: Lags = None,
) -> TradeResponses:
    """Price changes r and order flow x, trade by trade, each on the past of both:

        r_t = α + Σ_{i=1}^p a_i r_{t−i} + Σ_{i=0}^p b_i x_{t−i} + v_t
        x_t = μ + Σ_{i=1}^p c_i r_{t−i} + Σ_{i=1}^p d_i x_{t−i} + w_t

    The present trade stands in the first equation, so that v and w are uncorrelated: causes run from trades to prices
    within a step. With sums a, b (b₀ included), c, d of the coefficients, a unit of w moves the price for good by
    R = b/Δ and a unit of v by (1 − d)/Δ, Δ = (1 − a)(1 − d) − b c; the random walk in the price has the variance
    σ_v² (1 − d)²/Δ² + σ_w² R², and the trades' share of it is the second term's. Each equation is least squares, errors
    are Newey–West through the delta method.

    Source: Hasbrouck, "Measuring the information content of stock trades" (J. Finance 46, 1991) and "The summary
    informativeness of stock trades" (Rev. Financial Studies 4, 1991).

    Args:
        change: r_t, currency, (trades,) for one stock or (stocks, trades): the change of the midpoint from before
            trade t to before trade t + 1, or of prices from trade t − 1 to t.
        flow: x_t: sign of the trade, or signed shares, same shape.
        mask: True for a real trade; padding belongs at the end. A False slot within a row ends a segment.
        order: Lags p of the autoregression.
        horizon: Trades over which `response` is followed.
        lags: Newey–West lags; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `TradeResponses`. Status NONFINITE_INPUT, INSUFFICIENT_DATA (rows not more than 2p + 2, or than `lags`),
        RANK_DEFICIENT (one-sided signs, prices that do not move), UNBOUNDED (the autoregression is not stationary: a
        shock never dies away), ILL_CONDITIONED.

    Raises:
        ValueError: Shapes, `order`, `horizon` or `lags` are not as above.
    """
    for name, value, least in (("order", order, 1), ("horizon", horizon, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")
    arrays, mask = check_arrays(mask, change=change, flow=flow)
    return _estimate(arrays, mask, order=int(order), horizon=int(horizon), lags=check_lags(lags, mask.shape[-1]))


@partial(jax.jit, static_argnames=("order", "horizon", "lags"))
def _estimate(arrays, mask, *, order: int, horizon: int, lags: int | None) -> TradeResponses:
    entered = enter(arrays, mask)
    change, flow = entered.arrays["change"], entered.arrays["flow"]
    row = unbroken(entered.mask, order)
    past = [before(x, lag) for x in (change, flow) for lag in range(1, order + 1)]
    prices = regress(jnp.stack([*past, flow], 1), change, row)
    trades = regress(jnp.stack(past, 1), flow, row)
    own, cross, now = prices.slopes[:order], prices.slopes[order:-1], prices.slopes[-1:]
    coefficients = (own, jnp.concatenate([now, cross]), trades.slopes[:order], trades.slopes[order:])
    stationary = _is_stationary(*coefficients)
    still = (prices.total == 0) | (trades.total == 0)
    deficient = prices.deficient | trades.deficient | still
    estimates, influence = _long_run(prices, trades, order)
    usable = stationary & ~deficient

    def measures(m):
        immediate, a, b, c, d, v, w = m
        determinant = jnp.where(usable, (1 - a) * (1 - d) - b * c, 1)
        permanent, alone = b / determinant, (1 - d) / determinant
        by_trades, total = permanent**2 * w, permanent**2 * w + alone**2 * v
        some = total > 0
        total = jnp.where(some, total, 1)
        return jnp.stack([immediate, permanent, jnp.where(some, by_trades / total, 0), jnp.sqrt(total)])

    values, influence = delta_method(measures, estimates, influence)
    causes = {
        Status.NONFINITE_INPUT: entered.bad,
        Status.RANK_DEFICIENT: deficient,
        Status.UNBOUNDED: ~stationary,
    }
    measured = conclude(
        HASBROUCK,
        values,
        influence,
        row.sum(0, dtype=jnp.int32),
        causes,
        lags=lags,
        fewest=2 * order + 3,
        condition=jnp.maximum(prices.condition, trades.condition),
    )
    failed = measured.status > Status.LOCAL
    parts = [poisoned(x.T, failed) for x in (_responses(coefficients, horizon), *coefficients)]
    result = TradeResponses(measured, *parts)
    return jax.tree.map(lambda x: x[0], result) if mask.ndim == 1 else result


def _long_run(
    prices: Regression, trades: Regression, order: int
) -> tuple[Float[Array, "7 lanes"], Float[Array, "time 7 lanes"]]:
    """b₀, the sums a, b, c, d and the variances of v and w, and their influence."""
    dtype = prices.slopes.dtype
    k = 2 * order
    first, second = (jnp.arange(k + 1) < order).astype(dtype), (jnp.arange(k + 1) >= order).astype(dtype)
    last = (jnp.arange(k + 1) == k).astype(dtype)
    of_prices, of_trades = jnp.stack([last, first, second]), jnp.stack([first[:k], second[:k]])
    estimates, influence = [], []
    for fit, combinations in ((prices, of_prices), (trades, of_trades)):
        estimates.append((combinations[:, :, None] * fit.slopes[None]).sum(1))
        influence.append(fit.slope_influence(combinations))
    for fit in (prices, trades):
        variance = sum_time(fit.weight * fit.residual**2)
        estimates.append(variance[None])
        influence.append((fit.weight * (fit.residual**2 - variance[None]))[:, None])
    return jnp.concatenate(estimates), jnp.concatenate(influence, 1)


def _responses(coefficients: tuple[Array, ...], horizon: int) -> Float[Array, "horizon lanes"]:
    """Cumulative response of the price to a unit of unexpected flow, by running the two equations."""
    a, b, c, d = coefficients

    def step(state, now):
        changes, flows, level = state
        flow = now + (c * changes).sum(0) + (d * flows).sum(0)
        change = (a * changes).sum(0) + b[0] * flow + (b[1:] * flows).sum(0)
        level = level + change
        recent = (jnp.concatenate([new[None], old[:-1]]) for new, old in ((change, changes), (flow, flows)))
        return (*recent, level), level

    impulse = jnp.zeros((horizon + 1, a.shape[1]), a.dtype).at[0].set(1)
    return lax.scan(step, (jnp.zeros_like(a), jnp.zeros_like(d), jnp.zeros_like(a[0])), impulse)[1]


def _is_stationary(a: Array, b: Array, c: Array, d: Array) -> Bool[Array, " lanes"]:
    """Whether shocks die away: the companion matrix to a high power, scaled at each squaring, has a norm below 1."""
    order, lanes = a.shape
    shift = jnp.broadcast_to(jnp.eye(order, k=-1, dtype=a.dtype)[:, :, None], (order, order, lanes))
    zero = jnp.zeros_like(shift)
    change = jnp.concatenate([a + b[:1] * c, b[1:] + b[:1] * d])
    top = jnp.concatenate([shift, zero], 1).at[0].set(change)
    bottom = jnp.concatenate([zero, shift], 1).at[0].set(jnp.concatenate([c, d]))
    companion = lax.stop_gradient(jnp.concatenate([top, bottom]))

    def square(state, _):
        matrix, log_norm = state
        matrix = (matrix[:, :, None] * matrix[None]).sum(1)
        norm = jnp.abs(matrix).sum(1).max(0)
        safe = jnp.where(norm > 0, norm, 1)
        return (matrix / safe[None, None], 2 * log_norm + jnp.where(norm > 0, jnp.log(safe), -jnp.inf)), None

    (_, log_norm), _ = lax.scan(square, (companion, jnp.zeros_like(a[0])), None, length=_DOUBLINGS)
    return log_norm < 0
