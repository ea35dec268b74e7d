"""The dtype policy, and elementwise functions whose derivatives are finite where they should be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a real number or an array of them, got {value!r}") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or array.dtype == jnp.bool_:
        raise ValueError(f"{name} must be real, got dtype {array.dtype}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.result_type(float))
    return array


def unify(tree: Any, *, final: bool = False) -> Any:
    """All floating leaves of `tree` in one dtype: the widest of those that did not come from Python numbers.

    Normalising where things are built keeps Python numbers from widening float32 arrays and from compiling the same
    program twice. While every leaf is a Python number the choice stays open, unless this is the `final` word.
    """
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    strong = [x.dtype for x in leaves if not getattr(x, "weak_type", False)]
    if not strong and not final:
        return tree
    dtype = max(strong, key=lambda d: jnp.finfo(d).bits) if strong else jnp.result_type(float)

    def cast(x):
        return jax.lax.convert_element_type(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)


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
    """x**exponent for x >= 0, zero (with zero derivatives) where x <= 0.

    Masked before and after, so that neither x**(exponent-1) nor log(0) reaches a derivative.
    """
    positive = x > 0
    inside = jnp.where(positive, x, 1)
    return jnp.where(positive, jnp.exp(exponent * jnp.log(inside)), 0)
