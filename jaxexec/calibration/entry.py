"""How rows of data enter a calibration: one stock or many, lanes first, harmless numbers where is no row."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.calibration.lane_fit import Settings
from jaxexec.calibration.transforms import is_inside
from jaxexec.numerics.arrays import as_float, is_concrete, unify
from jaxexec.numerics.status import replace_where


class Entry(eqx.Module):
    """Rows on their way in.

    Attributes:
        given: the columns as they came, (lanes, rows).
        columns: the same, one where a row is masked or a lane is bad.
        row: rows that count, (lanes, rows).
        bad: lanes with a row that is not finite or has the wrong sign, (lanes,).
        single: whether the caller has one lane, without an axis.
    """

    given: dict[str, Float[Array, "lanes rows"]]
    columns: dict[str, Float[Array, "lanes rows"]]
    row: Bool[Array, "lanes rows"]
    bad: Bool[Array, " lanes"]
    single: bool = eqx.field(static=True)


def enter_rows(
    columns: Mapping[str, ArrayLike],
    mask: ArrayLike | None,
    positive: Sequence[str] = (),
    nonnegative: Sequence[str] = (),
) -> Entry:
    """Checked columns.

    Raises:
        ValueError: a shape that is not (rows,) or (stocks, rows), or not that of the first column; of one stock also a
            concrete row that is not finite or of the wrong sign. Field and index are named.
    """
    arrays = unify({name: as_float(name, value) for name, value in columns.items()}, final=True)
    first, shape = next((name, array.shape) for name, array in arrays.items())
    if len(shape) not in (1, 2):
        raise ValueError(f"{first} must have shape (rows,) or (stocks, rows), got {shape}")
    row = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
    for name, array in (*arrays.items(), ("mask", row)):
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape of {first}, {shape}, got {array.shape}")
    good = {name: _is_good(array, name in positive, name in nonnegative) | ~row for name, array in arrays.items()}
    if len(shape) == 1:
        for name, valid in good.items():
            if is_concrete(valid) and not np.all(np.asarray(valid)):
                at = int(np.argmin(np.asarray(valid)))
                sign = "positive and " if name in positive else "at least 0 and " if name in nonnegative else ""
                raise ValueError(f"{name}[{at}] must be {sign}finite, got {float(arrays[name][at])}")
    lanes = {name: _some_rows(jnp.atleast_2d(array), 1) for name, array in arrays.items()}
    row = _some_rows(jnp.atleast_2d(row), False)
    bad = ~jnp.stack([_some_rows(jnp.atleast_2d(valid), True).all(1) for valid in good.values()]).all(0)
    unused = ~row | bad[:, None]
    safe = {name: replace_where(unused, array, jnp.ones_like(array)) for name, array in lanes.items()}
    # What is masked has no say in anything, its derivative included.
    safe = {name: jnp.where(row, array, 1) for name, array in safe.items()}
    return Entry(lanes, safe, row, bad, len(shape) == 1)


def start_of(
    field: str,
    values: Mapping[str, ArrayLike] | None,
    names: Sequence[str],
    entry: Entry,
    settings: Settings | None = None,
) -> dict[str, Float[Array, " lanes"]]:
    """Values by name, one a lane.

    Raises:
        ValueError: an unknown name, a wrong shape, or with `settings` a concrete value that is not within its bounds.
    """
    like = next(iter(entry.columns.values()))
    found = {}
    for name, value in (values or {}).items():
        if name not in names:
            raise ValueError(f"{field} names {name!r}, which is none of {', '.join(names)}")
        array = as_float(f"{field}[{name!r}]", value).astype(like.dtype)
        lanes = () if entry.single else (like.shape[0],)
        if array.shape not in ((), lanes):
            raise ValueError(
                f"{field}[{name!r}] must be a scalar{' or ' + str(lanes) if lanes else ''}, got {array.shape}"
            )
        if settings is not None:
            bound = settings.bounds[settings.names.index(name)]
            if is_concrete(array) and not np.all(np.asarray(is_inside(array, bound))):
                raise ValueError(f"{field}[{name!r}] must be finite and strictly within {bound}, got {array}")
        elif is_concrete(array) and not np.all(np.isfinite(np.asarray(array))):
            raise ValueError(f"{field}[{name!r}] must be finite, got {array}")
        found[name] = jnp.broadcast_to(array, like.shape[:1])
    return found


def _some_rows(x: Array, filler: float | bool) -> Array:
    """The rows; where there is none a masked one, so that too few of them are a status like any other."""
    return x if x.shape[1] else jnp.full((x.shape[0], 1), filler, x.dtype)


def _is_good(x: Array, positive: bool, nonnegative: bool) -> Array:
    good = jnp.isfinite(x)
    if positive:
        return good & (x > 0)
    return good & (x >= 0) if nonnegative else good
