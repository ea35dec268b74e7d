"""What derivatives cost beside the solve they are of: schedules with all sensitivities, over the schedules alone.

Forward: cost, variance and the whole schedule with respect to every named parameter (`jaxexec.sensitivities`). Reverse:
objective, expected cost and variance with respect to every number of the order, each step of each curve by itself; with
U = E + (γ/2) Var two of the three are enough, and U needs no solve; there orders go in pieces that stay in cache.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxexec as jx
from benchmarks import harness
from benchmarks.schedules import problems
from jaxexec.sensitivity import OptimalSchedule

_PIECE_ON_CPU = 125


def run(orders: int = 1000, steps: int = 192, quick: bool = False) -> list[harness.Row]:
    """One row forward and one in reverse; the peer is the batch of schedules without derivatives."""
    if quick:
        orders, steps = 8, 16
    batch = problems(orders, steps)
    of, names = OptimalSchedule(), jx.sensitivities(jax.tree.map(lambda x: x[0], batch)).parameters
    plain = harness.compiled(jax.vmap(jx.solve), batch)
    forward = harness.compiled(jax.vmap(lambda p: _forward(p, of)), batch)
    piece = _PIECE_ON_CPU if jax.default_backend() == "cpu" else orders
    reverse = harness.compiled(lambda b: lax.map(_reverse, b, batch_size=piece), batch)
    alone, named, every = harness.median_seconds(
        plain.run, forward.run, reverse.run, repeats=3 if quick else 15, clock=harness.clock
    )
    numbers = sum(leaf.size for leaf in jax.tree.leaves(batch)) // orders
    of_names = forward.result[1]["expected_cost"][:, names.index("risk_aversion")]
    of_numbers = reverse.result["expected_cost"].risk_aversion
    rows = []
    for case, program, seconds, size, slopes in (
        ("schedules and their named sensitivities", forward, named, {"parameters": len(names)}, of_names),
        ("schedules and gradients in every number", reverse, every, {"inputs": numbers}, of_numbers),
    ):
        rows.append(
            harness.row(
                case,
                size={"orders": orders, "steps": steps, **size},
                compile_seconds=program.compile_seconds,
                run_seconds=seconds / orders,
                error=_error(batch, slopes),
                peer="the schedules alone",
                peer_seconds=alone / orders,
                note=f"{harness.seconds_of('an order', False)}; the run solves too; error: relative, of dE/dγ against "
                "central differences",
            )
        )
    return rows


def _forward(problem: jx.Liquidation, of: OptimalSchedule):
    found = jx.sensitivities(problem, of)
    return found.answers, found.first


def _reverse(problem: jx.Liquidation):
    def answers(p: jx.Liquidation):
        s = jx.solve(p)
        return {"objective": s.objective, "variance": s.variance}, s

    slopes, schedule = jax.jacrev(answers, has_aux=True)(problem)
    gamma = problem.risk_aversion
    held = jax.tree.map(lambda u, v: u - gamma / 2 * v, slopes["objective"], slopes["variance"])
    expected = eqx.tree_at(lambda p: p.risk_aversion, held, held.risk_aversion - schedule.variance / 2)
    return slopes | {"expected_cost": expected, "schedule": schedule}


def _error(batch: jx.Liquidation, slopes: jax.Array) -> float:
    """Largest relative difference of dE/dγ from the central difference, over the batch."""
    gamma = batch.risk_aversion
    step = 1e-5 * gamma
    moved = (eqx.tree_at(lambda p: p.risk_aversion, batch, gamma + s) for s in (step, -step))
    up, down = (jax.vmap(lambda p: jx.solve(p).expected_cost)(b) for b in moved)
    difference = (up - down) / (2 * step)
    size = jnp.maximum(jnp.abs(difference), 1e-6 * jnp.abs(up / gamma))
    return float(np.max(np.abs(slopes - difference) / size))
