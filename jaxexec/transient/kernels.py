"""Decay kernels G: a trade of n shares at time s has moved the price by n G(t − s) at a later time t.

A kernel is seen through its value, its first and its second differences, elementwise in lags t ≥ 0. Round trips cost by
differences alone: computed without cancellation they keep schedules exact where impact hardly decays between trades.
Parameters are scalars; a batch of kernels is made under `jax.vmap`.
"""

import abc
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.numerics.arrays import as_float, as_parameters, check, safe_power, unify

_AT_LEAST_0 = (lambda v: v >= 0, "at least 0")
_POSITIVE = (lambda v: v > 0, "positive")
_BELOW_1 = (lambda v: (v >= 0) & (v < 1), "at least 0 and below 1")


class ImpactKernel(eqx.Module):
    """Contract of a decay kernel, in currency per share, per share traded. `first + second` is their `SumKernel`."""

    @abc.abstractmethod
    def value(self, lag: Float[Array, "*lags"]) -> Float[Array, "*lags"]:
        """G(t) at lags t ≥ 0 in trading days."""

    @abc.abstractmethod
    def fall(self, lag: Float[Array, "*lags"], over: Float[Array, "*#lags"]) -> Float[Array, "*lags"]:
        """G(t) − G(t + a): what goes while `over`, a ≥ 0, passes."""

    @abc.abstractmethod
    def bend(
        self, lag: Float[Array, "*lags"], first: Float[Array, "*#lags"], second: Float[Array, "*#lags"]
    ) -> Float[Array, "*lags"]:
        """G(t) − G(t + a) − G(t + b) + G(t + a + b) for a, b ≥ 0; not negative where G is convex.

        What a share held for a saves to one held for b on the same side, when t passes between the two.
        """

    @abc.abstractmethod
    def is_valid(self) -> Bool[Array, ""]:
        """Whether the parameters are finite and have the signs that concrete ones must have."""

    def __add__(self, other: "ImpactKernel") -> "ImpactKernel":
        """G + other G."""
        if not isinstance(other, ImpactKernel):
            return NotImplemented
        return SumKernel((self, other))


class ExponentialKernel(ImpactKernel):
    """G(t) = κ e^{−ρt}: a limit order book that refills at the rate ρ (Obizhaeva and Wang 2013).

    Args:
        impact: κ, currency per share per share, ≥ 0: how far one share moves the price at first.
        decay: ρ, per day, ≥ 0; impact halves in ln 2/ρ. At 0 impact is permanent.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or negative.
    """

    impact: Float[Array, ""]
    decay: Float[Array, ""]

    def __init__(self, impact: ArrayLike, decay: ArrayLike):
        given = _checked({"impact": (impact, _AT_LEAST_0), "decay": (decay, _AT_LEAST_0)})
        self.impact, self.decay = given["impact"], given["decay"]

    def value(self, lag):
        return self.impact * jnp.exp(-self.decay * lag)

    def fall(self, lag, over):
        return -self.value(lag) * jnp.expm1(-self.decay * over)

    def bend(self, lag, first, second):
        return self.value(lag) * (jnp.expm1(-self.decay * first) * jnp.expm1(-self.decay * second))

    def is_valid(self):
        return _finite(self) & (self.impact >= 0) & (self.decay >= 0)


class PowerLawKernel(ImpactKernel):
    """G(t) = κ (1 + t/s)^{−γ}: slow decay with a finite start (Bouchaud, Gefen, Potters and Wyart 2004).

    Args:
        impact: κ, currency per share per share, ≥ 0.
        exponent: γ ≥ 0; typically 0.2 to 0.6.
        scale: s, days, > 0: when the decay sets in.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or of the wrong sign.
    """

    impact: Float[Array, ""]
    exponent: Float[Array, ""]
    scale: Float[Array, ""]

    def __init__(self, impact: ArrayLike, exponent: ArrayLike, scale: ArrayLike):
        given = _checked(
            {"impact": (impact, _AT_LEAST_0), "exponent": (exponent, _AT_LEAST_0), "scale": (scale, _POSITIVE)}
        )
        self.impact, self.exponent, self.scale = given["impact"], given["exponent"], given["scale"]

    def value(self, lag):
        return self.impact * jnp.exp(-self.exponent * jnp.log1p(lag / self.scale))

    def fall(self, lag, over):
        return -self.value(lag) * jnp.expm1(-self.exponent * jnp.log1p(over / (self.scale + lag)))

    def bend(self, lag, first, second):
        # With x, y over s + t: [(1+x)^−γ − 1][(1+y)^−γ − 1] + (1+x+y)^−γ − [(1+x)(1+y)]^−γ, neither part negative.
        x, y = first / (self.scale + lag), second / (self.scale + lag)
        both, apart = jnp.log1p(x) + jnp.log1p(y), x * y / ((1 + x) * (1 + y))
        falls = jnp.expm1(-self.exponent * jnp.log1p(x)) * jnp.expm1(-self.exponent * jnp.log1p(y))
        rest = jnp.exp(-self.exponent * both) * jnp.expm1(-self.exponent * jnp.log1p(-apart))
        return self.value(lag) * (falls + rest)

    def is_valid(self):
        return _finite(self) & (self.impact >= 0) & (self.exponent >= 0) & (self.scale > 0)


