"""A sample told by its sums and its histogram: merged as it streams, quantiles and tail means read off at the end.

Values are standardised by a pilot sample, so 4096 bins over ±16 standard deviations are 1/128 of one wide. Density is
taken as even within a bin: the error that brings is about 1e-5 of a standard deviation in the tails, far below what
sampling leaves. Extremes are kept, so that a constant is its own quantile.
"""

from typing import NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

BINS, REACH = 4096, 16.0
_WIDTH = 2 * REACH / BINS


class Histogram(NamedTuple):
    """Sums over standardised values u.

    Attributes:
        number: how many.
        total, square: Σ u and Σ u².
        counts, totals: number and sum of the values in each bin; the outermost also hold what lies beyond.
        least, greatest: extremes.
    """

    number: Int[Array, ""]
    total: Float[Array, ""]
    square: Float[Array, ""]
    counts: Int[Array, " bins"]
    totals: Float[Array, " bins"]
    least: Float[Array, ""]
    greatest: Float[Array, ""]

    @classmethod
    def empty(cls, like: Float[Array, ""]) -> Self:
        """Of no values, in the dtype of `like`."""
        # Made of `like`, so that it is batched where that is.
        zero = jnp.where(jnp.isfinite(like), 0, jnp.zeros_like(like))
        none = zero.astype(jnp.int32)
        bins = (BINS,)
        counts, totals = jnp.broadcast_to(none, bins), jnp.broadcast_to(zero, bins)
        return cls(none, zero, zero, counts, totals, zero + jnp.inf, zero - jnp.inf)

    def add(self, values: Float[Array, " paths"]) -> Self:
        """With more values."""
        bins = jnp.clip((values + REACH) / _WIDTH, 0, BINS - 1).astype(jnp.int32)
        return type(self)(
            self.number + values.shape[0],
            self.total + jnp.sum(values),
            self.square + jnp.sum(values**2),
            self.counts.at[bins].add(1),
            self.totals.at[bins].add(values),
            jnp.minimum(self.least, jnp.min(values)),
            jnp.maximum(self.greatest, jnp.max(values)),
        )

    def merge(self, other: Self) -> Self:
        """The values of both."""
        return type(self)(
            self.number + other.number,
            self.total + other.total,
            self.square + other.square,
            self.counts + other.counts,
            self.totals + other.totals,
            jnp.minimum(self.least, other.least),
            jnp.maximum(self.greatest, other.greatest),
        )

    def mean(self) -> Float[Array, ""]:
        """Of the standardised values."""
        return self.total / self._size

    def variance(self) -> Float[Array, ""]:
        """Unbiased, of the standardised values."""
        apart = self.square / self._size - self.mean() ** 2
        return jnp.maximum(apart, 0) * (self._size / jnp.maximum(self._size - 1, 1))

    def quantile(self, level: float) -> Float[Array, ""]:
        """The value that a share `level` of the sample lies below."""
        return self._place(level)[2]

    def tail_mean(self, level: float) -> Float[Array, ""]:
        """Mean of the greatest share 1 − level."""
        bins, inside, at = self._place(level)
        above = jnp.arange(BINS) > bins
        right = (bins.astype(at.dtype) + 1) * _WIDTH - REACH
        within = inside * (at + jnp.clip(right, at, self.greatest)) / 2
        beyond = jnp.sum(jnp.where(above, self.counts, 0)).astype(at.dtype) + inside
        total = jnp.sum(jnp.where(above, self.totals, 0)) + within
        return jnp.clip(total / jnp.maximum(beyond, 1e-30), at, self.greatest)

    def _place(self, level: float) -> tuple[Array, Array, Array]:
        """The bin that holds the quantile, how many of its values lie above, and the quantile."""
        dtype = self.total.dtype
        wanted = self._size * jnp.asarray(level, dtype)
        through = jnp.cumsum(self.counts)
        bins = jnp.minimum(jnp.sum(through.astype(dtype) < wanted), BINS - 1)
        here = jnp.arange(BINS) == bins
        held = jnp.sum(jnp.where(here, self.counts, 0)).astype(dtype)
        below = jnp.sum(jnp.where(here, through, 0)).astype(dtype) - held
        share = jnp.clip((wanted - below) / jnp.maximum(held, 1), 0, 1)
        at = (bins.astype(dtype) + share) * _WIDTH - REACH
        return bins, held * (1 - share), jnp.clip(at, self.least, self.greatest)

    @property
    def _size(self) -> Float[Array, ""]:
        return self.number.astype(self.total.dtype)


def edges() -> np.ndarray:
    """(bins + 1,) ends of the bins, in standard deviations."""
    return np.linspace(-REACH, REACH, BINS + 1)
