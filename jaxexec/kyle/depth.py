"""The market depth of one period: the largest root of its cubic.

Given what comes after, a period's equilibrium is one number, the depth x = √(Σ_t/s_t)/λ_t without units, and

    x³ = c₁x² + c₂x + c₃,    c₁ ≥ 0, c₂ > 0, c₃ ≥ −c₁c₂.

The cubic is convex from c₁/3 on and not positive at c₁: it has one root above c₁, the largest, and this is it. With
x = c₁/3 + 2hF, h² = c₁²/9 + c₂/3, it becomes 4F³ − 3F = C, Chebyshev's polynomial, so F = cosh(⅓ arcosh C), and the
cosine below C = 1. All of it is free of differences that cancel.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxexec.numerics.arrays import positive_log

# cos(⅔ arccos s) is analytic around [0, 1]: nine coefficients give 1e-7, which Halley's step makes 1e-19.
_START = [float(c) for c in np.polynomial.Chebyshev.interpolate(
    lambda s: np.cos(2 / 3 * np.arccos(s)), 8, domain=[0, 1]
).convert(kind=np.polynomial.Polynomial).coef]  # fmt: skip


@jax.custom_jvp
def depth_root(
    square: Float[Array, "..."], linear: Float[Array, "..."], constant: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The largest root of x³ = c₁x² + c₂x + c₃, elementwise and to rounding; exact derivatives of any order.

    Args:
        square: c₁ ≥ 0.
        linear: c₂ > 0.
        constant: c₃ ≥ −c₁c₂.
    """
    third = square / 3
    half_width = jnp.sqrt(third * third + linear / 3)
    level = (third * third * third + (third * linear + constant) / 2) / (half_width * half_width * half_width)
    return third + 2 * half_width * _chebyshev_third(level)


@depth_root.defjvp
def _depth_root_jvp(primals, tangents):
    square, linear, _ = primals
    x = depth_root(*primals)
    slope = 3 - (2 * square + linear / x) / x
    return x, (tangents[0] + (tangents[1] + tangents[2] / x) / x) / slope


def _chebyshev_third(level: Float[Array, "..."]) -> Float[Array, "..."]:
    """F ≥ ½ with 4F³ − 3F = C ≥ −1."""
    half_angle = jnp.sqrt(jnp.maximum((1 + level) / 2, 0))  # cos(θ/2) where C = cos θ
    inside = jnp.full_like(level, _START[-1])
    for coefficient in _START[-2::-1]:
        inside = inside * half_angle + coefficient
    beyond = jnp.maximum(half_angle, 1)
    grown = jnp.exp(positive_log(beyond + jnp.sqrt(beyond * beyond - 1)) * (2 / 3))
    near = jnp.where(level > 1, (grown + 1 / grown) / 2, inside)
    miss, slope = near * (4 * near * near - 3) - level, 12 * near * near - 3
    # Halley's step; the slope is zero only at C = −1, which infinitely many insiders would need.
    return near - miss * slope / jnp.maximum(slope * slope - 12 * near * miss, jnp.finfo(level.dtype).tiny)
