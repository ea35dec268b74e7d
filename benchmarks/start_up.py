"""What a single schedule costs: compiling the first one of a process, one to NumPy, and many different grids.

Every figure is taken in processes of their own where it must be: a cold cache is an empty one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

import jaxexec as jx
from benchmarks import harness
from benchmarks.schedules import problems

_FIRST = """
import json, time
begin = time.perf_counter()
import jax
jax.config.update("jax_enable_x64", True)
import jaxexec as jx
market = jx.Market(jx.TimeGrid.uniform(1.0, 64), volatility=0.6, volume=4e6)
order = jx.Liquidation(2e5, market, jx.PowerLawCost(0.1, 0.6, 0.004), risk_aversion=1e-6)
imported = time.perf_counter()
solve = jax.jit(jx.solve)
lowered = solve.lower(order)
traced = time.perf_counter()
lowered.compile()
compiled = time.perf_counter()
jx.solve(order, throw=True)
print(json.dumps({"imports": imported - begin, "trace": traced - imported, "compile": compiled - traced}))
"""


def run(quick: bool = False) -> list[harness.Row]:
    """Rows: first schedule, one schedule to NumPy, its value and gradient, 1,000 grids."""
    rows = [] if quick else [_first()]
    steps = 24 if quick else 64
    one = jax.tree.map(lambda a: a[0], problems(1, steps))
    solve = harness.compiled(jx.solve, one)

    def value(problem: jx.Liquidation):
        return jx.solve(problem).objective

    alone = harness.compiled(value, one)
    both = harness.compiled(jax.value_and_grad(value), one)

    def to_numpy():
        return jax.tree.map(np.asarray, solve.run())

    def copies(_: jx.Liquidation, schedule: jx.Schedule):
        return jax.tree.map(lambda x: x + 1, schedule)

    empty = harness.compiled(copies, one, solve.result)

    def nothing_to_numpy():
        return jax.tree.map(np.asarray, empty.run())

    works = (to_numpy, nothing_to_numpy, alone.run, both.run)
    seconds, least, plain, with_gradient = harness.median_seconds(*works, repeats=5 if quick else 400)
    rows.append(
        harness.row(
            "one schedule, to NumPy",
            size={"orders": 1, "steps": steps},
            compile_seconds=solve.compile_seconds,
            run_seconds=seconds,
            peer="a programme that only adds one to its results",
            peer_seconds=least,
            error=float(solve.result.relative_gap),
            note="median wall seconds of a compiled call, all 13 results as NumPy arrays; error: relative gap",
        )
    )
    rows.append(
        harness.row(
            "value and gradient, one schedule",
            size={"orders": 1, "steps": steps, "inputs": sum(leaf.size for leaf in jax.tree.leaves(one))},
            compile_seconds=both.compile_seconds,
            run_seconds=with_gradient,
            peer="the value alone",
            peer_seconds=plain,
            note="median wall seconds of a compiled call",
        )
    )
    rows.append(_many_grids(40 if quick else 1000))
    return rows


def _first() -> harness.Row:
    taken = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as empty:
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": empty}
            done = subprocess.run(
                [sys.executable, "-c", _FIRST], env=environment, capture_output=True, text=True, check=True
            )
        taken.append(json.loads(done.stdout.strip().splitlines()[-1]))
    best = min(taken, key=lambda t: t["compile"])
    return harness.row(
        "first schedule of a process",
        size={"orders": 1, "steps": 64},
        compile_seconds=best["compile"],
        run_seconds=best["imports"] + best["trace"] + best["compile"],
        note=f"best of 3 processes with an empty cache: imports {best['imports']:.2f} s, tracing {best['trace']:.2f} s",
    )


def _many_grids(count: int) -> harness.Row:
    compiled = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    begin = time.perf_counter()
    orders = [
        jx.Liquidation(
            2e5, jx.Market(jx.TimeGrid.uniform(1.0, n), 0.6, 4e6), jx.PowerLawCost(0.1, 0.6), risk_aversion=1e-6
        )
        for n in range(1, count + 1)
    ]
    answers = jx.solve_many(orders, throw=True)
    seconds = time.perf_counter() - begin
    jax.monitoring.unregister_event_duration_listener(listen)
    return harness.row(
        "solve_many, each order another grid",
        size={"orders": count, "compilations": len(compiled)},
        run_seconds=seconds / count,
        error=max(float(s.relative_gap) for s in answers),
        note=f"1 to {count} steps; wall seconds an order, building and compiling included; error: largest relative gap",
    )
