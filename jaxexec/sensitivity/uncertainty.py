"""How sure an answer is: the covariance of its parameters carried through, by derivatives and by drawing.

delta method    Cov(A) ≈ J Σ Jᵀ,  J = ∂A/∂θ              exact where A is linear in θ as far as the errors reach
drawing         A(θ_i),  θ_i ~ N(θ, Σ)                   no derivative, and no straight line either
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.arrays import as_float, check, is_concrete
from jaxexec.numerics.status import Status, is_usable, replace_where
from jaxexec.sensitivity.answers import Answers, OptimalSchedule
from jaxexec.sensitivity.derivatives import sensitivities, split, spoilt
from jaxexec.sensitivity.levels import as_traced, levels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxexec.presentation import Table


class Bands(eqx.Module):
    """Answers with the standard errors that those of their parameters make, to first order.

    Attributes:
        parameters: their names.
        values: (parameters,) θ.
        covariance: (parameters, parameters) Σ.
        answers: name to the answer A.
        std_errors: name to √diag(J Σ Jᵀ), the answer's shape and unit.
        first: name to J = ∂A/∂θ, the answer's shape and (parameters,).
        status: a `Status`; NaN where it is not usable.
    """

    parameters: tuple[str, ...] = eqx.field(static=True)
    values: Float[Array, " parameters"]
    covariance: Float[Array, "parameters parameters"]
    answers: dict[str, Array]
    std_errors: dict[str, Array]
    first: dict[str, Array]
    status: Int[Array, ""]

    def interval(self, answer: str, level: float = 0.95) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """The normal interval of an answer, entry by entry.

        Raises:
            ValueError: `level` is not between 0 and 1.
        """
        half = _normal_quantile(level) * self.std_errors[answer]
        return self.answers[answer] - half, self.answers[answer] + half

    def covariance_of(self, answer: str) -> Float[Array, "entries entries"]:
        """J Σ Jᵀ of all entries of an answer, in their order."""
        jacobian = self.first[answer].reshape(-1, self.values.shape[0])
        return jacobian @ self.covariance @ jacobian.T

    def shares_of_variance(self, answer: str) -> Float[Array, "... parameters"]:
        """What part of an answer's variance each parameter brings, J_i (Σ Jᵀ)_i over the whole; they sum to one.

        A part is negative where a parameter's error offsets that of another.
        """
        jacobian = self.first[answer]
        parts = jacobian * _last_axis(jacobian, self.covariance)
        whole = jnp.sum(parts, axis=-1, keepdims=True)
        return parts / jnp.where(whole > 0, whole, 1)

    def table(self) -> "Table":
        """One row a scalar answer: value, standard error, 95 % interval, and whose error it is.

        Raises:
            ValueError: they are traced or a batch.
        """
        from jaxexec.presentation import Table

        self._check_host("table")
        rows = []
        for name, value in self.answers.items():
            if value.ndim:
                continue
            low, high = self.interval(name)
            share = np.asarray(self.shares_of_variance(name))
            most = int(np.argmax(np.nan_to_num(share, nan=-1.0)))
            owner = f"{self.parameters[most]} {100 * float(share[most]):.0f} %"
            rows.append((name.replace("_", " "), *map(float, (value, self.std_errors[name], low, high)), owner))
        columns = ("answer", "value", "std. error", "2.5 %", "97.5 %", "most of it from")
        given = zip(
            self.parameters, np.asarray(self.values), np.sqrt(np.diag(np.asarray(self.covariance))), strict=True
        )
        footer = "; ".join(f"{name} {value:.4g} ± {error:.2g}" for name, value, error in given)
        return Table("How sure", columns, rows, f"{Status(int(self.status)).name}; {footer}.")

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def plot(self, answer: str = "inventory", level: float = 0.95) -> "Figure":
        """An answer of shape (entries,) with its band, a matplotlib Figure.

        Raises:
            ValueError: they are traced or a batch, or the answer is a scalar.
        """
        from jaxexec.presentation import figures

        self._check_host("plot")
        if self.answers[answer].ndim != 1:
            raise ValueError(f"plot shows answers of shape (entries,); {answer!r} has {self.answers[answer].shape}")
        low, high = self.interval(answer, level)
        what = answer.replace("_", " ")
        entry = np.arange(self.answers[answer].shape[0])
        title = f"{what.capitalize()}, and how far its inputs' errors move it"
        return figures.band(entry, self.answers[answer], low, high, title, "entry", what, name=f"{100 * level:g} %")

    def _check_host(self, what: str) -> None:
        if not is_concrete(self.values) or self.values.ndim != 1:
            raise ValueError(
                f"{what} needs one concrete result; pick one of a batch with jax.tree.map(lambda x: x[i], …)"
            )


class Draws(eqx.Module):
    """Answers at parameters drawn from a normal distribution.

    Attributes:
        parameters: their names.
        values: (draws, parameters) θ as drawn.
        answers: name to the answers, (draws, …); NaN where a draw has none.
        status: (draws,) a `Status` each.
    """

    parameters: tuple[str, ...] = eqx.field(static=True)
    values: Float[Array, "draws parameters"]
    answers: dict[str, Array]
    status: Int[Array, " draws"]

    @property
    def usable(self) -> Bool[Array, " draws"]:
        """(draws,) where there is an answer: a drawn parameter may be one that no market has."""
        return is_usable(self.status)

    def std_error(self, answer: str) -> Float[Array, "..."]:
        """Standard deviation over the usable draws."""
        return jnp.nanstd(self.answers[answer], axis=0, ddof=1)

    def interval(self, answer: str, level: float = 0.95) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Between the quantiles of the usable draws.

        Raises:
            ValueError: `level` is not between 0 and 1.
        """
        _normal_quantile(level)
        ends = jnp.asarray([(1 - level) / 2, (1 + level) / 2], self.values.dtype)
        low, high = jnp.nanquantile(self.answers[answer], ends, axis=0)
        return low, high


