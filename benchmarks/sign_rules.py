"""How often each sign rule is right on a realistic synthetic tape, whose sides are known.

The tape is signed with its times to the nanosecond, with times cut to whole seconds, and with these spread within their
second. Of bars, how much volume bulk classification puts on the right side. The tables go to the documentation.
"""

from typing import Any

import numpy as np

import jaxexec as jx
from benchmarks import harness

RULES = ("lee-ready", "quote", "tick", "emo", "clnv")
TIMES = ("nanoseconds", "seconds", "seconds, interpolated")
PLACES = ("all", "at a quote", "inside", "midpoint")
BARS = ("normal", "student", "lee-ready")
_SECOND = 1_000_000_000


def run(stocks: int = 200, trades: int = 3_000, quick: bool = False) -> list[harness.Row]:
    """One row for each rule, kind of time stamps and place in the book, and for each way to share out volume."""
    if quick:
        stocks, trades = 5, 600
    made = jx.tape.synthetic.generate(stocks=stocks, trades=trades, seed=7, model="realistic")
    given = jx.tape.read(made.trades, columns={"side": "true_sign"}), jx.tape.read(made.quotes, "quotes")
    fine, coarse = jx.tape.clean(*given), jx.tape.clean(*map(_in_seconds, given))
    reports = (
        jx.tape.compare_rules(fine.trades, fine.quotes, rules=RULES),
        jx.tape.compare_rules(coarse.trades, coarse.quotes, rules=RULES),
        jx.tape.compare_rules(coarse.trades, coarse.quotes, rules=RULES, interpolate="1s"),
    )
    rows = []
    for times, report in zip(TIMES, reports, strict=True):
        for rule in RULES:
            for place in PLACES:
                found = report.row(rule, place)
                rows.append(
                    harness.row(
                        f"sign rules, {times}, {rule}, {place}",
                        size={"stocks": stocks, "trades": found.trades, "signed": found.signed},
                        error=1.0 - found.right_share,
                        peer="the sides of the synthetic tape",
                        peer_error=0.0,
                        note="share of the signed trades with the wrong sign",
                    )
                )
    return rows + [_volume(made, fine, how) for how in BARS]


def page(rows: list[harness.Row]) -> str:
    """The documentation's two tables from the rows."""
    by_case = {row.case: row for row in rows}

    def right(times: str, rule: str, place: str) -> str:
        error = by_case[f"sign rules, {times}, {rule}, {place}"].error
        return "–" if error is None else f"{1 - error:.1%}"

    whole = by_case["sign rules, nanoseconds, lee-ready, all"]
    sample = f"{whole.size['trades']:,} trades of {whole.size['stocks']} synthetic stocks"
    lines = [
        f"Of the trades that got a sign, how many got the right one: {sample}.",
        "",
        "| rule | signed | right | at a quote | inside | midpoint | times in seconds | interpolated |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for rule in RULES:
        size = by_case[f"sign rules, nanoseconds, {rule}, all"].size
        cells = [f"{size['signed'] / size['trades']:.1%}", *(right("nanoseconds", rule, place) for place in PLACES)]
        cells += [right(times, rule, "all") for times in TIMES[1:]]
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Volume on the right side, in bars of one minute:",
        "",
        "| by | volume on the right side |",
        "|---|--:|",
    ]
    names = {"normal": "`bulk_volume`, normal", "student": "`bulk_volume`, Student, ν = 0.25", "lee-ready": "Lee–Ready"}
    lines += [f"| {names[how]} | {1 - (by_case[f'volume of bars, {how}'].error or 0.0):.1%} |" for how in BARS]
    return "\n".join(lines) + "\n"


def _in_seconds(frame: Any) -> Any:
    import polars as pl

    return frame.with_columns(pl.col("time") // _SECOND * _SECOND)


def _volume(made: Any, cleaned: Any, how: str) -> harness.Row:
    """Σ min(V̂_B, V_B) + min(V̂_S, V_S) over ΣV, the measure of Easley, López de Prado and O'Hara."""
    import polars as pl

    bars = jx.tape.bulk_volume(cleaned.trades, time="1min", distribution="student" if how == "student" else "normal")
    true = _bought(cleaned.trades.with_columns(sign="side"))
    both = bars.join(true, on=["symbol", "date", "bar"], how="left")
    if how == "lee-ready":
        signed = jx.tape.sign(made.trades, made.quotes).trades
        both = both.drop("buy_fraction").join(
            _bought(signed).with_columns(buy_fraction=pl.col("bought") / pl.col("traded")).drop("bought", "traded"),
            on=["symbol", "date", "bar"],
            how="left",
        )
    share = both["buy_fraction"].fill_null(0.5).to_numpy()
    volume, bought = both["volume"].to_numpy(), both["bought"].to_numpy()
    right = np.minimum(share * volume, bought) + np.minimum((1 - share) * volume, volume - bought)
    return harness.row(
        f"volume of bars, {how}",
        size={"bars": both.height, "shares": int(volume.sum())},
        error=float(1 - right.sum() / volume.sum()),
        peer="the sides of the synthetic tape",
        peer_error=0.0,
        note="share of the volume on the wrong side, bars of one minute",
    )


def _bought(trades: Any) -> Any:
    """Shares that buyers initiated, and all shares, of each minute."""
    import polars as pl

    minute = trades.with_columns(bar=pl.col("time") // (60 * _SECOND))
    return minute.group_by("symbol", "date", "bar").agg(
        bought=pl.col("size").filter(pl.col("sign") > 0).sum(), traded=pl.col("size").sum()
    )
