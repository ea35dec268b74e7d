"""Standard errors of 30,000 meta-orders with the errors of a Brownian price, beside the published ones.

Almgren, Thum, Hauptmann and Li (2005), from memory. What a sample is like between its third quartile and its largest
order decides: three samples with the same quartiles and ends.
"""

from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.coverage_cases import meta_orders
from jaxexec import calibration

PUBLISHED = {"gamma": 0.041, "eta": 0.0062, "alpha": 0.10, "beta": 0.038, "delta": 0.22}
EXPONENTS = {"alpha": 0.891, "delta": 0.267, "beta": 0.600}
SAMPLES: dict[str, dict[str, Any]] = {
    "logarithms of sizes even from 12 % of the day (99th percentile) to 88 %": {"longer": 0.0, "even_tail": True},
    "sizes log-normal through the quartiles, cut off at the ends": {"longer": 0.0},
    "the same, and larger orders take longer (correlation 0.3)": {},
}


def run(orders: int = 30_000, quick: bool = False) -> list[harness.Row]:
    """One row for each sample and parameter."""
    orders = 1_000 if quick else orders
    return [row for name, options in SAMPLES.items() for row in _of_sample(name, options, orders)]


def _of_sample(name: str, options: dict[str, Any], orders: int) -> list[harness.Row]:
    columns = meta_orders(np.random.default_rng(4), (orders,), 1.0, **options)
    whole = calibration.meta_order_impact(**columns, errors="separate")
    held = calibration.meta_order_impact(**columns, errors="separate", fixed=EXPONENTS)
    return [
        harness.row(
            f"published errors, {name}: {parameter}",
            size={"orders": orders},
            error=float((whole if parameter in EXPONENTS else held).std_error(parameter)),
            peer="Almgren, Thum, Hauptmann and Li (2005), from memory",
            peer_error=published,
            note="standard error of one sample; of gamma and eta with the exponents held",
        )
        for parameter, published in PUBLISHED.items()
    ]


def page(rows: list[harness.Row]) -> str:
    """The documentation's table from the rows."""
    error = {row.case.removeprefix("published errors, "): row.error for row in rows}
    lines = ["| standard error of | " + " | ".join(PUBLISHED) + " |", "|---|" + "--:|" * len(PUBLISHED)]
    lines.append("| published | " + " | ".join(f"{value:.2g}" for value in PUBLISHED.values()) + " |")
    cells = {name: [f"{error[f'{name}: {parameter}']:.2g}" for parameter in PUBLISHED] for name in SAMPLES}
    return "\n".join([*lines, *(f"| {name} | {' | '.join(of)} |" for name, of in cells.items())]) + "\n"
