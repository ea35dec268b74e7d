"""Reading, cleaning, matching and signing a tape, against polars on whole files.

The peer reads both files whole, joins trades as of the time before and compares prices, with the tick test filled
forward, as one writes Lee and Ready's rule with polars; it cleans nothing and keeps no ledger. The files are those of
`benchmarks.day`, fewer.
"""

from typing import Any

from benchmarks import harness
from benchmarks.day import made, measured


def run(trades: int = 10_000_000, quick: bool = False) -> list[harness.Row]:
    """One row; seconds and peak memory of a process each."""
    folder, stocks = made(trades, quick)
    ours, peer = measured("signed", folder), measured("polars", folder)
    fields: dict[str, Any] = {
        "run_seconds": ours["seconds"] / ours["trades"],
        "peer": "polars join_asof on whole files",
        "peer_seconds": peer["seconds"] / ours["trades"],
        "error": abs(peer["flow"] - ours["flow"]) / peer["gross"],
    }
    note = (
        f"seconds a trade by the clock on all cores, {ours['quotes']:,} quotes; {ours['seconds']:.1f} s and "
        f"{ours['peak'] / 1e9:.1f} GB, polars {peer['seconds']:.1f} s and {peer['peak'] / 1e9:.1f} GB; error: "
        "difference of signed volume, over volume"
    )
    size = {"trades": ours["trades"], "stocks": stocks}
    return [harness.row("Parquet to signed trades", size=size, note=note, **fields)]
