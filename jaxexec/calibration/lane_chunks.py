"""Many small fits side by side: lanes first outside, last within a chunk that stays in cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def over_chunks(work: Callable[[Any], Any], inputs: Any, chunk: int) -> Any:
    """`work`, which has its lanes last, on all lanes of `inputs`, lanes first, `chunk` of them at a time.

    A loop in `work` ends when the slowest lane of its own chunk has; results have their lanes first.
    """
    lanes = jax.tree.leaves(inputs)[0].shape[0]

    def turned(inputs: Any) -> Any:
        found = work(jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), inputs))
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), found)

    if chunk >= lanes:
        return turned(inputs)

    def taken(rows: Array) -> Any:
        # Rows are gathered, not sliced: the compiler would slice again in everything that reads them.
        return turned(jax.tree.map(lambda x: x.at[rows].get(mode="clip"), inputs))

    chunks = -(-lanes // chunk)
    found = lax.map(taken, jnp.arange(chunks * chunk, dtype=jnp.int32).reshape(chunks, chunk))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:lanes], found)
