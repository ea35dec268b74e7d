"""A whole day of trades and quotes, from Parquet to the cross-section of impact estimates, and its tape stage alone.

    python -m benchmarks day                                # ten million trades, sixty million quotes, beside polars
    python -m benchmarks day --trades 100000000             # the day of the thesis, without the peer

Files are made once, in a folder of their own, and kept for the next run. What is measured runs in a process of its own,
because its peak memory is the process's. The tape stage reads, cleans, matches and signs; the peer reads both files
whole, joins them as of the time before each trade and compares prices in polars, without cleaning.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import jaxexec as jx
from benchmarks import harness

STOCKS, FLICKERS, TAIL, SEED = 8_549, 4, 1.2, 2024
_MOST_FOR_PEER = 20_000_000  # trades: it holds everything in memory at once


def run(trades: int = 10_000_000, quick: bool = False) -> list[harness.Row]:
    """The tape stage, beside polars where that has room, and the way to Table 1."""
    stocks = 40 if quick else STOCKS
    trades = 4_000 if quick else trades
    folder = Path(os.environ.get("JAXEXEC_BENCHMARK_DATA", tempfile.gettempdir())) / f"jaxexec-day-{trades}"
    if not (folder / "truth.parquet").exists():
        jx.tape.synthetic.write(
            folder, stocks, trades // stocks, SEED, "realistic", tail=TAIL, flickers=FLICKERS, bucket=20
        )
    signed = _child("signed", folder)
    peer = _child("polars", folder) if trades <= _MOST_FOR_PEER else None
    table = _child("table", folder)
    size = {"trades": signed["trades"], "quotes": signed["quotes"], "stocks": stocks}
    rows = [_tape_stage(size, signed, peer)]
    note = (
        f"{table['seconds']:.0f} s by the clock, peak memory {table['peak'] / 1e9:.1f} GB, Parquet to Table 1: "
        f"{table['estimated']:,} of {table['symbols']:,} stocks estimated, {table['parts']} parts"
    )
    took = table["seconds"] / size["trades"]
    return [*rows, harness.row("a day, Parquet to Table 1", size=size, run_seconds=took, note=note)]


def _tape_stage(size: dict[str, int], ours: dict[str, Any], peer: dict[str, Any] | None) -> harness.Row:
    note = (
        f"wall seconds a trade, Parquet to signed trades; {ours['seconds']:.0f} s in all; peak memory "
        f"{ours['peak'] / 1e9:.1f} GB"
    )
    fields: dict[str, Any] = {"run_seconds": ours["seconds"] / size["trades"]}
    if peer is not None:
        fields |= {"peer": "polars join_asof on whole files", "peer_seconds": peer["seconds"] / size["trades"]}
        fields |= {"error": abs(peer["flow"] - ours["flow"]) / peer["gross"]}
        note += (
            f", of polars {peer['peak'] / 1e9:.1f} GB; the same clean trades for both, the ledger and its rules for us "
            "alone; error: difference of signed volume, over volume"
        )
    return harness.row("tape stage", size=size, note=note, **fields)


def _child(what: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.day", what, str(folder)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def signed(trades: str, quotes: str) -> dict[str, Any]:
    """The tape stage, part by part."""
    found: dict[str, Any] = {"trades": 0, "quotes": 0, "flow": 0, "parts": 0}
    for part in jx.tape.stream(trades, quotes):
        flow = part.trades["size"].to_numpy() * part.trades["sign"].to_numpy()
        found["trades"] += part.ledger.read["trades"]
        found["quotes"] += part.ledger.read["quotes"]
        found["flow"] += int(np.sum(flow, dtype=np.int64))
        found["parts"] += 1
    return found


def table(trades: str, quotes: str) -> dict[str, Any]:
    """All the way to Table 1."""
    parts = jx.tape.stream(trades, quotes, midpoint="keep")
    panel = jx.impact.glosten_harris(parts)
    print(jx.impact.summarise(panel), file=sys.stderr)
    return {"parts": len(parts), "symbols": len(panel.symbols), "estimated": int(panel.usable.sum())}


def polars(trades: str, quotes: str) -> dict[str, Any]:
    """Lee and Ready as one writes them with polars: one join of the whole files, the tick test by filling forward."""
    import polars as pl

    keys = ["sym_root", "time_m"]
    book = pl.read_parquet(quotes, columns=[*keys, "bid", "ask"]).with_columns(pl.col("time_m").cast(pl.Int64))
    book = book.filter(pl.col("bid") > 0, pl.col("ask") > 0).sort(keys, maintain_order=True)
    tape = pl.read_parquet(trades, columns=[*keys, "price", "size"]).with_columns(pl.col("time_m").cast(pl.Int64))
    tape = tape.sort(keys, maintain_order=True)
    joined = tape.join_asof(
        book, on="time_m", by="sym_root", strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    ticks = (pl.col("price") * 1e4).round().cast(pl.Int64)
    side = (2 * ticks - ((pl.col("bid") + pl.col("ask")) * 1e4).round().cast(pl.Int64)).sign()
    change = ticks.diff().over("sym_root").sign()
    change = pl.when(change != 0).then(change).forward_fill().over("sym_root").fill_null(0)
    signs = joined.with_columns(sign=pl.when(side != 0).then(side).otherwise(change))
    signs = signs.filter(pl.col("bid").is_not_null(), pl.col("bid") < pl.col("ask"))
    flow = signs.select((pl.col("sign") * pl.col("size")).sum()).item()
    return {"flow": int(flow), "gross": int(signs["size"].sum())}


def main(what: str, folder: str) -> None:
    """One measured piece of work, for `run`; its figures as a line of JSON."""
    paths = [str(Path(folder) / f"{name}.parquet") for name in ("trades", "quotes")]
    if what != "polars":
        import jax

        jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    found = {"signed": signed, "table": table, "polars": polars}[what](*paths)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**found, "seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
