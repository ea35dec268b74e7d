"""First and second derivatives of answers with respect to named parameters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxexec.numerics.arrays import is_concrete
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.sensitivity.answers import Answers, OptimalCost, direct_slopes
from jaxexec.sensitivity.levels import as_traced, levels, unit_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxexec.presentation import Table


class Sensitivities(eqx.Module):
    """Derivatives of answers with respect to parameters; all NaN where the status is not usable.

    Attributes:
        parameters: their names.
        values: (parameters,) θ, where the derivatives are taken.
        answers: name to the answer A, of any shape.
        first: name to ∂A/∂θ, the answer's shape and (parameters,); unit of the answer per unit of the parameter.
        second: name to ∂²A/∂θ∂θ', the answer's shape and (parameters, parameters); None where not asked for.
        status: a `Status`.
    """

    parameters: tuple[str, ...] = eqx.field(static=True)
    values: Float[Array, " parameters"]
    answers: dict[str, Array]
    first: dict[str, Array]
    second: dict[str, Array] | None
    status: Int[Array, ""]

    def elasticity(self, answer: str) -> Float[Array, "... parameters"]:
        """θ/A ∂A/∂θ: per cent of the answer for one per cent of the parameter; NaN where the answer is zero."""
        value = self.answers[answer][..., None]
        zero = value == 0
        return jnp.where(zero, jnp.nan, self.first[answer] * self._along(answer) / jnp.where(zero, 1, value))

    def per_percent(self, answer: str) -> Float[Array, "... parameters"]:
        """θ/100 ∂A/∂θ: what one per cent more of the parameter adds to the answer, in the answer's unit."""
        return self.first[answer] * (self._along(answer) / 100)

    def of(self, answer: str, parameter: str) -> Float[Array, "..."]:
        """∂A/∂θ for one parameter, of the answer's shape."""
        if parameter not in self.parameters:
            raise ValueError(f"parameter must be one of {', '.join(self.parameters)}, got {parameter!r}")
        return self.first[answer][..., self.parameters.index(parameter)]

    def table(self, answer: str | None = None) -> "Table":
        """Scalar answers in natural and elasticity units, one row a parameter; or one array answer, a row an entry.

        Raises:
            ValueError: they are traced or a batch.
        """
        from jaxexec.presentation import Table

        host = self._host("table")
        status = Status(int(host.status))
        if answer is not None and np.ndim(host.answers[answer]):
            rows = np.reshape(host.first[answer], (-1, len(host.parameters)))
            columns = ("entry", *(f"per {name}" for name in host.parameters))
            numbered = [(k, *row) for k, row in enumerate(rows.tolist())]
            return Table(f"Derivatives of {answer}", columns, numbered, f"{status.name}.")
        names = [answer] if answer else [name for name, value in host.answers.items() if np.ndim(value) == 0]
        elastic = {name: np.asarray(self.elasticity(name)) for name in names}
        rows = [
            (p, unit_of(p), host.values[i], *(x for n in names for x in (host.first[n][i], elastic[n][i])))
            for i, p in enumerate(host.parameters)
        ]
        pairs = [text for name in names for text in (f"d {_words(name)}", "elasticity")]
        given = ", ".join(f"{_words(name)} {float(host.answers[name]):,.6g}" for name in names)
        footer = f"{status.name}; {given}. Elasticity: per cent for one per cent; a curve moves as a whole."
        return Table("Sensitivities", ("parameter", "unit", "value", *pairs), rows, footer)

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def plot(self, answer: str | None = None) -> "Figure":
        """Of a scalar answer what one per cent of each parameter adds, as bars; of an array answer as lines.

        Raises:
            ValueError: they are traced or a batch.
        """
        from jaxexec.presentation import figures

        host = self._host("plot")
        name = next(iter(host.answers)) if answer is None else answer
        steps, what = np.asarray(self.per_percent(name)), _words(name)
        title = f"One per cent more of each parameter: {what}"
        if steps.ndim == 1:
            return figures.bars(host.parameters, steps, title, f"change of {what}")
        lines = steps.reshape(-1, steps.shape[-1])
        entry = np.arange(lines.shape[0])
        return figures.curves(
            entry, dict(zip(host.parameters, lines.T, strict=True)), title, "entry", f"change of {what}"
        )

    def to_polars(self):
        """One row a scalar answer and parameter: answer, parameter, unit, value, derivative, elasticity."""
        import polars

        host = self._host("to_polars")
        names = [name for name, value in host.answers.items() if np.ndim(value) == 0]
        count = len(host.parameters)
        return polars.DataFrame(
            {
                "answer": [name for name in names for _ in range(count)],
                "parameter": list(host.parameters) * len(names),
                "unit": [unit_of(p) for p in host.parameters] * len(names),
                "value": np.tile(host.values, len(names)),
                "derivative": np.concatenate([host.first[name] for name in names]),
                "elasticity": np.concatenate([np.asarray(self.elasticity(name)) for name in names]),
            }
        )

    def _along(self, answer: str) -> Array:
        """θ with axes of length one in front, as many as the answer has."""
        return self.values.reshape((1,) * (self.first[answer].ndim - self.values.ndim) + self.values.shape)

    def _host(self, what: str) -> Any:
        if not is_concrete(self.values) or self.values.ndim != 1:
            raise ValueError(
                f"{what} needs one concrete result; pick one of a batch with jax.tree.map(lambda x: x[i], …)"
            )
        return jax.tree.map(np.asarray, self)


