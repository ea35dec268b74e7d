"""100,000 random orders with every feature mixed: how many fail, and how large a gap passes as OK.

One row a kind of cost and range of stiffness, with the seeds that make the orders again and the index of each order
that was not OK. Nothing is timed against a peer here.
"""

import time

import jax
import numpy as np

import jaxexec as jx
from benchmarks import harness, random_problems

# (cost, decades of κT, share of the orders, dtype)
SWEEP = (
    ("capped power law", (-3.0, 3.0), 0.5, np.float64),
    ("capped power law", (3.0, 5.0), 0.1, np.float64),
    ("user's own", (-3.0, 3.0), 0.1, np.float64),
    ("two-sided", (-3.0, 3.0), 0.1, np.float64),
    ("sum", (-3.0, 3.0), 0.1, np.float64),
    ("capped power law", (-3.0, 3.0), 0.1, np.float32),
)
_PACKET = 2048


def run(orders: int = 100_000, steps: int = 160, quick: bool = False) -> list[harness.Row]:
    """One row a line of `SWEEP`."""
    if quick:
        orders, steps = 120, 24
    rows = []
    for number, (cost, decades, share, dtype) in enumerate(SWEEP):
        count = int(orders * share)
        packet = min(_PACKET, count)
        seeds = [1000 * (number + 1) + i for i in range(-(-count // packet))]
        gaps, failed, infeasible, odd = [], [], 0, 0
        seconds = 0.0
        for seed in seeds:
            batch = random_problems.mixed(seed, packet, steps, decades, cost, dtype)
            start = time.process_time()
            solved = jax.block_until_ready(random_problems.jitted(batch))
            seconds += time.process_time() - start
            status = np.asarray(solved.status)
            usable = status == jx.Status.OK
            gaps.append(np.asarray(solved.relative_gap)[usable].max())
            infeasible += int(np.sum(status == jx.Status.INFEASIBLE))
            odd += int(np.sum((status != jx.Status.OK) & (status != jx.Status.INFEASIBLE)))
            failed += [
                f"{seed}:{i} {jx.Status(int(status[i])).name}"
                for i in np.flatnonzero(~usable & (status != jx.Status.INFEASIBLE))
            ]
        done = packet * len(seeds)
        rows.append(
            harness.row(
                f"reliability, {cost}, κT 1e{decades[0]:.0f} to 1e{decades[1]:.0f}",
                size={"orders": done, "steps": steps, "infeasible": infeasible, "flagged": odd},
                dtype=np.dtype(dtype).name,
                run_seconds=seconds / done,
                error=float(max(gaps)),
                note=f"error: largest relative gap of those that are OK; seeds {seeds[0]}–{seeds[-1]}, "
                f"{packet} orders each; flagged (seed:index): {', '.join(failed[:20]) or 'none'}",
            )
        )
    return rows
