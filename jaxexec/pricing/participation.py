"""The best constant participation rate of an order that may take as long as it needs, or as long as it is given."""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.costs import PowerLawCost
from jaxexec.numerics.arrays import check, unify
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.schedules.parameters import are_valid, scalars

_POSITIVE, _NONNEGATIVE = ("volatility", "volume"), ("risk_aversion", "cost_per_day")


class BestParticipation(eqx.Module):
    """The best constant participation rate, and how long the order takes with it.

    Attributes:
        rate: ρ*, own volume over the others'.
        horizon: the time that it takes, days.
        expected_cost: execution cost, currency.
        variance: Var, currency².
        objective: E + (γ/2) Var + cost_per_day · horizon, currency.
        status: OK, or NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign.
    """

    rate: Float[Array, ""]
    horizon: Float[Array, ""]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    status: Int[Array, ""]


def best_participation(
    shares: ArrayLike,
    cost: PowerLawCost,
    *,
    volatility: ArrayLike,
    volume: ArrayLike,
    risk_aversion: ArrayLike,
    cost_per_day: ArrayLike = 0.0,
    longest: ArrayLike | None = None,
) -> BestParticipation:
    """The best of all constant rates in a market of constant volume and volatility. Traced.

    A rate ρ takes T = |q|/(ρV) days and costs ηρ^φ|q| + ψ|q| + (γσ²q²/6 + c) T, which is least at

        ρ* = ((γσ²q²/6 + c)/(ηφV))^{1/(1+φ)}

    and, where that would take longer than `longest`, at the rate that does not.

    Args:
        shares: q, not zero; negative to buy.
        cost: a power law with scalar parameters.
        volatility: σ > 0, currency per share per √day.
        volume: V > 0, shares per day traded by the others.
        risk_aversion: γ ≥ 0, per currency.
        cost_per_day: c ≥ 0, currency per day: what each day in the market costs beside risk (staff, margin, the trade
            that has to wait). Not zero where γ is.
        longest: days in which the order must be done, > 0; None for no limit.

    Raises:
        ValueError: `cost` is not a `PowerLawCost`, or a parameter is not a scalar, or concrete and not finite or of the
            wrong sign, or γ and c are both zero.

    Source: Guéant, The Financial Mathematics of Market Liquidity (2016).
    """
    if not isinstance(cost, PowerLawCost):
        raise ValueError(f"cost must be a jaxexec.PowerLawCost, got {type(cost).__name__}")
    given = {"shares": shares, "volatility": volatility, "volume": volume, "risk_aversion": risk_aversion}
    given["cost_per_day"] = cost_per_day
    if longest is not None:
        given["longest"] = longest
    positive = (*_POSITIVE, *(() if longest is None else ("longest",)))
    p = scalars(given, positive=positive, nonnegative=_NONNEGATIVE)
    check("risk_aversion + cost_per_day", p["risk_aversion"] + p["cost_per_day"], lambda v: v > 0, "positive")
    joined = unify({"p": p, "cost": cost}, final=True)
    p = joined["p"] | {name: getattr(joined["cost"], name) for name in ("eta", "phi", "psi")}
    if any(x.ndim for x in p.values()):
        raise ValueError("cost must have scalar parameters: a constant rate knows no steps")
    hurried = (p["shares"] != 0) & (p["risk_aversion"] + p["cost_per_day"] > 0)
    valid = are_valid(p, positive=(*positive, "eta", "phi"), nonnegative=(*_NONNEGATIVE, "psi")) & hurried
    failed, everywhere = ~valid, taint(p, ~valid)
    p = {name: jnp.where(valid, x, 1) for name, x in p.items()}
    size, variance_rate = jnp.abs(p["shares"]), p["volatility"] ** 2
    waiting = p["risk_aversion"] * variance_rate * size**2 / 6 + p["cost_per_day"]
    rate = (waiting / (p["eta"] * p["phi"] * p["volume"])) ** (1 / (1 + p["phi"]))
    if longest is not None:
        rate = jnp.maximum(rate, size / (p["volume"] * p["longest"]))
    horizon = size / (rate * p["volume"])
    expected = p["eta"] * rate ** p["phi"] * size + p["psi"] * size
    variance = variance_rate * size**2 * horizon / 3
    objective = expected + p["risk_aversion"] / 2 * variance + p["cost_per_day"] * horizon

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    status = jnp.where(valid, Status.OK, Status.NONFINITE_INPUT).astype(jnp.int32)
    return BestParticipation(
        spoilt(rate), spoilt(horizon), spoilt(expected), spoilt(variance), spoilt(objective), status
    )
