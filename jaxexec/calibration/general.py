"""Any model that is a function of its parameters, fitted to data: what the calibrations of this room are made of."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.calibration.jackknife import Errors, in_the_search, jackknifed
from jaxexec.calibration.lane_fit import Settings
from jaxexec.calibration.objective import Loss
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.calibration.run_fit import compiled_fit
from jaxexec.calibration.transforms import Bound, checked_bounds, is_inside, to_free, to_natural, unit_of
from jaxexec.numerics.arrays import as_float, is_concrete, unify
from jaxexec.numerics.status import replace_where


def fit(
    residuals: Callable[[dict[str, Array], Any], Array],
    start: Mapping[str, ArrayLike],
    data: Any,
    *,
    bounds: Mapping[str, Bound] | None = None,
    fixed: Mapping[str, ArrayLike] | None = None,
    starts: int = 1,
    key: Array | None = None,
    loss: Loss = "squares",
    threshold: float = 1.345,
    covariance: Errors = "classical",
    max_steps: int = 100,
) -> ParameterFit:
    """Parameters that make Σ r² (or a robust loss) least, with errors. Traced; `jax.vmap` fits many at once.

    Derivatives of the estimates and their errors by the data are those of the optimum (implicit function theorem).

    Args:
        residuals: (parameters by name, data) → (rows,), made of jax.numpy operations; observed minus modelled, divided
            by the standard deviation of each row's error up to a common factor. Part of the compiled programme: pass
            the same function again, not a new lambda.
        start: Where to search from, scalars by name, strictly within the bounds.
        data: Any pytree of floating arrays.
        bounds: (low, high) by name, None for no end; missing names have none. Kept by transformation: the search is in
            a logarithm or logit.
        fixed: Parameters that are known, by name; the estimates' derivatives by them are found too.
        starts: How many starts; beyond the first they are drawn, normal with standard deviation 1 in the transformed
            parameter (of one without bounds: relative to its start), and the best optimum counts.
        key: Where the draws come from; None means `jax.random.key(0)`.
        loss: "squares", or "huber": residuals beyond `threshold` robust standard deviations count by their size.
        threshold: Huber's k.
        covariance: "classical" (errors alike); "robust" (of unequal variance: the sandwich with n/(n − p), HC1), for
            many rows of which none weighs much; or "hc3" (of unequal variance: the jackknife), whose intervals also
            hold where some do, for the price of a few evaluations.
        max_steps: Points that a search may try, from each start.

    Returns:
        The fit; see `ParameterFit` for what it says where data cannot tell.

    Raises:
        ValueError: an unknown option, bound or name, a start outside its bounds, or residuals that are not (rows,).

    Source: Marquardt, SIAM J. Appl. Math. 11 (1963), for the search; Huber, Ann. Math. Stat. 35 (1964).
    """
    given = unify(
        {"start": _scalars("start", start), "fixed": _scalars("fixed", fixed or {}), "data": as_arrays(data)},
        final=True,
    )
    names = tuple(start)
    settings = settings_of(names, fixed or {}, bounds, {}, loss, threshold, covariance, max_steps)
    check_starts(given["start"], settings)
    rows = jax.eval_shape(residuals, {**given["fixed"], **given["start"]}, given["data"])
    if getattr(rows, "ndim", None) != 1:
        raise ValueError(f"residuals must return an array of shape (rows,), got {rows}")
    first = jnp.stack([given["start"][name] for name in names])[None, None]
    points = drawn(first, settings.bounds, starts, key)
    inputs = jax.tree.map(lambda x: x[None], (given["data"], given["fixed"]))
    bad = ~_all_finite(inputs)

    safe = jax.tree.map(lambda x: replace_where(_like(bad, x), x, jnp.ones_like(x)), inputs)
    row = jnp.ones((1, rows.shape[0]), bool)
    model = InLanes(residuals)
    found = compiled_fit(model, settings, points, *safe, row, bad, inputs, True)
    return jackknifed(found, model, settings, *safe, row) if covariance == "hc3" else found


@dataclasses.dataclass(frozen=True)
class InLanes:
    """A user's function of scalars, for lanes side by side; equal to another of the same function."""

    residuals: Callable[[dict[str, Array], Any], Array]

    def __call__(self, parameters: dict[str, Array], data: Any) -> Float[Array, "rows lanes"]:
        scalars = {name: x[0] for name, x in parameters.items()}
        found = jax.vmap(self.residuals, in_axes=(-1, -1), out_axes=-1)(scalars, data)
        return found.astype(jax.tree.leaves(scalars)[0].dtype)


