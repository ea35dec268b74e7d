"""Where the equilibrium has a closed form: one period, and the limit of many.

They share nothing with the recursion, so that the one checks the other.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.arrays import as_float, check, is_concrete, unify
from jaxexec.numerics.status import Status, poison, replace_where, taint

_POSITIVE = ("prior_variance", "noise_variance", "noise_rate", "horizon")


class OnePeriod(eqx.Module):
    """Kyle's equilibrium of a single period.

    Attributes:
        intensity: β, shares per currency.
        price_impact: λ, currency per share.
        posterior_variance: Σ_1, currency².
        expected_profit: of the insider, currency.
        value: the insider's ex-ante E − (γ/2) Var, currency, of which Var is that given v.
        status: OK; NONFINITE_INPUT where a traced parameter is out of range; NONFINITE_INTERNAL where γ√(Σ_0 s) is so
            large that its square overflows.
    """

    intensity: Float[Array, ""]
    price_impact: Float[Array, ""]
    posterior_variance: Float[Array, ""]
    expected_profit: Float[Array, ""]
    value: Float[Array, ""]
    status: Int[Array, ""]


def one_period(prior_variance: ArrayLike, noise_variance: ArrayLike, risk_aversion: ArrayLike = 0.0) -> OnePeriod:
    """One period in closed form, Kyle's at γ = 0. Traced and differentiable, at γ = 0 too.

    b = β√(Σ_0/s) is the positive root of b⁴ + Γb³ = 1 with Γ = γ√(Σ_0 s): with c = 1/b, c⁴ = Γc + 1, by Ferrari.

    Args:
        prior_variance: Σ_0 > 0, currency².
        noise_variance: s > 0, shares².
        risk_aversion: γ ≥ 0 in E − (γ/2) Var, per currency. "local" and "cara" are the same here.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and out of range.

    Source: Kyle, Econometrica 53 (1985), Theorem 1; Subrahmanyam, RFS 4 (1991), for the quartic.
    """
    p, failed = _scalars(
        {"prior_variance": prior_variance, "noise_variance": noise_variance, "risk_aversion": risk_aversion}
    )
    given, overflowed = p, ~failed & _overflows(p["risk_aversion"], p["prior_variance"], p["noise_variance"])
    p = {name: replace_where(failed | overflowed, x, jnp.ones_like(x)) for name, x in p.items()}
    value, noise = jnp.sqrt(p["prior_variance"]), jnp.sqrt(p["noise_variance"])
    linear = p["risk_aversion"] * value * noise
    resolvent = 2 / 3**0.5 * jnp.sinh(jnp.arcsinh(3 * 3**0.5 / 16 * linear * linear) / 3)  # m³ + m = Γ²/8
    whole = jnp.sqrt(1 + resolvent * resolvent)
    half = linear / (2 * whole)  # √(2m), smooth in Γ at 0
    scaled = 2 / (half + jnp.sqrt(4 * whole - 2 * resolvent))
    intensity = scaled * noise / value
    learnt = 1 + scaled * scaled
    answers = {
        "intensity": intensity,
        "price_impact": value / noise * scaled / learnt,
        "posterior_variance": p["prior_variance"] / learnt,
        "expected_profit": scaled * value * noise / learnt,
        "value": scaled * value * noise / 2,
    }
    return OnePeriod(**_concluded(answers, given, failed, overflowed))


class ContinuousLimit(eqx.Module):
    """The limit of many short periods, at given times.

    Attributes:
        times: (points,) trading days, as given.
        intensity: (points,) β(t), shares per currency and day: dx = β (v − p) dt. Infinite at the horizon.
        price_impact: (points,) λ(t), currency per share.
        posterior_variance: (points,) Σ(t), currency².
        expected_profit: of the insider until the horizon, currency.
        status: OK; NONFINITE_INPUT where a traced parameter is out of range; NONFINITE_INTERNAL where the square of α
            overflows.
    """

    times: Float[Array, " points"]
    intensity: Float[Array, " points"]
    price_impact: Float[Array, " points"]
    posterior_variance: Float[Array, " points"]
    expected_profit: Float[Array, ""]
    status: Int[Array, ""]


def continuous_limit(
    prior_variance: ArrayLike,
    noise_rate: ArrayLike,
    horizon: ArrayLike,
    times: ArrayLike,
    risk_aversion: ArrayLike = 0.0,
) -> ContinuousLimit:
    """The limit of `solve(Σ_0, σ²T/n, n, γ, "cara")` as n grows. Traced and differentiable, at γ = 0 too.

    In units of √Σ_0, σ√T and T, with α = γ√Σ_0 σ√T and λ_0 = (α + √(α² + 4))/2,

        λ(t) = λ_0/(1 + αλ_0 t),    β(t) = λ_0/(1 − t),    Σ(t) = (1 − t)/(1 + αλ_0 t).

    A penalty on each period's variance ("local") vanishes in this limit: it becomes that of γ = 0, whatever γ is.

    Args:
        prior_variance: Σ_0 > 0, currency².
        noise_rate: σ² > 0, shares² per day.
        horizon: T > 0, trading days.
        times: (points,) between 0 and T, trading days.
        risk_aversion: γ ≥ 0, per currency, of −E exp(−γ · profit).

    Raises:
        ValueError: a shape is wrong, or a concrete value out of range.

    Source: Kyle, Econometrica 53 (1985), Theorem 3 (γ = 0); for γ > 0 the limit is derived here and checked by the
    recursion at 4,000 periods.
    """
    at = as_float("times", times)
    if at.ndim != 1:
        raise ValueError(f"times must have shape (points,), got {at.shape}")
    p, failed = _scalars(
        {
            "prior_variance": prior_variance,
            "noise_rate": noise_rate,
            "horizon": horizon,
            "risk_aversion": risk_aversion,
        },
        times=at,
    )
    at = p.pop("times")
    check("times", at, lambda v: v >= 0, "at least 0")
    if is_concrete(p["horizon"]):
        check("times", at, lambda v: v <= float(p["horizon"]), "between 0 and the horizon")
    failed = failed | ~jnp.all((at >= 0) & (at <= p["horizon"]))
    given = p, at
    overflowed = ~failed & _overflows(p["risk_aversion"], p["prior_variance"], p["noise_rate"] * p["horizon"])
    spoilt = failed | overflowed
    p = {name: replace_where(spoilt, x, jnp.ones_like(x)) for name, x in p.items()}
    inside = replace_where(jnp.broadcast_to(spoilt, at.shape), at, jnp.zeros_like(at))
    value, noise = jnp.sqrt(p["prior_variance"]), jnp.sqrt(p["noise_rate"] * p["horizon"])
    alpha = p["risk_aversion"] * value * noise
    first = (alpha + jnp.sqrt(alpha * alpha + 4)) / 2
    gone = inside / p["horizon"]
    fall = 1 + alpha * first * gone
    growth = alpha * first
    small = growth < 1e-3
    safe = jnp.where(small, 1, growth)
    mean = jnp.where(
        small, 1 - growth * (1 / 2 - growth * (1 / 3 - growth * (1 / 4 - growth / 5))), jnp.log1p(safe) / safe
    )
    answers = {
        "times": inside,
        "intensity": first / (1 - gone) * noise / value / p["horizon"],
        "price_impact": value / noise * first / fall,
        "posterior_variance": p["prior_variance"] * (1 - gone) / fall,
        "expected_profit": value * noise * first * mean,
    }
    return ContinuousLimit(**_concluded(answers, given, failed, overflowed))


def _overflows(risk_aversion: Array, prior_variance: Array, noise_variance: Array) -> Bool[Array, ""]:
    """Whether Γ², Γ = γ√(Σ_0 s), is more than numbers can hold."""
    scale = lax.stop_gradient(risk_aversion * jnp.sqrt(prior_variance) * jnp.sqrt(noise_variance))
    return ~jnp.isfinite(scale * scale)


def _concluded(answers: dict[str, Array], inputs: Any, refused: Array, overflowed: Array) -> dict[str, Array]:
    """The fields of an answer, NaN where it failed, and the status."""
    failed = refused | overflowed
    everywhere = taint(inputs, failed)
    status = jnp.where(refused, Status.NONFINITE_INPUT, jnp.where(overflowed, Status.NONFINITE_INTERNAL, Status.OK))
    fields = {name: poison(x + everywhere, jnp.broadcast_to(failed, x.shape)) for name, x in answers.items()}
    return fields | {"status": status.astype(jnp.int32)}


def _scalars(values: dict[str, ArrayLike], **others: Array) -> tuple[dict[str, Array], Bool[Array, ""]]:
    """Scalars and what goes with them in one dtype, and whether a traced one is out of range."""
    loose = {name: float(value) if type(value) is int else value for name, value in values.items()}
    arrays = {name: as_float(name, value) for name, value in loose.items()}
    for name, array in arrays.items():
        if array.ndim:
            raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for a batch")
        check(name, array, np.isfinite, "finite")
        if name in _POSITIVE:
            check(name, array, lambda v: v > 0, "positive")
        else:
            check(name, array, lambda v: v >= 0, "at least 0")
    made = unify(arrays | others, final=True)
    failed = jnp.asarray(False)
    for name in values:
        right = made[name] > 0 if name in _POSITIVE else made[name] >= 0
        failed = failed | ~(right & jnp.isfinite(made[name]))
    return made, failed
