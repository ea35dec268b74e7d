"""Optimal schedules under transient impact, and what any schedule costs.

    E = ½ nᵀGn + Σ_k θ n_k²,    G_ij = G(|t_i − t_j|)            Var = Σ_k σ_k² τ_k x_k²,    x_k = X − Σ_{j<k} n_j

with trades n_0..n_N at the times t_0..t_N and x_k held between t_{k−1} and t_k. As a function of the holdings x the
objective is a quadratic whose matrix is that of round trips (`Clock.round_trips`) plus diag(γ σ_k² τ_k): Toeplitz where
steps are equal and γ = 0, and for kernels with a corner at zero of a condition that does not grow with the number of
nodes. The unknowns are deviations from half a block at either end, to which the optimum goes as impact stops decaying.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.market import TimeGrid
from jaxexec.numerics.arrays import is_concrete
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.transient.kernels import ImpactKernel
from jaxexec.transient.linear import solve_positive_definite
from jaxexec.transient.order import Clock, Setting, harmless_where, is_equidistant, is_valid, setting


class TransientSchedule(eqx.Module):
    """Trades under transient impact and what they cost. A failed order has NaN in all fields but `status`.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes,) shares held after the trade at each time, and until the next; the last is 0.
        trades: (nodes,) n_k, shares sold at each time; a purchase is negative.
        expected_cost: E, currency.
        variance: Var, currency².
        objective: E + (γ/2) Var, currency.
        marginal_cost: (nodes,) what one share more costs if it is sold at each time, currency per share; the same at
            all of them where the schedule is optimal.
        status: OK; OK_INACCURATE where rounding may cost half of the digits; NONCONVEX where some round trip costs
            nothing or less, to rounding, so that there is no one optimum; NONFINITE_INPUT where a traced input is not
            finite, times do not increase or a sign is wrong; NONFINITE_INTERNAL where the kernel's values are not
            finite.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, " nodes"]
    trades: Float[Array, " nodes"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    marginal_cost: Float[Array, " nodes"]
    status: Int[Array, ""]

    def plot(self):
        """Inventory against time, a matplotlib Figure. Concrete, unbatched schedules only."""
        from jaxexec.presentation import figures

        if not is_concrete(self.trades) or self.trades.ndim != 1:
            raise ValueError(
                "plot needs one concrete schedule; pick one of a batch with jax.tree.map(lambda x: x[i], schedule)"
            )
        held = np.asarray(self.inventory)
        before = np.r_[held[0] + np.asarray(self.trades)[0], held[:-1]]
        path = np.column_stack([before, held]).ravel()
        return figures.trajectories(np.repeat(np.asarray(self.times), 2), {"inventory": path}, title="Optimal schedule")


def transient_schedule(
    shares: ArrayLike,
    times: ArrayLike | TimeGrid,
    kernel: ImpactKernel,
    *,
    volatility: ArrayLike = 0.0,
    risk_aversion: ArrayLike = 0.0,
    temporary_impact: ArrayLike = 0.0,
) -> TransientSchedule:
    """Trades at given times that are best when impact decays. Traced; implicit derivatives in both modes.

    Minimises ½ nᵀGn + Σ θ n_k² + (γ/2) Σ σ_k² τ_k x_k² over all trades that sum to X, of either sign: a kernel that
    allows it makes the schedule buy (`manipulation_test`). Where the times are known to be equally spaced and there is
    no risk, the matrix is Toeplitz and Levinson's recursion takes O(N²); else Cholesky's factorisation takes O(N³).

    With a constant kernel κ, `ExponentialKernel(κ, 0.0)`, and θ = η/τ − κ/2 it is Almgren and Chriss's discrete model,
    whose trade of step k is here made at the step's beginning.

    Args:
        shares: X, shares to sell; negative to buy.
        times: (nodes,) t_0 < … < t_N at which it may be traded, trading days, or a `TimeGrid`.
        kernel: G, currency per share, per share traded.
        volatility: σ ≥ 0, currency per share per √day; scalar or (steps,).
        risk_aversion: γ ≥ 0, per currency.
        temporary_impact: θ ≥ 0, currency per share, per share: a trade of n shares costs θn² that leaves no trace, as
            Almgren and Chriss's η does with θ = η/τ; scalar or (nodes,).

    Raises:
        ValueError: a wrong shape or type, times that do not increase, or a concrete value that is not finite or of the
            wrong sign.

    Source: Gatheral, No-dynamic-arbitrage and market impact, Quant. Finance 10 (2010); Alfonsi, Schied and Slynko,
    Order book resilience, price manipulation, and the positive portfolio problem, SIAM J. Financial Math. 3 (2012).
    """
    given = setting("shares", shares, times, kernel, volatility, risk_aversion, temporary_impact)
    return _optimal(given, is_equidistant(given.times), _is_known_zero(given) and not given.temporary_impact.ndim)


def transient_cost(
    trades: ArrayLike,
    times: ArrayLike | TimeGrid,
    kernel: ImpactKernel,
    *,
    volatility: ArrayLike = 0.0,
    risk_aversion: ArrayLike = 0.0,
    temporary_impact: ArrayLike = 0.0,
) -> TransientSchedule:
    """What any trades cost when impact decays. Traced.

    Args:
        trades: (nodes,) shares sold at each time, purchases negative; a round trip sums to 0. Holdings before the first
            are their sum.
        times: (nodes,) trading days, or a `TimeGrid`.
        kernel: G.
        volatility: as for `transient_schedule`.
        risk_aversion: as for `transient_schedule`.
        temporary_impact: as for `transient_schedule`.

    Raises:
        ValueError: as `transient_schedule`.
    """
    given = setting("trades", trades, times, kernel, volatility, risk_aversion, temporary_impact, one_each=True)
    return _priced(given, is_equidistant(given.times))


def _is_known_zero(given: Setting) -> bool:
    risk = (given.risk_aversion, given.volatility)
    return any(is_concrete(x) and not np.any(np.asarray(x)) for x in risk)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _optimal(given: Setting, equidistant: bool, stationary: bool) -> TransientSchedule:
    refused = ~is_valid(given)
    inputs, given = given, harmless_where(refused, given)
    clock, kernel = Clock(given.times, equidistant), given.kernel
    own = 2 * jnp.broadcast_to(given.temporary_impact, clock.since.shape)
    risk = given.risk_aversion * given.volatility**2 * clock.steps
    fallen = kernel.fall(clock.until[1:], clock.steps) - kernel.fall(clock.since[:-1], clock.steps)
    slope = (fallen + jnp.diff(own.at[1:-1].set(0)) + risk) / 2
    matrix, kernel_values = clock.round_trips(kernel, own) + jnp.diag(risk), clock.impacts(kernel)
    finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(kernel_values))
    matrix = jnp.where(finite, matrix, jnp.eye(risk.shape[0], dtype=risk.dtype))
    slope, kernel_values = jnp.where(finite, slope, 0), jnp.where(finite, kernel_values, 0)
    size = lax.stop_gradient(jnp.max(jnp.diagonal(matrix)))
    size = jnp.where(size > 0, size, 1)
    toeplitz = equidistant and stationary
    deviation, least = solve_positive_definite(matrix / size, -slope / size, toeplitz=toeplitz)
    inside = -jnp.diff(deviation)
    trades = given.amount * jnp.concatenate([0.5 - deviation[:1], inside, 0.5 + deviation[-1:]])
    held = given.amount * jnp.concatenate([0.5 + deviation, jnp.zeros_like(deviation[:1])])
    status = jnp.where(finite, _verdict(least, matrix), Status.NONFINITE_INTERNAL)
    status = jnp.where(refused, Status.NONFINITE_INPUT, status)
    return _record(inputs, given, clock, kernel_values, trades, held, status)


