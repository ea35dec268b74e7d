"""A whole day of trades and quotes, from Parquet to the cross-section of impact estimates (the thesis's Table 1).

    python -m benchmarks day                      # a hundred million trades, six hundred million quotes

The files are made once (four minutes, 8 GB, in JAXEXEC_BENCHMARK_DATA or the folder for temporary files) and kept for
the next run. What is measured runs in a process of its own, because its peak memory is the process's.
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


def run(trades: int = 100_000_000, quick: bool = False) -> list[harness.Row]:
    """The way to Table 1, all stocks of the thesis."""
    folder, stocks = made(trades, quick)
    found = measured("table", folder)
    size = {"trades": found["trades"], "quotes": found["quotes"], "stocks": stocks}
    note = (
        f"{found['seconds']:.0f} s by the clock on all cores, peak memory {found['peak'] / 1e9:.1f} GB, of "
        f"{found['quotes']:,} quotes, in {found['parts']} parts; {found['estimated']:,} of {found['symbols']:,} stocks "
        "estimated"
    )
    return [harness.row("Parquet to Table 1", size=size, run_seconds=found["seconds"] / found["trades"], note=note)]


def made(trades: int, quick: bool) -> tuple[Path, int]:
    """The folder of a synthetic day, made where it is not there, and its stocks."""
    trades, stocks = (4_000, 40) if quick else (trades, STOCKS)
    folder = Path(os.environ.get("JAXEXEC_BENCHMARK_DATA", tempfile.gettempdir())) / f"jaxexec-day-{trades}"
    if not (folder / "truth.parquet").exists():
        jx.tape.synthetic.write(
            folder, stocks, trades // stocks, SEED, "realistic", tail=TAIL, flickers=FLICKERS, bucket=20
        )
    return folder, stocks


def measured(what: str, folder: Path) -> dict[str, Any]:
    """Figures of one piece of work in a process of its own: "signed", "table" or "polars"."""
    command = [sys.executable, "-m", "benchmarks.day", what, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
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
    found = {"parts": len(parts), "trades": 0, "quotes": 0}

    def counted():
        for part in parts:
            found["trades"] += part.ledger.read["trades"]
            found["quotes"] += part.ledger.read["quotes"]
            yield part

    panel = jx.impact.glosten_harris(counted())
    print(jx.impact.summarise(panel), file=sys.stderr)
    return {**found, "symbols": len(panel.symbols), "estimated": int(panel.usable.sum())}


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
