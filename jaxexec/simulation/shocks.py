"""Standard normal shocks, made where they are used: from counters, block by block, nothing kept.

Pseudo-random ones are JAX's own bits. The quasi-random ones replace, in each path, the one component that moves the
shortfall most: with a the direction of its gradient at no shock, ξ ← ξ + a (z − a·ξ), where z runs through a low-
discrepancy sequence (the first column of Imai and Tan's linear transformation, 2006). Sobol's first two dimensions are
enough, one for the price's shocks and one for the volume's; each replicate shifts them digitally, so that estimates
stay unbiased and their spread over replicates tells their error.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt

Sampling = Literal["pseudo", "antithetic", "quasi"]
SAMPLINGS = ("pseudo", "antithetic", "quasi")

# Paths of a block: on a CPU the shocks of a day then stay in the second cache, on a GPU every core has work.
_BLOCK, _BLOCK_ELSEWHERE = 256, 65_536

# Giles (2010), single precision: erf⁻¹ as polynomials in w = −log(1 − x²), x = 1 − 2p, highest power first.
_CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


class Shocks(NamedTuple):
    """Shocks of a block of paths, the paths last; single precision.

    Attributes:
        price: (parts, steps, paths), one part a step, or two where trades are done in its middle.
        variance: (steps, paths) of the variance's factor, or None.
        volume: (steps, paths) of the volume's factor, or None.
    """

    price: Float[Array, "parts steps paths"]
    variance: Float[Array, "steps paths"] | None
    volume: Float[Array, "steps paths"] | None


class Shape(NamedTuple):
    """How many shocks a path takes."""

    parts: int
    steps: int
    variance: bool
    volume: bool


def block_size(paths: int) -> int:
    """Paths to draw at a time, of `paths` in all."""
    return min(paths, _BLOCK if jax.default_backend() == "cpu" else _BLOCK_ELSEWHERE)


def key_of(seed: int | Array) -> Array:
    """A JAX key from an integer, or the key that was given.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key) and seed.ndim == 0:
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer of at least 0 or one key of jax.random.key, got {seed!r}")
    return jax.random.key(int(seed))


def draw(key: Array, shape: Shape, paths: int) -> Shocks:
    """Independent shocks of one block."""
    rows = shape.parts + shape.variance + shape.volume
    # XLA would make them anew for each of their readers.
    normal = lax.optimization_barrier(normals(jax.random.bits(key, (rows, shape.steps, paths), jnp.uint32)))
    rest = iter(normal[shape.parts :])
    return Shocks(
        normal[: shape.parts],
        next(rest) if shape.variance else None,
        next(rest) if shape.volume else None,
    )


def normals(bits: UInt[Array, "..."]) -> Float[Array, "..."]:
    """Φ⁻¹ of (i + ½)/2³², with one bit for the sign: symmetric, tails to 6.2, relative error below 1e-6.

    31 bits for the half below ½ keep what a single-precision uniform number near 1 would round away.
    """
    half = (bits & jnp.uint32(0x7FFFFFFF)).astype(jnp.int32).astype(jnp.float32)
    tail = (half + 0.5) * jnp.float32(2.0**-32)
    w = -jnp.log(4 * tail * (1 - tail))
    near = _polynomial(_CENTRE, w - 2.5)
    far = _polynomial(_TAIL, jnp.sqrt(w) - 3)
    size = jnp.where(w < 5, near, far) * (1 - 2 * tail) * jnp.float32(np.sqrt(2.0))
    return jnp.where(bits >> 31, size, -size)


def sobol(index: UInt[Array, " paths"]) -> UInt[Array, "2 paths"]:
    """The first two dimensions of Sobol's sequence as fractions of 2³²: van der Corput's, and Pascal's triangle."""
    first = second = jnp.zeros_like(index)
    vertical = np.uint32(1 << 31)
    for bit in range(32):
        chosen = (index >> bit) & 1 == 1
        first = jnp.where(chosen, first ^ jnp.uint32(1 << (31 - bit)), first)
        second = jnp.where(chosen, second ^ jnp.uint32(vertical), second)
        vertical = vertical ^ (vertical >> np.uint32(1))
    return jnp.stack([first, second])


def align(shocks: Shocks, direction: Shocks, points: UInt[Array, "2 paths"]) -> Shocks:
    """The shocks with their components along `direction` (without the axis of paths) replaced by those of `points`."""
    along = normals(points)
    volume = shocks.volume
    if volume is not None and direction.volume is not None:
        volume = _replaced(volume, direction.volume, along[1])
    return shocks._replace(price=_replaced(shocks.price, direction.price, along[0]), volume=volume)


def mirrored(shocks: Shocks) -> Shocks:
    """All shocks with the other sign."""
    return jax.tree.map(lambda x: -x, shocks)


def quiet(shape: Shape) -> Shocks:
    """No shocks, of one path."""
    nothing = jnp.zeros((shape.steps,), jnp.float32)
    price = jnp.zeros((shape.parts, shape.steps), jnp.float32)
    return Shocks(price, nothing if shape.variance else None, nothing if shape.volume else None)


def _replaced(shocks: Array, gradient: Array, along: Array) -> Array:
    length = jnp.sqrt(jnp.sum(gradient**2))
    unit = jnp.where(length > 0, gradient / jnp.where(length > 0, length, 1), 0).astype(shocks.dtype)
    change = jnp.where(length > 0, along - jnp.tensordot(unit, shocks, unit.ndim), 0).astype(shocks.dtype)
    return shocks + jnp.tensordot(unit, change, 0)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total = total * x + jnp.float32(c)
    return total
