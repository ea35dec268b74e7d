"""The efficient frontier of a thousand risk aversions, against slippage-tca's, which knows linear impact only.

The error of both is the largest relative deviation of E and Var from Almgren and Chriss's formulas.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from benchmarks import harness

SHARES, HORIZON, VOLATILITY, VOLUME = 1e6, 1.0, 0.95, 4e6
TEMPORARY, PERMANENT, SPREAD = 2.5e-6, 2.5e-7, 0.0625


def run(points: int = 1000, steps: int = 390, quick: bool = False) -> list[harness.Row]:
    """One row a cost; the peer is the same in both."""
    if quick:
        points, steps = 20, 30
    weights = np.geomspace(1e-8, 1e-4, points)
    theirs = _peer(weights, steps)
    rows = []
    for name, problem in (("linear", _linear(steps)), ("power-law", _power(steps))):
        program = harness.compiled(jx.efficient_frontier, problem, jnp.asarray(2 * weights))
        found = program.result
        if np.any(found.status != jx.Status.OK):
            raise RuntimeError(f"{np.sum(found.status != jx.Status.OK)} points failed")
        works = (program.run,) if theirs is None else (program.run, theirs)
        seconds = harness.median_seconds(*works, repeats=3 if quick else 9, clock=harness.clock)
        exact = name == "linear"
        rows.append(
            harness.row(
                f"efficient frontier, {name} impact",
                size={"points": points, "steps": steps},
                compile_seconds=program.compile_seconds,
                run_seconds=seconds[0],
                error=_error(found.expected_cost, found.variance, weights, steps) if exact else _gap(found),
                peer="" if theirs is None else "slippage-tca, linear impact",
                peer_seconds=None if theirs is None else seconds[1],
                peer_error=None if theirs is None else _error(*_moments(theirs()), weights, steps),
                note=f"{harness.seconds_of('a whole frontier')}; with schedules, costates and certificates; "
                + ("error against the closed form" if exact else "error: largest relative duality gap"),
            )
        )
    return rows


def _linear(steps: int) -> jx.Liquidation:
    market = jx.Market(jx.TimeGrid.uniform(HORIZON, steps), VOLATILITY, VOLUME, PERMANENT)
    return jx.Liquidation(
        SHARES, market, jx.QuadraticCost(TEMPORARY * VOLUME, SPREAD), 0.0, convention="almgren-chriss"
    )


def _power(steps: int) -> jx.Liquidation:
    market = jx.Market(jx.TimeGrid.uniform(HORIZON, steps), VOLATILITY, VOLUME)
    cost = jx.PowerLawCost(TEMPORARY * VOLUME, 0.6, SPREAD)
    return jx.Liquidation(SHARES, market, cost, 0.0, convention="almgren-chriss")


def _peer(weights: np.ndarray, steps: int):
    """The peer's frontier as a function of nothing, where it is installed."""
    if harness.peer("slippage") is None:
        return None
    from slippage.execution import ExecutionProblem, efficient_frontier  # pyright: ignore[reportMissingImports]
    from slippage.impact import LinearImpact  # pyright: ignore[reportMissingImports]

    problem = ExecutionProblem(SHARES, HORIZON, steps, VOLATILITY, LinearImpact(PERMANENT, TEMPORARY, SPREAD))
    return lambda: efficient_frontier(problem, weights)


def _moments(trajectories) -> tuple[np.ndarray, np.ndarray]:
    return np.array([t.expected_cost for t in trajectories]), np.array([t.variance for t in trajectories])


def _error(expected: Any, variance: Any, weights: np.ndarray, steps: int) -> float:
    closed = jax.vmap(
        lambda w: jx.almgren_chriss(
            SHARES,
            HORIZON,
            steps,
            volatility=VOLATILITY,
            temporary_impact=TEMPORARY,
            permanent_impact=PERMANENT,
            half_spread=SPREAD,
            variance_weight=w,
        )
    )(jnp.asarray(weights))
    apart = [
        np.max(np.abs(np.asarray(a) / np.asarray(b) - 1))
        for a, b in ((expected, closed.expected_cost), (variance, closed.variance))
    ]
    return float(max(apart))


def _gap(found: jx.Frontier) -> float:
    return float(np.max(found.schedules.relative_gap))
