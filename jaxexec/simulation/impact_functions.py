"""What a trade does to the price as a function of its speed: g for what stays, h for what the trade itself pays.

Speeds v = n/τ are in shares per day, positive in a sale. These functions are evaluated along a path, never inverted,
so they need not be convex: that is what sets them apart from an `ExecutionCost`.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.numerics.arrays import as_float, as_parameters, check, safe_power, unify


class ImpactFunction(eqx.Module):
    """Contract: an odd or at least sign-preserving function of the speed, zero at rest."""

    @abc.abstractmethod
    def __call__(self, speed: Float[Array, " steps"]) -> Float[Array, " steps"]:
        """Its value at each speed; of g in currency per share per day, of h in currency per share."""

    @abc.abstractmethod
    def is_valid(self) -> Bool[Array, ""]:
        """Whether traced parameters are of the signs that concrete ones must have."""


class PowerImpact(ImpactFunction):
    """c sign(v) |v|^a (Almgren 2003).

    Args:
        coefficient: c ≥ 0: of g currency per share per day, of h currency per share, at one share per day.
        exponent: a > 0; 1 is linear impact. Almgren et al. (2005) find 0.6 for what is temporary.

    Raises:
        ValueError: a concrete parameter is not a finite scalar, or of the wrong sign.
    """

    coefficient: Float[Array, ""]
    exponent: Float[Array, ""]

    def __init__(self, coefficient: ArrayLike, exponent: ArrayLike = 1.0):
        given = {"coefficient": as_float("coefficient", coefficient), "exponent": as_float("exponent", exponent)}
        for name, array in given.items():
            if array.ndim:
                raise ValueError(f"{name} must be a scalar, got shape {array.shape}")
            check(name, array, np.isfinite, "finite")
        check("coefficient", given["coefficient"], lambda v: v >= 0, "at least 0")
        check("exponent", given["exponent"], lambda v: v > 0, "positive")
        normal = unify(given)
        self.coefficient, self.exponent = normal["coefficient"], normal["exponent"]

    def is_valid(self):
        return (self.coefficient >= 0) & (self.exponent > 0)

    def __call__(self, speed):
        exponent = jnp.broadcast_to(self.exponent, speed.shape).astype(speed.dtype)
        return self.coefficient * jnp.sign(speed) * safe_power(jnp.abs(speed), exponent)


class CustomImpact(ImpactFunction):
    """Any function of the speed that you write down.

    Args:
        function: (v, parameters) → impact, elementwise in the array v of speeds and made of jax.numpy operations; never
            called at v = 0, where impact is zero. Part of the compiled programme: pass the same function again, not a
            new lambda.
        parameters: what else it takes: any pytree of arrays, with derivatives.

    Raises:
        ValueError: `function` is not callable, or a concrete parameter is not finite.
    """

    function: Callable[[Array, Any], Array] = eqx.field(static=True)
    parameters: Any

    def __init__(self, function: Callable[[Array, Any], Array], parameters: Any = ()):
        if not callable(function):
            raise ValueError(f"function must be callable as function(speed, parameters), got {type(function).__name__}")
        self.function = function
        self.parameters = as_parameters(parameters)

    def is_valid(self):
        return jnp.asarray(True)

    def __call__(self, speed):
        moving = speed != 0
        return jnp.where(moving, self.function(jnp.where(moving, speed, 1), self.parameters), 0)


__all__ = ["CustomImpact", "ImpactFunction", "PowerImpact"]
