"""Power-law impact without a deadline (Almgren 2003): temporary impact ηv^k, risk aversion alone ends the order.

    T* = (kηX^{k−1}/λσ²)^{1/(k+1)},        x(t) = X (1 + a t/T*)^{−1/a},        a = (1 − k)/(1 + k)

a power of time for k < 1, an exponential at k = 1, and done at −T*/a for k > 1.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.numerics.arrays import as_float
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.schedules.parameters import are_valid, scalars

_POSITIVE = ("impact", "exponent", "volatility", "variance_weight")
_SERIES_BELOW = 1e-2
_TERMS = 9


class InfiniteHorizon(eqx.Module):
    """The optimal schedule at the times that were asked for, and its cost.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes,) x, shares.
        expected_cost: E of the whole order, currency.
        variance: Var, currency².
        objective: E + λ Var, currency.
        time_constant: T*, days; the time in which the initial rate would do the order.
        finished: when it is done, days; infinite for k ≤ 1.
        status: OK, or NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, " nodes"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    time_constant: Float[Array, ""]
    finished: Float[Array, ""]
    status: Int[Array, ""]


def infinite_horizon(
    shares: ArrayLike,
    times: ArrayLike,
    *,
    volatility: ArrayLike,
    impact: ArrayLike,
    exponent: ArrayLike,
    variance_weight: ArrayLike,
) -> InfiniteHorizon:
    """The order without a deadline, for any exponent. Traced; smooth through k = 1.

    Args:
        shares: X; negative to buy. Zero has a time constant only at k = 1.
        times: (nodes,) where it is wanted, trading days ≥ 0.
        volatility: σ > 0, currency per share per √day.
        impact: η > 0 of ηv^k: currency per share at one share per day. `PowerLawCost`'s η is this times V^k.
        exponent: k > 0; `PowerLawCost`'s φ.
        variance_weight: λ > 0, per currency: half of `risk_aversion`.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or not positive.

    Source: Almgren, Optimal execution with nonlinear impact functions and trading-enhanced risk, Appl. Math. Finance
    10 (2003).
    """
    given = {
        "shares": shares,
        "volatility": volatility,
        "impact": impact,
        "exponent": exponent,
        "variance_weight": variance_weight,
    }
    p = scalars(given, positive=_POSITIVE)
    valid = are_valid(p, positive=_POSITIVE) & (p["shares"] != 0)
    failed, everywhere = ~valid, taint(p, ~valid)
    p = {name: replace_where(failed, x, jnp.ones_like(x)) for name, x in p.items()}

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    k, size = p["exponent"], jnp.abs(p["shares"])
    at = as_float("times", times).astype(k.dtype)
    risk = p["variance_weight"] * p["volatility"] ** 2
    constant = (k * p["impact"] * size ** (k - 1) / risk) ** (1 / (k + 1))
    bend = (1 - k) / (1 + k)
    left, over = _decay(bend, at / constant)
    share = (k + 1) / (3 * k + 1)
    expected = share * p["impact"] * size * (size / constant) ** k
    variance = share * p["volatility"] ** 2 * size**2 * constant
    ends = bend < 0
    finished = jnp.where(ends, constant / jnp.where(ends, -bend, 1), jnp.inf)
    return InfiniteHorizon(
        times=spoilt(at),
        inventory=spoilt(jnp.where(over, 0, p["shares"] * left)),
        expected_cost=spoilt(expected),
        variance=spoilt(variance),
        objective=spoilt(expected + p["variance_weight"] * variance),
        time_constant=spoilt(constant),
        finished=jnp.where(failed, jnp.nan, finished),
        status=jnp.where(valid, Status.OK, Status.NONFINITE_INPUT).astype(jnp.int32),
    )


def _decay(bend: Array, s: Array) -> tuple[Array, Array]:
    """(1 + as)^{−1/a}, e^{−s} at a = 0, and where it is over (1 + as ≤ 0)."""
    z = bend * s
    near = jnp.abs(z) < _SERIES_BELOW
    series = jnp.zeros_like(z)
    for n in range(_TERMS, 0, -1):  # log(1 + z)/z = Σ (−z)ⁿ/(n + 1)
        series = 1 / n - z * series
    over = z <= -1
    apart = jnp.where(near | over, 1, z)
    slowed = jnp.where(near, series, jnp.log1p(apart) / apart)
    return jnp.where(over, 0, jnp.exp(-s * jnp.where(over, 1, slowed))), over
