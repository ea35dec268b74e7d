"""Roll's spread: the bid-ask bounce seen in the serial covariance of price changes."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxexec.impact.influence import before, delta_method, row_weights, unbroken
from jaxexec.impact.measured import Lags, Measured, check_arrays, check_lags, conclude, enter
from jaxexec.numerics.moments import sum_time
from jaxexec.numerics.status import Status

ROLL = ("roll_spread", "serial_covariance")


def roll_spread_arrays(price: ArrayLike, mask: ArrayLike | None = None, *, lags: Lags = None) -> Measured:
    """Spread 2 √(−cov(Δp_t, Δp_{t−1})) that explains the bounce of prices; needs neither quotes nor signs.

    It rests on signs that are independent of each other and of the news: signs that persist, as they do, make it too
    small. Where the covariance is positive, which the model cannot explain, the root keeps its sign: the spread is
    −2 √cov, and a negative spread says that the model does not hold.

    Source: Roll, "A simple implicit measure of the effective bid-ask spread in an efficient market" (J. Finance 39,
    1984).

    Args:
        price: Trade prices, currency, (trades,) for one stock or (stocks, trades).
        mask: True for a real trade; padding belongs at the end. A False slot within a row ends a segment, which no
            difference crosses.
        lags: Newey–West lags of the standard errors; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `Measured` with "roll_spread" (currency) and "serial_covariance" (currency²). The standard error of the spread
        is that of the covariance over √|covariance|. Status NONFINITE_INPUT, INSUFFICIENT_DATA (fewer than three pairs
        of price changes, or no more than `lags`), RANK_DEFICIENT (a covariance of zero: prices that do not move).

    Raises:
        ValueError: Shapes or `lags` are not as above.
    """
    arrays, mask = check_arrays(mask, price=price)
    return _roll(arrays, mask, lags=check_lags(lags, mask.shape[-1]))


@partial(jax.jit, static_argnames=("lags",))
def _roll(arrays, mask, *, lags: int | None) -> Measured:
    entered = enter(arrays, mask)
    price = entered.arrays["price"]
    row = unbroken(entered.mask, 2)
    weight, _ = row_weights(row, price.dtype)
    change = price - before(price)
    now, last = (jnp.where(row, x, 0) for x in (change, before(change)))
    now, last = (jnp.where(row, x - sum_time(weight * x)[None], 0) for x in (now, last))
    covariance = sum_time(weight * now * last)
    # The means are estimated too, but move a product of centred changes only to second order.
    influence = weight * (now * last - covariance[None])
    flat = covariance == 0

    def spread(c):
        safe = jnp.where(flat[None], -1, c)
        return jnp.concatenate([-2 * jnp.sign(safe) * jnp.sqrt(jnp.abs(safe)), c])

    values, influence = delta_method(spread, covariance[None], influence[:, None])
    rows = row.sum(0, dtype=jnp.int32)
    causes = {Status.NONFINITE_INPUT: entered.bad, Status.RANK_DEFICIENT: flat}
    return conclude(ROLL, values, influence, rows, causes, lags=lags, fewest=3, single=mask.ndim == 1)
