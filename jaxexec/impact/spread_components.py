"""Huang and Stoll: the traded spread and its components, two or three of them."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxexec.impact.influence import delta_method
from jaxexec.impact.measured import Lags, Measured, check_arrays, check_choice, check_lags, conclude
from jaxexec.impact.trade_indicator import sign_regression
from jaxexec.numerics.status import Status

Components = Literal["two", "three"]
HUANG_STOLL = {
    "two": ("traded_spread", "adverse_selection_and_inventory", "order_processing"),
    "three": ("traded_spread", "adverse_selection", "inventory", "order_processing", "reversal_probability"),
}


def huang_stoll_arrays(
    price: ArrayLike,
    sign: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    components: Components = "two",
    lags: Lags = None,
) -> Measured:
    """The traded spread S and the shares of it that are information, inventory and the cost of processing orders.

        two      Δp_t = c + (S/2)(D_t − D_{t−1}) + λ (S/2) D_{t−1} + e_t,                   λ = α + β
        three    Δp_t = c + (S/2) D_t + (α + β − 1)(S/2) D_{t−1} − α (S/2)(1 − 2π) D_{t−2} + e_t
                 E[D_{t−1} | D_{t−2}] = (1 − 2π) D_{t−2}

    α is adverse selection, β inventory, 1 − α − β order processing, π the probability that the sign reverses. Both
    systems of moments are just identified: least squares and one ratio of sums solve them. Three components need signs
    that reverse predictably, π ≠ 1/2; with π near 1/2 the errors of α and β say that they cannot be told apart. The
    model means π > 1/2 (dealers move quotes to draw the opposite order); where large orders are broken into many
    trades π is below 1/2 and β comes out negative, unless such trades are merged before.

    Source: Huang and Stoll, "The components of the bid-ask spread: a general approach" (Rev. Financial Studies 10,
    1997), the models of traded spreads.

    Args:
        price: Trade prices, currency, (trades,) for one stock or (stocks, trades).
        sign: D: +1 buyer-initiated, −1 seller-initiated, 0 at the midpoint.
        mask: True for a real trade; padding belongs at the end. A False slot within a row ends a segment.
        components: "two" or "three".
        lags: Newey–West lags; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `Measured` with `HUANG_STOLL[components]`: the spread in currency, the rest shares of it, and π. Status
        NONFINITE_INPUT, INSUFFICIENT_DATA (fewer than five ("two") or seven ("three") rows, or no more than `lags`),
        RANK_DEFICIENT (one-sided or strictly alternating signs; a spread of zero; π = 1/2 exactly), ILL_CONDITIONED.

    Raises:
        ValueError: Shapes, `components` or `lags` are not as above.
    """
    check_choice("components", components, tuple(HUANG_STOLL))
    arrays, mask = check_arrays(mask, price=price, sign=sign)
    return _estimate(arrays, mask, components=components, lags=check_lags(lags, mask.shape[-1]))


@partial(jax.jit, static_argnames=("components", "lags"))
def _estimate(arrays, mask, *, components: Components, lags: int | None) -> Measured:
    order = 1 if components == "two" else 2
    signs = sign_regression(arrays, mask, order)
    moments = jnp.concatenate([signs.fit.slopes, signs.persistence[None]])
    influence = jnp.concatenate([signs.fit.slope_influence(), signs.persistence_influence[:, None]], 1)
    no_spread = signs.fit.slopes[0] == 0
    # 1 − 2π = 0: the past sign says nothing of the next, so that α has no witness.
    unpredictable = (signs.persistence == 0) & (order == 2)

    def shares(m):
        half = jnp.where(no_spread, 1, m[0])
        both = 1 + m[1] / half
        if components == "two":
            return jnp.stack([2 * m[0], both, 1 - both])
        information = -m[2] / (half * jnp.where(unpredictable, 1, m[3]))
        return jnp.stack([2 * m[0], information, both - information, 1 - both, (1 - m[3]) / 2])

    values, influence = delta_method(shares, moments, influence)
    deficient = signs.deficient | no_spread | unpredictable
    causes = {Status.NONFINITE_INPUT: signs.entered.bad, Status.RANK_DEFICIENT: deficient}
    return conclude(
        HUANG_STOLL[components],
        values,
        influence,
        signs.rows,
        causes,
        lags=lags,
        fewest=5 if components == "two" else 7,
        condition=signs.fit.condition,
        single=mask.ndim == 1,
    )
