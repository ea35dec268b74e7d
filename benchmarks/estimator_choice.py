"""What the choice of equation, midpoint policy and standard errors does to impact estimates where the truth is known.

Three experiments on synthetic tapes, whose tables go to the documentation: the two forms on a tape that obeys the
difference form; a growing share of trades at the midpoint, whose side nobody sees, dropped or kept at sign 0; and how
far estimates lie from the truth in units of each kind of standard error.
"""

from typing import Any, NamedTuple

import numpy as np

import jaxexec as jx
from benchmarks import harness
from jaxexec.impact import COEFFICIENTS

FORMS = (("difference", "keep"), ("difference", "exclude"), ("difference", "tick"), ("level", "keep"))
SHARES = (0.0, 0.1, 0.3, 0.5)
ERRORS: dict[str, dict[str, Any]] = {
    "ols": {"covariance": "ols"},
    "hc0": {"covariance": "hc0"},
    "hc3": {"covariance": "hc3"},
    "hac": {"covariance": "hac"},
    "hac, andrews, pre-whitened": {"covariance": "hac", "lags": "andrews", "prewhiten": True},
    "prais-winsten, hac": {"estimator": "prais-winsten"},
}
_POLICIES = {"keep": "sign 0", "exclude": "dropped", "tick": "tick test"}


class Found(NamedTuple):
    """Estimates beside the truth: the median of estimate/truth − 1 and the root mean square of z, by coefficient."""

    bias: np.ndarray
    z: np.ndarray
    stocks: int


def run(stocks: int = 400, trades: int = 1_500, quick: bool = False) -> list[harness.Row]:
    """One row for each case and coefficient."""
    if quick:
        stocks, trades = 5, 300
    exact = jx.tape.synthetic.generate(stocks=stocks, trades=trades, seed=11, model="exact")
    found: dict[str, Found] = {}
    for form, midpoint in FORMS:
        tape = jx.tape.sign(exact.trades, exact.quotes, midpoint=midpoint)  # pyright: ignore[reportArgumentType]
        found[f"form {form}, {midpoint}"] = _beside_truth(tape, exact.truth, form=form)
    kept = jx.tape.sign(exact.trades, exact.quotes, midpoint="keep")
    for share in SHARES:
        for midpoint in ("keep", "exclude"):
            found[f"hidden {share:.0%}, {midpoint}"] = _beside_truth(
                _hidden(kept, exact.truth, share, midpoint), exact.truth
            )
    real = jx.tape.synthetic.generate(stocks=stocks, trades=trades, seed=12, model="realistic")
    tape = jx.tape.sign(real.trades, real.quotes, midpoint="keep")
    for name, options in ERRORS.items():
        found[f"errors {name}"] = _beside_truth(tape, real.truth, **options)
    return [row for case, one in found.items() for row in _rows(case, one, stocks, exact.trades.height)]


def _rows(case: str, found: Found, stocks: int, trades: int) -> list[harness.Row]:
    errors = case.startswith("errors")
    values = found.z if errors else found.bias
    what = "root mean square of (estimate − truth) / standard error" if errors else "median of estimate/truth − 1"
    return [
        harness.row(
            f"estimator choice, {case}, {name}",
            size={"stocks": stocks, "trades": trades, "estimated": found.stocks},
            error=float(value),
            peer="the truth of the synthetic tape",
            peer_error=1.0 if errors else 0.0,
            note=f"{what} over stocks",
        )
        for name, value in zip(COEFFICIENTS, values, strict=True)
    ]


def page(rows: list[harness.Row]) -> dict[str, str]:
    """The documentation's tables from the rows, by name."""
    value = {row.case.removeprefix("estimator choice, "): row.error for row in rows}
    size = rows[0].size
    on = f"{size['trades']:,} trades of {size['stocks']} synthetic stocks."

    def table(head: str, cases: list[tuple[str, str]], shown: str) -> list[str]:
        lines = [f"| {head} | C | λ | ζ | ℓ |", "|" + "---|" * (head.count("|") + 5)]
        return lines + [
            f"| {label} | " + " | ".join(format(value[f"{case}, {name}"], shown) for name in COEFFICIENTS) + " |"
            for label, case in cases
        ]

    forms = [(f"{form} | {_POLICIES[midpoint]}", f"form {form}, {midpoint}") for form, midpoint in FORMS]
    hidden = [
        (f"{share:.0%} | {_POLICIES[midpoint]}", f"hidden {share:.0%}, {midpoint}")
        for share in SHARES
        for midpoint in ("exclude", "keep")
    ]
    errors = [(name, f"errors {name}") for name in ERRORS]
    bias = f"Median over stocks of estimate/truth − 1; {on}"
    rms = f"Root mean square over stocks of (estimate − truth) / standard error, 1 if errors are honest; about {on}"
    tables = {
        "forms": [bias, "", *table("form | midpoint trades", forms, "+,.0%")],
        "midpoints": [bias, "", *table("share at the midpoint, side unseen | they are", hidden, "+.0%")],
        "errors": [rms, "", *table("errors", errors, ".2f")],
    }
    return {name: "\n".join(lines) + "\n" for name, lines in tables.items()}


def _hidden(tape: Any, truth: Any, share: float, midpoint: str) -> Any:
    """The tape with a share of its trades, drawn at random, at the midpoint: without bounce and without a sign."""
    import polars as pl

    known = tape.trades.join(truth.select("symbol", *COEFFICIENTS), on="symbol", how="left", maintain_order="left")
    hide = pl.Series(np.random.default_rng(5).random(known.height) < share)
    bounce = pl.col("transitory_fixed") + pl.col("transitory_variable") * pl.col("size")
    at_midpoint = (pl.col("ticks") - 1e4 * pl.col("sign") * bounce).round(0).cast(pl.Int64)
    changed = known.with_columns(
        ticks=pl.when(hide).then(at_midpoint).otherwise(pl.col("ticks")),
        sign=pl.when(hide).then(pl.lit(0, pl.Int8)).otherwise(pl.col("sign")),
    )
    used = changed if midpoint == "keep" else changed.filter(pl.col("sign") != 0)
    return jx.tape.SignedTape.from_frames(used.select(tape.trades.columns))


def _beside_truth(tape: Any, truth: Any, **options: Any) -> Found:
    panel = jx.impact.glosten_harris(tape, **options)
    known = truth.select("symbol", *COEFFICIENTS).rows_by_key("symbol", unique=True)
    right = np.array([known[symbol] for symbol in panel.symbols])[panel.usable]
    e = panel.estimates
    values, errors = np.asarray(e.coefficients)[panel.usable], np.asarray(e.std_errors)[panel.usable]
    z = (values - right) / errors
    return Found(np.median(values / right, axis=0) - 1, np.sqrt((z**2).mean(0)), len(right))
