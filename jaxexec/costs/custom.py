"""A cost that the user writes down."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.costs.conjugate import hamiltonian_by_root, looks_convex, rate_by_root, slope_of
from jaxexec.costs.contract import CurvePoint, ExecutionCost
from jaxexec.costs.parameters import beyond, check_curve, is_beyond, replaced
from jaxexec.numerics.arrays import as_float, as_parameters, check, is_concrete, unify


class CustomCost(ExecutionCost):
    """L(ρ) = function(ρ, parameters) + ψ|ρ| with any function of yours that is strictly convex and least, 0, at 0.

    L' and L'' are found by differentiation, H' as the root of L'(ρ) = p, its derivatives by the implicit function
    theorem. That L is convex is looked for in samples over the rates a schedule may take; where it is not, `solve`
    refuses with NONCONVEX.

    Args:
        function: (ρ, parameters) → currency per share, elementwise in the array ρ of rates and made of jax.numpy
            operations; smooth away from 0, where it is never called. Part of the compiled programme: pass the same
            function again, not a new lambda, lest everything be compiled again.
        parameters: what else it takes: any pytree of arrays of any shape, with derivatives.
        psi: ψ, half-spread in currency per share, ≥ 0; scalar or (steps,).
        lanes: the leaves of `parameters` have a leading axis of lanes, and rates have shape (steps, lanes).

    Raises:
        ValueError: the function returns another shape or no real numbers, function(0) is not 0, or a concrete parameter
            is not finite or breaks its sign. What the function itself raises comes through as it is.
    """

    function: Callable[[Array, Any], Array] = eqx.field(static=True)
    parameters: Any
    psi: Float[Array, "*#steps"]
    units: tuple[Float[Array, "*#steps"], Float[Array, "*#steps"]] | None
    lanes: bool = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[Array, Any], Array],
        parameters: Any = (),
        psi: ArrayLike = 0.0,
        lanes: bool = False,
    ):
        if not callable(function):
            raise ValueError(f"function must be callable as function(rates, parameters), got {type(function).__name__}")
        normal = unify({"parameters": as_parameters(parameters), "psi": as_float("psi", psi)})
        if not lanes:
            check_curve("psi", normal["psi"])
        check("psi", normal["psi"], lambda v: v >= 0, "at least 0")
        self.function = function
        self.parameters = normal["parameters"]
        self.psi = normal["psi"]
        self.units = None
        self.lanes = lanes
        if not lanes:
            _try_out(function, self.parameters, self.psi.dtype)

    def over_lanes(self) -> "CustomCost":
        """The same cost whose `parameters` have a leading axis of lanes, for rates of shape (steps, lanes)."""
        # Built without __init__: its leaves may be anything that a transformation puts there.
        cost = object.__new__(CustomCost)
        for name, value in vars(self).items():
            object.__setattr__(cost, name, value)
        object.__setattr__(cost, "lanes", True)
        return cost

    def value(self, rate):
        moving = rate != 0
        bare = self._call(jnp.where(moving, rate, 1))
        return jnp.where(moving, bare, 0) + self.psi * jnp.abs(rate)

    def marginal(self, rate):
        moving = rate != 0
        bare = self._slope(jnp.where(moving, rate, 1))
        return jnp.where(moving, bare, 0) + self.psi * jnp.sign(rate)

    def curvature(self, rate):
        rate = jnp.asarray(rate)
        # A logarithm twice differentiated holds 1/ρ²: smaller rates are taken for the least whose square is a number.
        least = float(jnp.finfo(rate.dtype).tiny) ** 0.4
        inside = jnp.where(jnp.abs(rate) >= least, rate, jnp.where(rate < 0, -least, least))
        bend = self._bend(inside)
        # At rest the limit of L'' from the right, by whether it still moves there.
        ratio = self._bend(jnp.where(rate != 0, inside, 2 * least)) / jnp.where(bend > 0, bend, 1)
        at_rest = jnp.where(ratio > 1.001, 0, jnp.where(ratio < 0.999, jnp.inf, bend))
        return jnp.where(rate != 0, bend, at_rest)

    def hamiltonian(self, marginal):
        return hamiltonian_by_root(self._bare(), jnp.sign(marginal) * beyond(marginal, self.psi))

    def optimal_rate(self, marginal):
        return rate_by_root(self._bare(), jnp.sign(marginal) * beyond(marginal, self.psi))

    def rate_slope(self, marginal):
        return jnp.where(is_beyond(marginal, self.psi), slope_of(self.curvature(self.optimal_rate(marginal))), 0)

    def curve_point(self, rate, marginal, keep_rate):
        rate, marginal = jnp.broadcast_arrays(rate, marginal)
        free = lax.cond(jnp.all(keep_rate), lambda: rate, lambda: self.optimal_rate(marginal).astype(rate.dtype))
        rate = jnp.where(keep_rate, rate, free)
        bare = self._bare().marginal(rate)
        marginal = jnp.where(keep_rate, bare + self.psi * jnp.sign(rate), marginal)
        slope = jnp.where(keep_rate | is_beyond(marginal, self.psi), slope_of(self.curvature(rate)), 0)
        return CurvePoint(rate, marginal, slope, rate - slope * bare - slope * self.psi * jnp.sign(rate))

    def bounds(self):
        return -jnp.inf, jnp.inf

    def half_spread(self):
        return self.psi

    def less_spread(self, spread):
        return replaced(self, psi=self.psi - spread)

    def is_convex(self, rates):
        return (self.psi >= 0) & looks_convex(self._bare(), rates)

    def in_units(self, rate, marginal):
        old_rate, old_marginal = (jnp.ones_like(rate),) * 2 if self.units is None else self.units
        return replaced(self, psi=self.psi / marginal, units=(old_rate * rate, old_marginal * marginal))

    def less_permanent(self, permanent):
        return self, (permanent == 0).all()

    def _bare(self) -> "CustomCost":
        return replaced(self, psi=jnp.zeros_like(self.psi))

    def _call(self, rate: Array) -> Array:
        """function(ρ, parameters), of the shape that it must have."""
        rate = jnp.asarray(rate)
        if self.units is not None:
            in_rate, in_marginal = self.units
            return replaced(self, units=None)._call(rate * in_rate) / (in_rate * in_marginal)
        if self.lanes and rate.ndim == 2:
            return jax.vmap(self._call_one, in_axes=(1, 0), out_axes=1)(rate, self.parameters)
        return self._call_one(rate, self.parameters)

    def _call_one(self, rate: Array, parameters: Any) -> Array:
        result = self.function(rate, parameters)
        _check_result(result, rate.shape, exact=False)
        return jnp.asarray(result, rate.dtype)

    def _slope(self, rate: Array) -> Array:
        return jax.jvp(self._call, (rate,), (jnp.ones_like(rate),))[1]

    def _bend(self, rate: Array) -> Array:
        return jax.jvp(self._slope, (rate,), (jnp.ones_like(rate),))[1]


def _try_out(function: Callable[[Array, Any], Array], parameters: Any, dtype: Any) -> None:
    """Call the function once, abstractly, and at 0 if the parameters are known."""
    leaves = jax.tree.leaves(parameters)
    two = jax.ShapeDtypeStruct((2,), dtype)
    if all(leaf.ndim == 0 for leaf in leaves):
        _check_result(jax.eval_shape(function, two, parameters), (2,), exact=True)
    else:  # curves that need not fit two rates: what is wrong with the function itself shows when it is first used
        try:
            result = jax.eval_shape(function, two, parameters)
        except (TypeError, ValueError):
            return
        _check_result(result, (2,), exact=True)
    if all(is_concrete(leaf) for leaf in leaves):
        at_rest = function(jnp.zeros(2, dtype), parameters)
        if is_concrete(at_rest):
            check("function(0, parameters)", jnp.asarray(at_rest), lambda v: (v == 0) | np.isnan(v), "0 at rest")


def _check_result(result: Any, shape: tuple[int, ...], *, exact: bool) -> None:
    found, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    fits = found == shape if exact else found is not None and _covers(found, shape)
    if not fits or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            "function must be elementwise: real numbers of the shape of the rates it is given, "
            f"{shape}; it returned {found if found is not None else type(result).__name__} ({dtype})"
        )


def _covers(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(found, shape) == found
    except ValueError:
        return False
