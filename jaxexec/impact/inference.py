"""What is reported of estimates: standard errors, t, p, the status of each lane, and NaN where it failed."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.status import Flag, Status, poison


def inference(
    coefficients: Float[Array, "k lanes"], covariance: Float[Array, "k k lanes"]
) -> tuple[Float[Array, "k lanes"], Float[Array, "k lanes"], Float[Array, "k lanes"]]:
    """Standard errors, t and the two-sided normal p; t is infinite where the error is zero (a perfect fit)."""
    errors = square_root(jnp.stack([covariance[i, i] for i in range(covariance.shape[0])]))
    t = jnp.where(errors > 0, coefficients / jnp.where(errors > 0, errors, 1), jnp.sign(coefficients) * jnp.inf)
    finite = jnp.isfinite(t)
    p = lax.erfc(jnp.abs(jnp.where(finite, t, 0)) / math.sqrt(2))
    return errors, t, jnp.where(finite, p, jnp.where(jnp.isnan(t), jnp.nan, 0))


def square_root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """√x with a zero derivative at 0 (a perfect fit)."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def first_status(shape: tuple[int, ...], *cases: tuple[Bool[Array, " lanes"], Status]) -> Int[Array, " lanes"]:
    """The status of the first case that holds, OK where none does; the causes that explain others come first."""
    values = [jnp.full(shape, status, jnp.int32) for _, status in cases]
    return jnp.select([case for case, _ in cases], values, jnp.full(shape, Status.OK, jnp.int32))


def precision_flags(values: Float[Array, "..."], status: Int[Array, "*stocks"]) -> Int[Array, "*stocks"]:
    """Bits of `Flag` of estimates that were computed in the precision of `values`, int32 in the shape of `status`."""
    single = jnp.dtype(values.dtype) == jnp.float32
    return jnp.full(status.shape, Flag.FLOAT32 if single else Flag.NONE, jnp.int32)


def all_finite(values: Sequence[Float[Array, "..."]]) -> Bool[Array, " lanes"]:
    """Lanes, the last axis, in which every value is finite."""
    return jnp.stack([jnp.isfinite(x).all(tuple(range(x.ndim - 1))) for x in values]).all(0)


def poisoned(values: Sequence[Array], failed: Bool[Array, " lanes"]) -> list[Array]:
    """All values, NaN in failed lanes, lanes first; poisoned in one piece, which compiles nine times faster."""
    lanes = failed.shape[0]
    flat = jnp.concatenate([x.reshape(math.prod(x.shape[:-1]), lanes) for x in values])
    lost = jnp.broadcast_to(failed[None], flat.shape)
    # `poison` wants finite numbers inside failed lanes.
    flat = poison(jnp.where(lost & ~jnp.isfinite(flat), 0, flat), lost).T
    ends = np.cumsum([math.prod(x.shape[:-1]) for x in values])
    parts = jnp.split(flat, ends[:-1], axis=1)
    return [part.reshape(lanes, *x.shape[:-1]) for part, x in zip(parts, values, strict=True)]
