"""How a failed equilibrium passes through what is made of it: NaN out, and derivatives that a mask keeps at zero."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxexec.kyle.equilibrium import Equilibrium
from jaxexec.numerics.status import Status, poison, replace_where, taint

Tree = TypeVar("Tree")


def sound(equilibrium: Equilibrium) -> tuple[Equilibrium, Bool[Array, ""]]:
    """The equilibrium, with harmless numbers in place of a failed one's, and whether it failed. One, not a batch."""
    failed = equilibrium.status > Status.LOCAL
    return harmless(equilibrium, failed), failed


def harmless(tree: Tree, failed: Bool[Array, ""]) -> Tree:
    """`tree` with ones in place of its numbers where `failed`; derivatives pass straight through."""
    numbers, others = eqx.partition(tree, eqx.is_inexact_array)
    made = jax.tree.map(lambda x: replace_where(jnp.broadcast_to(failed, x.shape), x, jnp.ones_like(x)), numbers)
    return eqx.combine(made, others)


def spoilt(answers: Tree, failed: Bool[Array, ""], inputs: Any) -> Tree:
    """`answers`, NaN where `failed`; their NaN derivatives reach all `inputs`, if anything is asked of them."""
    everywhere = taint(eqx.filter(inputs, eqx.is_inexact_array), failed)

    def lost(x: Array) -> Array:
        # What is poisoned must be finite in failed lanes, if gradients beside them are to stay finite.
        return poison(jnp.where(failed, 0, x) + everywhere.astype(x.dtype), jnp.broadcast_to(failed, x.shape))

    return jax.tree.map(lost, answers)


__all__ = ["harmless", "sound", "spoilt"]