class SingularPowerLawKernel(ImpactKernel):
    """t^{−γ}, which no block can pay: every trade is spread evenly over `duration` days (Gatheral 2010).

    Between two such trades, begun t apart and each lasting δ, impact is the average of κ|t + u − v|^{−γ} over u and v
    in [0, δ], which is finite at t = 0 too:

        G(t) = κ δ^{−γ} [(r + 1)^p + |r − 1|^p − 2 r^p] / ((1 − γ)(2 − γ)),       r = t/δ,  p = 2 − γ.

    On equal steps with the step's length as δ a schedule trades at a constant rate within each step, the last step
    beginning at the last time.

    Args:
        impact: κ, currency per share per share, times days^γ, ≥ 0.
        exponent: γ, 0 ≤ γ < 1.
        duration: δ, days, > 0; not above the time between two trades, or they overlap.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or out of range.
    """

    impact: Float[Array, ""]
    exponent: Float[Array, ""]
    duration: Float[Array, ""]

    def __init__(self, impact: ArrayLike, exponent: ArrayLike, duration: ArrayLike):
        given = _checked(
            {"impact": (impact, _AT_LEAST_0), "exponent": (exponent, _BELOW_1), "duration": (duration, _POSITIVE)}
        )
        self.impact, self.exponent, self.duration = given["impact"], given["exponent"], given["duration"]

    def value(self, lag):
        return self.impact * self.duration**-self.exponent * _averaged_power(lag / self.duration, self.exponent)

    def fall(self, lag, over):
        return _fall_of(self.value, lag, over)

    def bend(self, lag, first, second):
        return _bend_of(self.value, lag, first, second)

    def is_valid(self):
        in_range = (self.exponent >= 0) & (self.exponent < 1)
        return _finite(self) & (self.impact >= 0) & in_range & (self.duration > 0)


class SumKernel(ImpactKernel):
    """Σ G_i: impact that decays in several ways at once. `first + second` makes one.

    Sums of exponentials come close to any completely monotone kernel; `ExponentialKernel(impact, 0.0)` in the sum is
    permanent impact.

    Args:
        kernels: at least one.

    Raises:
        ValueError: not a sequence of kernels, or an empty one.
    """

    kernels: tuple[ImpactKernel, ...]

    def __init__(self, kernels: Iterable[ImpactKernel]):
        if isinstance(kernels, ImpactKernel) or not isinstance(kernels, Iterable):
            raise ValueError(f"kernels must be a sequence of kernels, got {type(kernels).__name__}")
        members = tuple(checked_kernel(f"kernels[{i}]", kernel) for i, kernel in enumerate(kernels))
        if not members:
            raise ValueError("kernels must name at least one kernel")
        self.kernels = unify(members)

    def value(self, lag):
        return sum((kernel.value(lag) for kernel in self.kernels), start=jnp.zeros_like(lag))

    def fall(self, lag, over):
        return sum((kernel.fall(lag, over) for kernel in self.kernels), start=jnp.zeros_like(lag))

    def bend(self, lag, first, second):
        return sum((kernel.bend(lag, first, second) for kernel in self.kernels), start=jnp.zeros_like(lag))

    def is_valid(self):
        return jnp.all(jnp.stack([kernel.is_valid() for kernel in self.kernels]))