@functools.partial(jax.jit, static_argnums=1)
def _priced(given: Setting, equidistant: bool) -> TransientSchedule:
    refused = ~is_valid(given)
    inputs, given = given, harmless_where(refused, given)
    clock = Clock(given.times, equidistant)
    kernel_values = clock.impacts(given.kernel)
    finite = jnp.all(jnp.isfinite(kernel_values))
    kernel_values = jnp.where(finite, kernel_values, 0)
    trades = given.amount
    after = jnp.cumsum(trades[::-1])[::-1]
    held = jnp.concatenate([after[1:], jnp.zeros_like(after[:1])])
    status = jnp.where(finite, Status.OK, Status.NONFINITE_INTERNAL)
    status = jnp.where(refused, Status.NONFINITE_INPUT, status)
    return _record(inputs, given, clock, kernel_values, trades, held, status)


def _verdict(least: Array, matrix: Array) -> Array:
    eps = float(jnp.finfo(matrix.dtype).eps)
    lost = matrix.shape[0] * eps
    status = jnp.where(lost > eps**0.5 * least, Status.OK_INACCURATE, Status.OK)
    return jnp.where(least > 4 * lost, status, Status.NONCONVEX)


def _record(
    inputs: Setting, given: Setting, clock: Clock, kernel_values: Array, trades: Array, held: Array, status: Array
) -> TransientSchedule:
    moved = kernel_values @ trades
    own = given.temporary_impact * trades
    variances = given.volatility**2 * clock.steps * held[:-1]
    expected = jnp.sum(trades * (moved / 2 + own))
    variance = jnp.sum(variances * held[:-1])
    risk = jnp.concatenate([jnp.zeros_like(moved[:1]), given.risk_aversion * jnp.cumsum(variances)])
    failed = status > Status.LOCAL
    everywhere = taint(inputs, failed)

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return TransientSchedule(
        times=spoilt(given.times),
        inventory=spoilt(held),
        trades=spoilt(trades),
        expected_cost=spoilt(expected),
        variance=spoilt(variance),
        objective=spoilt(expected + given.risk_aversion / 2 * variance),
        marginal_cost=spoilt(moved + 2 * own + risk),
        status=status.astype(jnp.int32),
    )
