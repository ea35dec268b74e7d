"""What it is worth to know that price changes are correlated: the adaptive order of one who does not mind risk.

Almgren and Chriss's discrete model with price changes D_1, D_2, … of one step each, of variance σ²τ, where each
predicts the next: E[D_{k+1} | D_1, …, D_k] = ρ D_k. A trader who has seen D_k expects all later prices to have moved on
by ρ D_k, ρ² D_k more after that, and so on, and holds back or hurries. With m + 1 = N − k trades to go

    n_{k+1} = x_k/(m + 1) − (τ/2η̃) b_m D_k,        b_m = ρ (1 + b_{m−1}) m/(m + 1),        b_0 = 0

is the best of all that use past prices. What it gains over equal slices follows from g_m = ρ² g_{m−1} + b_m² (m + 1)/m,

    gain = (σ²τ²/4η̃) [g_{N−2} + (1 − ρ²)(g_{N−3} + … + g_1)]    →    ρ²σ²τ²/(4η̃(1 − ρ)²) a step in a long order.

It is twice, for small ρ, what moving shares from one step to the next alone can gain, ρ²σ²τ²/8η̃ a step: a price that
is expected to be higher is so in all steps that are left.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.numerics.arrays import check
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.schedules.parameters import are_valid, check_steps, scalars

_POSITIVE, _NONNEGATIVE = ("horizon", "temporary_impact"), ("volatility", "permanent_impact")


class SerialCorrelation(eqx.Module):
    """How to answer to price changes, and what that gains.

    Attributes:
        response: (steps,) shares per currency: sell `response[k] · D_k` less in step k + 1 (counted from 0: in the step
            of that index), D_k the price change of the step before, own impact taken off. The first is 0.
        gain: expected saving of the whole order over equal slices, currency. It does not depend on the size of the
            order: selling more to buy it back later is part of it.
        gain_per_step: what a step of a long order gains, currency.
        status: OK; NONFINITE_INPUT where a traced parameter is not finite, has the wrong sign or |ρ| ≥ 1; NONCONVEX
            where η̃ ≤ 0.
    """

    response: Float[Array, " steps"]
    gain: Float[Array, ""]
    gain_per_step: Float[Array, ""]
    status: Int[Array, ""]


def serial_correlation(
    horizon: ArrayLike,
    steps: int,
    *,
    volatility: ArrayLike,
    temporary_impact: ArrayLike,
    correlation: ArrayLike,
    permanent_impact: ArrayLike = 0.0,
) -> SerialCorrelation:
    """The best answer to serially correlated price changes, at no risk aversion. Traced.

    The half-spread is left out: it costs the same as long as no trade changes sides.

    Args:
        horizon: T > 0, trading days.
        steps: N; below three there is nothing to be gained.
        volatility: σ ≥ 0, currency per share per √day: σ√τ is the standard deviation of one step's price change.
        temporary_impact: η > 0, currency per share per (share per day).
        correlation: ρ between the price changes of two steps in a row, −1 < ρ < 1; between steps j apart it is ρ^j.
        permanent_impact: γ of Almgren and Chriss ≥ 0, currency per share per share; η̃ = η − ½γτ.

    Raises:
        ValueError: `steps` is not a positive integer, a parameter is not a scalar, or a concrete one is not finite, out
            of range, or makes η̃ ≤ 0.

    Source: the question and the model are those of Almgren and Chriss, Optimal execution of portfolio transactions,
    J. Risk 3 (2000); the solution is by dynamic programming over all adapted strategies.
    """
    check_steps(steps)
    given = {
        "horizon": horizon,
        "volatility": volatility,
        "temporary_impact": temporary_impact,
        "correlation": correlation,
        "permanent_impact": permanent_impact,
    }
    p = scalars(given, positive=_POSITIVE, nonnegative=_NONNEGATIVE)
    check("correlation", p["correlation"], lambda v: np.abs(v) < 1, "between −1 and 1")
    valid = are_valid(p, positive=_POSITIVE, nonnegative=_NONNEGATIVE) & (jnp.abs(p["correlation"]) < 1)
    net = p["temporary_impact"] - p["permanent_impact"] * (p["horizon"] / steps) / 2
    check("temporary_impact − ½ permanent_impact · τ", net, lambda v: v > 0, "positive")
    failed = ~valid | ~(net > 0)
    everywhere = taint(p, failed)
    harmless = dict.fromkeys(p, 1.0) | {"correlation": 0.0, "permanent_impact": 0.0}
    p = {name: replace_where(failed, x, jnp.full_like(x, harmless[name])) for name, x in p.items()}
    rho, tau = p["correlation"], p["horizon"] / steps
    scale = tau / (p["temporary_impact"] - p["permanent_impact"] * tau / 2)
    answers, gains = _answers(rho, steps - 1)
    innovation = jnp.where(np.arange(steps - 1) == 0, 1, 1 - rho**2)  # of D_1, …, D_{N−1} over σ²τ
    change = p["volatility"] ** 2 * tau

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    status = jnp.where(valid, Status.NONCONVEX, Status.NONFINITE_INPUT)
    return SerialCorrelation(
        response=spoilt(scale / 2 * jnp.concatenate([jnp.zeros_like(rho)[None], answers])),
        gain=spoilt(scale * change / 4 * jnp.sum(innovation * gains)),
        gain_per_step=spoilt(scale * change / 4 * (rho / (1 - rho)) ** 2),
        status=jnp.where(failed, status, Status.OK).astype(jnp.int32),
    )


def _answers(rho: Array, count: int) -> tuple[Float[Array, " count"], Float[Array, " count"]]:
    """b_m and g_m for m = count − 1, …, 0: in the order in which price changes are seen."""

    def longer(before: tuple[Array, Array], m: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        answer, gain = before
        answer = rho * (1 + answer) * m / (m + 1)
        after = answer, rho**2 * gain + answer**2 * (m + 1) / jnp.where(m > 0, m, 1)
        return after, after

    start = jnp.zeros_like(rho), jnp.zeros_like(rho)
    _, (answers, gains) = lax.scan(longer, start, jnp.arange(count, dtype=rho.dtype))
    return answers[::-1], gains[::-1]
