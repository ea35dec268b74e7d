"""Fills against prices that a desk is measured by: arrival, interval VWAP and TWAP, close; and these from a tape.

The functions of a path take NumPy arrays too, and then stay on the host.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.numerics.arrays import as_float, check, namespace, unify
from jaxexec.numerics.status import Status
from jaxexec.post_trade.executions import Fills, is_price
from jaxexec.post_trade.failure import is_positive, spoilt

Path = Array | np.ndarray
"""An array of JAX or of NumPy."""


class Slippage(eqx.Module):
    """What fills cost against a benchmark price; positive where the benchmark was better.

    Attributes:
        cost: Σ n_i (B − p_i), currency.
        bps: cost over |E| B, basis points.
        status: OK; INSUFFICIENT_DATA where nothing was filled; NONFINITE_INPUT where a traced benchmark, price or size
            is not finite or has the wrong sign.
    """

    cost: Float[Array, "*benchmarks"]
    bps: Float[Array, "*benchmarks"]
    status: Int[Array, "*benchmarks"]


def slippage(fills: Fills, benchmark_price: ArrayLike) -> Slippage:
    """What the filled shares cost against benchmark prices, fees left out. Traced and differentiable.

    Args:
        fills: what was done.
        benchmark_price: B, currency per share, > 0; a scalar or (benchmarks,): a benchmark that fails leaves the
            others as they are.

    Raises:
        ValueError: another shape, or a concrete benchmark that is not positive and finite; its index is named.
    """
    if not isinstance(fills, Fills):
        raise ValueError(f"fills must be a jaxexec.Fills, got {type(fills).__name__}")
    prices = as_float("benchmark_price", benchmark_price)
    if prices.ndim > 1:
        raise ValueError(f"benchmark_price must be a scalar or have shape (benchmarks,), got shape {prices.shape}")
    check("benchmark_price", prices, is_price, "positive and finite")
    joined = unify({"fills": fills, "prices": prices}, final=True)
    return (_slippages if prices.ndim else _slippage)(joined["fills"], joined["prices"])


@jax.jit
def _slippage(fills: Fills, price: Float[Array, ""]) -> Slippage:
    side = jnp.sign(jnp.sum(jnp.where(fills.mask, fills.sizes, 0)))
    right = (fills.sizes * side > 0) & jnp.isfinite(fills.sizes) & is_positive(fills.prices)
    sound = is_positive(price) & jnp.all(right | ~fills.mask)
    status = jnp.where(jnp.any(fills.mask), Status.OK, Status.INSUFFICIENT_DATA)
    status = jnp.where(sound, status, Status.NONFINITE_INPUT)
    failed = status != Status.OK
    live = fills.mask & ~failed
    benchmark = jnp.where(failed, 1, price)
    sizes, prices = jnp.where(live, fills.sizes, 0), jnp.where(live, fills.prices, benchmark)
    cost = jnp.sum(sizes * (benchmark - prices))
    value = jnp.where(failed, 1, jnp.abs(jnp.sum(sizes))) * benchmark
    numbers = spoilt({"cost": cost, "bps": 1e4 * cost / value}, failed, (fills.prices, fills.sizes, price))
    return Slippage(**numbers, status=status.astype(jnp.int32))


_slippages = jax.jit(jax.vmap(_slippage, in_axes=(None, 0)))


def prevailing_price(
    times: Float[Path, " points"], prices: Float[Path, " points"], at: Float[Path, "*instants"]
) -> Float[Path, "*instants"]:
    """The last price of a path at or before each instant; NaN before the first.

    Args:
        times: (points,) not decreasing; of equal ones the last counts.
        prices: (points,) the path, each price good until the next.
        at: instants, on the same clock; any shape.
    """
    xp = namespace(times, prices, at)
    place = xp.searchsorted(times, at, side="right") - 1
    return xp.where(place >= 0, prices[xp.maximum(place, 0)], xp.nan)


def interval_twap(
    times: Float[Path, " points"], prices: Float[Path, " points"], start: ArrayLike, end: ArrayLike
) -> Float[Path, ""]:
    """The time-weighted average of a path over an interval.

    Args:
        times: (points,) not decreasing.
        prices: (points,) the path, each price good until the next; where it is NaN, and before its first point, time
            does not count.
        start: where the interval begins.
        end: where it ends.

    Returns:
        ∫ price dt / ∫ dt; NaN where no price is known for any length of time.
    """
    xp = namespace(times, prices, start, end)
    begin = xp.clip(times, start, end)
    weight = xp.concatenate([begin[1:], xp.reshape(xp.asarray(end, dtype=begin.dtype), (1,))]) - begin
    return _mean(xp, prices, weight)


def interval_vwap(
    times: Float[Path, " trades"],
    prices: Float[Path, " trades"],
    sizes: Float[Path, " trades"],
    start: ArrayLike,
    end: ArrayLike,
) -> Float[Path, ""]:
    """The volume-weighted average price of the trades from `start` to `end`, both included.

    Args:
        times: (trades,) in any order.
        prices: (trades,) currency per share; trades whose price is NaN are left out.
        sizes: (trades,) shares, ≥ 0.
        start: where the interval begins.
        end: where it ends.

    Returns:
        Σ p n / Σ n; NaN where nothing traded.
    """
    xp = namespace(times, prices, sizes, start, end)
    return _mean(xp, prices, xp.where((times >= start) & (times <= end), sizes, 0))


def _mean(xp: Any, prices: Any, weight: Any) -> Any:
    """The weighted mean of the prices that are known, from differences to one of them."""
    counted = xp.isfinite(prices) & (weight > 0)
    level = xp.max(xp.where(counted, prices, -xp.inf), initial=-xp.inf)
    level = xp.where(xp.isfinite(level), level, 0)
    weight = xp.where(counted, weight, 0)
    total = xp.sum(weight)
    apart = xp.sum(weight * xp.where(counted, prices - level, 0))
    return xp.where(total > 0, level + apart / xp.where(total > 0, total, 1), xp.nan)
