"""Madhavan, Richardson and Roomans: the spread as information and transaction cost, with signs that persist."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxexec.impact.influence import delta_method, weighted_means
from jaxexec.impact.measured import Lags, Measured, check_arrays, check_lags, conclude
from jaxexec.impact.trade_indicator import sign_regression
from jaxexec.numerics.status import Status

MADHAVAN_RICHARDSON_ROOMANS = (
    "adverse_selection",
    "transaction_cost",
    "sign_autocorrelation",
    "unsigned_share",
    "implied_spread",
    "information_share",
)


def madhavan_richardson_roomans_arrays(
    price: ArrayLike, sign: ArrayLike, mask: ArrayLike | None = None, *, lags: Lags = None
) -> Measured:
    """Information θ and transaction cost φ of a trade, whatever its size, where signs have autocorrelation ρ:

        Δp_t = α + (φ + θ) D_t − (φ + ρ θ) D_{t−1} + e_t

    Only the surprise D_t − ρ D_{t−1} carries information. The five moment conditions of the paper,
    E[D_t D_{t−1} − ρ D²_{t−1}] = 0, E[|D_t| − (1 − λ)] = 0 and E[u_t (1, D_t, D_{t−1})] = 0, are as many as the
    parameters, so that the generalised method of moments has the solution: ρ and 1 − λ are ratios of sums, least
    squares give b = (φ + θ, −φ − ρθ), and θ = (b₁ + b₂)/(1 − ρ), φ = b₁ − θ. Errors are those of the whole system,
    Newey–West.

    Source: Madhavan, Richardson and Roomans, "Why do security prices change? A transaction-level analysis of NYSE
    stocks" (Rev. Financial Studies 10, 1997).

    Args:
        price: Trade prices, currency, (trades,) for one stock or (stocks, trades).
        sign: D: +1 buyer-initiated, −1 seller-initiated, 0 within the spread (crossed, unknown).
        mask: True for a real trade; padding belongs at the end. A False slot within a row ends a segment.
        lags: Newey–West lags; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `Measured` with adverse_selection θ and transaction_cost φ (currency per share, half-spreads),
        sign_autocorrelation ρ, unsigned_share λ, implied_spread 2(θ + φ) (currency) and information_share θ/(θ + φ).
        Status NONFINITE_INPUT, INSUFFICIENT_DATA (fewer than six rows, or no more than `lags`), RANK_DEFICIENT
        (one-sided or strictly alternating signs; a spread of zero), ILL_CONDITIONED.

    Raises:
        ValueError: Shapes or `lags` are not as above.
    """
    arrays, mask = check_arrays(mask, price=price, sign=sign)
    return _estimate(arrays, mask, lags=check_lags(lags, mask.shape[-1]))


@partial(jax.jit, static_argnames=("lags",))
def _estimate(arrays, mask, *, lags: int | None) -> Measured:
    signs = sign_regression(arrays, mask, 1)
    unsigned = jnp.where(signs.row, 1 - jnp.abs(signs.entered.arrays["sign"]), 0)
    share, share_influence = weighted_means(unsigned[:, None], signs.row.astype(unsigned.dtype)[:, None])
    moments = jnp.concatenate([signs.fit.slopes, signs.persistence[None], share])
    pieces = [signs.fit.slope_influence(), signs.persistence_influence[:, None], share_influence]
    unity, no_spread = signs.persistence == 1, signs.fit.slopes[0] == 0

    def parameters(m):
        now, last, persistence, unsigned_share = m
        information = (now + last) / jnp.where(unity, 1, 1 - persistence)
        of_spread = information / jnp.where(no_spread, 1, now)
        return jnp.stack([information, now - information, persistence, unsigned_share, 2 * now, of_spread])

    values, influence = delta_method(parameters, moments, jnp.concatenate(pieces, 1))
    causes = {Status.NONFINITE_INPUT: signs.entered.bad, Status.RANK_DEFICIENT: signs.deficient | unity | no_spread}
    return conclude(
        MADHAVAN_RICHARDSON_ROOMANS,
        values,
        influence,
        signs.rows,
        causes,
        lags=lags,
        fewest=6,
        condition=signs.fit.condition,
        single=mask.ndim == 1,
    )
