"""`jaxexec calibrate`: tapes, executions, meta-orders, order flow or observed schedules to markets."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from jaxexec.cli import markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.base_markets import NOTHING, Base
from jaxexec.cli.options import DEFAULT, Common, Flag
from jaxexec.cli.parameter_files import Source, lanes, read_columns
from jaxexec.cli.run import Run, open_run, plan
from jaxexec.cli.session import Session
from jaxexec.cli.tapes import read_signed, signed_inputs
from jaxexec.presentation import Table
from jaxexec.storage import FileError, safe_name

_PICTURED = 3
_FOR_ROWS = ("executions", "meta-orders")


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FromTape:
    """Options of a tape.

    Attributes:
        symbol: Stocks wanted; all where none is named.
        child_size: Shares of a child order; the stock's mean trade where none is given.
        eta_from: Source of eta: a published prior, or the cost of child orders, one a step.
        bins: Parts of the trading day.
        executions: CSV or Parquet of symbol, participation, slippage (currency per share) and perhaps error_std: the
            cost of each stock comes from its executions, drawn towards those of the others.
    """

    symbol: tuple[str, ...] = ()
    child_size: float | None = None
    eta_from: Literal["prior", "children"] = "prior"
    bins: int = 13
    executions: Path | None = None


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FromRows:
    """Options of rows.

    Attributes:
        by: Column of executions or meta-orders that parts them, such as a time of day or a volatility: parameters of
            each part, and whether they differ.
        parts: How many parts of equally many rows, where that column has numbers or times.
        step: Days between two rows of flow.
        form: Kernel that is fitted to flow.
        fit: What is fitted to schedules, such as risk_aversion,phi.
        one_for_all: One value for all schedules of a desk.
        horizon: Trading days of each observed order, where its rows have a number instead of times.
        session: Hours of the trading day, for clock times; those of the market files, or 09:30-16:00.
    """

    by: str | None = None
    parts: int = 2
    step: float | None = None
    form: Literal["exponential", "exponential-permanent", "power-law"] = "exponential"
    fit: str = "risk_aversion"
    one_for_all: Annotated[Flag, Parameter(name="--common")] = False
    horizon: float | None = None
    session: str | None = None


_TAPE, _ROWS = FromTape(), FromRows()
_OF_SOURCES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("symbol", "child_size", "eta_from", "bins", "executions"), ("tape",)),
    **dict.fromkeys(("by", "parts"), _FOR_ROWS),
    **dict.fromkeys(("step", "form"), ("flow",)),
    **dict.fromkeys(("fit", "common", "horizon", "session"), ("schedules",)),
    **dict.fromkeys(("market", "volatility", "volume"), (*_FOR_ROWS, "flow", "schedules")),
}


def calibrate(
    data: Path,
    *,
    source: Source = "tape",
    base: Base = NOTHING,
    tape: FromTape = _TAPE,
    rows: FromRows = _ROWS,
    common: Common = DEFAULT,
) -> int:
    """Signed trades, executions, meta-orders, order flow or observed schedules to market files and a report.

    Args:
        data: Folder that `jaxexec clean` wrote, or a Parquet file of signed trades; with another source a file of it.
        source: What the file holds.
        base: The market that fits are put into.
        tape: Options of a tape.
        rows: Options of rows.
    """
    _check(source, base, tape, rows)
    if source == "tape":
        return _of_tape(data, base, tape, common)
    files = [data, *base.files]
    if common.dry_run:
        return plan("calibrate", common, {"file to read": str(data), "markets to put it in": len(files) - 1})
    settings = {"source": source, "base": base.stated, **vars(rows), "precision": common.precision}
    with open_run("calibrate", common, settings, files) as run:
        run.start_jax()
        import jax

        from jaxexec.cli.row_calibration import of_rows, of_schedules

        with jax.enable_x64(True):  # fits are searches on little data: 64 bits, whatever the precision of the run
            calibrated = of_schedules(data, base, rows) if source == "schedules" else of_rows(source, data, base, rows)
            return calibrated.write(run)


def _check(source: Source, base: Base, tape: FromTape, rows: FromRows) -> None:
    """Refuse options that the source has no use for, and numbers that make no sense.

    Raises:
        ValueError: The option is named.
    """
    given = {name for name, value in vars(tape).items() if value != getattr(_TAPE, name)}
    given |= {name for name, value in vars(rows).items() if value != getattr(_ROWS, name)}
    given |= set(base.stated) | ({"market"} if base.market else set())
    for name in sorted("common" if name == "one_for_all" else name for name in given):
        fitting = _OF_SOURCES.get(name, (source,))
        if source not in fitting:
            known = ", ".join(fitting)
            raise ValueError(f"--{name.replace('_', '-')} belongs to --source {known}, not to {source}")
    base.check()
    if source == "flow" and rows.step is None:
        raise ValueError("--step is needed with --source flow: days between two rows, such as 0.0025641 for a minute")
    for name, value in (("step", rows.step), ("horizon", rows.horizon)):
        if value is not None and not 0 < value <= (1 if name == "horizon" else 1e3):
            raise ValueError(f"--{name} must be above 0 days{' and at most 1' * (name == 'horizon')}, got {value}")
    if not 2 <= rows.parts <= 20:
        raise ValueError(f"--parts must be between 2 and 20, got {rows.parts}")
    if source == "schedules":
        from jaxexec.cli.schedule_files import check_fitted

        check_fitted(rows.fit)
        Session.parse(rows.session or "09:30-16:00", None)
        if not base.market and (base.volatility is None or base.eta is None):
            raise ValueError(
                "--market is needed with --source schedules (or --volatility, --volume and --eta): "
                "a schedule shows a preference only in a market that is known"
            )


def _of_tape(data: Path, base: Base, tape: FromTape, common: Common) -> int:
    inputs = [*signed_inputs(data), *([tape.executions] if tape.executions else [])]
    if common.dry_run:
        return plan("calibrate", common, {"files to read": len(inputs)})
    options = {"child_size": tape.child_size, "eta": base.eta, "phi": base.phi, "eta_from": tape.eta_from}
    options |= {"half_spread": base.psi, "permanent_impact": base.permanent_impact}
    settings = {**options, "symbol": tape.symbol, "bins": tape.bins, "precision": common.precision}
    with open_run("calibrate", common, settings, inputs) as run:
        run.start_jax()
        from jaxexec import impact

        signed: Any = read_signed(data)
        panel, activity = impact.glosten_harris(signed), impact.activity(signed, bins=tape.bins)
        wanted = list(tape.symbol) or signed.symbols
        unknown = sorted(set(wanted) - set(signed.symbols))
        if unknown:
            raise ValueError(f"symbol {unknown[0][:40]!r} is not on the tape")
        given = {name: value for name, value in options.items() if value is not None}
        costs = fitted_costs(tape.executions) if tape.executions else {}
        return write_markets(run, panel, activity, wanted, given, costs)


def fitted_costs(path: Path) -> dict[str, Any]:
    """The fit of each symbol's executions, drawn towards the others where these are enough."""
    import jax

    from jaxexec.cli.row_fits import fit_rows

    with jax.enable_x64(True):
        found = fit_rows("executions", lanes(read_columns(path, "executions"), "executions"), None, None)
    return {one.symbol: one.fit if one.pooled is None else one.pooled for one in found}


