"""The page of a calibration: estimates, pictures, what the data can tell, and what is assumed."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxexec.cli.fit_pictures import Drawn
from jaxexec.cli.parameter_files import Source
from jaxexec.cli.row_fits import Fitted
from jaxexec.cli.run import Run
from jaxexec.presentation import Table

if TYPE_CHECKING:
    import polars as pl

    from jaxexec.calibration import Calibration, StateTest

SHOWN = 10
_NEAR_FLAT = 100.0
_TOLD = 1.96  # standard errors from zero
UNITS = {
    "executions": {"eta": "currency per share", "phi": "1", "psi": "currency per share", "delta": "1"},
    "meta-orders": dict.fromkeys(("gamma", "alpha", "delta", "eta", "beta"), "1"),
    "flow": {
        "impact": "currency per share²",
        "permanent": "currency per share²",
        "decay": "per day",
        "exponent": "1",
        "scale": "days",
    },
    "schedules": {
        "risk_aversion": "per currency",
        "eta": "currency per share",
        "phi": "1",
        "psi": "currency per share",
    },
}
_MODELS = {
    "executions": "An execution at participation ρ pays ηρ^φ + ψ a share, and noise.",
    "meta-orders": (
        "Almgren, Thum, Hauptmann and Li (2005): the move that stays is I = σγT|X/VT|^α(Θ/V)^δ, the cost that passes "
        "J − I/2 = ση|X/VT|^β."
    ),
    "flow": (
        "The propagator of Bouchaud, Gefen, Potters and Wyart (2004): every trade moves the price by a kernel that "
        "decays."
    ),
    "schedules": (
        "Inverse control: the preferences under which the optimal schedule is nearest to the one that was traded."
    ),
}
_ASSUMED = {
    "executions": (
        "Executions are independent of each other, and their noise is alike, or as error_std says.",
        "Each traded at an even rate, and does not chase or foresee the price.",
        "A market without a kernel has impact that passes at once.",
    ),
    "meta-orders": (
        "The noise of an order is that of a Brownian price of the volatility that its row says.",
        "Orders do not foresee the price.",
        "In the market volatility and volume are taken as known; permanent impact is a line through a typical order.",
    ),
    "flow": (
        "Flow does not answer to the noise of returns within a step.",
        "Errors of returns are independent and alike; impact is linear in shares.",
        "Impact older than the lags looked back at is over, or does not change any more.",
    ),
    "schedules": (
        "The market and what is not fitted of the cost are those of the market file, without error.",
        "The desk minimised cost + γ/2 variance of this order alone, and knew the volume of the day.",
        (
            "Deviations at different times are independent; where they last m steps, errors are too small by about √m. "
            "With --common and five orders or more they may depend on each other within an order."
        ),
    ),
    "tape": (
        "Glosten and Harris's regressions say nothing about speed: η and φ come from elsewhere.",
        "Errors of one day are those of that day; other days differ more.",
    ),
}


def estimates(source: Source, table: "pl.DataFrame", count: int, unit_of_rows: str = "rows") -> Table:
    """The parameters of the first fits, with 95 % intervals and units."""
    units = UNITS[source]
    first = table.select("symbol", "part").unique(maintain_order=True).head(SHOWN)
    shown = table.join(first, on=["symbol", "part"], how="inner", maintain_order="left")
    kept = [name for name in ("symbol", "part") if any(shown[name])]
    headings = [*kept, "parameter", "estimate", "std. error", "95 % from", "95 % to", unit_of_rows, "status"]
    rows = [
        [
            *(row[name] for name in kept),
            row["parameter"],
            *(row[name] for name in ("estimate", "std_error", "low", "high")),
            row["rows"],
            row["status"],
        ]
        for row in shown.to_dicts()
    ]
    said = "; ".join(_with_unit(name, units[name]) for name in shown["parameter"].unique(maintain_order=True))
    more = f" The first {SHOWN} of {count:,} fits." if count > SHOWN else ""
    return Table(f"Fitted to {source}", headings, rows, f"{said}.{more}")


def _with_unit(name: str, unit: str) -> str:
    return (
        f"{name} a pure number" if unit == "1" else f"{name} {unit}" if unit.startswith("per") else f"{name} in {unit}"
    )


def verdicts(found: Sequence[Fitted]) -> Table:
    """For each fit what the data can tell, in words."""
    rows = [(one.name, _condition(one), verdict(one)) for one in found[:SHOWN]]
    footer = "Condition: how many times less is known along the least known combination than along the best known one."
    return Table("Identification", ("fit", "condition", "verdict"), rows, footer)


def verdict(one: Fitted) -> str:
    """Whether the data tell the parameters apart, and which combination they tell least."""
    from jaxexec.numerics.status import Status

    fit = one.fit
    status = Status(int(fit.status))
    if status == Status.RANK_DEFICIENT:
        free = "; ".join(fit.null_directions()) or "a combination of them"
        return (
            f"Not identified: {free} can grow without any change of what is seen. Hold one of these, or vary the data."
        )
    if not one.usable:
        return f"No fit ({status.name}). {status.remedy}"
    names, condition = _listed(fit.names), _condition(one)
    if len(fit.names) == 1:
        error = float(fit.std_errors[0] / abs(fit.values[0])) if float(fit.values[0]) else math.inf
        return f"The data tell {names} to ± {100 * error:.2g} %." if math.isfinite(error) else f"The data tell {names}."
    lost = [name for name, t in zip(fit.names, np.abs(np.asarray(fit.t)), strict=True) if t < _TOLD]
    text = f"The data tell {names} apart"
    text += "." if condition < _NEAR_FLAT else f" only just: least along {_weakest(fit)}."
    return text + (f" Not told from zero: {_listed(lost)}." if lost else "")


def _condition(one: Fitted) -> float:
    return float(np.asarray(one.fit.condition))


def _weakest(fit: Any) -> str:
    """The combination of the free parameters that belongs to the least singular value."""
    weights = np.asarray(fit.directions, float)[0]
    weights = weights * np.sign(weights[np.argmax(np.abs(weights))])
    parts = []
    for name, bound, weight in zip(fit.names, fit.bounds, weights, strict=True):
        if abs(weight) > 0.1 * np.abs(weights).max():
            label = f"log {name}" if bound[0] is not None else name
            sign = ("− " if weight < 0 else "+ ") if parts else ("−" if weight < 0 else "")
            parts.append(f"{sign}{abs(weight):.2g} {label}")
    return " ".join(parts)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def part_tests(tests: "Mapping[str, StateTest]") -> Table:
    """Whether the parts of each symbol have the same parameters."""
    rows = [
        (symbol or "all rows", test.statistic, test.numerator, test.denominator, test.p_value)
        for symbol, test in list(tests.items())[:SHOWN]
    ]
    columns = ("symbol", "F", "degrees", "of", "p-value")
    return Table("Are the parts alike?", columns, rows, "A small p-value: the parameters differ between parts.")


def overview(calibrations: "Sequence[Calibration]") -> Table:
    """The first few markets beside each other, a number a column; one alone with all that is known of it."""
    if len(calibrations) == 1:
        return calibrations[0].table()
    first = calibrations[:SHOWN]
    columns = {entry.name: entry.unit for c in first for entry in c.provenance}
    rows = [[c.symbol, *({p.name: p.value for p in c.provenance}.get(name) for name in columns)] for c in first]
    assumed = sorted({entry.name for c in calibrations for entry in c.provenance if entry.origin == "assumed"})
    units = "; ".join(f"{name} in {unit}" for name, unit in columns.items() if unit != "1")
    said = f" Assumed: {', '.join(assumed)}." if assumed else ""
    footer = f"{len(first):,} of {len(calibrations):,} stocks.{said} {units}."
    return Table("Markets", ["symbol", *columns], rows, footer)


def assumptions(source: Source, calibrations: "Sequence[Calibration]") -> Table:
    """What no data told: of the model, and of the numbers of the markets."""
    rows = [("model", text) for text in _ASSUMED[source]]
    seen: dict[str, str] = {}
    for calibration in calibrations:
        for entry in calibration.provenance:
            if entry.origin in ("assumed", "given", "shrunk"):
                seen.setdefault(entry.name, f"{entry.origin}: {entry.note}")
    return Table("Assumptions", ("of", "how"), [*rows, *seen.items()])


def model_of(source: Source) -> str:
    """The model in a sentence."""
    return _MODELS.get(source, "Volume, volatility and spread as measured; permanent impact from regressions.")


def write_page(
    run: Run,
    title: str,
    parts: Sequence[tuple[str, str, Sequence[Any]]],
    facts: Mapping[str, Any],
    drawn: Sequence[Drawn],
) -> None:
    """Write the figures, each a file, and the page.

    Args:
        run: The run.
        title: Title of the page.
        parts: Headings, prose, and tables and figures (`Drawn`).
        facts: The numbers that matter most.
        drawn: All figures, to be written one by one.
    """
    from jaxexec import report
    from jaxexec.report import Picture, Section

    for one in drawn:
        run.write_picture(f"{one.name}.svg", one.figure, one.caption)
    sections = [
        Section(heading, prose, [Picture(x.figure, x.caption) if isinstance(x, Drawn) else x for x in contents])
        for heading, prose, contents in parts
        if prose or contents
    ]
    page = run.folder / "report.html"
    run.write(page.name, lambda path: report.write(path, sections, title, facts=facts, provenance=run.provenance()))
    run.result["report"] = str(page)
    run.note(f"the report is {page.resolve().as_uri()}")
