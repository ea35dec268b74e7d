"""Quoted, effective and realised spreads and the price impact of trades, as means over trades."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxexec.impact.influence import weighted_means
from jaxexec.impact.measured import Lags, Measured, check_arrays, check_lags, conclude, enter, is_sign
from jaxexec.numerics.status import Status

SPREADS = ("quoted_spread", "effective_spread", "realised_spread", "price_impact")


def spread_measures_arrays(
    price: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    sign: ArrayLike,
    later_midpoint: ArrayLike,
    weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    relative: bool = False,
    overlap: ArrayLike | None = None,
    lags: Lags = None,
) -> Measured:
    """What a round trip costs, and who keeps it: means over trades of

        quoted spread      a − b
        effective spread   2 D (p − m)            m = (a + b)/2, what the initiator pays
        realised spread    2 D (p − m₊)           m₊ the midpoint some time later: what the other side keeps
        price impact       2 D (m₊ − m)           what the other side loses as the price moves on

    Trade by trade, the effective spread is the realised spread plus the price impact; so are the means where m₊ is
    known of every trade. All are full spreads: half of each is a cost per share. A trade of unknown sign (0) at the
    midpoint counts as an effective spread of zero.

    Source: Huang and Stoll, "Dealer versus auction markets" (J. Financial Econ. 41, 1996).

    Args:
        price: Trade prices p, currency, (trades,) for one stock or (stocks, trades).
        bid: Bid b that prevailed before the trade, same shape.
        ask: Ask a, not below the bid, same shape.
        sign: D: +1 buyer-initiated, −1 seller-initiated, 0 unknown.
        later_midpoint: m₊; NaN where it is not known: such trades count for the first two means only.
        weight: Weight of a trade, not negative, such as its size for share-weighted means; None weighs all alike.
        mask: True for a real trade; padding belongs at the end.
        relative: Spreads over the midpoint m, in units of 1, instead of currency.
        overlap: How many trades come, in the mean, before the later midpoint, a whole number, () or (stocks,). So many
            neighbours share news in realised spread and impact: `lags` that are chosen are at least as many. None is 0.
        lags: Newey–West lags of the standard errors; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `Measured` with `SPREADS`. Status NONFINITE_INPUT (also a crossed quote, a negative weight, a sign that is
        none), INSUFFICIENT_DATA (fewer than two trades, no more than `lags`, or no later midpoint at all).

    Raises:
        ValueError: Shapes or `lags` are not as above.
    """
    weight = jnp.ones_like(jnp.asarray(price)) if weight is None else weight
    named = {"price": price, "bid": bid, "ask": ask, "sign": sign, "later_midpoint": later_midpoint, "weight": weight}
    arrays, mask = check_arrays(mask, **named)
    if overlap is not None:
        overlap = jnp.asarray(overlap)
        if overlap.shape != mask.shape[:-1] or not jnp.issubdtype(overlap.dtype, jnp.integer):
            raise ValueError(f"overlap must be whole numbers of shape {mask.shape[:-1]}, got {overlap!r}")
    return _spreads(arrays, mask, overlap, relative=bool(relative), lags=check_lags(lags, mask.shape[-1]))


def quoted_spread_arrays(
    bid: ArrayLike, ask: ArrayLike, duration: ArrayLike, mask: ArrayLike | None = None, *, lags: Lags = None
) -> Measured:
    """Time-weighted quoted spread Σ τ (a − b) / Σ τ.

    Args:
        bid: Bids, currency, (quotes,) for one stock or (stocks, quotes).
        ask: Asks, not below the bid, same shape.
        duration: τ, how long each quote prevailed, not negative, in any unit.
        mask: True for a real quote; padding belongs at the end.
        lags: Newey–West lags of the standard error; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `Measured` with "quoted_spread", in currency. Status NONFINITE_INPUT (also a crossed quote, a negative
        duration), INSUFFICIENT_DATA (fewer than two quotes, no more than `lags`, or none that lasted).

    Raises:
        ValueError: Shapes or `lags` are not as above.
    """
    arrays, mask = check_arrays(mask, bid=bid, ask=ask, duration=duration)
    return _quoted(arrays, mask, lags=check_lags(lags, mask.shape[-1]))


def _not_negative(x):
    return jnp.isfinite(x) & (x >= 0)


@partial(jax.jit, static_argnames=("relative", "lags"))
def _spreads(arrays, mask, overlap, *, relative: bool, lags: int | None) -> Measured:
    single = mask.ndim == 1
    known = jnp.isfinite(arrays["later_midpoint"])
    safe = jnp.where(known, arrays["later_midpoint"], arrays["bid"])
    entered = enter(
        {**arrays, "later_midpoint": safe, "gap": arrays["ask"] - arrays["bid"]},
        mask,
        {"sign": is_sign, "weight": _not_negative, "gap": _not_negative},
    )
    get, known = entered.arrays, jnp.atleast_2d(known).T & entered.mask
    midpoint = (get["bid"] + get["ask"]) / 2
    later = jnp.where(known, get["later_midpoint"], midpoint)
    double = 2 * get["sign"]
    columns = [get["gap"], double * (get["price"] - midpoint)]
    columns += [double * (get["price"] - later), double * (later - midpoint)]
    values = jnp.stack(columns, 1)
    if relative:
        values = values / jnp.where(midpoint == 0, 1, midpoint)[:, None]
    every, some = (jnp.where(where, get["weight"], 0) for where in (entered.mask, known))
    weights = jnp.stack([every, every, some, some], 1)
    mean, influence = weighted_means(values, weights)
    rows = entered.mask.sum(0, dtype=jnp.int32)
    # With no midpoint of a later time there is nothing to tell realised spread and impact apart.
    rows = jnp.where((some > 0).any(0), rows, 0)
    causes = {Status.NONFINITE_INPUT: entered.bad}
    overlap = None if overlap is None else jnp.atleast_1d(overlap)
    return conclude(SPREADS, mean, influence, rows, causes, lags=lags, overlap=overlap, single=single)


@partial(jax.jit, static_argnames=("lags",))
def _quoted(arrays, mask, *, lags: int | None) -> Measured:
    gap = {"gap": arrays["ask"] - arrays["bid"], "duration": arrays["duration"]}
    entered = enter(gap, mask, {"gap": _not_negative, "duration": _not_negative})
    weight = entered.arrays["duration"]
    mean, influence = weighted_means(entered.arrays["gap"][:, None], weight[:, None])
    rows = jnp.where((weight > 0).any(0), entered.mask.sum(0, dtype=jnp.int32), 0)
    causes = {Status.NONFINITE_INPUT: entered.bad}
    return conclude(("quoted_spread",), mean, influence, rows, causes, lags=lags, single=mask.ndim == 1)