def settings_of(
    names: tuple[str, ...],
    fixed: Mapping[str, Any],
    bounds: Mapping[str, Bound] | None,
    default: Mapping[str, Bound],
    loss: Loss,
    threshold: float,
    covariance: str,
    max_steps: int,
    elementwise: bool = False,
) -> Settings:
    """Checked settings of the parameters that are fitted.

    Raises:
        ValueError: an option that is none, or a parameter both fitted and fixed.
    """
    both = sorted(set(names) & set(fixed))
    if both:
        raise ValueError(f"{both[0]!r} is both fitted and fixed")
    if not names:
        raise ValueError("start must name at least one parameter")
    own = {name: bound for name, bound in default.items() if name in names}
    chosen = checked_bounds(names, bounds, own)
    return Settings(names, tuple(chosen), loss, float(threshold), in_the_search(covariance), max_steps, elementwise)


def check_starts(start: Mapping[str, Array], settings: Settings) -> None:
    """Raise on a concrete start that is not strictly within its bounds."""
    for name, bound in zip(settings.names, settings.bounds, strict=True):
        value = start[name]
        if is_concrete(value) and not np.all(np.asarray(is_inside(value, bound))):
            raise ValueError(f"start[{name!r}] must be finite and strictly within {bound}, got {value}")


def drawn(
    first: Float[Array, "1 lanes p"], bounds: tuple[Bound, ...], starts: int, key: Array | None
) -> Float[Array, "starts lanes p"]:
    """The given start and others drawn around it."""
    if isinstance(starts, bool) or not isinstance(starts, int) or starts < 1:
        raise ValueError(f"starts must be a positive integer, got {starts!r}")
    if starts == 1:
        return first
    key = jax.random.key(0) if key is None else key
    noise = jax.random.normal(key, (starts - 1, *first.shape[1:]), first.dtype)

    def around(i: int, bound: Bound) -> Array:
        u = to_free(first[..., i], bound)
        return to_natural(u + noise[..., i] * (1 if unit_of(bound) else jnp.abs(u)), bound)

    return jnp.concatenate([first, jnp.stack([around(i, b) for i, b in enumerate(bounds)], -1)])


def as_arrays(tree: Any) -> Any:
    """A pytree of data as floating arrays."""

    def converted(path: Any, leaf: ArrayLike) -> Array:
        return as_float("data" + jax.tree_util.keystr(path), leaf)

    return jax.tree_util.tree_map_with_path(converted, tree)


def _scalars(field: str, values: Mapping[str, ArrayLike]) -> dict[str, Array]:
    arrays = {name: as_float(f"{field}[{name!r}]", value) for name, value in values.items()}
    for name, array in arrays.items():
        if array.ndim:
            raise ValueError(f"{field}[{name!r}] must be a scalar, got shape {array.shape}; use jax.vmap for many fits")
    return arrays


def _all_finite(tree: Any) -> Array:
    """Lanes whose every number is finite."""
    parts = [jnp.isfinite(x).reshape(x.shape[0], -1).all(1) for x in jax.tree.leaves(tree)]
    return jnp.stack(parts).all(0) if parts else jnp.ones((1,), bool)


def _like(bad: Array, x: Array) -> Array:
    return jnp.broadcast_to(bad.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