def write_markets(
    run: Run,
    panel: Any,
    activity: Any,
    symbols: Sequence[str],
    options: dict[str, Any],
    costs: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Write a market file for each stock, all their numbers in one table, and the page; the exit code."""
    from jaxexec.cli import fit_page
    from jaxexec.cli.fit_pictures import day_pictures

    found, failed = [], []
    for symbol in symbols:
        try:
            own = {"executions": costs[symbol]} if symbol in costs else {}
            found.append(markets.calibrate(panel, activity, symbol, **options, **own))
        except ValueError as error:
            failed.append((symbol, str(error)))
    drawn = day_pictures(activity, [one.symbol for one in found[:_PICTURED]])
    write_files(run, found)
    run.write_parquet("activity.parquet", activity.table())
    tables = [fit_page.overview(found)] if found else []
    assumed = fit_page.assumptions("tape", found)
    if failed:
        tables.append(Table("Stocks without a market", ["symbol", "reason"], failed[: fit_page.SHOWN]))
    for table in tables:
        run.show(table)
    parts = [
        (
            "Markets",
            fit_page.model_of("tape"),
            [*tables, *(one.table() for one in found[:_PICTURED] if len(found) > 1)],
        ),
        ("Through the day", "Shaded: 95 % intervals of each part of the day.", drawn),
        ("What is assumed", "", [assumed]),
    ]
    facts = {"stocks": len(symbols), "days": int(max(activity.days)), "without a market": len(failed)}
    fit_page.write_page(run, "Markets from a tape", parts, facts, drawn)
    run.result |= {"stocks": len(symbols), "failed": len(failed)}
    return SOME_ROWS_FAILED if failed else OK


def write_files(run: Run, found: Sequence[Any], parts: Sequence[str] = ()) -> None:
    """A market file each, and all their numbers in one table.

    Args:
        run: The run.
        found: Markets.
        parts: What part each is of, to tell those of one symbol apart by their names.

    Raises:
        FileError: Two markets would have one name.
    """
    names = []
    for at, one in enumerate(found):
        part = f"-{safe_name(parts[at])}" if parts and parts[at] else ""
        names.append(f"market-{safe_name(one.symbol)}{part}.toml" if one.symbol or part else "market.toml")
    if len(set(names)) < len(names):
        raise FileError(run.folder, "two markets would have one name", "Give each a symbol.")
    for name, one in zip(names, found, strict=True):
        run.write_text(name, one.to_toml())
    if found:
        run.write_parquet("markets.parquet", numbers(found))


def numbers(calibrations: Sequence[Any]) -> Any:
    """Every number of every market with its standard error and its origin: one row a stock and number."""
    import polars as pl

    rows = [{"symbol": c.symbol, **dataclasses.asdict(entry)} for c in calibrations for entry in c.provenance]
    names = ("symbol", "name", "value", "std_error", "unit", "origin", "note")
    kinds = {name: pl.Float64 if name in ("value", "std_error") else pl.String for name in names}
    return pl.DataFrame(rows, schema=kinds)
