"""What the closed forms share: scalar parameters, their signs, and the status of those that are traced."""

import functools
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from jaxexec.numerics.arrays import as_float, check, unify


def scalars(
    values: dict[str, ArrayLike], *, positive: Collection[str] = (), nonnegative: Collection[str] = ()
) -> dict[str, Array]:
    """Scalars of one dtype.

    Raises:
        ValueError: one is not a scalar, or concrete and not finite or of the wrong sign; the field is named.
    """
    arrays = {name: as_float(name, value) for name, value in values.items()}
    for name, array in arrays.items():
        if array.ndim:
            raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for a batch")
        check(name, array, np.isfinite, "finite")
        if name in positive:
            check(name, array, lambda v: v > 0, "positive")
        if name in nonnegative:
            check(name, array, lambda v: v >= 0, "at least 0")
    return unify(arrays, final=True)


def are_valid(
    arrays: dict[str, Array], *, positive: Collection[str] = (), nonnegative: Collection[str] = ()
) -> Bool[Array, ""]:
    """Whether traced scalars are finite and of the signs that concrete ones must have."""
    tests = [jnp.isfinite(v) for v in arrays.values()]
    tests += [arrays[name] > 0 for name in positive]
    tests += [arrays[name] >= 0 for name in nonnegative]
    return functools.reduce(jnp.logical_and, tests)


def check_steps(steps: Any) -> None:
    """Raise unless `steps` is a positive integer."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
