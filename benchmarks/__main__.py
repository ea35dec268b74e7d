"""`python -m benchmarks NAME|all [--quick]`, `python -m benchmarks evidence|figures [--check]`."""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

# Of the process, so set before it starts. One BLAS thread is statsmodels' and NumPy's faster setting on small matrices;
# large buffers are kept between calls, not handed back to the system, which would zero their pages at every call.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
}

MEASURED = (
    "schedules",
    "mixed",
    "gradients",
    "sensitivities",
    "start_up",
    "growth",
    "continuum",
    "baskets",
    "almgren_chriss",
    "frontier",
    "simulation",
    "kyle",
    "tape_stage",
    "lee_ready",
    "impact",
    "tape_bias",
    "sign_rules",
    "estimator_choice",
    "calibration",
    "coverage",
    "published_errors",
    "reliability",
)
# Of hours or of many gigabytes: by their names only.
LARGE = ("day",)
# What a user waits for, on all cores; the others are processor time, of one core: threads that wait are not work.
ON_ALL_CORES = ("start_up", "tape_stage", "day")


def main(words: list[str] | None = None, measuring: bool = False) -> int:
    """Run benchmarks, or make what is made of their rows; `measuring` says that the process is ours to settle."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*MEASURED, *LARGE, "all", "evidence", "figures"])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved: does it run?")
    parser.add_argument("--check", action="store_true", help="evidence: change nothing, fail where out of step")
    parser.add_argument("--orders", type=int, help="schedules, gradients, sensitivities, almgren_chriss: orders")
    parser.add_argument("--trades", type=int, help="tape_stage, day: trades, about")
    parser.add_argument("--steps", type=int, help="the same: steps of each order")
    options = parser.parse_args(words)

    if options.name == "evidence":
        from benchmarks import evidence

        return evidence.main(check=options.check)
    if options.name == "all":
        return all_in_turn(options)
    if measuring and options.name in (*MEASURED, *LARGE):
        settle(options.name)
    import jax

    jax.config.update("jax_enable_x64", True)
    if options.name == "figures":
        from benchmarks import figures

        return figures.main()
    from benchmarks import harness

    sizes = {k: v for k in ("orders", "steps", "trades") if (v := getattr(options, k)) is not None}
    rows = importlib.import_module(f"benchmarks.{options.name}").run(quick=options.quick, **sizes)
    for row in rows:
        print(describe(row), flush=True)
    if not options.quick and rows:
        print(f"saved to {harness.save(options.name, rows)}", flush=True)
    return 0


def all_in_turn(options: argparse.Namespace) -> int:
    """Every benchmark in a process of its own; the first failure ends it."""
    for name in MEASURED:
        words = [sys.executable, "-m", "benchmarks", name, *(["--quick"] if options.quick else [])]
        code = subprocess.run(words, check=False).returncode
        if code:
            return code
    return 0


def settle(name: str) -> None:
    """Start again with the settings of a process that measures, on one core where its processor's time is measured."""
    if any(key not in os.environ for key in SETTINGS):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], SETTINGS | dict(os.environ))
    beside_gpu = Path("/dev/nvidiactl").exists()  # there the wall is measured, and compiling wants all cores
    if hasattr(os, "sched_setaffinity") and name not in ON_ALL_CORES and not beside_gpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def describe(row) -> str:
    """One row as one line."""
    parts = [f"{row.case} {row.dtype} {row.size}"]
    if row.compile_seconds is not None:
        parts.append(f"compiling {row.compile_seconds:.2f} s")
    if row.run_seconds is not None:
        parts.append(f"{row.run_seconds * 1e6:.3g} µs")
    if row.error is not None:
        parts.append(f"error {row.error:.2g}")
    if row.peer:
        parts.append(f"| {row.peer}")
    if row.peer_seconds is not None:
        parts.append(f"{row.peer_seconds * 1e6:.3g} µs")
    if row.peer_error is not None:
        parts.append(f"error {row.peer_error:.2g}")
    if row.ratio is not None:
        parts.append(f"ratio {row.ratio:.3g}")
    return " ".join(parts) + (f" ({row.note})" if row.note else "")


if __name__ == "__main__":
    sys.exit(main(measuring=True))
