"""What a gradient costs: value and gradient of a batch of schedules, over the value alone.

The gradient is taken with respect to every continuous input at once: shares, the two curves and the grid of each
order, the parameters of its cost, its risk aversion. Two values: the objective, whose derivative needs no solve
(envelope theorem), and the expected cost, whose derivative is one more linear solve (implicit function theorem).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from benchmarks import harness
from benchmarks.schedules import problems


def run(orders: int = 1024, steps: int = 192, quick: bool = False) -> list[harness.Row]:
    """One row for each of the two values; the peer is the value without its gradient."""
    if quick:
        orders, steps = 8, 16
    batch = problems(orders, steps)
    rows = []
    for field in ("expected_cost",) if quick else ("objective", "expected_cost"):

        def value(problem, field=field):
            return getattr(jx.solve(problem), field)

        plain = harness.compiled(jax.vmap(value), batch)
        both = harness.compiled(jax.vmap(jax.value_and_grad(value)), batch)
        alone, together = harness.median_seconds(plain.run, both.run, repeats=3 if quick else 15)
        rows.append(
            harness.row(
                f"value and gradient, {field}",
                size={"orders": orders, "steps": steps, "inputs": _inputs(batch, orders)},
                compile_seconds=both.compile_seconds,
                run_seconds=together / orders,
                error=_error(value, batch, both.result[1]),
                peer="the value alone",
                peer_seconds=alone / orders,
                note="wall seconds an order; error: relative, of γ's and η's derivatives against central differences",
            )
        )
    return rows


def _inputs(batch: jx.Liquidation, orders: int) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(batch)) // orders


def _error(value, batch: jx.Liquidation, gradient: jx.Liquidation) -> float:
    """Largest relative difference between derivative and central difference, over the batch."""
    errors = []
    for pick in (lambda p: p.risk_aversion, lambda p: p.cost.eta):
        at, slope = pick(batch), pick(gradient)
        step = 1e-5 * at
        up, down = (jax.vmap(value)(eqx.tree_at(pick, batch, at + s)) for s in (step, -step))
        difference = (up - down) / (2 * step)
        scale = jnp.maximum(jnp.abs(difference), 1e-6 * jnp.abs(jax.vmap(value)(batch) / at))
        errors.append(float(np.max(np.abs(slope - difference) / scale)))
    return max(errors)
