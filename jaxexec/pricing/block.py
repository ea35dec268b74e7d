"""What taking over a position is worth: the price of a block without a deadline.

With no deadline the first integral of the Hamiltonian system is zero, V H(p) = ½γσ²q², and the value of holding q is

    ℓ(q) = ∫_0^q H⁻¹(γσ²x²/2V) dx,

the risk-liquidity premium (Guéant 2016): to be indifferent, the buyer of the block pays q S_0 − ½κq² − ℓ(q).
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.costs import ExecutionCost
from jaxexec.numerics.arrays import unify
from jaxexec.numerics.roots import monotone_root
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.schedules.parameters import scalars

# Gauss–Legendre nodes in u, x = q u⁴: ℓ' grows like a power between 0 and 1 of x, which u makes smooth enough.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_POWER = 4
_POSITIVE = ("volatility", "volume", "risk_aversion")


class BlockPrice(eqx.Module):
    """The premium of a block without a deadline.

    Attributes:
        premium: ℓ(q), currency: what execution and risk take from q S_0 − ½κq².
        discount: what the block sells for below q S_0, currency: ℓ(q) + ½κq².
        marginal: ℓ'(q), currency per share: what one share more would take.
        status: OK; INFEASIBLE where a cap forbids the trade altogether; NONCONVEX where the cost is not strictly
            convex; NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign.
    """

    premium: Float[Array, ""]
    discount: Float[Array, ""]
    marginal: Float[Array, ""]
    status: Int[Array, ""]


def block_price(
    shares: ArrayLike,
    cost: ExecutionCost,
    *,
    volatility: ArrayLike,
    volume: ArrayLike,
    risk_aversion: ArrayLike,
    permanent_impact: ArrayLike = 0.0,
) -> BlockPrice:
    """The price of a block, for any cost L with scalar parameters. Traced and differentiable.

    With a deadline the price is that of `liquidation_premium`, which comes down to this one as the deadline is put off.

    Args:
        shares: q; negative for a block that is bought back.
        cost: L; spreads and caps may be part of it.
        volatility: σ > 0, currency per share per √day.
        volume: V > 0, shares per day traded by the others.
        risk_aversion: γ > 0, per currency.
        permanent_impact: κ ≥ 0, currency per share per share.

    Raises:
        ValueError: `cost` is not a cost or varies by step, or a parameter is not a scalar, or concrete and not finite
            or of the wrong sign.

    Source: Guéant, The Financial Mathematics of Market Liquidity (2016).
    """
    if not isinstance(cost, ExecutionCost):
        raise ValueError(f"cost must be a jaxexec.ExecutionCost, got {type(cost).__name__}")
    given = {"shares": shares, "volatility": volatility, "volume": volume, "risk_aversion": risk_aversion}
    given["permanent_impact"] = permanent_impact
    p = scalars(given, positive=_POSITIVE, nonnegative=("permanent_impact",))
    joined = unify({"p": p, "cost": cost}, final=True)
    p, cost = joined["p"], joined["cost"]
    risk = p["risk_aversion"] * p["volatility"] ** 2 / (2 * p["volume"])
    size = jnp.abs(p["shares"])
    finite = jnp.isfinite(size + risk + p["permanent_impact"]) & (risk > 0) & (p["permanent_impact"] >= 0)
    convex = jnp.asarray(cost.is_convex(jnp.ones_like(size)))
    if convex.ndim or jnp.ndim(cost.half_spread()):
        raise ValueError("cost must have scalar parameters: without a deadline there are no steps")
    failed = ~(finite & convex)
    size, risk = jnp.where(failed, 1, size), jnp.where(failed, 1, risk)
    side = jnp.where(p["shares"] < 0, -1, 1).astype(size.dtype)

    def value(marginal: Array, arguments) -> Array:
        traded, direction = arguments
        return traded.hamiltonian(direction * marginal)

    share = jnp.asarray((_NODES + 1) / 2, size.dtype)
    weight = jnp.asarray(_WEIGHTS / 2 * _POWER, size.dtype) * share ** (_POWER - 1)
    at = jnp.append(size * share**_POWER, size)
    marginal = monotone_root(value, (cost, side), risk * at**2)
    low, high = (jnp.asarray(bound, size.dtype) for bound in cost.bounds())
    closed = (jnp.where(side < 0, -low, high) <= 0) | ~jnp.all(jnp.isfinite(marginal))
    marginal, failed = jnp.where(closed, 1, marginal), failed | closed
    premium = size * jnp.sum(weight * marginal[:-1])
    permanent = p["permanent_impact"] / 2 * p["shares"] ** 2
    status = jnp.where(closed, Status.INFEASIBLE, Status.OK)
    status = jnp.where(convex, status, Status.NONCONVEX)
    everywhere = taint((p, cost), failed)

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return BlockPrice(
        spoilt(premium),
        spoilt(premium + jnp.where(failed, 0, permanent)),
        spoilt(marginal[-1]),
        jnp.where(finite, status, Status.NONFINITE_INPUT).astype(jnp.int32),
    )
