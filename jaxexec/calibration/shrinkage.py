"""Many stocks pooled with shrinkage: the distribution over stocks is estimated, and each stock drawn towards it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxexec.calibration.lane_fit import root
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.calibration.transforms import slope, to_natural
from jaxexec.numerics.long_run import multiply, transpose
from jaxexec.numerics.moments import inverse_definite, times
from jaxexec.numerics.status import Status, is_usable, poison

_MOST_ROUNDS = 2000


class PooledFit(eqx.Module):
    """A fit a stock, shrunk, and the distribution over stocks that it is shrunk towards.

    Attributes:
        stocks: The shrunk fits; a stock whose own fit failed for want of data has the distribution's mean and spread.
        mean: Mean over stocks of the parameters without bounds, (p,).
        mean_covariance: Its covariance matrix, (p, p).
        spread: Covariance matrix over stocks, Ω, (p, p).
        own_weight: How much of each estimate is the stock's own: the diagonal of Ω(Ω + C)⁻¹, (stocks, p).
        rounds: Rounds of the search for mean and spread.
        status: OK; OK_INACCURATE where stocks differ by so much less than their errors that the search creeps, its last
            round less than 1e-4 of what an estimate spreads; MAX_STEPS where it did not settle at all;
            INSUFFICIENT_DATA with too few usable stocks.
    """

    stocks: ParameterFit
    mean: Float[Array, " p"]
    mean_covariance: Float[Array, "p p"]
    spread: Float[Array, "p p"]
    own_weight: Float[Array, "stocks p"]
    rounds: Int[Array, ""]
    status: Int[Array, ""]


@jax.jit
def shrink(fits: ParameterFit) -> PooledFit:
    """Empirical Bayes over a batch of fits. Traced.

    The parameters without bounds of stock s are taken to be drawn from N(m, Ω) over stocks, and its estimate from
    N(θ_s, C_s), C_s the estimate's own covariance. m and Ω are the most likely ones given all estimates (by the EM
    algorithm); a stock's shrunk estimate is the mean of θ_s given all that, its covariance that of θ_s, with the
    uncertainty of m in it and without that of Ω, which is small beyond some hundred stocks.

    Derivatives hold m and Ω fixed.

    Args:
        fits: One fit a stock, on one leading axis.

    Raises:
        ValueError: `fits` is no batch.

    Source: Efron and Morris, J. Am. Stat. Assoc. 70 (1975); Dempster, Laird and Rubin, J. R. Stat. Soc. B 39 (1977).
    """
    if fits.status.ndim != 1:
        raise ValueError("fits must be a batch with one leading axis: one fit a stock")
    p = len(fits.names)
    usable = is_usable(fits.status)
    dtype = fits.values.dtype
    count = usable.sum(dtype=jnp.int32).astype(dtype)
    # Batch last; a stock without an estimate of its own has weight zero.
    theta = jnp.where(usable[None], fits.free_values.T, 0)
    own = jnp.where(usable[None, None], jnp.moveaxis(fits.free_covariance, 0, -1), jnp.eye(p, dtype=dtype)[..., None])
    weight = usable.astype(dtype)
    known = lax.stop_gradient((theta, own))
    mean, spread, rounds, moved = _most_likely(*known, weight, jnp.maximum(count, 1))
    gain, inverse = _gain(own, spread, weight)
    shrunk = mean[:, None] + times(gain, theta - mean[:, None])
    precision, _ = inverse_definite((inverse * weight[None, None]).sum(2))
    of_mean = precision
    rest = jnp.eye(p, dtype=dtype)[..., None] - gain
    # (I − B)Ω is what is not known of a stock once its estimate is; (I − B)Cov(m)(I − B)ᵀ comes of the mean.
    lanes = (p, p, theta.shape[1])
    covariance = multiply(rest, jnp.broadcast_to(spread[..., None], lanes))
    covariance = covariance + multiply(multiply(rest, jnp.broadcast_to(of_mean[..., None], lanes)), transpose(rest))
    covariance = (covariance + transpose(covariance)) / 2
    few = count < p + 2
    status = jnp.where(moved <= 1e-4, Status.OK_INACCURATE, Status.MAX_STEPS)
    status = jnp.where(moved <= 1e3 * _tolerance(dtype), Status.OK, status)
    status = jnp.where(few, Status.INSUFFICIENT_DATA, status)
    lacking = (fits.status == Status.INSUFFICIENT_DATA) | (fits.status == Status.RANK_DEFICIENT)
    served = (usable | lacking | (fits.status == Status.MAX_STEPS)) & is_usable(status)
    stocks = _record(fits, shrunk, covariance, served)
    return PooledFit(
        stocks=stocks,
        mean=poison(mean, ~is_usable(status)),
        mean_covariance=poison(of_mean, ~is_usable(status)),
        spread=poison(spread, ~is_usable(status)),
        own_weight=jnp.where(usable[:, None], jnp.stack([gain[i, i] for i in range(p)], 1), 0),
        rounds=rounds,
        status=status.astype(jnp.int32),
    )


def _gain(own: Array, spread: Array, weight: Array) -> tuple[Array, Array]:
    """Ω(Ω + C)⁻¹ and (Ω + C)⁻¹, zero for a stock without an estimate."""
    total = own + spread[..., None]
    size = jnp.sqrt(jnp.stack([total[i, i] for i in range(total.shape[0])]))
    unit, _ = inverse_definite(total / (size[:, None] * size[None]))
    inverse = unit / (size[:, None] * size[None])
    gain = multiply(jnp.broadcast_to(spread[..., None], own.shape), inverse)
    return gain * weight[None, None], inverse


def _most_likely(theta: Array, own: Array, weight: Array, count: Array):
    """The m and Ω that make the estimates most likely, the rounds it took, and how far the last one went."""
    dtype = theta.dtype
    tolerance = _tolerance(dtype)
    mean = (theta * weight[None]).sum(1) / count
    apart = (theta - mean[:, None]) * weight[None]
    spread = (apart[:, None] * apart[None]).sum(2) / count
    identity = jnp.eye(theta.shape[0], dtype=dtype)
    # A parameter that all stocks share keeps a speck of spread to begin from.
    spread = spread + identity * (1e-6 * jnp.diagonal(spread) + float(jnp.finfo(dtype).tiny) ** 0.5)[None]

    error = (jnp.stack([own[i, i] for i in range(theta.shape[0])]) * weight[None]).sum(1) / count

    def unsettled(carry: tuple) -> Array:
        return (carry[3] > tolerance) & (carry[2] < _MOST_ROUNDS)

    def improved(carry: tuple) -> tuple:
        mean, spread, rounds, _ = carry
        gain, _ = _gain(own, spread, weight)
        shift = times(gain, theta - mean[:, None])
        left = spread[..., None] - multiply(gain, jnp.broadcast_to(spread[..., None], own.shape))
        new_mean = mean + (shift * weight[None]).sum(1) / count
        apart = shift + (mean - new_mean)[:, None]
        new = ((apart[:, None] * apart[None] + left) * weight[None, None]).sum(2) / count
        new = (new + new.T) / 2
        # Beside what a stock's estimate spreads altogether: a spread over stocks of nothing is neared ever more slowly.
        size = jnp.sqrt(jnp.diagonal(new) + error)
        moved = jnp.maximum(
            (jnp.abs(new_mean - mean) / size).max(), (jnp.abs(new - spread) / (size[:, None] * size[None])).max()
        )
        return new_mean, new, rounds + 1, moved

    start = (mean, spread, jnp.asarray(0, jnp.int32), jnp.asarray(jnp.inf, dtype))
    mean, spread, rounds, moved = lax.while_loop(unsettled, improved, start)
    return mean, spread, rounds, moved


def _tolerance(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps) ** 0.6


def _record(fits: ParameterFit, free: Array, covariance: Array, served: Array) -> ParameterFit:
    """The shrunk fits in natural units; lanes first."""
    by_free = jnp.stack([slope(free[i], bound) for i, bound in enumerate(fits.bounds)])
    natural = jnp.stack([to_natural(free[i], bound) for i, bound in enumerate(fits.bounds)])
    carried = covariance * by_free[:, None] * by_free[None]
    square = jnp.stack([carried[i, i] for i in range(free.shape[0])])
    errors = root(square)

    def spoilt(x: Array) -> Array:
        first = jnp.moveaxis(x, -1, 0)
        return poison(first, jnp.broadcast_to((~served).reshape(-1, *[1] * (first.ndim - 1)), first.shape))

    status = jnp.where(served, Status.OK, jnp.where(is_usable(fits.status), Status.INSUFFICIENT_DATA, fits.status))
    return eqx.tree_at(
        lambda f: (
            f.values,
            f.std_errors,
            f.covariance,
            f.free_values,
            f.free_covariance,
            f.degrees_of_freedom,
            f.status,
        ),
        fits,
        (
            *(spoilt(x) for x in (natural, errors, carried, free, covariance)),
            # What is known of a stock is mostly the distribution over all of them.
            jnp.full_like(fits.degrees_of_freedom, jnp.inf),
            status.astype(jnp.int32),
        ),
    )
