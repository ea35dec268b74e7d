"""`python -m benchmarks NAME|all [--quick]`, `python -m benchmarks evidence|figures [--check]`."""

import argparse
import importlib
import os
import sys

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # one BLAS thread: statsmodels' and NumPy's faster setting on small matrices

MEASURED = (
    "schedules",
    "mixed",
    "gradients",
    "start_up",
    "growth",
    "continuum",
    "baskets",
    "almgren_chriss",
    "impact",
    "tape_bias",
    "reliability",
)


def main(words: list[str] | None = None) -> int:
    """Run benchmarks, or make what is made of their rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*MEASURED, "all", "evidence", "figures"])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved: does it run?")
    parser.add_argument("--check", action="store_true", help="evidence: change nothing, fail where out of step")
    parser.add_argument("--orders", type=int, help="schedules, gradients, almgren_chriss: orders in the batch")
    parser.add_argument("--steps", type=int, help="schedules, gradients, almgren_chriss: steps of each order")
    options = parser.parse_args(words)

    if options.name == "evidence":
        from benchmarks import evidence

        return evidence.main(check=options.check)
    import jax

    jax.config.update("jax_enable_x64", True)
    if options.name == "figures":
        from benchmarks import figures

        return figures.main()
    from benchmarks import harness

    sizes = {k: v for k in ("orders", "steps") if (v := getattr(options, k)) is not None}
    for name in MEASURED if options.name == "all" else (options.name,):
        rows = importlib.import_module(f"benchmarks.{name}").run(quick=options.quick, **sizes)
        for row in rows:
            print(describe(row), flush=True)
        if not options.quick and rows:
            print(f"saved to {harness.save(name, rows)}", flush=True)
    return 0


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
    sys.exit(main())
