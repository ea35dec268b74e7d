"""What is minimised, from a model's residuals: squares or Huber's loss, its normal equations, and the optimum's own
derivative.

All arrays have their lanes last. With Huber's loss residuals are counted in a robust scale, and beyond k of it they
count by their size and not by their square (Huber, Ann. Math. Stat. 35, 1964; k = 1.345 keeps 95 % of the efficiency of
least squares where errors are normal).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxexec.calibration.transforms import Bound, to_natural
from jaxexec.numerics.levenberg_marquardt import Normal, rounding_of, scaled
from jaxexec.numerics.moments import inverse_definite, sum_time, times

Loss = Literal["squares", "huber"]
Residuals = Callable[[dict[str, Array], Any], Array]
_NORMAL_MAD = 1.4826  # standard deviation over median absolute deviation of a normal distribution


class Bundle(eqx.Module):
    """All that residuals depend on besides the parameters.

    Attributes:
        data: what the model reads; lanes last.
        fixed: parameters that are not fitted, by name, (1, lanes).
        row: rows that count, (rows, lanes).
        scale: unit in which residuals are counted, (lanes,).
    """

    data: Any
    fixed: dict[str, Float[Array, "1 lanes"]]
    row: Bool[Array, "rows lanes"]
    scale: Float[Array, " lanes"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """½ Σ r², or Huber's ½ Σ (r² where |r| ≤ k, else 2k|r| − k²), of one model; every field is static.

    Attributes:
        residuals: (parameters by name, each (1, lanes); data) → (rows, lanes).
        names: Fitted parameters.
        bounds: One a parameter.
        elementwise: The model is a chain of elementwise operations: it is differentiated by one parameter at a time,
            without what does not depend on it, and what the columns share is found again by the compiler.
        threshold: Huber's k; infinite for squares.
    """

    residuals: Residuals
    names: tuple[str, ...]
    bounds: tuple[Bound, ...]
    elementwise: bool = False
    threshold: float = float("inf")

    def at(self, u: Float[Array, "p lanes"], bundle: Bundle) -> Float[Array, "rows lanes"]:
        """Residuals in units of the scale, zero where is no row."""
        return self._residuals([u[i][None] for i in range(len(self.names))], bundle)

    def _residuals(self, free: list[Array], bundle: Bundle) -> Array:
        fitted = {n: to_natural(x, b) for n, x, b in zip(self.names, free, self.bounds, strict=True)}
        found = self.residuals({**bundle.fixed, **fitted}, bundle.data)
        return jnp.where(bundle.row, found / bundle.scale[None], 0)

    def with_columns(self, u: Float[Array, "p lanes"], bundle: Bundle) -> tuple[Array, list[Array]]:
        """Residuals and the columns of their Jacobian, p of (rows, lanes)."""
        if not self.elementwise:
            residuals, tangent = jax.linearize(lambda v: self.at(v, bundle), u)
            ones = jnp.broadcast_to(jnp.eye(u.shape[0], dtype=u.dtype)[..., None], (u.shape[0], *u.shape))
            return residuals, list(jax.vmap(tangent)(ones))
        free = [u[i][None] for i in range(len(self.names))]

        def moved(i: int) -> tuple[Array, Array]:
            def along(x: Array) -> Array:
                return self._residuals([*free[:i], x, *free[i + 1 :]], bundle)

            return jax.jvp(along, (free[i],), (jnp.ones_like(free[i]),))

        found = [moved(i) for i in range(len(free))]
        return found[0][0], [column for _, column in found]

    def score(self, residuals: Float[Array, "rows lanes"]) -> Float[Array, "rows lanes"]:
        """Derivative of the loss by the residual."""
        if self.threshold == float("inf"):
            return residuals
        return jnp.clip(residuals, -self.threshold, self.threshold)

    def inside(self, residuals: Float[Array, "rows lanes"]) -> Bool[Array, "rows lanes"]:
        """Second derivative of the loss: one, or zero in the tails."""
        return jnp.abs(residuals) <= self.threshold

    def normal(self, bundle: Bundle, u: Float[Array, "p lanes"]) -> Normal:
        """The normal equations; with Huber's loss those of iterated weights, in which no row counts for nothing."""
        residuals, columns = self.with_columns(u, bundle)
        if self.threshold == float("inf"):
            *columns, residuals = lax.optimization_barrier([*columns, residuals])
            objective = sum_time(residuals**2) / 2
            weighted, score = columns, residuals
        else:
            score = self.score(residuals)
            *columns, residuals, score = lax.optimization_barrier([*columns, residuals, score])
            objective = sum_time(score * (residuals - score / 2))
            weight = jnp.where(residuals == 0, 1, score / jnp.where(residuals == 0, 1, residuals))
            weighted = [weight * c for c in columns]
        matrix = products(weighted, columns)
        gradient = jnp.stack([sum_time(c * score) for c in columns])
        return Normal(objective, gradient, matrix, rounding_of(objective))

    def gradient(self, u: Float[Array, "p lanes"], bundle: Bundle) -> Float[Array, "p lanes"]:
        """Gradient of the objective: what is zero at the estimate."""

        def total(v: Array) -> Array:
            residuals = self.at(v, bundle)
            score = self.score(residuals)
            return jnp.sum(score * (residuals - score / 2))

        return jax.grad(total)(u)


def products(first: list[Array], second: list[Array]) -> Float[Array, "p p lanes"]:
    """Σ_rows a_i b_j, symmetric: only the upper triangle is computed."""
    p = len(first)
    sums = {(i, j): sum_time(first[i] * second[j]) for i in range(p) for j in range(i, p)}
    return jnp.stack([jnp.stack([sums[min(i, j), max(i, j)] for j in range(p)]) for i in range(p)])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attach(objective: Objective, bundle: Bundle, u: Float[Array, "p lanes"]) -> Float[Array, "p lanes"]:
    """The estimate, unchanged, with its derivative by the data: du = −(∂²f/∂u²)⁻¹ ∂²f/∂u∂data."""
    return u


@attach.defjvp
def _attach_jvp(objective, primals, tangents):
    bundle, u = primals
    u = attach(objective, bundle, u)
    _, moved = jax.jvp(lambda b: objective.gradient(u, b), (bundle,), (tangents[0],))

    def curvature(i: int) -> Array:
        along = jnp.zeros_like(u).at[i].set(1)
        return jax.jvp(lambda v: objective.gradient(v, bundle), (u,), (along,))[1]

    hessian, length = scaled(jnp.stack([curvature(i) for i in range(u.shape[0])]))
    inverse, _ = inverse_definite(hessian)
    return u, -times(inverse, moved / length) / length


def robust_scale(residuals: Float[Array, "rows lanes"], row: Bool[Array, "rows lanes"]) -> Float[Array, " lanes"]:
    """1.4826 times the median of |r|: the standard deviation of normal errors, whatever a few of them are."""
    size = jnp.sort(jnp.where(row, jnp.abs(residuals), jnp.inf), axis=0)
    rows = row.sum(0, dtype=jnp.int32)
    at = jnp.maximum(jnp.stack([(rows - 1) // 2, rows // 2]), 0)
    middle = jnp.take_along_axis(size, at, 0).mean(0)
    return _NORMAL_MAD * jnp.where((rows > 0) & (middle > 0), middle, 1 / _NORMAL_MAD)
