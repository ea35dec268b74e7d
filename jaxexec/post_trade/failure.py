"""What failed lanes look like after a trade: many numbers spoilt at once, and how far sums of sizes may be off."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxexec.numerics.status import poison, taint


def spoilt(numbers: dict[str, Array], failed: Bool[Array, ""], inputs: Any) -> dict[str, Array]:
    """Scalars and vectors by name, NaN where failed, with NaN derivatives to every input (floating arrays) there.

    All go through one poison, since to the compiler each is a linear solve.
    """
    rows = [jnp.atleast_1d(jnp.where(failed & ~jnp.isfinite(x), 0, x)) for x in numbers.values()]
    joined = poison(jnp.concatenate(rows) + taint(inputs, failed), failed)
    parts = jnp.split(joined, np.cumsum([len(row) for row in rows])[:-1])
    return {name: part.reshape(x.shape) for (name, x), part in zip(numbers.items(), parts, strict=True)}


def slack_of(dtype: Any) -> float:
    """What sums of sizes may be off by rounding, relative to the order."""
    return 1e-9 if dtype == jnp.float64 else 1e-5


def is_positive(x: Array) -> Bool[Array, "..."]:
    """Whether traced numbers are positive and finite."""
    return (x > 0) & (x < jnp.inf)
