"""How often the 95 % intervals of every calibration cover the truth, and whether data without errors return it.

2,000 replications of each case of `coverage_cases`, seeds by their names. A row a parameter says in how many the
interval contained the truth, and how the mean standard error compares with the spread of the estimates; a row a case
how far the worst of 20 searches from random starts ended from the truth. Nothing is timed.
"""

import contextlib
import math
from collections.abc import Iterator

import numpy as np

import jaxexec as jx
from benchmarks import harness
from benchmarks.coverage_cases import CASES, Case, covered, from_random_starts, usable

LEAST, MOST = 0.935, 0.965
STARTS = 20
_TAPES = {"psi": "half-spread", "permanent_impact": "permanent impact", "eta": "eta of children"}
_NORMAL = 1.959963984540054


def run(replications: int = 2_000, trades: int = 400, quick: bool = False) -> list[harness.Row]:
    """Rows of every case, and of the numbers that `calibrate` makes of a tape's estimates."""
    cases = CASES
    if quick:
        replications, trades, cases = 40, 100, CASES[:2]
    rows = [row for case in cases for row in _of_case(case, replications)]
    return rows + list(_of_tapes(replications, trades))


def _of_case(case: Case, replications: int) -> Iterator[harness.Row]:
    fits = case.fit(case.draw(np.random.default_rng(case.seed), replications, 1.0), None)
    good = usable(fits)
    values, errors = np.asarray(fits.values)[good], np.asarray(fits.std_errors)[good]
    by_logarithm, plain = covered(case, fits), covered(case, fits, free=False)
    for i, name in enumerate(case.truth):
        yield _row(
            f"{case.name}: {name}",
            rows=case.rows,
            replications=int(good.sum()),
            covered=int(by_logarithm[i]),
            covered_plainly=int(plain[i]),
            ratio=float(errors[:, i].mean() / values[:, i].std()),
            note=f"seed {case.seed}; intervals are "
            + ("said to cover" if case.honest else "not said to cover: the case shows by how much they do not"),
        )
    yield harness.row(
        f"random starts, {case.name}",
        size={"starts": STARTS, "rows": case.rows},
        error=from_random_starts(case, STARTS, replications),
        note="largest relative error of a parameter, of data without errors; NaN where a search found nothing",
    )


def _of_tapes(stocks: int, trades: int) -> Iterator[harness.Row]:
    """What `calibrate` derives from Glosten–Harris estimates of synthetic tapes that obey their equation."""
    made = jx.tape.synthetic.generate(stocks=stocks, trades=trades, seed=0, model="exact")
    tape = jx.tape.sign(made.trades, made.quotes, midpoint="keep")
    panel, activity = jx.impact.glosten_harris(tape), jx.impact.activity(tape)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in _TAPES}
    for truth in made.truth.iter_rows(named=True):
        child = float(activity.mean_trade_size[activity.symbols.index(truth["symbol"])])
        made_of = {entry.name: entry for entry in jx.calibrate(panel, activity, truth["symbol"]).provenance}
        right = {
            "psi": truth["transitory_fixed"] + truth["transitory_variable"] * child,
            "permanent_impact": truth["permanent_variable"] + truth["permanent_fixed"] / child,
        }
        with contextlib.suppress(ValueError):  # a slope that is not positive makes no cost
            of_children = jx.calibrate(panel, activity, truth["symbol"], eta_from="children")
            made_of |= {entry.name: entry for entry in of_children.provenance}
            right["eta"] = truth["transitory_variable"] * made_of["volume"].value / len(of_children.market.volume)
        for name, value in right.items():
            if math.isfinite(made_of[name].std_error):
                found[name].append((made_of[name].value, made_of[name].std_error, value))
    for name, label in _TAPES.items():
        value, error, right = np.array(found[name]).T
        inside = int(np.sum(np.abs(value - right) < _NORMAL * error))
        yield _row(
            f"calibrate, from a tape's estimates: {label}",
            rows=trades,
            replications=len(value),
            covered=inside,
            covered_plainly=inside,
            ratio=float((error / right).mean() / (value / right).std()),
            note="seed 0; value ± 1.96 standard errors, Newey and West's; "
            f"{stocks - len(value)} stocks without such a number left out",
        )


def _row(
    case: str, *, rows: int, replications: int, covered: int, covered_plainly: int, ratio: float, note: str
) -> harness.Row:
    share = covered / replications
    within = "within" if LEAST <= share <= MOST else "outside"
    sizes = {"rows": rows, "replications": replications, "covered": covered, "covered_plainly": covered_plainly}
    return harness.row(
        f"coverage, {case}",
        size=sizes | {"error_percent_of_deviation": round(100 * ratio)},
        error=abs(share - 0.95),
        note=f"{within} {LEAST:.1%} to {MOST:.1%}: {share:.1%} of the intervals of the logarithms, "
        f"{covered_plainly / replications:.1%} of the others; {note}",
    )


def page(rows: list[harness.Row]) -> dict[str, str]:
    """The documentation's tables from the rows: what is claimed, and what is not."""
    starts = {r.case.removeprefix("random starts, "): r.error for r in rows if r.case.startswith("random starts, ")}
    cells: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for row in rows:
        if not row.case.startswith("coverage, "):
            continue
        case, _, name = row.case.removeprefix("coverage, ").rpartition(": ")
        share = row.size["covered"] / row.size["replications"]
        text = f"{name} {share:.1%} ({row.size['error_percent_of_deviation'] / 100:.2f})"
        cells.setdefault(case, []).append(text if LEAST <= share <= MOST else f"**{text}**")
        sizes[case] = row.size["rows"]
    claimed = {case.name: case.honest for case in CASES}
    tables = {}
    for page_name, honest in (("coverage_claimed", True), ("coverage_missed", False)):
        lines = [
            "| fit | rows | 95 % interval covers (standard error over true deviation) | 20 starts |",
            "|---|--:|---|--:|",
        ]
        lines += [
            f"| {case} | {sizes[case]:,} | {', '.join(of)} | {_worst(starts.get(case, math.nan))} |"
            for case, of in cells.items()
            if claimed.get(case, True) is honest
        ]
        tables[page_name] = "\n".join(lines) + "\n"
    return tables


def _worst(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.0e}"
