"""The dimensionless convex programme that every liquidation becomes, and the certificate of a pair (q, y).

    minimise   Σ b_k L(ρ_k) + Σ (½ w_n q_n² − g_n q_n)     subject to   q_k − q_{k+1} = b_k ρ_k,  q_0 and q_N given

Its optimality conditions are the ladder of `numerics.tridiagonal` closed by ρ = H'(y), where y = −p is the marginal
cost of selling (Guéant's Hamiltonian system, 2016, eqs. 3.9–3.10, on a staggered grid). Weak duality: any (q, y) that
satisfies the rails y_{n−1} − y_n = w_n q_n − g_n costs at most Σ b [L(ρ) + H(y) − ρy] more than the optimum.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import CurvePoint, ExecutionCost
from jaxexec.liquidation import Liquidation, discrete_cost
from jaxexec.numerics.tridiagonal import node_sums, through_ends


class Program(eqx.Module):
    """The programme in the problem's own units.

    `cost` has had a constant spread taken off where the schedule cannot change its sign (`monotone`): there the
    spread moves no trade, and what is left of the cost has no kink. `shift` is what that took off y.
    """

    volume: Float[Array, " steps"]
    weight: Float[Array, " interior"]
    charge: Float[Array, " interior"]
    first: Float[Array, ""]
    last: Float[Array, ""]
    cost: ExecutionCost
    shift: Float[Array, ""]
    monotone: Bool[Array, ""]

    @property
    def idle(self) -> Bool[Array, ""]:
        """Nothing to sell and nothing to gain: q = 0, y = 0 is the answer."""
        return (self.first == 0) & (self.last == 0) & jnp.all(self.charge == 0)

    @property
    def span(self) -> Float[Array, ""]:
        """q_0 − q_N, shares to sell."""
        return self.first - self.last

    def rates(self, inventory: Float[Array, " interior"]) -> Float[Array, " steps"]:
        """ρ_k = (q_k − q_{k+1})/b_k, zero where there is no volume."""
        nodes = through_ends(inventory, self.first, self.last)
        open_ = self.volume > 0
        return jnp.where(open_, (nodes[:-1] - nodes[1:]) / jnp.where(open_, self.volume, 1), 0)


class Units(eqx.Module):
    """The scales that make a programme dimensionless: total volume 1, shares of order 1, marginal cost of order 1."""

    shares: Float[Array, ""]
    volume: Float[Array, ""]
    marginal: Float[Array, ""]

    @property
    def rate(self) -> Float[Array, ""]:
        return self.shares / self.volume


class ScaledCost(eqx.Module):
    """A cost seen in `Units`: dimensionless rates in, dimensionless marginal costs out."""

    cost: ExecutionCost
    units: Units

    def curve_point(self, rate: Array, marginal: Array, keep_rate: Array) -> CurvePoint:
        u = self.units
        point = self.cost.curve_point(rate * u.rate, marginal * u.marginal, keep_rate)
        return CurvePoint(
            point.rate / u.rate,
            point.marginal / u.marginal,
            point.slope * (u.marginal / u.rate),
            point.intercept / u.rate,
        )

    def optimal_rate(self, marginal: Array) -> Array:
        return self.cost.optimal_rate(marginal * self.units.marginal) / self.units.rate


def build(problem: Liquidation) -> Program:
    """The programme of a problem. Differentiable."""
    market, steps = problem.market, problem.grid.steps
    volume = jnp.broadcast_to(market.step_volume, (steps,))
    step_variance = jnp.broadcast_to(market.step_variance, (steps,))
    step_drift = jnp.broadcast_to(market.step_drift, (steps,))
    if problem.convention == "continuous":
        node_variance, node_drift = node_sums(step_variance), node_sums(step_drift)
    else:
        node_variance, node_drift = step_variance[:-1], step_drift[:-1]
    cost, _ = discrete_cost(problem)
    monotone = jnp.all(market.drift == 0) & (problem.shares * problem.target <= 0)
    cost, shift, monotone = _take_off_spread(cost, monotone, jnp.sign(problem.shares - problem.target))
    return Program(
        volume,
        problem.risk_aversion * node_variance,
        node_drift,
        problem.shares,
        problem.target,
        cost,
        shift,
        monotone,
    )


def _take_off_spread(cost: ExecutionCost, monotone: Array, sign: Array) -> tuple[ExecutionCost, Array, Array]:
    """Cost less its spread where the order is one-sided and the spread constant.

    The subtrahend carries no derivative, so that a spread which varies in time keeps its effect on the schedule.
    """
    spread = lax.stop_gradient(cost.half_spread())
    constant = jnp.max(spread)
    monotone = monotone & (jnp.min(spread) == constant)
    taken = jnp.where(monotone, constant, 0)
    return cost.less_spread(taken), taken * sign, monotone


def scale(program: Program) -> tuple[Program, ScaledCost, Units]:
    """The programme in units of its own size. The units carry no derivative: the answer does not depend on them."""
    program = jax.tree.map(lax.stop_gradient, program)
    units = _units(program)
    scaled = Program(
        program.volume / units.volume,
        program.weight * (units.shares / units.marginal),
        program.charge / units.marginal,
        program.first / units.shares,
        program.last / units.shares,
        program.cost,
        program.shift,
        program.monotone,
    )
    return scaled, ScaledCost(program.cost, units), units


def _units(program: Program) -> Units:
    volume = jnp.sum(program.volume)
    push = jnp.sum(jnp.abs(program.charge))
    mean_weight = jnp.sum(program.weight)
    hold = jnp.where(mean_weight > 0, push / jnp.where(mean_weight > 0, mean_weight, 1), jnp.inf)
    reach = jnp.max(jnp.abs(program.cost.optimal_rate(jnp.broadcast_to(push, program.volume.shape)))) * volume
    shares = jnp.maximum(jnp.maximum(jnp.abs(program.first), jnp.abs(program.last)), jnp.minimum(hold, reach))
    shares = jnp.where(shares > 0, shares, 1)
    volume = jnp.where(volume > 0, volume, 1)
    rates = jnp.broadcast_to(shares / volume, program.volume.shape)
    marginal = jnp.sum(program.volume * program.cost.marginal(rates)) / volume
    return Units(shares, volume, jnp.where(marginal > 0, marginal, 1))


class Iterate(NamedTuple):
    """A pair that satisfies the rails exactly, and how it was reached."""

    inventory: Float[Array, " interior"]
    marginal: Float[Array, " steps"]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class Certificate(eqx.Module):
    """What is known about a pair (q, y): its gap and residual, absolute and relative."""

    duality_gap: Float[Array, ""]
    relative_gap: Float[Array, ""]
    residual: Float[Array, ""]


def certify(
    program: Program,
    inventory: Float[Array, " interior"],
    marginal: Float[Array, " steps"],
    size: Float[Array, ""],
) -> Certificate:
    """Bound the suboptimality of a pair that satisfies the rails.

    Args:
        inventory: q at the interior nodes, shares.
        marginal: y, with `program.shift` taken off; currency per share.
        size: execution cost + (γ/2) variance of the schedule, by which the gap is divided.
    """
    rates = program.rates(inventory)
    slack = program.cost.value(rates) + program.cost.hamiltonian(marginal) - rates * marginal
    gap = jnp.sum(program.volume * jnp.maximum(slack, 0))
    miss = jnp.sum(program.volume * jnp.abs(rates - program.cost.optimal_rate(marginal)))
    moved = jnp.sum(program.volume * jnp.abs(rates))
    return Certificate(
        gap,
        jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), 0),
        jnp.where(miss > 0, miss / jnp.where(moved > 0, moved, 1), 0),
    )
