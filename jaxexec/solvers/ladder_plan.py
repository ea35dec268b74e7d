"""From the answer of a solver of the N-step programme to a plan: feasible, certified, with derivatives attached."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation, execution_cost, path_cost, settlement_cost, variance_of_inventory
from jaxexec.numerics.tridiagonal import through_ends
from jaxexec.solvers.implicit import attach, envelope
from jaxexec.solvers.plan import Plan
from jaxexec.solvers.program import Iterate, Program, Units, build, certificate_of, constant_part, scale


def plan_on_ladder(
    problem: Liquidation,
    iterate: Callable[[Program, Array], Iterate],
    guess: Float[Array, " steps"],
) -> Plan:
    """Run `iterate` on the dimensionless programme of `problem` and make a plan of the pair (q, y) it ends with.

    Args:
        guess: costate p of a schedule that is thought to be near, in currency per share; not finite for none.
    """
    program = build(problem)
    scaled, units = scale(program)
    found = iterate(scaled, _dimensionless(program, units, guess))
    pair = found.inventory * units.shares, found.marginal * units.marginal
    return _plan_of(problem, program, *pair, found.iterations)


def plan_of_pair(problem: Liquidation, inventory: Float[Array, " nodes"], costate: Float[Array, " steps"]) -> Plan:
    """The plan of inventories and costates that a solve of the same problem has found, with derivatives attached."""
    program = build(problem)
    return _plan_of(problem, program, *pair_of(problem, program, inventory, costate), jnp.zeros((), jnp.int32))


def pair_of(problem: Liquidation, program: Program, inventory: Array, costate: Array) -> tuple[Array, Array]:
    """(q, y) of the programme from a schedule's inventories and costates."""
    marginal = -costate - program.shift
    if problem.terminal_penalty is None:
        return inventory[1:-1], marginal
    # The settlement's own marginal cost closes the rails.
    return inventory[1:], jnp.append(marginal, problem.terminal_penalty * (inventory[-1] - problem.target))


def _plan_of(problem: Liquidation, program: Program, inventory: Array, marginal: Array, iterations: Array) -> Plan:
    fixed_q, fixed_y = lax.stop_gradient((inventory, marginal))
    finite = jnp.all(jnp.isfinite(fixed_q)) & jnp.all(jnp.isfinite(fixed_y))
    fixed_q, fixed_y = jnp.where(finite, fixed_q, 0), jnp.where(finite, fixed_y, 0)
    repaired = lax.stop_gradient(_feasible(program, fixed_q) - fixed_q)
    rails_q, marginal = attach(program, fixed_q, fixed_y)
    inventory = rails_q + repaired
    soft = problem.terminal_penalty is not None
    nodes = through_ends(inventory, problem.shares, problem.target)
    nodes, costate = (nodes[:-1], -marginal[:-1]) if soft else (nodes, -(marginal + program.shift))
    trades = nodes[:-1] - nodes[1:]
    trades = _without_rounding(problem, program, trades)
    expected, variance = path_cost(problem, nodes, trades), variance_of_inventory(problem, nodes)
    best = envelope(
        lax.stop_gradient(expected + problem.risk_aversion / 2 * variance),
        program,
        constant_part(problem),
        inventory,
        marginal,
    )
    size = execution_cost(problem, trades) + settlement_cost(problem, nodes) + problem.risk_aversion / 2 * variance
    proof = jax.tree.map(lax.stop_gradient, certificate_of(program, inventory, marginal, size, rails_q))
    return Plan(nodes, trades, costate, expected, variance, best, proof, finite, iterations)


def _feasible(program: Program, inventory: Array) -> Array:
    """Inventories that keep the bounds, moved by no more than rounding and an unfinished iteration ask for.

    A one-sided order stays between its ends; what a step would trade beyond its cap is spread over the room of others.
    """
    ends = jnp.minimum(program.first, program.last), jnp.maximum(program.first, program.last)
    inventory = jnp.where(program.monotone, jnp.clip(inventory, *ends), inventory)
    if not program.cost.is_capped:
        return inventory
    rates = program.rates(inventory)
    low, high = program.cost.bounds(rates)
    within = jnp.clip(rates, low, high)
    excess = jnp.sum(program.volume * (rates - within))
    room = program.volume * jnp.where(excess > 0, high - within, within - low)
    # All but a step with endless room has none, where there is one.
    endless = jnp.isinf(room)
    room = jnp.where(jnp.any(endless), endless.astype(room.dtype), room)
    total = jnp.sum(room)
    moved = program.volume * (within - rates) + excess * room / jnp.where(total > 0, total, 1)
    return inventory - jnp.where(jnp.all(within == rates), 0, jnp.cumsum(moved)[:-1])


def _without_rounding(problem: Liquidation, program: Program, trades: Array) -> Array:
    """Trades as differences of inventories, less the rounding that turns a step's sign or passes its cap."""
    volume = jnp.broadcast_to(problem.market.step_volume, trades.shape)
    against = program.monotone & (trades * jnp.sign(program.span) < 0)
    if program.cost.is_capped:
        low, high = (jnp.broadcast_to(jnp.asarray(x, trades.dtype), trades.shape) for x in program.cost.cost.bounds())
        least, most = (jnp.where(jnp.isinf(x), x, volume * x) for x in (low, high))
        beyond = (trades < least) | (trades > most)
        trades = trades - lax.stop_gradient(jnp.where(beyond, trades - jnp.clip(trades, least, most), 0))
    return jnp.where((volume > 0) & ~against, trades, 0)


def _dimensionless(program: Program, units: Units, guess: Array) -> Array:
    """A guess of the costate as y in the programme's units; a settlement takes that of the last step."""
    steps = program.volume.shape
    y = -lax.stop_gradient(guess).astype(program.volume.dtype) - program.shift
    y = y if y.shape == steps else jnp.append(y, y[-1])
    return lax.stop_gradient(y) / units.marginal
