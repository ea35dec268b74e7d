"""Realised variance of a day, four ways: each is wrong in its own manner, and their differences are telling."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.impact.inference import precision_flags
from jaxexec.impact.measured import check_arrays, enter, poisoned
from jaxexec.numerics.status import Status

REALISED_VARIANCE = ("close_to_close", "parkinson", "bipower", "two_scale")
_FEWEST = 5  # trades: two of each of two subgrids and one more
_RANGE = 4 * math.log(2)  # E[range²] of a Brownian motion over its variance
_RANGE_FOURTH = 9 * 1.2020569031595942 / _RANGE**2  # E[range⁴] = 9 ζ(3), Parkinson
_BIPOWER = math.pi**2 / 4 + math.pi - 3


class RealisedVariance(eqx.Module):
    """Realised variances of one day (no leading axis) or of a batch of days; `result["two_scale"]` is one of them.

    Attributes:
        values: In the order of `names`, currency² per day, (..., 4). "two_scale" can be negative where there are few
            trades and much noise.
        std_errors: For prices without jumps; see `realised_variance_arrays`, (..., 4).
        n: Trades, (...).
        subgrids: Of the two-scale estimator, (...).
        status: `Status`, (...).
        names: `REALISED_VARIANCE`.
    """

    values: Float[Array, "*days 4"]
    std_errors: Float[Array, "*days 4"]
    n: Int[Array, "*days"]
    subgrids: Int[Array, "*days"]
    status: Int[Array, "*days"]
    names: tuple[str, ...] = eqx.field(static=True, default=REALISED_VARIANCE)

    def __getitem__(self, name: str) -> Float[Array, "*days"]:
        if name not in self.names:
            raise KeyError(f"{name!r} is none of the measures {', '.join(self.names)}")
        return self.values[..., self.names.index(name)]

    @property
    def flags(self) -> Int[Array, "*days"]:
        """Bits of `Flag`, int32: FLOAT32 where the sums were taken in 32 bits."""
        return precision_flags(self.values, self.status)


def realised_variance_arrays(
    price: ArrayLike,
    elapsed: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    intervals: int = 78,
    subgrids: int | None = None,
) -> RealisedVariance:
    """Variance of a day's price changes by four estimators. With r_i the change over the i-th of m equal intervals,

        close_to_close   Σ r_i²
        parkinson        Σ (high_i − low_i)² / (4 ln 2)
        bipower          (π/2) m/(m−1) Σ |r_i| |r_{i−1}|
        two_scale        (1 − n̄/n)⁻¹ [ (1/K) Σ (p_j − p_{j−K})² − (n̄/n) Σ (p_j − p_{j−1})² ],   n̄ = (n − K + 1)/K

    where the last runs over all n price changes from trade to trade. Noise (bounce, ticks) of variance ν² adds 2 m ν²
    to the first and inflates the second; the last is free of noise that is independent from trade to trade. Ranges are
    too short where trades are few. Jumps count in all but bipower.

    Sources: Andersen, Bollerslev, Diebold and Labys (J. American Statistical Ass. 96, 2001); Parkinson (J. Business 53,
    1980); Barndorff-Nielsen and Shephard (J. Financial Econometrics 2, 2004); Zhang, Mykland and Aït-Sahalia (J.
    American Statistical Ass. 100, 2005), with the small-sample factor of their section 4.

    Args:
        price: Trade prices or midpoints of one day, in the order of time, currency, (trades,) or (days, trades). For
            relative variance pass logarithms.
        elapsed: Elapsed part of the session at each trade, 0 to 1, not decreasing, same shape.
        mask: True for a real trade, same shape.
        intervals: m, at least 4. A price holds until the next trade; before the first trade the first price does.
        subgrids: K, at least 2; None estimates the best K = n^{2/3} (12 ν⁴/∫σ⁴)^{1/3} of the paper, between 2 and n/3.

    Returns:
        `RealisedVariance`. Standard errors are those of prices without jumps: √(⅔ Σ r⁴) for the first
        (Barndorff-Nielsen and Shephard 2002), the variance of a squared range, that of bipower variation with a
        quarticity of four neighbours, and for two scales that of steady volatility with independent noise. Status
        NONFINITE_INPUT (also an `elapsed` outside 0 to 1 or decreasing), INSUFFICIENT_DATA (fewer than five trades, or
        than 2 K + 1).

    Raises:
        ValueError: Shapes, `intervals` or `subgrids` are not as above.
    """
    for name, value, least in (("intervals", intervals, 4), ("subgrids", 2 if subgrids is None else subgrids, 2)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")
    arrays, mask = check_arrays(mask, price=price, elapsed=elapsed)
    subgrids = None if subgrids is None else int(subgrids)
    return _estimate(arrays, mask, intervals=int(intervals), subgrids=subgrids)


@partial(jax.jit, static_argnames=("intervals", "subgrids"))
def _estimate(arrays, mask, *, intervals: int, subgrids: int | None) -> RealisedVariance:
    entered = enter(arrays, mask, {"elapsed": lambda x: (x >= 0) & (x <= 1)})
    rows = jax.vmap(partial(_one_day, intervals=intervals, subgrids=subgrids))
    # An empty slot at the end, so that a day without trades has one.
    slot = ((0, 0), (0, 0 if mask.shape[-1] else 1))
    price, elapsed, real = (
        jnp.pad(x.T, slot) for x in (entered.arrays["price"], entered.arrays["elapsed"], entered.mask)
    )
    values, errors, n, used, ordered = rows(price, elapsed, real)
    status = jnp.select(
        [entered.bad | ~ordered, n < jnp.maximum(_FEWEST, 2 * used + 1), ~jnp.isfinite(values + errors).all(1)],
        [jnp.full_like(n, s) for s in (Status.NONFINITE_INPUT, Status.INSUFFICIENT_DATA, Status.NONFINITE_INTERNAL)],
        jnp.full_like(n, Status.OK),
    )
    failed = status > Status.LOCAL
    result = RealisedVariance(poisoned(values, failed), poisoned(errors, failed), n, used, status)
    return jax.tree.map(lambda x: x[0], result) if mask.ndim == 1 else result


def _one_day(price, elapsed, mask, *, intervals: int, subgrids: int | None):
    """Values, errors, trades, subgrids, and whether time runs forward; no trade is missing once they are moved up."""
    n = mask.sum(dtype=jnp.int32)
    front = jnp.argsort(~mask, stable=True)
    place = jnp.arange(price.shape[0], dtype=jnp.int32)
    real = place < n
    price, elapsed = price[front], jnp.where(real, elapsed[front], 2)
    ordered = (jnp.diff(elapsed) >= 0).all()
    level, width = _sampled(price, elapsed, real, n, intervals)
    changes = jnp.diff(level)
    size = jnp.abs(changes)
    m = intervals
    products = size[1:] * size[:-1]
    squares, fourth = (changes**2).sum(), (changes**4).sum()
    parkinson = width**2 / _RANGE
    bipower = math.pi / 2 * m / (m - 1) * products.sum()
    quarticity = math.pi**2 / 4 * m * m / (m - 3) * (products[2:] * products[:-2]).sum()
    two_scale, two_scale_error, used = _two_scales(price, elapsed, real, n, squares, m / 3 * fourth, subgrids)
    values = jnp.stack([squares, parkinson.sum(), bipower, two_scale])
    variances = [
        2 / 3 * fourth,
        (_RANGE_FOURTH - 1) / _RANGE_FOURTH * (parkinson**2).sum(),
        _BIPOWER / m * quarticity,
    ]
    errors = jnp.concatenate([_root(jnp.stack(variances)), two_scale_error[None]])
    return values, errors, n, used, ordered


def _sampled(price, elapsed, real, n, intervals: int) -> tuple[Array, Array]:
    """Prices at the ends of the intervals, (intervals + 1,), and the range within each, (intervals,)."""
    marks = jnp.arange(1, intervals + 1, dtype=elapsed.dtype) / intervals
    known = jnp.searchsorted(elapsed, marks, side="right")
    last = jnp.clip(jnp.minimum(known, n) - 1, 0)
    level = jnp.concatenate([price[:1], price[last]])
    interval = jnp.searchsorted(marks, elapsed, side="left")
    interval = jnp.where(real, interval, intervals)
    highest, lowest = (_extreme(side * price, interval, real, intervals) for side in (1, -1))
    opening = level[:-1]
    return level, jnp.maximum(highest, opening) + jnp.maximum(lowest, -opening)


def _extreme(value, interval, real, intervals: int) -> Array:
    """Largest value in each interval, −inf where it has none; the derivative goes to the trade that made it."""
    held = lax.stop_gradient(jnp.where(real, value, -jnp.inf))
    top = jax.ops.segment_max(held, interval, intervals + 1)
    at = jnp.where(real & (held == top[interval]), jnp.arange(len(value), dtype=jnp.int32), -1)
    winner = jax.ops.segment_max(at, interval, intervals + 1)[:intervals]
    return jnp.where(winner >= 0, value[jnp.maximum(winner, 0)], -jnp.inf)


def _two_scales(price, elapsed, real, n, squares, quarticity, subgrids: int | None) -> tuple[Array, Array, Array]:
    """The two-scale estimate, its error and K; `squares` and `quarticity` are those of the intervals.

    The variance is that of the estimator as a quadratic form, for steady volatility: squares and products of true
    changes, noise with them, and noise with itself. For many trades it is the paper's 8 n ν⁴/K² + (4/3)(K/n) ∫σ⁴.
    """
    dtype = price.dtype
    place = jnp.arange(price.shape[0], dtype=jnp.int32)
    changes = jnp.maximum(n - 1, 1).astype(dtype)
    every = jnp.where(real & (place > 0), price - price[jnp.maximum(place - 1, 0)], 0)
    every = (every**2).sum()
    if subgrids is None:
        noise = jnp.maximum((every - squares) / (2 * changes), 0)
        ratio = lax.stop_gradient(12 * noise**2 / jnp.where(quarticity > 0, quarticity, 1))
        best = jnp.cbrt(ratio) * jnp.cbrt(changes) ** 2
        used = jnp.clip(jnp.round(best), 2, jnp.maximum(changes // 3, 2)).astype(jnp.int32)
    else:
        used = jnp.full_like(n, subgrids)
    width = used.astype(dtype)
    apart = jnp.where(real & (place >= used), price - price[jnp.maximum(place - used, 0)], 0)
    slow = (apart**2).sum() / width
    share = (changes - width + 1) / (width * changes)
    value = (slow - share * every) / jnp.where(share < 1, 1 - share, 1)
    # The intervals know how uneven the variance is, the estimate how large: noise is in the first, not in the second.
    fourth = quarticity / jnp.where(squares > 0, squares, 1) ** 2 * value**2
    noise = jnp.maximum((every - value) / (2 * changes), 0)
    gaps = jnp.where(real & (place > 0), elapsed - elapsed[jnp.maximum(place - 1, 0)], 0)
    rest = 1 - 1 / width
    variance = 2 * rest**2 * fourth * (gaps**2).sum()
    variance = variance + 2 / 3 * rest * (2 * width - 1) * fourth / changes
    variance = variance + 8 / width * rest * noise * jnp.maximum(value, 0) + 8 * changes * (noise / width) ** 2
    return value, _root(variance / rest**2), used


def _root(x: Array) -> Array:
    """√x with a zero derivative at 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