class CustomKernel(ImpactKernel):
    """G(t) = function(t, parameters), any function of yours; whether it allows manipulation is found out on the grid.

    Its differences carry the rounding of its values: in float32 and on fine grids that shows in the schedule.

    Args:
        function: (lags, parameters) → currency per share per share, elementwise in an array of lags ≥ 0 and made of
            jax.numpy operations; finite at 0. Part of the compiled programme: pass the same function again, not a new
            lambda, lest everything be compiled again.
        parameters: what else it takes: any pytree of arrays, with derivatives.

    Raises:
        ValueError: `function` is not callable, or a concrete parameter is not finite. When it is used: it returns
            another shape than that of the lags.
    """

    function: Callable[[Array, Any], Array] = eqx.field(static=True)
    parameters: Any

    def __init__(self, function: Callable[[Array, Any], Array], parameters: Any = ()):
        if not callable(function):
            raise ValueError(f"function must be callable as function(lags, parameters), got {type(function).__name__}")
        self.function = function
        self.parameters = as_parameters(parameters)

    def value(self, lag):
        result = self.function(lag, self.parameters)
        if jnp.shape(result) != jnp.shape(lag):
            raise ValueError(
                "function must be elementwise: numbers of the shape of the lags it is given, "
                f"{jnp.shape(lag)}; it returned {jnp.shape(result)}"
            )
        return jnp.asarray(result, lag.dtype)

    def fall(self, lag, over):
        return _fall_of(self.value, lag, over)

    def bend(self, lag, first, second):
        return _bend_of(self.value, lag, first, second)

    def is_valid(self):
        return _finite(self)


def checked_kernel(name: str, kernel: Any) -> ImpactKernel:
    """`kernel`, or a ValueError that names the field."""
    if not isinstance(kernel, ImpactKernel):
        raise ValueError(f"{name} must be a jaxexec.ImpactKernel, got {type(kernel).__name__}")
    return kernel


def _checked(given: dict[str, tuple[ArrayLike, tuple[Callable[[Any], Any], str]]]) -> dict[str, Array]:
    arrays = {name: as_float(name, value) for name, (value, _) in given.items()}
    for name, array in arrays.items():
        if array.ndim:
            raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for a batch of kernels")
        check(name, array, np.isfinite, "finite")
        check(name, array, *given[name][1])
    return unify(arrays)


def _fall_of(value: Callable[[Array], Array], lag: Array, over: Array) -> Array:
    """The first difference as it stands: to rounding of G itself."""
    now, later = value(jnp.stack(jnp.broadcast_arrays(lag, lag + over)))
    return now - later


def _bend_of(value: Callable[[Array], Array], lag: Array, first: Array, second: Array) -> Array:
    """The second difference as it stands: to rounding of G itself."""
    at = jnp.stack(jnp.broadcast_arrays(lag, lag + (first + second), lag + first, lag + second))
    now, last, one, other = value(at)
    return (now + last) - (one + other)


def _finite(kernel: ImpactKernel) -> Bool[Array, ""]:
    parts = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(kernel)]
    return jnp.all(jnp.stack([jnp.asarray(True), *parts]))


_SERIES_FROM = 4.0  # of r: beyond it the second difference of r^p is taken from its series, whose terms fall by r²
_TERMS = 13


def _averaged_power(r: Array, exponent: Array) -> Array:
    """r^{−γ} averaged over two unit intervals, r apart: [(r + 1)^p + |r − 1|^p − 2 r^p]/(p (p − 1)), p = 2 − γ."""
    p = 2 - exponent
    far = r >= _SERIES_FROM
    close, apart = jnp.where(far, 0, r), jnp.where(far, r, _SERIES_FROM)
    after, before, at = safe_power(jnp.stack([close + 1, jnp.abs(close - 1), close]), p)
    bend = after + before - 2 * at
    m = jnp.arange(2, _TERMS + 1).astype(r.dtype)
    ratios = (p - 2 * m + 2) * (p - 2 * m + 1) / ((2 * m - 1) * (2 * m))
    inverse = 1 / apart**2
    # Σ 2 C(p, 2m) r^{−2m} over the first of its terms, innermost first: as a loop, lest its derivatives compile long.
    series, _ = lax.scan(lambda total, ratio: (1 + total * inverse * ratio, None), jnp.ones_like(r), ratios[::-1])
    return jnp.where(far, apart**-exponent * series, bend / (p * (p - 1)))
