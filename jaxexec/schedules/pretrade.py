"""The pre-trade cost of Almgren, Thum, Hauptmann and Li (2005), and the market and cost that it stands for.

With own volume X traded at a constant rate in T days, of a stock with Θ shares, daily volume V and volatility σ,

    I = γ σ T (X/VT)^α (Θ/V)^δ            J = I/2 + η σ (X/VT)^β

are the permanent impact and the realised cost per share; powers carry the sign of X. They fitted γ = 0.314 and
η = 0.142 with α = 1, δ = 1/4, β = 3/5.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.costs import PowerLawCost
from jaxexec.numerics.arrays import positive_log
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.schedules.parameters import are_valid, scalars

_POSITIVE = ("volume", "shares_outstanding")
_NONNEGATIVE = ("volatility", "gamma", "eta")


class PretradeCost(eqx.Module):
    """What a meta-order is expected to cost.

    Attributes:
        permanent_impact: I, fraction of the price by which it has fallen for good; positive in a sale.
        temporary_impact: J − I/2, fraction of the price.
        realised_cost: J, fraction of the price by which the mean fill is worse than the price before; negative in a
            purchase, which pays more.
        expected_cost: J · price · X, currency; never negative.
        status: OK, or NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign.
    """

    permanent_impact: Float[Array, ""]
    temporary_impact: Float[Array, ""]
    realised_cost: Float[Array, ""]
    expected_cost: Float[Array, ""]
    status: Int[Array, ""]


def almgren_2005(
    shares: ArrayLike,
    horizon: ArrayLike,
    *,
    volatility: ArrayLike,
    volume: ArrayLike,
    shares_outstanding: ArrayLike,
    price: ArrayLike = 1.0,
    gamma: ArrayLike = 0.314,
    eta: ArrayLike = 0.142,
    permanent_exponent: ArrayLike = 1.0,
    turnover_exponent: ArrayLike = 0.25,
    temporary_exponent: ArrayLike = 0.6,
) -> PretradeCost:
    """The expected cost of an order at a constant rate, before it trades. Traced.

    Args:
        shares: X, shares to sell; negative to buy.
        horizon: T > 0, trading days (of volume time, where volume varies).
        volatility: σ ≥ 0, currency per share per √day; a fraction of the price if `price` is left at 1.
        volume: V > 0, shares per day.
        shares_outstanding: Θ > 0.
        price: currency per share, > 0.
        gamma: γ ≥ 0, of permanent impact.
        eta: η ≥ 0, of temporary impact.
        permanent_exponent: α > 0; at 1 permanent impact does not depend on T.
        turnover_exponent: δ.
        temporary_exponent: β > 0.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or of the wrong sign.

    Source: Almgren, Thum, Hauptmann and Li, Direct estimation of equity market impact, Risk (2005). The default values
    are quoted from memory.
    """
    given = {
        "shares": shares,
        "horizon": horizon,
        "volatility": volatility,
        "volume": volume,
        "shares_outstanding": shares_outstanding,
        "price": price,
        "gamma": gamma,
        "eta": eta,
        "permanent_exponent": permanent_exponent,
        "turnover_exponent": turnover_exponent,
        "temporary_exponent": temporary_exponent,
    }
    positive = (*_POSITIVE, "horizon", "price", "permanent_exponent", "temporary_exponent")
    p = scalars(given, positive=positive, nonnegative=_NONNEGATIVE)
    failed = ~are_valid(p, positive=positive, nonnegative=_NONNEGATIVE)
    everywhere = taint(p, failed)
    p = {name: replace_where(failed, x, jnp.ones_like(x)) for name, x in p.items()}
    relative = p["volatility"] / p["price"]
    rate = p["shares"] / (p["volume"] * p["horizon"])
    turnover = (p["shares_outstanding"] / p["volume"]) ** p["turnover_exponent"]
    moved = relative * p["gamma"] * p["horizon"] * _signed_power(rate, p["permanent_exponent"]) * turnover
    passing = relative * p["eta"] * _signed_power(rate, p["temporary_exponent"])
    realised = moved / 2 + passing

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return PretradeCost(
        permanent_impact=spoilt(moved),
        temporary_impact=spoilt(passing),
        realised_cost=spoilt(realised),
        expected_cost=spoilt(realised * p["price"] * p["shares"]),
        status=jnp.where(failed, Status.NONFINITE_INPUT, Status.OK).astype(jnp.int32),
    )


def _signed_power(x: Array, exponent: Array) -> Array:
    """sgn(x) |x|^exponent. At 0 the derivative is 1 for the exponent 1; for others zero, as of all powers at rest."""
    moving = x != 0
    factor = jnp.exp((exponent - 1) * positive_log(jnp.abs(jnp.where(moving, x, 1))))
    return x * jnp.where(moving, factor, jnp.where(exponent == 1, 1, 0))


class ImpactModel(NamedTuple):
    """A cost for `Liquidation` and the `permanent_impact` for its `Market`."""

    cost: PowerLawCost
    permanent_impact: Float[Array, ""]


def almgren_2005_model(
    *,
    volatility: ArrayLike,
    volume: ArrayLike,
    shares_outstanding: ArrayLike,
    gamma: ArrayLike = 0.314,
    eta: ArrayLike = 0.142,
    turnover_exponent: ArrayLike = 0.25,
    temporary_exponent: ArrayLike = 0.6,
    half_spread: ArrayLike = 0.0,
) -> ImpactModel:
    """The cost L(ρ) = ησ|ρ|^{1+β} + ψ|ρ| and permanent impact γσ(Θ/V)^δ/V that the fit stands for. Traced.

    An order at a constant rate then costs what `almgren_2005` says, and half-spreads, which the fit leaves out.

    Args:
        volatility: σ, currency per share per √day, > 0; a volatility relative to the price, times the price.
        volume: V > 0, shares per day.
        shares_outstanding: Θ > 0.
        gamma: γ ≥ 0.
        eta: η > 0.
        turnover_exponent: δ.
        temporary_exponent: β > 0.
        half_spread: ψ ≥ 0, currency per share.

    Returns:
        The cost and the permanent impact, currency per share per share. Traced parameters that are not finite or have
        the wrong sign are left to the status of what they are used in.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or of the wrong sign.
    """
    given = {
        "volatility": volatility,
        "volume": volume,
        "shares_outstanding": shares_outstanding,
        "gamma": gamma,
        "eta": eta,
        "turnover_exponent": turnover_exponent,
        "temporary_exponent": temporary_exponent,
        "half_spread": half_spread,
    }
    positive = (*_POSITIVE, "volatility", "eta", "temporary_exponent")
    p = scalars(given, positive=positive, nonnegative=("gamma", "half_spread"))
    turnover = (p["shares_outstanding"] / p["volume"]) ** p["turnover_exponent"]
    cost = PowerLawCost(p["eta"] * p["volatility"], p["temporary_exponent"], p["half_spread"])
    return ImpactModel(cost, p["gamma"] * p["volatility"] * turnover / p["volume"])
