"""The dimensionless convex programme that every liquidation becomes, and the certificate of a pair (q, y).

    minimise   Σ b_k L(ρ_k) + Σ (½ w_n q_n² − g_n q_n)     subject to   q_k − q_{k+1} = b_k ρ_k,  q_0 and q_N given

Its optimality conditions are the ladder of `numerics.tridiagonal` closed by ρ = H'(y), where y = −p is the marginal
cost of selling (Guéant's Hamiltonian system, 2016, eqs. 3.9–3.10, on a staggered grid). Weak duality: any (q, y) that
satisfies the rails y_{n−1} − y_n = w_n q_n − g_n costs at most Σ b [L(ρ) + H(y) − ρy] more than the optimum.

A soft end is one step more: the shares left over are settled at ½P(x_N − target)², a quadratic cost of its own.
"""

import math
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
    spread moves no trade, and what is left of the cost has no kink. `shift` is what that took off y. `smooth` tells
    that neither a kink nor a cap is left.
    """

    volume: Float[Array, " steps"]
    weight: Float[Array, " interior"]
    charge: Float[Array, " interior"]
    first: Float[Array, ""]
    last: Float[Array, ""]
    cost: "StepCosts"
    shift: Float[Array, ""]
    monotone: Bool[Array, ""]
    smooth: Bool[Array, ""]

    @property
    def idle(self) -> Bool[Array, ""]:
        """Nothing to sell and nothing to gain: q = 0, y = 0 is the answer."""
        return (self.first == 0) & (self.last == 0) & jnp.all(self.charge == 0, 0)

    @property
    def span(self) -> Float[Array, ""]:
        """q_0 − q_N, shares to sell."""
        return self.first - self.last

    def rates(self, inventory: Float[Array, " interior"]) -> Float[Array, " steps"]:
        """ρ_k = (q_k − q_{k+1})/b_k, zero where there is no volume."""
        nodes = through_ends(inventory, self.first, self.last)
        open_ = self.volume > 0
        return jnp.where(open_, (nodes[:-1] - nodes[1:]) / jnp.where(open_, self.volume, 1), 0)


class StepCosts(eqx.Module):
    """The cost of every step of a programme: the execution cost in each, and the settlement after the last, if any.

    With a settlement ½ s b ρ² (`stiffness` s) arrays have one entry more than the cost has steps.
    """

    cost: ExecutionCost
    stiffness: Float[Array, "..."] | None = None

    def value(self, rate: Array) -> Array:
        return self._join(rate, self.cost.value, lambda r, s: s * r**2 / 2)

    def marginal(self, rate: Array) -> Array:
        return self._join(rate, self.cost.marginal, lambda r, s: s * r)

    def curvature(self, rate: Array) -> Array:
        return self._join(rate, self.cost.curvature, lambda r, s: s + 0 * r)

    def hamiltonian(self, marginal: Array) -> Array:
        return self._join(marginal, self.cost.hamiltonian, lambda y, s: y**2 / (2 * s))

    def optimal_rate(self, marginal: Array) -> Array:
        return self._join(marginal, self.cost.optimal_rate, lambda y, s: y / s)

    def rate_slope(self, marginal: Array) -> Array:
        return self._join(marginal, self.cost.rate_slope, lambda y, s: 1 / s + 0 * y)

    @property
    def is_capped(self) -> bool:
        """Whether a bound is part of the traced programme. Bounds that are Python infinities are not."""
        return not all(isinstance(bound, float) and math.isinf(bound) for bound in self.cost.bounds())

    def bounds(self, like: Array) -> tuple[Array, Array]:
        """Lowest and highest rate of each step."""
        low, high = self.cost.bounds()
        inner = like if self.stiffness is None else like[:-1]
        joined = [jnp.broadcast_to(jnp.asarray(b, like.dtype), inner.shape) for b in (low, high)]
        if self.stiffness is None:
            return joined[0], joined[1]
        free = jnp.full_like(like[-1:], jnp.inf)
        return jnp.concatenate([joined[0], -free]), jnp.concatenate([joined[1], free])

    def curve_point(self, rate: Array, marginal: Array, keep_rate: Array) -> CurvePoint:
        if self.stiffness is None:
            return self.cost.curve_point(rate, marginal, keep_rate)
        steps = self.cost.curve_point(rate[:-1], marginal[:-1], keep_rate[:-1])
        s = self.stiffness
        settled = jnp.where(keep_rate[-1:], rate[-1:], marginal[-1:] / s)
        last = CurvePoint(settled, settled * s, 1 / s + 0 * settled, 0 * settled)
        return CurvePoint(*(jnp.concatenate(pair) for pair in zip(steps, last, strict=True)))

    def in_units(self, units: "Units") -> "StepCosts":
        """Costs of dimensionless rates, in dimensionless marginal costs."""
        stiffness = None if self.stiffness is None else self.stiffness * (units.rate / units.marginal)
        return StepCosts(self.cost.in_units(units.rate, units.marginal), stiffness)

    def _join(self, x: Array, of_steps, of_settlement) -> Array:
        if self.stiffness is None:
            return of_steps(x)
        return jnp.concatenate([of_steps(x[:-1]), of_settlement(x[-1:], self.stiffness)])


class Units(eqx.Module):
    """The scales that make a programme dimensionless: total volume 1, shares of order 1, marginal cost of order 1."""

    shares: Float[Array, ""]
    volume: Float[Array, ""]
    marginal: Float[Array, ""]

    @property
    def rate(self) -> Float[Array, ""]:
        return self.shares / self.volume


def build(problem: Liquidation) -> Program:
    """The programme of a problem. Differentiable."""
    market, steps = problem.market, problem.grid.steps
    volume = jnp.broadcast_to(market.step_volume, (steps,))
    weight, charge = node_terms(problem)
    if problem.benchmark is not None:
        charge = charge + weight * problem.benchmark
    free = slice(1, -1 if problem.terminal_penalty is None else None)
    weight, charge = weight[free], charge[free]
    cost, _ = discrete_cost(problem)
    low, high = cost.bounds()
    sells_only, buys_only = jnp.all(low >= 0), jnp.all(high <= 0)
    plain = jnp.all(market.drift == 0) & (problem.shares * problem.target <= 0)
    monotone = (plain & (problem.benchmark is None)) | sells_only | buys_only
    stiffness = None
    if problem.terminal_penalty is not None:
        size = jnp.sum(volume)
        size = jnp.where(size > 0, size, 1)
        volume = jnp.append(volume, size)
        stiffness = (problem.terminal_penalty * size)[None]
        monotone = jnp.asarray(False)
    cost, shift, monotone = _take_off_spread(cost, monotone, jnp.sign(problem.shares - problem.target))
    uncapped = jnp.all(jnp.isinf(low)) & jnp.all(jnp.isinf(high))
    smooth = uncapped & (monotone | jnp.all(cost.half_spread() == 0))
    return Program(
        volume,
        weight,
        charge,
        problem.shares,
        problem.target,
        StepCosts(cost, stiffness),
        shift,
        monotone,
        smooth,
    )


def node_terms(problem: Liquidation) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """W and d of every node, γ times its variance and its drift: U holds Σ ½W(x − benchmark)² − d(x − benchmark)."""
    steps = (problem.grid.steps,)
    variance = jnp.broadcast_to(problem.market.step_variance, steps)
    drift = jnp.broadcast_to(problem.market.step_drift, steps)
    if problem.convention == "continuous":
        weight, drift = (through_ends(node_sums(x), x[0] / 2, x[-1] / 2) for x in (variance, drift))
    else:
        weight, drift = (jnp.append(jnp.zeros((1,), x.dtype), x) for x in (variance, drift))
    return problem.risk_aversion * weight, drift


def constant_part(problem: Liquidation) -> Float[Array, ""]:
    """What U owes to the ends of the path, to the benchmark and to permanent impact: no schedule changes it."""
    weight, drift = node_terms(problem)
    first, last = problem.shares, problem.target
    aim = jnp.zeros_like(weight) if problem.benchmark is None else problem.benchmark
    end = last if problem.terminal_penalty is None else jnp.zeros_like(last)
    off = through_ends(jnp.zeros_like(weight[1:-1]), first, end) - aim
    held = jnp.sum(weight / 2 * off**2 - drift * off)
    return held + problem.market.permanent_impact / 2 * (first**2 - last**2)


def _take_off_spread(cost: ExecutionCost, monotone: Array, sign: Array) -> tuple[ExecutionCost, Array, Array]:
    """Cost less its spread where the order is one-sided and the spread constant.

    One spread for all steps is taken off with its derivative: it moves no trade, and where H' is steep rounding would
    say that it does. One for each step is taken off without, and keeps its effect on the schedule.
    """
    spread = cost.half_spread()
    spread = lax.stop_gradient(spread) if spread.ndim else spread
    constant = jnp.max(spread)
    monotone = monotone & (jnp.min(spread) == constant)
    taken = jnp.where(monotone, constant, 0)
    return cost.less_spread(taken), taken * sign, monotone


def scale(program: Program) -> tuple[Program, Units]:
    """The programme in units of its own size. The units carry no derivative: the answer does not depend on them."""
    program = jax.tree.map(lax.stop_gradient, program)
    units = units_of(program)
    return in_units(program, units), units


def in_units(program: Program, units: Units) -> Program:
    """The dimensionless programme."""
    return Program(
        program.volume / units.volume,
        program.weight * (units.shares / units.marginal),
        program.charge / units.marginal,
        program.first / units.shares,
        program.last / units.shares,
        program.cost.in_units(units),
        program.shift,
        program.monotone,
        program.smooth,
    )


def units_of(program: Program) -> Units:
    """The programme's own size."""
    steps = program.volume if program.cost.stiffness is None else program.volume[:-1]
    cost = program.cost.cost
    volume = jnp.sum(steps)
    push = jnp.sum(jnp.abs(program.charge))
    mean_weight = jnp.sum(program.weight)
    hold = jnp.where(mean_weight > 0, push / jnp.where(mean_weight > 0, mean_weight, 1), jnp.inf)
    # One rate for all steps: where the cost is the same in all, so is what follows.
    reach = jnp.max(jnp.abs(cost.optimal_rate(push))) * volume
    shares = jnp.maximum(jnp.maximum(jnp.abs(program.first), jnp.abs(program.last)), jnp.minimum(hold, reach))
    shares = jnp.where(shares > 0, shares, 1)
    volume = jnp.where(volume > 0, volume, 1)
    low, high = cost.bounds()
    side = jnp.where(jnp.all(high <= 0), -1, 1)
    rates = jnp.clip(side * shares / volume, low, high)
    marginal = jnp.sum(steps * jnp.abs(cost.marginal(rates))) / volume
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


