"""The dtype policy, and elementwise functions whose derivatives are finite where they should be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def is_concrete(x: Any) -> bool:
    """True where the value of `x` can be looked at (it is not being traced)."""
    return not isinstance(x, Tracer)


def as_float(name: str, value: ArrayLike) -> Float[Array, "..."]:
    """`value` as a floating array; integers are promoted, Python scalars stay weakly typed.

    Raises:
        ValueError: a float64 NumPy array while JAX's 64-bit mode is off (it would silently lose half its digits),
            or a value that is not real.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore
        raise ValueError(
            f"{name} is a float64 NumPy array, but JAX runs in 32 bits. Either switch 64 bits on before the first "
            f"array, jax.config.update('jax_enable_x64', True), or pass {name}.astype('float32')."
        )
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        dtype = value.dtype if value.dtype.kind == "f" else jnp.result_type(float)
        return as_device_array(value.astype(dtype))
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a real number or an array of them, got {value!r}") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or array.dtype == jnp.bool_:
        raise ValueError(f"{name} must be real, got dtype {array.dtype}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.result_type(float))
    return array


def as_parameters(tree: Any) -> Any:
    """A user's pytree of parameters as floating arrays of one dtype.

    Raises:
        ValueError: a leaf is not real, or concrete and not finite; its place in `parameters` is named.
    """

    def converted(path: Any, leaf: ArrayLike) -> Array:
        name = "parameters" + jax.tree_util.keystr(path)
        array = as_float(name, leaf)
        check(name, array, np.isfinite, "finite")
        return array

    return unify(jax.tree_util.tree_map_with_path(converted, tree))


def as_device_array(x: np.ndarray) -> Array:
    """`x` on the default device, a known value even within a trace. Unlike `jnp.asarray` it compiles nothing."""
    with jax.ensure_compile_time_eval():
        return jax.device_put(x)


def unify(tree: Any, *, final: bool = False) -> Any:
    """All floating leaves of `tree` in one dtype: the widest of those that did not come from Python numbers.

    Normalising where things are built keeps Python numbers from widening float32 arrays and from compiling the same
    program twice. While every leaf is a Python number (weakly typed, or a NumPy array made of them) the choice stays
    open, unless this is the `final` word.
    """
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    strong = [x.dtype for x in leaves if not _is_open(x)]
    if not strong and not final:
        return tree
    dtype = max(strong, key=lambda d: jnp.finfo(d).bits) if strong else jnp.result_type(float)

    def cast(x):
        if not jnp.issubdtype(x.dtype, jnp.floating) or (x.dtype == dtype and not _is_open(x)):
            return x
        if is_concrete(x):  # on the host, where no programme is compiled for each new shape
            return as_device_array(np.asarray(x).astype(dtype))
        return lax.convert_element_type(x, dtype)

    return jax.tree.map(cast, tree)


def _is_open(x: Any) -> bool:
    return isinstance(x, np.ndarray) or getattr(x, "weak_type", False)


def namespace(*arrays: Any) -> Any:
    """`jax.numpy` where one of the arrays is JAX's, else NumPy: what is on the host stays there, uncompiled."""
    return jnp if any(isinstance(x, jax.Array) for x in arrays) else np


def check(name: str, value: Array, valid: Any, requirement: str) -> None:
    """Raise on a concrete `value` that breaks `requirement`, naming the field, the index and the offender.

    Args:
        valid: function of a NumPy array that is True where an entry is allowed. Not called while tracing.
    """
    if not is_concrete(value):
        return
    host = np.asarray(value)
    bad = ~np.asarray(valid(host))
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"{name}[{', '.join(map(str, index))}]" if index else name
        raise ValueError(f"{where} must be {requirement}, got {host[index]}")


def safe_power(x: Float[Array, "..."], exponent: Float[Array, "..."]) -> Float[Array, "..."]:
    """x**exponent for x >= 0 and exponent > 0, zero (with zero derivatives) where x <= 0 or subnormal.

    Masked before and after, so that neither x**(exponent-1) nor log(0) reaches a derivative. NaN stays NaN.
    """
    positive = ~(x < jnp.finfo(x.dtype).tiny)
    inside = jnp.where(positive, x, 1)
    return jnp.where(positive, jnp.exp(exponent * positive_log(inside)), 0)


@jax.custom_jvp
def positive_log(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """log x for x > 0, to 2 ulp.

    In float64 from the bits of x: x = 2^e m with m in [√½, √2), log m = 2 artanh((m − 1)/(m + 1)) by its series to
    the 21st power (truncation below 2e-17). It vectorises where XLA's own float64 logarithm does not. Subnormal
    numbers count as zero.
    """
    if x.dtype != jnp.float64:
        return jnp.log(x)
    bits = lax.bitcast_convert_type(x, jnp.int64)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    mantissa = lax.bitcast_convert_type(bits - (exponent << 52), jnp.float64)
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    series = jnp.full_like(square, 2 / 21)
    for odd in range(19, 1, -2):
        series = series * square + 2 / odd
    log = exponent.astype(jnp.float64) * _LOG_2 + ratio * (series * square + 2)
    tiny = jnp.finfo(jnp.float64).tiny
    special = jnp.where(x >= tiny, jnp.inf, jnp.where((x >= 0) & (x < tiny), -jnp.inf, jnp.nan))
    return jnp.where((x >= tiny) & (x < jnp.inf), log, special)


@positive_log.defjvp
def _positive_log_jvp(primals, tangents):
    (x,), (change,) = primals, tangents
    return positive_log(x), change / x


_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_LOG_2 = 0.6931471805599453
