"""Hyperbolic functions of a root as power series in what stands under it: smooth through zero, trigonometric below."""

import jax.numpy as jnp
from jaxtyping import Array, Float

_TERMS = 14  # to rounding for −π² < z < 4


def sinhc(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """sinh √z / √z = Σ zⁿ/(2n + 1)!, to rounding for −π² < z < 4; below zero it is sin √−z / √−z."""
    return 1 + z * sinhc_slope(z)


def sinhc_slope(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """(sinh √z / √z − 1)/z = Σ zⁿ/(2n + 3)!, without the cancellation."""
    total = jnp.ones_like(z)
    for n in range(_TERMS, 0, -1):
        total = 1 + total * (z * (1 / ((2 * n + 2) * (2 * n + 3))))
    return total / 6


def cosh_root(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """cosh √z = Σ zⁿ/(2n)!, to rounding for −π²/4 < z < 4; below zero it is cos √−z."""
    total = jnp.ones_like(z)
    for n in range(_TERMS, 0, -1):
        total = 1 + total * (z * (1 / (2 * n * (2 * n - 1))))
    return total
