"""Decay kernels from signed order flow and returns: the propagator model of Bouchaud, Gefen, Potters and Wyart (2004).

The price at the end of step t is Σ_{s≤t} G((t−s)h) q_s plus noise, so that its change is

    r_t = G(0) q_t + Σ_{l=1}^{L} [G(lh) − G((l−1)h)] q_{t−l} + e_t,

linear in the differences K of the kernel. The rows are therefore read once: with the triangle R of their Gram matrix,
RᵀR = QᵀQ, the sum of squares is |z − R K(θ)|² plus what no kernel explains, and a search over θ has L + 2 rows left.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.calibration.entry import enter_rows, start_of
from jaxexec.calibration.general import drawn, settings_of
from jaxexec.calibration.newey_west import with_long_run_errors
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.calibration.run_fit import compiled_fit
from jaxexec.calibration.transforms import POSITIVE, Bound
from jaxexec.numerics.arrays import as_float, check
from jaxexec.numerics.records import record
from jaxexec.transient import ExponentialKernel, ImpactKernel, PowerLawKernel, SumKernel

Form = Literal["exponential", "exponential-permanent", "power-law"]
FlowErrors = Literal["classical", "hac"]


class PropagatorFit(eqx.Module):
    """A kernel and the fit of its parameters.

    Attributes:
        parameters: The fit; rows are steps.
        kernel: The kernel, for `transient_schedule` and the others; of a batch one with a leading axis, for `jax.vmap`.
            NaN where the fit failed.
    """

    parameters: ParameterFit
    kernel: ImpactKernel


def _exponential(p: Mapping[str, Array]) -> ImpactKernel:
    return record(ExponentialKernel, impact=p["impact"], decay=p["decay"])


def _with_permanent(p: Mapping[str, Array]) -> ImpactKernel:
    lasting = record(ExponentialKernel, impact=p["permanent"], decay=jnp.zeros_like(p["permanent"]))
    return record(SumKernel, kernels=(_exponential(p), lasting))


def _power_law(p: Mapping[str, Array]) -> ImpactKernel:
    return record(PowerLawKernel, impact=p["impact"], exponent=p["exponent"], scale=p["scale"])


_FORMS: dict[Form, tuple[tuple[str, ...], Callable[[Mapping[str, Array]], ImpactKernel]]] = {
    "exponential": (("impact", "decay"), _exponential),
    "exponential-permanent": (("impact", "decay", "permanent"), _with_permanent),
    "power-law": (("impact", "exponent", "scale"), _power_law),
}


def propagator(
    flow: ArrayLike,
    returns: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    step: ArrayLike,
    form: Form = "exponential",
    lags: int | None = None,
    history: Literal["drop", "zero"] = "drop",
    bounds: Mapping[str, Bound] | None = None,
    fixed: Mapping[str, ArrayLike] | None = None,
    start: Mapping[str, ArrayLike] | None = None,
    starts: int = 8,
    key: Array | None = None,
    covariance: FlowErrors = "classical",
    max_steps: int = 100,
) -> PropagatorFit:
    """A decay kernel with standard errors, from one or many sessions, of one stock or many. Traced.

    Args:
        flow: q, signed shares of each step, buys positive, (time,), (sessions, time) or (stocks, sessions, time).
        returns: r, price change over each step, currency, same shape.
        mask: True for a real step; one that is missing leaves out itself and all that look back at it.
        step: h > 0, days between steps.
        form: "exponential": impact κ and decay ρ; "exponential-permanent": besides these a part that stays;
            "power-law": impact, exponent and scale (see the kernels).
        lags: L, how far back a return looks; None means 50, or the session where that is shorter.
        history: "drop" leaves out the first L steps of a session, whose past is not known; "zero" says that nothing was
            traded before a session.
        bounds: (low, high) by name; all are positive unless told otherwise.
        covariance: "classical" takes e_t as independent and alike; "hac" bears an e_t that is correlated from step to
            step or of unequal variance (Newey and West; pre-whitened, lags chosen by their rule of 1994).
        fixed, start, starts, key, max_steps: As in `fit`. Where no start is given it is found from the flow: the impact
            of a step, and decays over some steps.

    Returns:
        The kernel and the fit of its parameters.

    Raises:
        ValueError: a wrong shape or option; of one stock, a step that is not finite.

    Source: Bouchaud, Gefen, Potters and Wyart, Quant. Finance 4 (2004); Obizhaeva and Wang, J. Financial Markets 16
    (2013), for the exponential kernel; Newey and West, Econometrica 55 (1987) and Rev. Econ. Studies 61 (1994), and
    Andrews and Monahan, Econometrica 60 (1992), for "hac".
    """
    if form not in _FORMS:
        raise ValueError(f"form must be one of {tuple(_FORMS)}, got {form!r}")
    if history not in ("drop", "zero"):
        raise ValueError(f"history must be 'drop' or 'zero', got {history!r}")
    if covariance not in get_args(FlowErrors):
        raise ValueError(f"covariance must be one of {get_args(FlowErrors)}, got {covariance!r}")
    steps, h = as_float("flow", flow), as_float("step", step)
    if h.ndim:
        raise ValueError(f"step must be a scalar, got shape {h.shape}")
    check("step", h, lambda v: v > 0, "positive")
    names, _ = _FORMS[form]
    if steps.ndim not in (1, 2, 3) or steps.shape[-1] < 2:
        raise ValueError(
            f"flow must have shape (time,), (sessions, time) or (stocks, sessions, time), got {steps.shape}"
        )
    time = steps.shape[-1]
    longest = min(50, time - 1) if lags is None else lags
    if isinstance(longest, bool) or not isinstance(longest, int) or not 1 <= longest < time:
        raise ValueError(f"lags must be a whole number from 1 to {time - 1}, got {lags!r}")
    shape = steps.shape
    flat = (shape[0], -1) if len(shape) == 3 else (-1,)
    columns = {"flow": steps, "returns": as_float("returns", returns)}
    row = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
    for name, array in (*columns.items(), ("mask", row)):
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape of flow, {shape}, got {array.shape}")
    entry = enter_rows({n: x.reshape(flat) for n, x in columns.items()}, row.reshape(flat))
    known = start_of("fixed", fixed, names, entry)
    free = tuple(name for name in names if name not in known)
    settings = settings_of(
        free, known, bounds, dict.fromkeys(free, POSITIVE), "squares", 1.0, "classical", max_steps, True
    )
    sessions = tuple(x.reshape(entry.row.shape[0], -1, time) for x in (*entry.columns.values(), entry.row))
    triangle, rows = _read(*sessions, longest, history)
    h = h.astype(triangle.dtype)
    first = _first(triangle, h) | start_of("start", start, free, entry, settings)
    points = drawn(jnp.stack([first[name] for name in free], -1)[None], settings.bounds, starts, key)
    lag = jnp.broadcast_to(h * jnp.arange(longest + 1, dtype=h.dtype), (triangle.shape[0], longest + 1))
    data = {"triangle": triangle, "lag": lag}
    used = jnp.ones(triangle.shape[:2], bool)
    found = compiled_fit(
        KernelLeft(form), settings, points, data, known, used, entry.bad, entry.given, entry.single, rows
    )
    if covariance == "hac":
        q, r, m = sessions
        found = with_long_run_errors(
            found,
            Change(form),
            known,
            lag[0],
            jnp.where(m, q, 0),
            r,
            _seen(m, longest, history),
            "newey-west-1994",
            True,
        )
    return PropagatorFit(found, _kernel(form, found, known, entry.single))


@dataclasses.dataclass(frozen=True)
class Change:
    """K: what a share moves the price by in its own step and in each one after it."""

    form: Form

    def __call__(self, parameters: dict[str, Array], lag: Float[Array, "lags *lanes"]) -> Float[Array, "lags *lanes"]:
        kernel = _FORMS[self.form][1](parameters)
        return jnp.concatenate([kernel.value(lag[:1]), -kernel.fall(lag[:-1], lag[1:] - lag[:-1])])


@dataclasses.dataclass(frozen=True)
class KernelLeft:
    """z − R K(θ), and below it what no kernel explains."""

    form: Form

    def __call__(self, parameters: dict[str, Array], data: Any) -> Float[Array, "rows lanes"]:
        change = Change(self.form)(parameters, data["lag"])
        triangle = data["triangle"]  # (L + 2, L + 2, lanes), of (q_t, …, q_{t−L}, r_t)
        return triangle[:, -1] - (triangle[:, :-1] * change[None]).sum(1)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _read(flow: Array, returns: Array, row: Bool[Array, "lanes sessions time"], lags: int, history: str):
    """Triangles (lanes, L + 2, L + 2), and numbers of rows."""

    def one(inputs: tuple) -> tuple:
        q, r, m = inputs
        q = jnp.where(m, q, 0)
        seen = _seen(m, lags, history)
        columns = jnp.stack([*(_delayed(q, k, 0) for k in range(lags + 1)), r]) * seen[None].astype(q.dtype)
        flat = columns.reshape(lags + 2, -1)
        # Scaled, so that shares and prices do not meet in one matrix with their units.
        size = jnp.sqrt(jnp.maximum((flat**2).sum(1), jnp.finfo(q.dtype).tiny))
        unit = flat / size[:, None]
        triangle = _triangle(unit @ unit.T) * size[None]
        return triangle, seen.sum(dtype=jnp.int32)

    return lax.map(one, (flow, returns, row))


def _seen(row: Bool[Array, "*lanes time"], lags: int, history: str) -> Bool[Array, "*lanes time"]:
    """Steps that are there with all that they look back at."""
    return functools.reduce(jnp.logical_and, [_delayed(row, k, history == "zero") for k in range(lags + 1)])


def _delayed(x: Array, by: int, filler: Any) -> Array:
    return jnp.concatenate([jnp.full_like(x[..., :by], filler), x[..., : x.shape[-1] - by]], -1)


def _triangle(gram: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """Upper triangular R with RᵀR = `gram`, column by column; a pivot that is not positive leaves a row of zeros."""

    def eliminated(a: Array, at: Array) -> tuple[Array, Array]:
        pivot = a[at, at]
        positive = pivot > 0
        line = jnp.where(jnp.arange(a.shape[0]) >= at, a[at], 0)
        line = jnp.where(positive, line / jnp.sqrt(jnp.where(positive, pivot, 1)), 0)
        return a - line[:, None] * line[None], line

    return lax.scan(eliminated, gram, jnp.arange(gram.shape[0]))[1]


def _first(triangle: Array, step: Array) -> dict[str, Float[Array, " lanes"]]:
    """The return on the same step's flow alone, and a decay over five steps."""
    diagonal = triangle[:, 0, 0]
    slope = triangle[:, 0, -1] / jnp.where(diagonal > 0, diagonal, 1)
    # A slope of the wrong sign still gives the unit.
    unit = jnp.sqrt((triangle[:, :, -1] ** 2).sum(1)) / jnp.where(diagonal > 0, diagonal, 1)
    impact = jnp.maximum(slope, jnp.where(unit > 0, 1e-3 * unit, 1))
    ones = jnp.ones_like(impact)
    return {
        "impact": impact,
        "decay": ones / (5 * step),
        "permanent": impact / 4,
        "exponent": ones * 0.4,
        "scale": ones * 2 * step,
    }


def _kernel(form: Form, found: ParameterFit, known: Mapping[str, Array], single: bool) -> ImpactKernel:
    fixed = {name: value[0] if single else value for name, value in known.items()}
    return _FORMS[form][1]({**fixed, **{name: found[name] for name in found.names}})
