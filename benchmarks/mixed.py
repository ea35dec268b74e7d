"""Kinks, caps, drift, gaps and dead volume mixed: a batch by `jaxexec.solve`, a sample one by one by Clarabel.

The same convex programme for both, in units of the order: power cones for the impact, absolute values for the spread,
bounds for the cap. The error is the relative excess of the objective over the best of the two, less what gap is proven.
"""

import time
from typing import Any

import jax
import numpy as np

import jaxexec as jx
from benchmarks import harness, random_problems


def run(orders: int = 4096, steps: int = 160, sample: int = 8, quick: bool = False) -> list[harness.Row]:
    """Rows: against Clarabel through cvxpy, and against its solver alone."""
    if quick:
        orders, steps, sample = 16, 24, 1
    batch = random_problems.mixed(5, orders, steps)
    solved = harness.compiled(jax.vmap(jx.solve), batch)
    if int(np.max(solved.result.status)) > jx.Status.OK:
        raise RuntimeError("an order of the batch is not OK")
    (seconds,) = harness.median_seconds(solved.run, repeats=3 if quick else 7, clock=harness.clock)
    note = (
        f"{harness.seconds_of('an order')}; φ 0.1–1.5, κT 1e-3–1e3, spreads, caps, drift, gaps, dead volume; error: "
        "relative gap, of the peer its objective over ours"
    )
    common: dict[str, Any] = {
        "size": {"orders": orders, "steps": steps},
        "compile_seconds": solved.compile_seconds,
        "run_seconds": seconds / orders,
        "error": float(np.max(solved.result.relative_gap)),
    }
    if not (harness.peer("cvxpy") and harness.peer("clarabel")):
        return [harness.row("mixed schedules", **common, note=note)]
    host = jax.tree.map(np.asarray, (batch, solved.result))
    times, alone, errors = [], [], []
    for i in np.linspace(0, orders - 1, sample).astype(int):
        problem, schedule = jax.tree.map(lambda a, i=i: a[i], host)
        value, whole, solver = _clarabel(problem)
        best = float(schedule.objective)
        size = float(schedule.duality_gap / schedule.relative_gap) if schedule.relative_gap > 0 else abs(best)
        times.append(whole)
        alone.append(solver)
        errors.append((value - best) / size)
    error = float(np.max(errors))
    pairs = (("cvxpy + Clarabel", times), ("Clarabel, its solver alone", alone))
    return [
        harness.row(
            "mixed schedules", **common, peer=name, peer_seconds=float(np.median(taken)), peer_error=error, note=note
        )
        for name, taken in pairs
    ]


def _clarabel(problem: Any) -> tuple[float, float, float]:
    """Objective in the problem's currency, CPU seconds in all, seconds in the solver."""
    cp = harness.peer("cvxpy")
    shares, target = float(problem.shares), float(problem.target)
    market, power, cap = problem.market, problem.cost.cost, float(problem.cost.rho_max)
    phi, psi, eta = float(power.phi), float(power.psi), float(power.eta)
    tau = np.diff(market.grid.times)
    volume = market.volume * tau / abs(shares)
    variance = (market.volatility**2 * tau + market.gap_variance) * shares**2
    drift = market.drift * tau * shares
    gamma = float(problem.risk_aversion)
    unit = abs(shares) * max(eta * (1 / volume.sum()) ** phi, psi, 1e-12)
    steps, traded = len(tau), np.flatnonzero(volume > 0)
    start = time.process_time()
    sold, x = cp.Variable(len(traded)), cp.Variable(steps + 1)
    size, powered = cp.Variable(len(traded)), cp.Variable(len(traded))
    scatter = np.zeros((steps, len(traded)))
    scatter[traded, np.arange(len(traded))] = 1
    weight = (np.append(variance, 0) + np.append(0, variance)) / 2
    push = (np.append(drift, 0) + np.append(0, drift)) / 2
    impact = eta * abs(shares) * volume[traded] ** -phi / unit
    value = impact @ powered + psi * abs(shares) / unit * cp.sum(size)
    value += cp.sum_squares(cp.multiply(np.sqrt(gamma / 2 * weight / unit), x)) - (push / unit) @ x
    limits = [
        x[0] == 1,
        x[steps] == target / shares,
        x[:-1] - x[1:] == scatter @ sold,
        sold <= size,
        -sold <= size,
        size <= cap * volume[traded],
        cp.PowCone3D(powered, np.ones(len(traded)), size, np.full(len(traded), 1 / (1 + phi))),
    ]
    program = cp.Problem(cp.Minimize(value), limits)
    program.solve(solver="CLARABEL")
    seconds = time.process_time() - start
    return float(program.value) * unit, seconds, float(program.solver_stats.solve_time)