def sensitivities(
    inputs: Any,
    of: Answers | None = None,
    *,
    parameters: Sequence[str] | None = None,
    by_step: Sequence[str] = (),
    second: bool = False,
) -> Sensitivities:
    """Derivatives of any answer with respect to any parameters of its inputs. Traced; `vmap` it over many orders.

    Cost and schedule of an order: one factorisation and one sweep for all parameters, at a cost like that of the solve;
    a large batch is worked on in pieces that stay in cache. Other answers: forward mode, one linear solve a parameter.
    For the gradient of one number with respect to thousands of parameters take `jax.grad` of `solve` itself.

    Args:
        inputs: a `Liquidation`, or whatever pytree `of` takes.
        of: the answers: `OptimalCost()` (where None), `OptimalSchedule()`, `FrontierPoints(γ)`, `BlockPremium()`,
            `InformedTrading(periods)`, or a function of yours to a dictionary of arrays. Part of the compiled
            programme: pass the same function again.
        parameters: names, the last word of a parameter's place where no other has it (volatility, volume, eta, psi,
            risk_aversion, horizon, …), more of it else (costs[0].eta); None for all.
        by_step: curves to take step by step; others move as a whole, by their mean.
        second: second derivatives too.

    Returns:
        `Sensitivities`. Derivatives at kinks are one-sided, as `solve` gives them.

    Raises:
        ValueError: a name that is no parameter of `inputs`; those there are named.
    """
    names = parameters if parameters is None or isinstance(parameters, str) else tuple(parameters)
    return _sensitivities(
        as_traced(inputs), OptimalCost() if of is None else of, names, tuple(_as_list(by_step)), bool(second)
    )


def _as_list(names: Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


@eqx.filter_jit
def _sensitivities(inputs: Any, of: Answers, parameters: Any, by_step: tuple[str, ...], second: bool) -> Sensitivities:
    chosen = levels(inputs, parameters, by_step)

    def answered(values: Array) -> tuple[dict[str, Array], tuple[dict[str, Array], Array]]:
        found = split(of(chosen.at(values)))
        return found[0], found

    def sloped(values: Array):
        direct = direct_slopes(of, chosen.at(values), chosen.moves)
        if direct is None:
            first, (answers, status) = jax.jacfwd(answered, has_aux=True)(values)
        else:
            (answers, status), first = split(direct[0]), direct[1]
        return first, (answers, first, status)

    if second:
        bent, (answers, first, status) = jax.jacfwd(sloped, has_aux=True)(chosen.values)
    else:
        bent, (first, (answers, first, status)) = None, sloped(chosen.values)
    failed = status > Status.LOCAL
    answers, first, bent = (spoilt(x, failed, inputs) for x in (answers, first, bent))
    return Sensitivities(chosen.names, chosen.values, answers, first, bent, status)


def split(found: Any) -> tuple[dict[str, Array], Array]:
    """Answers, and their status: the one they bring, or whether they are finite."""
    answers = {name: jnp.asarray(value) for name, value in found.items() if name != "status"}
    finite = jnp.stack([jnp.all(jnp.isfinite(value)) for value in answers.values()]).all()
    own = jnp.where(finite, Status.OK, Status.NONFINITE_INTERNAL)
    status = found.get("status")
    return answers, (own if status is None else jnp.max(jnp.asarray(status))).astype(jnp.int32)


def spoilt(tree: Any, failed: Array, inputs: Any) -> Any:
    """NaN throughout where `failed`, and in what is then asked of the floating `inputs`."""
    floating = [x for x in jax.tree.leaves(inputs) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    everywhere = taint(floating, failed)
    return jax.tree.map(lambda x: poison(jnp.where(failed, 0, x) + everywhere.astype(x.dtype), failed), tree)


def _words(name: str) -> str:
    return name.replace("_", " ")
