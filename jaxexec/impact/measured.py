"""How every measure of liquidity enters and leaves its traced function: lanes in, named values and errors out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.impact.inference import precision_flags
from jaxexec.impact.influence import newey_west
from jaxexec.numerics.arrays import as_float, unify
from jaxexec.numerics.moments import most_newey_west_lags, newey_west_lags
from jaxexec.numerics.status import Status, poison, replace_where

Lags = int | Literal["newey-west-fixed"] | None


class Measured(eqx.Module):
    """Named estimates of one stock (no leading axis) or of a batch of stocks; `result["name"]` is one of them.

    Attributes:
        values: (..., measures), in the order of `names`.
        std_errors: (..., measures).
        covariance: (..., measures, measures); Newey–West, without a small-sample factor.
        n: Rows used, (...).
        lags: Newey–West lags used, (...).
        condition: 2-norm condition number of the regressors, centred and scaled; 1 where there is no regression, (...).
        status: `Status`, (...).
        names: Names of the measures.
    """

    values: Float[Array, "*stocks measures"]
    std_errors: Float[Array, "*stocks measures"]
    covariance: Float[Array, "*stocks measures measures"]
    n: Int[Array, "*stocks"]
    lags: Int[Array, "*stocks"]
    condition: Float[Array, "*stocks"]
    status: Int[Array, "*stocks"]
    names: tuple[str, ...] = eqx.field(static=True)

    def __getitem__(self, name: str) -> Float[Array, "*stocks"]:
        return self.values[..., self._place(name)]

    def std_error(self, name: str) -> Float[Array, "*stocks"]:
        """Standard error of one measure."""
        return self.std_errors[..., self._place(name)]

    @property
    def t(self) -> Float[Array, "*stocks measures"]:
        """Value over standard error; infinite where the fit is perfect, zero of an exact zero."""
        exact = self.std_errors == 0
        t = self.values / jnp.where(exact, 1, self.std_errors)
        return jnp.where(exact & (self.values != 0), jnp.copysign(jnp.inf, self.values), t)

    @property
    def flags(self) -> Int[Array, "*stocks"]:
        """Bits of `Flag`, int32: FLOAT32 where the sums were taken in 32 bits."""
        return precision_flags(self.values, self.status)

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise KeyError(f"{name!r} is none of the measures {', '.join(self.names)}")
        return self.names.index(name)


class Entered(eqx.Module):
    """Arrays on their way in: time first, lanes last, harmless numbers wherever there is no trade.

    Attributes:
        arrays: (time, lanes) each.
        mask: (time, lanes).
        bad: Lanes with an input that is none, (lanes,).
    """

    arrays: dict[str, Float[Array, "time lanes"]]
    mask: Bool[Array, "time lanes"]
    bad: Bool[Array, " lanes"]


def check_arrays(mask: ArrayLike | None, **named: ArrayLike) -> tuple[dict[str, Array], Array]:
    """Floating arrays of one dtype and one shape, (trades,) or (stocks, trades), and their mask.

    Raises:
        ValueError: A shape is none of these, or differs; the field is named.
    """
    arrays = unify({name: as_float(name, value) for name, value in named.items()})
    first, shape = next((name, value.shape) for name, value in arrays.items())
    if len(shape) not in (1, 2):
        raise ValueError(f"{first} must have shape (trades,) or (stocks, trades), got {shape}")
    given = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
    for name, value in (*arrays.items(), ("mask", given)):
        if value.shape != shape:
            raise ValueError(f"{name} must have the shape of {first}, {shape}, got {value.shape}")
    return arrays, given


def check_lags(lags: Lags, trades: int | None = None) -> int | None:
    """The number of lags, None for the rule.

    Raises:
        ValueError: `lags` is no whole number that is not negative, or not fewer than the trades.
    """
    if lags is None or lags == "newey-west-fixed":
        return None
    if isinstance(lags, bool) or not isinstance(lags, int | np.integer) or lags < 0:
        raise ValueError(f"lags must be 'newey-west-fixed' or a whole number that is not negative, got {lags!r}")
    if trades is not None and lags >= max(trades, 1):
        raise ValueError(f"lags must be fewer than the {trades} trades, got {lags}")
    return int(lags)


def check_choice(field: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise a ValueError that names the option and what it may be."""
    if value not in allowed:
        raise ValueError(f"{field} must be one of {tuple(allowed)}, got {value!r}")


