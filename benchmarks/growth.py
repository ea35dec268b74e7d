"""How time grows with the number of steps and of orders: slopes in log–log over two decades."""

import jax
import numpy as np

import jaxexec as jx
from benchmarks import harness
from benchmarks.schedules import problems


def run(quick: bool = False) -> list[harness.Row]:
    """Two rows: steps from 32 to 3,200 at 256 orders, orders from 256 to 25,600 at 96 steps."""
    steps = (8, 16) if quick else (32, 100, 320, 1000, 3200)
    orders = (8, 16) if quick else (256, 800, 2560, 8000, 25600)
    by_steps = [_seconds(16 if quick else 256, n, quick) for n in steps]
    by_orders = [_seconds(m, 8 if quick else 96, quick) for m in orders]
    return [_row("steps", steps, by_steps), _row("orders", orders, by_orders)]


def _seconds(orders: int, steps: int, quick: bool) -> float:
    solved = harness.compiled(jax.vmap(jx.solve), problems(orders, steps))
    return harness.median_seconds(solved.run, repeats=2 if quick else 5, clock=harness.clock)[0]


def _row(what: str, sizes: tuple[int, ...], seconds: list[float]) -> harness.Row:
    slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    points = ", ".join(f"{n:,}: {1e3 * s:.3g} ms" for n, s in zip(sizes, seconds, strict=True))
    return harness.row(
        f"growth with the number of {what}",
        size={f"from_{what}": sizes[0], f"to_{what}": sizes[-1]},
        run_seconds=seconds[-1] / sizes[-1],
        note=f"slope in log–log {slope:.3f}; {harness.seconds_of('a batch')}: {points}",
    )
