"""What every calibration hands back: parameters, their errors, and what the data cannot tell."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.calibration.lane_fit import LaneFit, root
from jaxexec.calibration.transforms import Bound, slope
from jaxexec.numerics.distributions import f_quantile, student_quantile
from jaxexec.numerics.status import Status, is_usable, poison, taint

if TYPE_CHECKING:
    from jaxexec.presentation import Table

_SHOWN = 20
_MANY_DEGREES = 1e7  # beyond them Student's distribution is the normal one to 1e-7
_NODES = 25


class ParameterFit(eqx.Module):
    """Parameters of one fit (no leading axis) or of many, with errors; `result["eta"]` is one of them.

    A fit that failed has NaN values. Where the data cannot tell parameters apart the status is RANK_DEFICIENT, the
    standard errors of those concerned are infinite, those of the others are what they are, and `null_directions` says
    which combination is free.

    Attributes:
        values: Estimates in the order of `names`, (..., p).
        std_errors: Standard errors, (..., p).
        covariance: Covariance matrix, (..., p, p).
        free_values: The parameters without bounds that were searched, logarithms where a bound is below, (..., p).
        free_covariance: Their covariance matrix, (..., p, p); `covariance` is this one by the delta method.
        residual_std: √(Σr²/(n − p)), in the unit of the residuals, (...).
        degrees_of_freedom: Of Student's distribution in each parameter's interval, n − p unless the errors are known
            less well, (..., p).
        n: Rows used, (...).
        singular_values: Of the Jacobian with columns of unit length, increasing, (..., p); zero is a null direction.
        directions: Row k is the direction of the free parameters that belongs to singular value k, (..., p, p).
        agreeing: How many of the starts found this optimum, (...).
        steps: Points tried, from all starts, (...).
        status: `Status`, (...).
        names: Names of the parameters.
        bounds: (low, high) of each, None for none.
    """

    values: Float[Array, "*stocks p"]
    std_errors: Float[Array, "*stocks p"]
    covariance: Float[Array, "*stocks p p"]
    free_values: Float[Array, "*stocks p"]
    free_covariance: Float[Array, "*stocks p p"]
    residual_std: Float[Array, "*stocks"]
    degrees_of_freedom: Float[Array, "*stocks p"]
    n: Int[Array, "*stocks"]
    singular_values: Float[Array, "*stocks p"]
    directions: Float[Array, "*stocks p p"]
    agreeing: Int[Array, "*stocks"]
    steps: Int[Array, "*stocks"]
    status: Int[Array, "*stocks"]
    names: tuple[str, ...] = eqx.field(static=True)
    bounds: tuple[Bound, ...] = eqx.field(static=True)

    def __getitem__(self, name: str) -> Float[Array, "*stocks"]:
        return self.values[..., self.place(name)]

    def std_error(self, name: str) -> Float[Array, "*stocks"]:
        """Standard error of one parameter."""
        return self.std_errors[..., self.place(name)]

    @property
    def t(self) -> Float[Array, "*stocks p"]:
        """Estimate over standard error; infinite where the fit is perfect."""
        exact = self.std_errors == 0
        t = self.values / jnp.where(exact, 1, self.std_errors)
        return jnp.where(exact & (self.values != 0), jnp.copysign(jnp.inf, self.values), t)

    @property
    def condition(self) -> Float[Array, "*stocks"]:
        """Largest over smallest singular value; infinite where there is a null direction."""
        least, most = self.singular_values[..., 0], self.singular_values[..., -1]
        none = (least == 0) | (self.status == Status.RANK_DEFICIENT)
        return jnp.where(none, jnp.inf, most / jnp.where(least == 0, 1, least))

    def intervals(self, level: float = 0.95, *, free: bool = False) -> np.ndarray:
        """Confidence intervals of each parameter alone, (..., p, 2): estimate ± t × standard error. On the host.

        Args:
            level: Probability that an interval covers its parameter, between 0 and 1.
            free: Make them for the parameters without bounds and carry the ends over, so that they stay within the
                bounds.

        Raises:
            ValueError: `level` is not between 0 and 1.
        """
        _check_level(level)
        half = _by_degrees(lambda left: student_quantile((1 + level) / 2, left), self.degrees_of_freedom)
        if not free:
            centre, error = np.asarray(self.values), np.asarray(self.std_errors)
            return np.stack([centre - half * error, centre + half * error], -1)
        error = np.asarray(root(jnp.diagonal(self.free_covariance, axis1=-2, axis2=-1)))
        ends = np.asarray(self.free_values)[..., None] + np.stack([-half * error, half * error], -1)
        return np.sort(np.stack([_natural(ends[..., i, :], bound) for i, bound in enumerate(self.bounds)], -2), -1)

    def distance(self, values: Any) -> Float[Array, "*stocks"]:
        """(θ − θ̂)ᵀ Cov⁻¹ (θ − θ̂)/p: Fisher-distributed with p and n − p degrees of freedom at the truth."""
        apart = jnp.asarray(values, self.values.dtype) - self.values
        scale = jnp.where(self.std_errors > 0, self.std_errors, 1)
        unit = self.covariance / (scale[..., :, None] * scale[..., None, :])
        z = apart / scale
        return (z * jnp.linalg.solve(unit, z[..., None])[..., 0]).sum(-1) / len(self.names)

    def contains(self, values: Any, level: float = 0.95) -> np.ndarray:
        """Whether the joint confidence region of all parameters, an ellipsoid, contains `values`, (..., p).

        Raises:
            ValueError: `level` is not between 0 and 1.
        """
        _check_level(level)
        most = _by_degrees(lambda left: f_quantile(level, len(self.names), left), self._left())
        return np.asarray(self.distance(values)) <= most

    def ellipse(self, first: str, second: str, level: float = 0.95, points: int = 101) -> np.ndarray:
        """The joint confidence region of two parameters of one fit, as a closed curve, (points, 2). On the host.

        Raises:
            ValueError: a batch of fits, or `level` is not between 0 and 1.
            KeyError: an unknown name.
        """
        _check_level(level)
        if np.ndim(self.status):
            raise ValueError("ellipse needs one fit: take one of the batch by jax.tree.map(lambda x: x[i], result)")
        at = [self.place(first), self.place(second)]
        covariance = np.asarray(self.covariance, np.float64)[np.ix_(at, at)]
        angle = np.linspace(0, 2 * np.pi, points)
        size = np.sqrt(2 * f_quantile(level, 2, float(self._left())))
        shape = np.full((2, 2), np.nan) if np.isnan(covariance).any() else _root_of(covariance)
        return np.asarray(self.values)[at] + size * np.stack([np.cos(angle), np.sin(angle)], 1) @ shape.T

    def null_directions(self) -> list[str]:
        """What the data cannot tell, of one fit: "log eta + log psi" can grow without any change of the model."""
        if np.ndim(self.status):
            raise ValueError("null_directions needs one fit: jax.tree.map(lambda x: x[i], result) takes one")
        if int(self.status) != Status.RANK_DEFICIENT:
            return []
        singular, eps = np.asarray(self.singular_values), float(jnp.finfo(self.values.dtype).eps)
        null = singular**2 <= 50 * len(self.names) * eps
        labels = [_label(name, bound) for name, bound in zip(self.names, self.bounds, strict=True)]
        return [_combination(labels, row) for row in np.asarray(self.directions)[null]]

    def place(self, name: str) -> int:
        """Where a parameter stands in `names`."""
        if name not in self.names:
            raise KeyError(f"{name!r} is none of the parameters {', '.join(self.names)}")
        return self.names.index(name)

    def table(self, title: str = "Calibration") -> "Table":
        """One row a parameter (of many fits a row a fit), with 95 % intervals."""
        from jaxexec.presentation import Table

        values, errors = np.asarray(self.values), np.asarray(self.std_errors)
        if not np.ndim(self.status):
            ends = self.intervals()
            rows = [
                (name, float(values[i]), float(errors[i]), float(ends[i, 0]), float(ends[i, 1]))
                for i, name in enumerate(self.names)
            ]
            status = Status(int(self.status))
            footer = f"{int(self.n):,} rows; status {status.name}." + (
                "" if status == Status.OK else f" {status.remedy}"
            )
            if directions := self.null_directions():
                footer += f" The data cannot tell: {'; '.join(directions)}."
            return Table(title, ("parameter", "estimate", "std. error", "95 % from", "95 % to"), rows, footer)
        flat = [x.reshape(-1, len(self.names)) for x in (values, errors)]
        statuses = np.asarray(self.status).reshape(-1)
        rows = [
            (i, *(float(x) for pair in zip(flat[0][i], flat[1][i], strict=True) for x in pair), Status(int(code)).name)
            for i, code in enumerate(statuses[:_SHOWN])
        ]
        columns = ("fit", *(c for name in self.names for c in (name, "std. error")), "status")
        usable = int(np.sum(np.asarray(is_usable(statuses))))
        return Table(title, columns, rows, f"{len(rows)} of {len(statuses):,} fits shown; {usable:,} usable.")

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def _left(self) -> np.ndarray:
        """Degrees of freedom of what concerns several parameters: the fewest."""
        return np.minimum(np.asarray(self.degrees_of_freedom, np.float64).min(-1), _MANY_DEGREES)


def parameter_fit(fit: LaneFit, names: tuple[str, ...], bounds: tuple[Bound, ...], inputs: Any, single: bool):
    """The record for a user: NaN where a fit failed, infinite errors where the data cannot tell.

    Args:
        inputs: floating arrays, lanes first, that a failed lane sends NaN back to.
        single: whether there is one lane, without an axis in the result.
    """
    failed = ~is_usable(fit.status)
    everywhere = jax.vmap(taint)(inputs, failed)

    def spoilt(x: Array) -> Array:
        """NaN in failed lanes, all else unchanged."""
        lane = (slice(None),) + (None,) * (x.ndim - 1)
        lost = jnp.broadcast_to(failed[lane], x.shape)
        return poison(jnp.where(lost & ~jnp.isfinite(x), 0, x) + jnp.broadcast_to(everywhere[lane], x.shape), lost)

    deficient = (fit.status == Status.RANK_DEFICIENT)[:, None]
    error = root(jnp.diagonal(fit.covariance, axis1=1, axis2=2))
    left = jnp.maximum(fit.n - len(names), 1).astype(fit.values.dtype)
    errors = jnp.where(deficient, jnp.where(fit.identified, jnp.where(deficient, error, 0), jnp.inf), spoilt(error))
    result = ParameterFit(
        values=spoilt(fit.values),
        std_errors=errors,
        covariance=spoilt(fit.covariance),
        free_values=spoilt(fit.free),
        free_covariance=spoilt(fit.free_covariance),
        residual_std=spoilt(fit.residual_std),
        degrees_of_freedom=jnp.broadcast_to(left[:, None], fit.values.shape),
        n=fit.n,
        singular_values=fit.singular_values,
        directions=fit.directions,
        agreeing=fit.agreeing,
        steps=fit.steps,
        status=fit.status,
        names=names,
        bounds=bounds,
    )
    return jax.tree.map(lambda x: x[0], result) if single else result


def with_errors(
    found: ParameterFit, free_covariance: Float[Array, "lanes p p"], degrees: Float[Array, "lanes p"]
) -> ParameterFit:
    """A batch of fits with another covariance of the free parameters; failed fits stay as they are."""
    usable = is_usable(found.status)
    free = jnp.where(usable[:, None], found.free_values, 0)
    by_free = jnp.stack([slope(free[:, i], bound) for i, bound in enumerate(found.bounds)], -1)
    covariance = free_covariance * by_free[:, :, None] * by_free[:, None, :]
    errors = root(jnp.diagonal(covariance, axis1=1, axis2=2))
    one, both = usable[:, None], usable[:, None, None]
    return eqx.tree_at(
        lambda f: (f.free_covariance, f.covariance, f.std_errors, f.degrees_of_freedom),
        found,
        (
            jnp.where(both, free_covariance, found.free_covariance),
            jnp.where(both, covariance, found.covariance),
            jnp.where(one, errors, found.std_errors),
            jnp.where(one, degrees, found.degrees_of_freedom),
        ),
    )


def _natural(ends: np.ndarray, bound: Bound) -> np.ndarray:
    low, high = bound
    with np.errstate(over="ignore"):
        if low is None:
            return ends if high is None else high - np.exp(ends)
        return low + (np.exp(ends) if high is None else (high - low) / (1 + np.exp(-ends)))


def _by_degrees(quantile: Callable[[float], float], left: ArrayLike) -> np.ndarray:
    """A quantile for every number of degrees of freedom, found once for each that occurs.

    It is a smooth function of their inverse: where many occur, a polynomial through some of them is exact to 1e-9.
    """
    left = np.minimum(np.asarray(left, np.float64), _MANY_DEGREES)
    known, at = np.unique(left, return_inverse=True)
    if len(known) <= _NODES:
        found = np.array([quantile(v) for v in known.tolist()])
    else:
        ends = [1 / known[-1], 1 / known[0]]
        through = np.polynomial.Chebyshev.interpolate(
            lambda x: np.array([quantile(1 / v) for v in x.tolist()]), _NODES - 1, domain=ends
        )
        found = through(1 / known)
    return found[at].reshape(left.shape)


def _root_of(covariance: np.ndarray) -> np.ndarray:
    """L with L Lᵀ the covariance of two numbers, also where it is singular."""
    a, b, c = covariance[0, 0], covariance[0, 1], covariance[1, 1]
    first = np.sqrt(max(a, 0.0))
    cross = b / first if first > 0 else 0.0
    return np.array([[first, 0.0], [cross, np.sqrt(max(c - cross**2, 0.0))]])


def _label(name: str, bound: Bound) -> str:
    low, high = bound
    if low is not None and high is not None:
        return f"logit {name}"
    return name if (low is None and high is None) else f"log {name}"


def _combination(labels: list[str], weights: np.ndarray) -> str:
    """ "log eta + 0.5 log risk_aversion", small weights left out, the first one positive."""
    parts = [(w, label) for w, label in zip(weights, labels, strict=True) if abs(w) > 1e-4]
    sign = np.sign(parts[0][0]) if parts else 1.0
    text = ""
    for w, label in parts:
        w = sign * w
        joint = " − " if w < 0 else " + " if text else ""
        size = "" if abs(abs(w) - 1) < 5e-4 else f"{abs(w):.3g} "
        text += joint + size + label
    return text


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