def enter(
    arrays: Mapping[str, Array], mask: Array, valid: Mapping[str, Callable[[Array], Array]] | None = None
) -> Entered:
    """Lanes of `arrays`; one that is not finite, or not `valid`, is computed with zeros and marked bad.

    Args:
        valid: Further demands on an array, True where an entry is allowed.
    """
    mask = jnp.atleast_2d(mask).T
    turned = {name: jnp.atleast_2d(value).T for name, value in arrays.items()}
    good = jnp.ones(mask.shape, bool)
    for name, value in turned.items():
        allowed = (valid or {}).get(name, jnp.isfinite)
        good = good & allowed(value)
    bad = (mask & ~good).any(0)
    lost = jnp.broadcast_to(bad[None], mask.shape)
    # The NaN of a bad lane still finds the input that caused it.
    turned = {name: replace_where(lost, value, jnp.zeros_like(value)) for name, value in turned.items()}
    return Entered({name: jnp.where(mask, value, 0) for name, value in turned.items()}, mask, bad)


def is_sign(x: Array) -> Array:
    """+1, −1 or 0."""
    return (x == 0) | (jnp.abs(x) == 1)


def conclude(
    names: tuple[str, ...],
    values: Float[Array, "m lanes"],
    influence: Float[Array, "time m lanes"],
    rows: Int[Array, " lanes"],
    causes: Mapping[Status, Bool[Array, " lanes"]],
    *,
    lags: int | None,
    fewest: int = 2,
    condition: Float[Array, " lanes"] | None = None,
    overlap: Int[Array, " lanes"] | None = None,
    single: bool = False,
) -> Measured:
    """Errors and statuses; lanes come first in the result.

    Args:
        rows: Number of rows n.
        causes: Status -> lanes that have it, besides too few rows, bad conditioning and overflow; the first counts.
        lags: Newey–West lags, None for ⌊4 (n/100)^{2/9}⌋.
        fewest: Rows that are needed at least.
        overlap: Lags that each lane has at least, as far as it has rows, where the rule chooses them.
        single: Whether there is one lane, without an axis in the result.
    """
    longest = most_newey_west_lags(influence.shape[0]) if lags is None else lags
    used = newey_west_lags(rows, longest) if lags is None else jnp.full_like(rows, lags)
    if overlap is not None and lags is None:
        longest = max(influence.shape[0] - 1, longest)
        used = jnp.maximum(used, jnp.minimum(overlap.astype(rows.dtype), rows - 1))
    matrix = newey_west(influence, used, longest)
    square = jnp.stack([matrix[i, i] for i in range(len(names))])
    errors = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    condition = jnp.ones_like(values[0]) if condition is None else condition
    eps = float(jnp.finfo(values.dtype).eps)
    finite = jnp.isfinite(values).all(0) & jnp.isfinite(matrix).all((0, 1))
    ordered = {
        **{cause: where for cause, where in causes.items() if cause == Status.NONFINITE_INPUT},
        Status.INSUFFICIENT_DATA: (rows < fewest) | (rows <= used),
        **{cause: where for cause, where in causes.items() if cause != Status.NONFINITE_INPUT},
        Status.ILL_CONDITIONED: condition > eps ** (-1 / 3),
        Status.NONFINITE_INTERNAL: ~finite,
        Status.OK_INACCURATE: condition > eps ** (-1 / 4),
    }
    statuses = [jnp.full_like(rows, cause) for cause in ordered]
    status = jnp.select(list(ordered.values()), statuses, jnp.full_like(rows, Status.OK))
    failed = status > Status.LOCAL
    condition = jnp.where(failed & (status != Status.RANK_DEFICIENT), jnp.nan, lax.stop_gradient(condition))
    result = Measured(
        poisoned(values.T, failed),
        poisoned(errors.T, failed),
        poisoned(matrix.transpose(2, 0, 1), failed),
        rows,
        used,
        condition,
        status,
        names,
    )
    return eqx.tree_at(_arrays, result, [x[0] for x in _arrays(result)]) if single else result


def _arrays(result: Measured) -> list[Array]:
    return [getattr(result, name) for name in _FIELDS]


_FIELDS = ("values", "std_errors", "covariance", "n", "lags", "condition", "status")


def poisoned(x: Float[Array, "lanes ..."], failed: Bool[Array, " lanes"]) -> Float[Array, "lanes ..."]:
    """NaN in failed lanes, which come first; `poison` wants finite numbers there."""
    lost = jnp.broadcast_to(failed.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
    return poison(jnp.where(lost & ~jnp.isfinite(x), 0, x), lost)
