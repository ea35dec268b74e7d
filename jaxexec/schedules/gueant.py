"""Guéant's continuous problem with a quadratic cost and constant volume and volatility, in closed form.

q'' = κ² q,    κ² = γσ²V/2η,        q(t) = q_0 sinh κ(T − t)/sinh κT,    p(t) = −2η/V · |q'(t)| − ψ   in a sale
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.numerics.arrays import as_float
from jaxexec.numerics.hyperbolic import cosh_root, sinhc, sinhc_slope
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.schedules.parameters import are_valid, scalars

_POSITIVE, _NONNEGATIVE = ("horizon", "volume", "eta"), ("volatility", "psi", "risk_aversion", "permanent_impact")
_SERIES_BELOW = 1.0  # of (κT)²: series there keep values and derivatives exact at γ = 0


class GueantQuadratic(eqx.Module):
    """The optimal schedule at the times that were asked for, and its cost.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes,) q, shares.
        rate: (nodes,) −q', shares per day; positive in a sale.
        costate: (nodes,) p, currency per share.
        expected_cost: E, currency.
        variance: Var, currency².
        objective: E + (γ/2) Var, currency.
        kappa: κ, per day.
        status: OK, or NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, " nodes"]
    rate: Float[Array, " nodes"]
    costate: Float[Array, " nodes"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    kappa: Float[Array, ""]
    status: Int[Array, ""]


def gueant_quadratic(
    shares: ArrayLike,
    times: ArrayLike,
    *,
    horizon: ArrayLike,
    volatility: ArrayLike,
    volume: ArrayLike,
    eta: ArrayLike,
    psi: ArrayLike = 0.0,
    risk_aversion: ArrayLike = 0.0,
    permanent_impact: ArrayLike = 0.0,
) -> GueantQuadratic:
    """The schedule that a fine grid tends to. Traced; finite derivatives at γ = 0 too.

    Args:
        shares: q_0; negative to buy.
        times: (nodes,) where it is wanted, trading days between 0 and `horizon`.
        horizon: T > 0.
        volatility: σ ≥ 0, currency per share per √day.
        volume: V > 0, shares per day traded by the others.
        eta: η > 0 of `QuadraticCost`, currency per share.
        psi: ψ ≥ 0, currency per share.
        risk_aversion: γ ≥ 0, per currency.
        permanent_impact: κ of `Market` ≥ 0, currency per share per share.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or of the wrong sign.

    Source: Guéant, The Financial Mathematics of Market Liquidity (2016), ch. 3.
    """
    p = scalars(
        {
            "shares": shares,
            "horizon": horizon,
            "volatility": volatility,
            "volume": volume,
            "eta": eta,
            "psi": psi,
            "risk_aversion": risk_aversion,
            "permanent_impact": permanent_impact,
        },
        positive=_POSITIVE,
        nonnegative=_NONNEGATIVE,
    )
    valid = are_valid(p, positive=_POSITIVE, nonnegative=_NONNEGATIVE)
    failed, everywhere = ~valid, taint(p, ~valid)
    p = {name: replace_where(failed, x, jnp.ones_like(x)) for name, x in p.items()}

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    end, at = p["horizon"], as_float("times", times).astype(p["horizon"].dtype)
    squared = p["risk_aversion"] * p["volatility"] ** 2 * p["volume"] / (2 * p["eta"])
    held, speed = _path(squared, at, end)
    inventory, rate = p["shares"] * held, p["shares"] * speed
    moved, carried = _integrals(squared * end**2)
    quick = p["eta"] / p["volume"] * p["shares"] ** 2 / end * moved
    size = jnp.abs(p["shares"])
    expected = quick + p["psi"] * size + p["permanent_impact"] / 2 * p["shares"] ** 2
    variance = p["volatility"] ** 2 * p["shares"] ** 2 * end * carried
    marginal = 2 * p["eta"] / p["volume"] * rate + p["psi"] * jnp.sign(p["shares"])
    return GueantQuadratic(
        times=spoilt(at),
        inventory=spoilt(inventory),
        rate=spoilt(rate),
        costate=spoilt(-marginal),
        expected_cost=spoilt(expected),
        variance=spoilt(variance),
        objective=spoilt(expected + p["risk_aversion"] / 2 * variance),
        kappa=spoilt(_root(squared)),
        status=jnp.where(valid, Status.OK, Status.NONFINITE_INPUT).astype(jnp.int32),
    )


def _path(squared: Array, times: Array, end: Array) -> tuple[Array, Array]:
    """sinh κ(T − t)/sinh κT and κ cosh κ(T − t)/sinh κT from κ²."""
    near = squared * end**2 < _SERIES_BELOW
    small, left = jnp.where(near, squared, 0), end - times
    whole = end * sinhc(small * end**2)
    slow = left * sinhc(small * left**2) / whole, cosh_root(small * left**2) / whole
    kappa = jnp.sqrt(jnp.where(near, 1, squared))
    gone, back, all_ = jnp.exp(-kappa * times), jnp.exp(-2 * kappa * left), -jnp.expm1(-2 * kappa * end)
    fast = gone * -jnp.expm1(-2 * kappa * left) / all_, kappa * gone * (1 + back) / all_
    return jnp.where(near, slow[0], fast[0]), jnp.where(near, slow[1], fast[1])


def _integrals(z: Array) -> tuple[Array, Array]:
    """T ∫ (q'/q_0)² dt and (1/T) ∫ (q/q_0)² dt from z = (κT)²: (½ sinh 2κT ± κT)/(2κT sinh² κT), times z for the first.

    The second is (S(4z) − 1)/(2z S(z)²) and the first (S(4z) + 1)/(2 S(z)²), with S(z) = sinh √z / √z.
    """
    near = z < _SERIES_BELOW
    small = jnp.where(near, z, 0)
    square = sinhc(small) ** 2
    slow = (sinhc(4 * small) + 1) / (2 * square), 2 * sinhc_slope(4 * small) / square
    k = jnp.sqrt(jnp.where(near, 1, z))
    # Both over e^{2κT}/4, so that nothing overflows.
    double, square = -jnp.expm1(-4 * k) / 2, jnp.expm1(-2 * k) ** 2
    rest = 4 * k * jnp.exp(-2 * k)
    fast = k * (4 * double + 2 * rest) / (4 * square), (4 * double - 2 * rest) / (4 * k * square)
    return jnp.where(near, slow[0], fast[0]), jnp.where(near, slow[1], fast[1])


def _root(x: Array) -> Array:
    """√x, with a zero derivative at zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
