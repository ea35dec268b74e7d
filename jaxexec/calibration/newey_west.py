"""Errors of a kernel where what it does not explain is correlated from step to step (Newey and West, 1987).

A kernel is fitted to a summary of the rows, which has forgotten their order. Here the rows are read again: e_t is the
return less K(θ) on past flow, its score s_t = (∂K/∂θ · flow)_t e_t, and the covariance is (JᵀJ)⁻¹ Ω (JᵀJ)⁻¹ n/(n − p)
with Ω the long-run sum of s_t s_{t−j}ᵀ. Sessions do not meet: no product crosses from one to the next.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxexec.calibration.parameter_fit import ParameterFit, with_errors
from jaxexec.calibration.transforms import Bound, to_natural
from jaxexec.numerics.long_run import Rule, ages, long_run
from jaxexec.numerics.moments import inverse_definite, sandwich
from jaxexec.numerics.status import is_usable

Change = Callable[[dict[str, Array], Array], Array]


@functools.partial(jax.jit, static_argnums=(1, 7, 8))
def with_long_run_errors(
    found: ParameterFit,
    change: Change,
    fixed: dict[str, Float[Array, " stocks"]],
    lag: Float[Array, " lags"],
    flow: Float[Array, "stocks sessions time"],
    returns: Float[Array, "stocks sessions time"],
    seen: Bool[Array, "stocks sessions time"],
    rule: Rule | int,
    prewhiten: bool,
) -> ParameterFit:
    """The fit of a kernel with Newey and West's errors.

    Args:
        found: one fit, or one a stock.
        change: (parameters by name, lags in days) → what a share moves the price by in each step after it, (lags,).
        seen: steps whose whole past is known.
        rule, prewhiten: as in `long_run`.
    """
    single = found.status.ndim == 0
    stocks = jax.tree.map(lambda x: x[None], found) if single else found
    usable = is_usable(stocks.status)
    free = jnp.where(usable[:, None], stocks.free_values, 0)

    def work(inputs: tuple) -> Array:
        u, fixed, q, r, row = inputs
        return _of_one(_in_free(change, stocks.names, stocks.bounds, fixed, lag), u, q, r, row, rule, prewhiten)

    covariance = lax.map(work, (free, fixed, flow, returns, seen))
    changed = with_errors(stocks, covariance, stocks.degrees_of_freedom)
    return jax.tree.map(lambda x: x[0], changed) if single else changed


def _in_free(
    change: Change, names: tuple[str, ...], bounds: tuple[Bound, ...], fixed: dict[str, Array], lag: Array
) -> Callable[[Array], Array]:
    def of(u: Array) -> Array:
        fitted = {name: to_natural(u[i], bound) for i, (name, bound) in enumerate(zip(names, bounds, strict=True))}
        return change({**fixed, **fitted}, lag)

    return of


def _of_one(
    change: Callable[[Array], Array],
    u: Float[Array, " p"],
    flow: Float[Array, "sessions time"],
    returns: Float[Array, "sessions time"],
    seen: Bool[Array, "sessions time"],
    rule: Rule | int,
    prewhiten: bool,
) -> Float[Array, "p p"]:
    # A step that counts for nothing parts a session from the next.
    q, r, row = (jnp.pad(x, ((0, 0), (0, 1))).reshape(-1, 1) for x in (flow, returns, seen))
    taps = jnp.concatenate([change(u)[None], jax.jacfwd(change)(u).T])  # (1 + p, lags)
    length = lax.stop_gradient(jnp.sqrt((taps**2).sum(1, keepdims=True)))
    length = jnp.where(length > 0, length, 1)
    before = jnp.pad(q, ((taps.shape[1] - 1, 0), (0, 0)))

    def delayed(total: Array, tap: tuple[Array, Array]) -> tuple[Array, None]:
        weight, by = tap
        there = lax.dynamic_slice_in_dim(before, by, q.shape[0])
        return total + weight[:, None, None] * there[None], None

    by = taps.shape[1] - 1 - jnp.arange(taps.shape[1])
    nothing = jnp.zeros((taps.shape[0], *q.shape), q.dtype)
    felt, _ = lax.scan(delayed, nothing, ((taps / length).T, by))
    felt = jnp.where(row[None], felt, 0)
    error = jnp.where(row, r - length[0, 0] * felt[0], 0)
    columns = felt[1:]
    p, n = u.shape[0], row.sum(dtype=jnp.int32)
    matrix = (columns[:, None] * columns[None]).sum(2)
    size = lax.stop_gradient(jnp.sqrt(jnp.stack([matrix[i, i] for i in range(p)])))
    size = jnp.where(size > 0, size, 1)
    bread, _ = inverse_definite(matrix / (size[:, None] * size[None]))
    scores = columns * error[None] / size[:, None]
    own = jnp.broadcast_to(jnp.eye(p, dtype=u.dtype)[..., None], (p, p, 1))
    weight = jnp.ones(p, u.dtype)
    found = long_run(scores, ages(row), own, weight, rule=rule, prewhiten=prewhiten, free_of_units=True)
    left = jnp.maximum(n - p, 1).astype(u.dtype)
    covariance = (n.astype(u.dtype) / left) * sandwich(bread, found.meat)[..., 0]
    unit = length[1:, 0] * size[:, 0]
    # Scores that do not forget have no long-run sum.
    return jnp.where(found.unit_root[0], jnp.inf, covariance / (unit[:, None] * unit[None]))
