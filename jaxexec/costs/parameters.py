"""What the costs share: checked parameters, the spread taken off a marginal cost, the right-hand limit at zero."""

from collections.abc import Iterable
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.costs.contract import ExecutionCost
from jaxexec.numerics.arrays import as_float, check, unify

Cost = TypeVar("Cost", bound=ExecutionCost)


def checked_parameters(**values: ArrayLike) -> dict[str, Float[Array, "*#steps"]]:
    """Parameters of a closed form as arrays of one dtype: ψ at least 0, the others positive.

    Raises:
        ValueError: a wrong shape, or a concrete value that is not finite or breaks its sign; field and index named.
    """
    parameters = unify({name: as_float(name, value) for name, value in values.items()})
    for name, array in parameters.items():
        check_curve(name, array)
        if name == "psi":
            check(name, array, lambda v: v >= 0, "at least 0")
        else:
            check(name, array, lambda v: v > 0, "positive (the cost must be strictly convex)")
    return parameters


def check_curve(name: str, array: Array) -> None:
    """Raise unless `array` is a scalar or has shape (steps,), and is finite where that can be seen."""
    if array.ndim > 1:
        raise ValueError(f"{name} must be a scalar or have shape (steps,), got shape {array.shape}")
    check(name, array, np.isfinite, "finite")


def checked_cost(name: str, cost: Any) -> ExecutionCost:
    """`cost`, or a ValueError that names the field."""
    if not isinstance(cost, ExecutionCost):
        raise ValueError(f"{name} must be a jaxexec.ExecutionCost, got {type(cost).__name__}")
    return cost


def checked_costs(name: str, costs: Iterable[Any]) -> tuple[ExecutionCost, ...]:
    """`costs` as a tuple of at least one cost, or a ValueError that names field and index."""
    if isinstance(costs, ExecutionCost) or not isinstance(costs, Iterable):
        raise ValueError(f"{name} must be a sequence of costs, got {type(costs).__name__}")
    members = tuple(checked_cost(f"{name}[{i}]", cost) for i, cost in enumerate(costs))
    if not members:
        raise ValueError(f"{name} must name at least one cost")
    return members


def replaced(cost: Cost, /, **changes: Any) -> Cost:
    """`cost` with other parameters, unchecked."""
    names = tuple(changes)
    return eqx.tree_at(lambda c: [getattr(c, n) for n in names], cost, [changes[n] for n in names])


def beyond(marginal: Array, psi: Array) -> Array:
    """(|p| − ψ)⁺: the marginal cost that is left when the spread is paid."""
    return jnp.maximum(jnp.abs(marginal) - psi, 0)


def is_beyond(marginal: Array, psi: Array) -> Array:
    return (jnp.abs(marginal) > psi) | (psi == 0)


def speck(dtype: Any) -> float:
    """A rate that stands for 0+: beyond the kink, and large enough for powers to have slopes."""
    return float(jnp.finfo(dtype).tiny) * 1024