def delta_method(
    inputs: Any,
    covariance: ArrayLike,
    of: Answers | None = None,
    *,
    parameters: Sequence[str],
    by_step: Sequence[str] = (),
) -> Bands:
    """Standard errors of answers from the covariance of parameters, by the delta method. Traced.

    Args:
        inputs: a `Liquidation`, or whatever pytree `of` takes, at the estimates θ.
        covariance: (parameters, parameters) Σ of the estimates, in the order of `parameters`. That of independent
            estimates is `np.diag(std_errors**2)`.
        of: the answers; None means `OptimalSchedule()`.
        parameters: names, as in `sensitivities`.
        by_step: curves to take step by step; they count as many parameters as they have steps.

    Raises:
        ValueError: an unknown name, another shape, or a concrete matrix that is not finite or symmetric or has a
            negative eigenvalue.

    Source: e.g. Greene, Econometric Analysis, appendix D.
    """
    found = sensitivities(inputs, OptimalSchedule() if of is None else of, parameters=parameters, by_step=by_step)
    sigma = _checked(covariance, found.parameters, found.values)

    def error(jacobian: Array, sigma: Array) -> Array:
        square = jnp.sum(jacobian * _last_axis(jacobian, sigma), axis=-1)
        positive = ~(square <= 0)
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)

    known = jnp.all(jnp.isfinite(sigma)) & jnp.all(jnp.diagonal(sigma) >= 0)
    status = jnp.where(is_usable(found.status) & ~known, Status.NONFINITE_INPUT, found.status).astype(jnp.int32)
    failed = ~is_usable(status)
    safe = replace_where(jnp.broadcast_to(failed, sigma.shape), sigma, jnp.zeros_like(sigma))
    errors = {name: error(jnp.where(failed, 0, jacobian), safe) for name, jacobian in found.first.items()}
    answers, errors, first = spoilt((found.answers, errors, found.first), failed, (as_traced(inputs), sigma))
    return Bands(found.parameters, found.values, sigma, answers, errors, first, status)


def draw(
    inputs: Any,
    covariance: ArrayLike,
    of: Answers | None = None,
    *,
    parameters: Sequence[str],
    key: Array,
    draws: int = 1000,
    by_step: Sequence[str] = (),
) -> Draws:
    """Answers at parameters drawn from N(θ, Σ), the parametric bootstrap: what the delta method is checked by. Traced.

    Args:
        inputs, covariance, of, parameters, by_step: as in `delta_method`.
        key: a `jax.random` key.
        draws: how many.

    Raises:
        ValueError: as in `delta_method`, or `draws` is not a whole number above 1.
    """
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 2:
        raise ValueError(f"draws must be a whole number above 1, got {draws!r}")
    inputs, names = as_traced(inputs), (parameters,) if isinstance(parameters, str) else tuple(parameters)
    chosen = levels(inputs, names, by_step)
    sigma = _checked(covariance, chosen.names, chosen.values)
    steps = (by_step,) if isinstance(by_step, str) else tuple(by_step)
    return _draw(inputs, sigma, OptimalSchedule() if of is None else of, names, steps, key, int(draws))


@eqx.filter_jit
def _draw(inputs, sigma: Array, of: Answers, names, by_step, key: Array, draws: int) -> Draws:
    chosen = levels(inputs, names, by_step)
    errors = jnp.sqrt(jnp.diagonal(sigma))
    safe = jnp.where(errors > 0, errors, 1)
    # Of the correlations, which no choice of units spoils. Singular matrices have no Cholesky factor.
    root = _square_root(sigma / safe[:, None] / safe[None])
    normal = jax.random.normal(key, (draws, sigma.shape[0]), sigma.dtype)
    values = chosen.values[None] + normal @ root * errors[None]
    answers, status = jax.vmap(lambda v: split(of(chosen.at(v))))(values)
    answers = {
        name: jnp.where(is_usable(status).reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.nan) for name, x in answers.items()
    }
    return Draws(chosen.names, values, answers, status)


def _square_root(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """A symmetric root of a positive semidefinite matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]) @ vectors.T


def _last_axis(jacobian: Array, sigma: Array) -> Array:
    return jnp.tensordot(jacobian, sigma, axes=1)


def _checked(covariance: ArrayLike, names: tuple[str, ...], values: Array) -> Float[Array, "parameters parameters"]:
    sigma, count = as_float("covariance", covariance), len(names)
    if sigma.shape != (count, count):
        raise ValueError(f"covariance must have shape ({count}, {count}), for {', '.join(names)}; got {sigma.shape}")
    check("covariance", sigma, np.isfinite, "finite")
    check("the diagonal of covariance", jnp.diagonal(sigma), lambda v: v >= 0, "at least 0")
    if is_concrete(sigma):
        host = np.asarray(sigma, float)
        scale = np.sqrt(np.outer(np.diag(host), np.diag(host)))
        unit = host / np.where(scale > 0, scale, 1)
        least = float(np.linalg.eigvalsh((unit + unit.T) / 2)[0]) if host.size else 0.0
        check("covariance − its transpose", jnp.abs(sigma - sigma.T), lambda v: v <= 1e-6 * scale, "0: it is symmetric")
        if least < -1e-6 * count:
            raise ValueError(f"covariance must have no negative eigenvalue; its correlations have {least:.3g}")
    return sigma.astype(values.dtype)


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)
