"""A limit order book that refills exponentially (Obizhaeva and Wang 2013): the optimum in closed form, on any grid.

A trade of n shares moves the price by κn, and ρ is the rate at which that goes away. With h_k = tanh(ρτ_k/2) of the
steps τ_1..τ_N between the times t_0..t_N and H = h_1 + … + h_N,

    n_0 = X (1 + h_1)/(2 + 2H),    n_k = X (h_k + h_{k+1})/(2 + 2H),    n_N = X (1 + h_N)/(2 + 2H),    E = κX²/(2 + 2H),

the inverse of e^{−ρ|t_i − t_j|} being tridiagonal. As the grid becomes fine, 2H → ρT.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.market import TimeGrid
from jaxexec.numerics.arrays import as_float, unify
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.schedules.parameters import are_valid, scalars

_NONNEGATIVE = ("impact", "resilience", "permanent_impact", "half_spread")


class ObizhaevaWang(eqx.Module):
    """The optimal trades at given times, and what they become if it may be traded at any time in between.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes,) shares held after the trade at each time; the last is 0.
        trades: (nodes,) n_k, shares.
        expected_cost: E of these trades, currency.
        block: shares sold at once at either end in continuous time, X/(2 + ρT).
        rate: shares per day sold in between, ρX/(2 + ρT).
        continuous_cost: E in continuous time, currency: κX²/(2 + ρT), and spread and permanent impact.
        status: OK, or NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign, or times do not
            increase.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, " nodes"]
    trades: Float[Array, " nodes"]
    expected_cost: Float[Array, ""]
    block: Float[Array, ""]
    rate: Float[Array, ""]
    continuous_cost: Float[Array, ""]
    status: Int[Array, ""]


def obizhaeva_wang(
    shares: ArrayLike,
    times: ArrayLike | TimeGrid,
    *,
    impact: ArrayLike,
    resilience: ArrayLike,
    permanent_impact: ArrayLike = 0.0,
    half_spread: ArrayLike = 0.0,
) -> ObizhaevaWang:
    """The optimal schedule of one who does not mind risk. Traced; exact derivatives at ρ = 0 too, in O(N).

    `transient_schedule` with an `ExponentialKernel` is the same problem, for those who do mind.

    Args:
        shares: X, shares to sell; negative to buy.
        times: (nodes,) t_0 < … < t_N at which it may be traded, trading days, or a `TimeGrid`.
        impact: κ ≥ 0, currency per share per share: the part of a trade's impact that goes away. In the paper's terms
            1/q − λ.
        resilience: ρ ≥ 0, per day. At 0, where all schedules cost the same, this is the limit: half at either end.
        permanent_impact: λ of the paper ≥ 0, currency per share per share: the part that stays; costs ½λX².
        half_spread: currency per share, ≥ 0; costs itself times |X|.

    Raises:
        ValueError: a parameter is not a scalar, or concrete and not finite or negative; times have a wrong shape or do
            not increase.

    Source: Obizhaeva and Wang, Optimal trading strategy and supply/demand dynamics, J. Financial Markets 16 (2013), for
    equal steps and their limit; Alfonsi, Fruth and Schied, Constrained portfolio liquidation in a limit order book
    model, Banach Center Publ. 83 (2008), for any steps.
    """
    nodes = (times if isinstance(times, TimeGrid) else TimeGrid(times)).times
    given = {
        "shares": shares,
        "impact": impact,
        "resilience": resilience,
        "permanent_impact": permanent_impact,
        "half_spread": half_spread,
    }
    given = unify({"times": nodes} | {name: as_float(name, value) for name, value in given.items()}, final=True)
    nodes = given.pop("times")
    return _closed_form(scalars(given, nonnegative=_NONNEGATIVE), nodes)


@jax.jit
def _closed_form(p: dict[str, Array], times: Array) -> ObizhaevaWang:
    valid = are_valid(p, nonnegative=_NONNEGATIVE) & jnp.all(jnp.isfinite(times)) & jnp.all(jnp.diff(times) > 0)
    failed, everywhere = ~valid, taint((p, times), ~valid)
    p = {name: replace_where(failed, x, jnp.ones_like(x)) for name, x in p.items()}
    steady = jnp.arange(times.shape[0], dtype=times.dtype)
    times = replace_where(jnp.broadcast_to(failed, times.shape), times, steady)
    recovered = jnp.tanh(p["resilience"] * jnp.diff(times) / 2)
    total = 2 + 2 * jnp.sum(recovered)
    ends = jnp.ones_like(recovered[:1])
    beside = jnp.concatenate([ends, recovered]) + jnp.concatenate([recovered, ends])
    trades = p["shares"] * beside / total
    left = jnp.cumsum(trades[:0:-1])[::-1]
    slow = 2 + p["resilience"] * (times[-1] - times[0])
    lasting = p["permanent_impact"] / 2 * p["shares"] ** 2 + p["half_spread"] * jnp.abs(p["shares"])
    passing = p["impact"] * p["shares"] ** 2

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return ObizhaevaWang(
        times=spoilt(times),
        inventory=spoilt(jnp.concatenate([left, jnp.zeros_like(left[:1])])),
        trades=spoilt(trades),
        expected_cost=spoilt(passing / total + lasting),
        block=spoilt(p["shares"] / slow),
        rate=spoilt(p["resilience"] * p["shares"] / slow),
        continuous_cost=spoilt(passing / slow + lasting),
        status=jnp.where(valid, Status.OK, Status.NONFINITE_INPUT).astype(jnp.int32),
    )
