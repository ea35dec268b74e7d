"""From the answer of a solver of the N-step programme to a plan: feasible, certified, with derivatives attached."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxexec.liquidation import Liquidation, execution_cost, path_cost, variance_of_inventory
from jaxexec.numerics.tridiagonal import through_ends
from jaxexec.solvers.implicit import attach, envelope
from jaxexec.solvers.plan import Plan
from jaxexec.solvers.program import Iterate, Program, ScaledCost, build, certify, scale


def plan_on_ladder(problem: Liquidation, iterate: Callable[[Program, ScaledCost], Iterate]) -> Plan:
    """Run `iterate` on the dimensionless programme of `problem` and make a plan of the pair (q, y) it ends with."""
    program = build(problem)
    scaled, scaled_cost, units = scale(program)
    found = iterate(scaled, scaled_cost)
    fixed_q, fixed_y = lax.stop_gradient((found.inventory * units.shares, found.marginal * units.marginal))
    finite = jnp.all(jnp.isfinite(fixed_q)) & jnp.all(jnp.isfinite(fixed_y))
    fixed_q, fixed_y = jnp.where(finite, fixed_q, 0), jnp.where(finite, fixed_y, 0)
    # A one-sided order stays between its ends; rounding in a finished tail (φ > 1) need not.
    ends = jnp.minimum(program.first, program.last), jnp.maximum(program.first, program.last)
    fixed_q = lax.stop_gradient(jnp.where(program.monotone, jnp.clip(fixed_q, *ends), fixed_q))

    inventory, marginal = attach(program, fixed_q, fixed_y)
    nodes = through_ends(inventory, problem.shares, problem.target)
    trades = nodes[:-1] - nodes[1:]
    against = program.monotone & (trades * jnp.sign(program.span) < 0)  # rounding, in a tail that is finished
    trades = jnp.where((program.volume > 0) & ~against, trades, 0)
    expected, variance = path_cost(problem, nodes, trades), variance_of_inventory(problem, nodes)
    best = envelope(
        lax.stop_gradient(expected + problem.risk_aversion / 2 * variance),
        program,
        _constant_part(problem),
        inventory,
        marginal,
    )
    size = execution_cost(problem, trades) + problem.risk_aversion / 2 * variance
    proof = jax.tree.map(lax.stop_gradient, certify(program, inventory, marginal, size))
    costate = -(marginal + program.shift)
    return Plan(nodes, trades, costate, expected, variance, best, proof, finite, found.iterations)


def _constant_part(problem: Liquidation) -> Array:
    """What U owes to the two ends of the path, which no schedule changes."""
    market, first, last = problem.market, problem.shares, problem.target
    steps = problem.grid.steps
    risk = jnp.broadcast_to(market.step_variance, (steps,))
    drift = jnp.broadcast_to(market.step_drift, (steps,))
    if problem.convention == "continuous":
        held = risk[0] * first**2 / 2 + risk[-1] * last**2 / 2
        gain = (drift[0] * first + drift[-1] * last) / 2
    else:
        held, gain = risk[-1] * last**2, drift[-1] * last
    permanent = market.permanent_impact / 2 * (first**2 - last**2)
    return problem.risk_aversion / 2 * held - gain + permanent
