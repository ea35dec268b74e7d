"""How far estimates from a realistic tape lie from the truth, by rule of signing and use of midpoint trades.

A synthetic tape with the habits of real ones (signs that persist, round and odd lots, bursts, prices on cents, quotes
that flicker) is signed in each way and estimated; the truth is known. The table goes to the documentation.
"""

from typing import Any

import numpy as np

import jaxexec as jx
from benchmarks import harness
from jaxexec.impact import COEFFICIENTS

POLICIES = (
    ("truth", "keep"),
    ("lee-ready", "tick"),
    ("lee-ready", "exclude"),
    ("lee-ready", "keep"),
    ("emo", "tick"),
    ("clnv", "tick"),
    ("tick", "tick"),
)


def run(stocks: int = 200, trades: int = 3_000, quick: bool = False) -> list[harness.Row]:
    """One row for each rule and coefficient."""
    if quick:
        stocks, trades = 5, 600
    made = jx.tape.synthetic.generate(stocks=stocks, trades=trades, seed=7, model="realistic")
    rows = []
    for rule, midpoint in POLICIES:
        tape, right = _signed(made, rule, midpoint)
        panel = jx.impact.glosten_harris(tape, form="difference")
        biases = _biases(panel, made.truth)
        for name, ratio in biases.items():
            rows.append(
                harness.row(
                    f"tape bias, {rule}, {midpoint}, {name}",
                    size={"stocks": stocks, "trades": made.trades.height, "estimated": len(ratio)},
                    error=float(np.median(ratio) - 1),
                    peer="the truth of the synthetic tape",
                    peer_error=0.0,
                    note=f"median over stocks of estimate/truth − 1; quartiles {np.quantile(ratio, 0.25) - 1:+.3f} and "
                    f"{np.quantile(ratio, 0.75) - 1:+.3f}; {right:.2%} of the trades used have the right sign",
                )
            )
    return rows


def page(rows: list[harness.Row]) -> str:
    """The documentation's table from the rows."""
    first = rows[0]
    lines = [
        "Median over stocks of estimate/truth − 1, quartiles in brackets; a kept midpoint trade has no right sign.",
        f"{first.size['trades']:,} trades of {first.size['stocks']} synthetic stocks, difference form.",
        "",
        "| signs | midpoint trades | right sign | C | λ | ζ | ℓ |",
        "|---|---|---|---|---|---|---|",
    ]
    by_case = {r.case: r for r in rows}
    for rule, midpoint in POLICIES:
        found = [by_case[f"tape bias, {rule}, {midpoint}, {name}"] for name in COEFFICIENTS]
        cells = [_cell(r) for r in found]
        right = found[0].note.split("; ")[-1].split(" of ")[0]
        kept = {"truth": "true side"}.get(rule, {"tick": "tick test", "exclude": "dropped", "keep": "sign 0"}[midpoint])
        lines.append(f"| {rule} | {kept} | {right} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: harness.Row) -> str:
    low, high = (float(word) for word in row.note.split("; ")[1].removeprefix("quartiles ").split(" and "))
    assert row.error is not None
    return f"{row.error:+.0%} ({low:+.0%}, {high:+.0%})"


def _signed(made: Any, rule: str, midpoint: str) -> tuple[Any, float]:
    """The signed tape, and the share of its trades with the true sign."""
    import polars as pl

    keys = ["symbol", "date", "time", "ticks", "size"]
    given = jx.tape.read(made.trades, "trades")
    known = given.with_columns(true_sign=made.trades["true_sign"])
    if rule == "truth":
        cleaned = jx.tape.clean(given).trades
        truth = known.select("symbol", "sequence", "true_sign")
        signed = cleaned.join(truth, on=["symbol", "sequence"], how="left", maintain_order="left")
        return jx.tape.SignedTape.from_frames(signed.rename({"true_sign": "sign"})), 1.0
    quotes = None if rule == "tick" else made.quotes
    tape = jx.tape.sign(made.trades, quotes, rule=rule, midpoint=midpoint)  # pyright: ignore[reportArgumentType]
    # Trades that agree in all keys are told apart by their place among them.
    place = pl.int_range(pl.len()).over(keys).alias("place")
    joined = tape.trades.with_columns(place).join(
        known.with_columns(place).select(*keys, "place", "true_sign"), on=[*keys, "place"], how="left"
    )
    return tape, float((joined["sign"] == joined["true_sign"]).mean())  # pyright: ignore[reportArgumentType]


def _biases(panel: Any, truth: Any) -> dict[str, np.ndarray]:
    """Estimate over truth of the stocks that could be estimated, by coefficient."""
    known = truth.select("symbol", *COEFFICIENTS).rows_by_key("symbol", unique=True)
    right = np.array([known[symbol] for symbol in panel.symbols])
    ratio = (np.asarray(panel.estimates.coefficients) / right)[panel.usable]
    return {name: ratio[:, k] for k, name in enumerate(COEFFICIENTS)}
