"""Fits of thousands of stocks and schedules at once, against SciPy around the same model, one by one.

Both get the same data, the same start and the same bounds; SciPy takes differences, as its users let it. The error of a
fit is how far its sum of squares lies above the smaller of the two, relative to it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from benchmarks import harness
from jaxexec.calibration import execution_cost, observed_preferences


def run(
    stocks: int = 5_000, rows: int = 50, orders: int = 1_000, steps: int = 78, sample: int = 50, quick: bool = False
) -> list[harness.Row]:
    """Execution costs of all stocks, and the risk aversion of all schedules."""
    if quick:
        stocks, orders, steps, sample = 20, 8, 10, 2
    repeats = 1 if quick else 7
    with jax.enable_x64(True):
        return [_executions(stocks, rows, sample, repeats), _schedules(orders, steps, sample, repeats)]


def _executions(stocks: int, rows: int, sample: int, repeats: int) -> harness.Row:
    rng = np.random.default_rng(1)
    eta, phi = 0.1 * np.exp(rng.normal(0, 0.3, stocks)), 0.6 * np.exp(rng.normal(0, 0.2, stocks))
    rate = np.exp(rng.uniform(np.log(0.005), np.log(0.5), (stocks, rows)))
    paid = eta[:, None] * rate ** phi[:, None] + 0.004 + 0.004 * rng.standard_normal(rate.shape)
    start = {"eta": 0.1, "phi": 0.6, "psi": 0.0}
    program = harness.compiled(lambda r, p: execution_cost(r, p, start=start), jnp.asarray(rate), jnp.asarray(paid))
    found = program.result
    fields: dict[str, Any] = {
        "size": {"stocks": stocks, "executions": rows},
        "compile_seconds": program.compile_seconds,
        "note": f"{harness.seconds_of('a stock')}; with errors, condition and status; the peer with finite differences,"
        " bounds, and tolerances of 1e-10, on a sample; error: sum of squares above the lower one, relative",
    }
    if harness.peer("scipy") is None:
        return harness.row("execution cost", run_seconds=_alone(program, repeats) / stocks, **fields)
    from scipy.optimize import least_squares

    chosen = range(0, stocks, max(1, stocks // sample))
    theirs: list[float] = []

    def loop() -> None:
        theirs.clear()
        for i in chosen:
            r, p = rate[i], paid[i]
            fit = least_squares(
                lambda x, r=r, p=p: x[0] * r ** x[1] + x[2] - p,
                list(start.values()),
                bounds=([0, 0, -np.inf], np.inf),
                xtol=1e-10,
                ftol=1e-10,
                gtol=1e-10,
            )
            theirs.append(2 * fit.cost)

    ours, peer = harness.median_seconds(program.run, loop, repeats=repeats, clock=harness.clock)
    mine = (np.asarray(found.residual_std) ** 2 * (rows - 3))[list(chosen)]
    errors = _errors(mine, np.array(theirs))
    return harness.row(
        "execution cost",
        run_seconds=ours / stocks,
        error=errors[0],
        peer="SciPy least_squares, stock by stock",
        peer_seconds=peer / len(chosen),
        peer_error=errors[1],
        **fields,
    )


def _schedules(orders: int, steps: int, sample: int, repeats: int) -> harness.Row:
    rng = np.random.default_rng(2)
    grid, cost = jx.TimeGrid.uniform(1.0, steps), jx.PowerLawCost(0.1, 0.75, 0.004)

    def order(shares: Any, risk_aversion: Any = 1e-5) -> jx.Liquidation:
        return jx.Liquidation(shares, jx.Market(grid, 0.6, 4e6), cost, risk_aversion)

    shares = jnp.asarray(rng.uniform(1e4, 4e5, orders))
    gamma = jnp.asarray(1e-5 * np.exp(rng.normal(0, 1, orders)))
    held = jax.vmap(lambda x, g: jx.solve(order(x, g)).inventory)(shares, gamma)
    noise = 0.01 * shares[:, None] * rng.standard_normal((orders, steps - 1))
    held = held.at[:, 1:-1].add(noise)
    problems = jax.vmap(order)(shares)
    program = harness.compiled(observed_preferences, problems, held[:, :-1] - held[:, 1:])
    found = program.result
    fields: dict[str, Any] = {
        "size": {"schedules": orders, "steps": steps},
        "compile_seconds": program.compile_seconds,
        "note": f"{harness.seconds_of('a schedule')}; the peer around the same solve, compiled, on a sample;"
        " error: sum of squares above the lower one, relative",
    }
    if harness.peer("scipy") is None:
        return harness.row("inverse control", run_seconds=_alone(program, repeats) / orders, **fields)
    from scipy.optimize import minimize

    @jax.jit
    def distance(x: Any, log_gamma: Any, seen: Any) -> Any:
        return jnp.sum(((jx.solve(order(x, jnp.exp(log_gamma))).inventory - seen) / x) ** 2)

    chosen = list(range(0, orders, max(1, orders // sample)))
    theirs: list[float] = []
    their_shares, their_held = harness.on_host((shares, held))

    def loop() -> None:
        theirs.clear()
        for i in chosen:
            x, seen = their_shares[i], their_held[i]
            theirs.append(minimize(lambda u, x=x, seen=seen: float(distance(x, u[0], seen)), [np.log(1e-5)]).fun)

    loop()  # compiling is not work
    ours, peer = harness.median_seconds(program.run, loop, repeats=repeats, clock=harness.clock)
    mine = (np.asarray(found.residual_std) ** 2 * (steps - 2))[chosen]
    errors = _errors(mine, np.array(theirs))
    return harness.row(
        "inverse control",
        run_seconds=ours / orders,
        error=errors[0],
        peer="SciPy minimize, schedule by schedule",
        peer_seconds=peer / len(chosen),
        peer_error=errors[1],
        **fields,
    )


def _alone(program: harness.Program, repeats: int) -> float:
    return harness.median_seconds(program.run, repeats=repeats, clock=harness.clock)[0]


def _errors(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Largest relative excess of each over the lower one."""
    least = np.minimum(mine, theirs)
    return float(np.max(mine / least - 1)), float(np.max(theirs / least - 1))