def certificate_of(
    program: Program,
    inventory: Float[Array, " interior"],
    marginal: Float[Array, " steps"],
    size: Float[Array, ""],
    on_rails: Float[Array, " interior"] | None = None,
) -> Certificate:
    """Bound the suboptimality of a schedule by any y: primal less dual value, summed without cancellation.

    With q̂ the inventories that make y satisfy the rails,   gap = Σ b [L(ρ) + H(y) − ρy] + ½ Σ w (q − q̂)².

    Args:
        inventory: q at the interior nodes, shares.
        marginal: y, with `program.shift` taken off; currency per share.
        size: execution cost + (γ/2) variance of the schedule, by which the gap is divided.
        on_rails: q̂; None where it is q.
    """
    rates = program.rates(inventory)
    if program.cost.is_capped:
        rounding = 1e-9 if rates.dtype == jnp.float64 else 1e-4
        clipped = jnp.clip(rates, *program.cost.bounds(rates))
        size_of_rates = jnp.maximum(jnp.abs(clipped), jnp.max(jnp.abs(clipped)))
        # Differences of inventories say no more about a step of little volume.
        held = jnp.max(jnp.abs(through_ends(inventory, program.first, program.last)))
        unknown = 4 * jnp.finfo(rates.dtype).eps * held / jnp.where(program.volume > 0, program.volume, 1)
        rates = jnp.where(jnp.abs(rates - clipped) <= rounding * size_of_rates + unknown, clipped, rates)
    slack = program.cost.value(rates) + program.cost.hamiltonian(marginal) - rates * marginal
    gap = jnp.sum(jnp.where(program.volume > 0, program.volume * jnp.maximum(slack, 0), 0))
    if on_rails is not None:
        gap = gap + jnp.sum(program.weight * (inventory - on_rails) ** 2) / 2
    miss = jnp.sum(program.volume * jnp.abs(rates - program.cost.optimal_rate(marginal)))
    moved = jnp.sum(program.volume * jnp.abs(rates))
    return Certificate(
        gap,
        jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), 0),
        jnp.where(miss > 0, miss / jnp.where(moved > 0, moved, 1), 0),
    )
