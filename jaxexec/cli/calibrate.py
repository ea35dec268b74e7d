"""`jaxexec calibrate`: signed trades to market files."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jaxexec.cli import markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan
from jaxexec.cli.tapes import read_signed, signed_inputs
from jaxexec.presentation import Table
from jaxexec.storage import safe_name

_SHOWN = 10


def calibrate(
    signed: Path,
    *,
    symbol: tuple[str, ...] = (),
    child_size: float | None = None,
    eta: float | None = None,
    phi: float | None = None,
    eta_from: Literal["prior", "children"] = "prior",
    bins: int = 13,
    common: Common = DEFAULT,
) -> int:
    """Signed trades to a market file for each stock.

    Args:
        signed: Folder that `jaxexec clean` wrote, or a Parquet file of signed trades.
        symbol: Stocks wanted; all where none is named.
        child_size: Shares of a child order; the stock's mean trade where none is given.
        eta: Temporary impact, currency per share at the rate of the whole market; as `eta_from` where none is given.
        phi: Exponent of the temporary impact.
        eta_from: Source of eta: a published prior, or the cost of child orders, one a step.
        bins: Parts of the trading day.
    """
    inputs = signed_inputs(signed)
    if common.dry_run:
        return plan("calibrate", common, {"files to read": len(inputs)})
    options = {"child_size": child_size, "eta": eta, "phi": phi, "eta_from": eta_from}
    settings = {**options, "symbol": symbol, "bins": bins, "precision": common.precision}
    with open_run("calibrate", common, settings, inputs) as run:
        run.start_jax()
        from jaxexec import impact

        tape: Any = read_signed(signed)
        panel, activity = impact.glosten_harris(tape), impact.activity(tape, bins=bins)
        wanted = list(symbol) or tape.symbols
        unknown = sorted(set(wanted) - set(tape.symbols))
        if unknown:
            raise ValueError(f"symbol {unknown[0][:40]!r} is not on the tape")
        given = {name: value for name, value in options.items() if value is not None}
        return write_markets(run, panel, activity, wanted, given)


def write_markets(run: Run, panel: Any, activity: Any, symbols: list[str], options: dict[str, Any]) -> int:
    """Write a market file for each stock, and all their numbers in one table; the exit code."""
    found, failed = [], []
    for symbol in symbols:
        try:
            found.append(markets.calibrate(panel, activity, symbol, **options))
        except ValueError as error:
            failed.append((symbol, str(error)))
            continue
        run.write_text(f"market-{safe_name(symbol)}.toml", found[-1].to_toml())
    if len(found) == 1:
        run.show(found[0].table())
    elif found:
        run.show(overview(found))
    run.write_parquet("markets.parquet", numbers(found))
    if failed:
        run.show(Table("Stocks without a market", ["symbol", "reason"], failed[:_SHOWN]))
    run.result |= {"stocks": len(symbols), "failed": len(failed)}
    return SOME_ROWS_FAILED if failed else OK


def numbers(calibrations: list[Any]) -> Any:
    """Every number of every market with its standard error and its origin: one row a stock and number."""
    import polars as pl

    rows = [{"symbol": c.symbol, **dataclasses.asdict(entry)} for c in calibrations for entry in c.provenance]
    names = ("symbol", "name", "value", "std_error", "unit", "origin", "note")
    kinds = {name: pl.Float64 if name in ("value", "std_error") else pl.String for name in names}
    return pl.DataFrame(rows, schema=kinds)


def overview(calibrations: list[Any]) -> Table:
    """The first few stocks beside each other, a number a column."""
    first = calibrations[:_SHOWN]
    columns = [(entry.name, entry.unit) for entry in first[0].provenance]
    rows = [[c.symbol, *(entry.value for entry in c.provenance)] for c in first]
    assumed = sorted({entry.name for c in calibrations for entry in c.provenance if entry.origin == "assumed"})
    units = "; ".join(f"{name} in {unit}" for name, unit in columns if unit != "1")
    footer = f"{len(first):,} of {len(calibrations):,} stocks. {units}." + (
        f" Assumed: {', '.join(assumed)}." if assumed else ""
    )
    return Table("Markets", ["symbol", *(name for name, _ in columns)], rows, footer)
