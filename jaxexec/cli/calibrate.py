"""`jaxexec calibrate`: signed trades to market files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from jaxexec.cli import markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.parameter_files import Source, fit_file, padded, read_columns
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
    executions: Path | None = None,
    source: Source = "tape",
    step: float | None = None,
    common: Common = DEFAULT,
) -> int:
    """Signed trades to a market file for each stock; or executions, meta-orders or order flow to parameters.

    Args:
        signed: Folder that `jaxexec clean` wrote, or a Parquet file of signed trades; with another source a file of it.
        symbol: Stocks wanted; all where none is named.
        child_size: Shares of a child order; the stock's mean trade where none is given.
        eta: Temporary impact, currency per share at the rate of the whole market; as `eta_from` where none is given.
        phi: Exponent of the temporary impact.
        eta_from: Source of eta: a published prior, or the cost of child orders, one a step.
        bins: Parts of the trading day.
        executions: CSV or Parquet of symbol, participation, slippage (currency per share) and perhaps error_std: the
            cost of each stock comes from its executions, drawn towards those of the others.
        source: What the file holds: a tape, or rows of executions, meta-orders or flow.
        step: Days between two rows of flow.
    """
    if source != "tape":
        return _fit_rows(signed, source, step, common)
    inputs = [*signed_inputs(signed), *([executions] if executions else [])]
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
        costs = fitted_costs(executions) if executions else {}
        return write_markets(run, panel, activity, wanted, given, costs)


def _fit_rows(path: Path, source: Source, step: float | None, common: Common) -> int:
    if common.dry_run:
        return plan("calibrate", common, {"file to read": str(path)})
    settings = {"source": source, "step": step, "precision": common.precision}
    with open_run("calibrate", common, settings, [path]) as run:
        run.start_jax()
        return fit_file(run, path, source, step)


def fitted_costs(path: Path) -> dict[str, Any]:
    """The fit of each symbol's executions, drawn towards the others where these are enough."""
    import jax

    from jaxexec.calibration import execution_cost, shrink

    symbols, columns, mask = padded(read_columns(path, "executions"), "executions")
    fits = execution_cost(mask=mask, **columns)  # pyright: ignore[reportArgumentType]
    fits = shrink(fits).stocks if len(symbols) > len(fits.names) + 1 else fits
    return {symbol: jax.tree.map(lambda x, i=i: x[i], fits) for i, symbol in enumerate(symbols)}


def write_markets(
    run: Run,
    panel: Any,
    activity: Any,
    symbols: list[str],
    options: dict[str, Any],
    costs: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Write a market file for each stock, and all their numbers in one table; the exit code."""
    found, failed = [], []
    for symbol in symbols:
        try:
            own = {"executions": costs[symbol]} if symbol in costs else {}
            found.append(markets.calibrate(panel, activity, symbol, **options, **own))
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
