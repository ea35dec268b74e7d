"""`jaxexec solve`: parent orders to optimal schedules."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxexec.cli import derivatives, markets, scheduling
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.markets import Assumed, Day, MarketFiles
from jaxexec.cli.options import DEFAULT, Common, Flag
from jaxexec.cli.orders import Row, read_orders
from jaxexec.cli.run import Run, open_run, plan, progress
from jaxexec.cli.session import Session
from jaxexec.presentation import Table

if TYPE_CHECKING:
    import polars as pl

_MAX_STEPS = 10_000
_MAX_ROWS = 500_000_000
_SHOWN = 20
_HEADINGS = {
    "order_id": "order",
    "symbol": "symbol",
    "shares": "shares",
    "expected_cost": "cost",
    "standard_deviation": "std. dev.",
    "relative_gap": "gap",
    "status": "status",
}


def solve(
    orders: Path,
    *,
    market: MarketFiles = (),
    risk_aversion: float | None = None,
    steps: int = 78,
    benchmark: scheduling.Benchmark = "arrival",
    sensitivities: Flag = False,
    session: str | None = None,
    timezone: str | None = None,
    assumed: Assumed = markets.DEFAULT,
    common: Common = DEFAULT,
) -> int:
    """Parent orders to optimal schedules, each with its certificate.

    Args:
        orders: CSV or Parquet with order_id, symbol, side, quantity, start, end and perhaps arrival_price, adv, sigma,
            spread; the names of EMSX and FIX are known.
        market: Market files, or folders of them, that `jaxexec calibrate` wrote.
        risk_aversion: Gamma in cost + gamma/2 variance, per currency; that of the market file, or 1e-6, where none is
            given.
        steps: Steps of each schedule.
        benchmark: What cost and risk are measured from: the arrival price, or the order traded evenly in time (twap),
            in volume (vwap), or all at the close.
        sensitivities: Also what each order's cost owes to each of its inputs, as derivatives and elasticities.
        session: Hours of the trading day; those of the market files, or 09:30-16:00 where they do not say.
        timezone: The exchange's time zone, where times carry one.
    """
    _check(risk_aversion, steps)
    markets.check_assumed(assumed)
    files = markets.market_files(market)
    session = markets.session_of(files, session)
    hours = Session.parse(session, timezone)
    read = read_orders(orders, hours)
    if len(read.rows) * steps > _MAX_ROWS:
        raise ValueError(
            f"steps: {len(read.rows):,} orders of {steps:,} steps are too many rows; cut the orders in parts"
        )
    if common.dry_run:
        return plan("solve", common, {"orders": len(read.rows), "rows": len(read.rows) * steps})
    settings = {"risk_aversion": risk_aversion, "steps": steps, "session": session, "timezone": timezone}
    settings |= {"benchmark": benchmark, "sensitivities": sensitivities}
    settings |= {"assumed": dataclasses.asdict(assumed), "precision": common.precision}
    with open_run("solve", common, settings, [orders, *files]) as run:
        run.note("columns: " + ", ".join(f"{name} = {column}" for name, column in read.mapping.items()))
        run.start_jax()
        prepared = prepare(read.rows, markets.read_markets(market), assumed)
        arrays = [
            _arrays(row, day, markets.preferred(day, risk_aversion), steps) for row, day in prepared if day is not None
        ]
        solution = _solve(run, arrays, benchmark)
        summary = summarise(prepared, solution)
        run.write_parquet("orders.parquet", summary)
        run.write_parquet("schedules.parquet", long_frame(prepared, solution, steps))
        code = _report(run, summary, benchmark)
        if sensitivities and arrays:
            names = [row.order_id for row, day in prepared if day is not None]
            _sensitivities(run, names, arrays, benchmark)
        return code


def _check(risk_aversion: float | None, steps: int) -> None:
    if risk_aversion is not None and not (math.isfinite(risk_aversion) and risk_aversion >= 0):
        raise ValueError(f"risk_aversion must be finite and at least 0, got {risk_aversion}")
    if not 1 <= steps <= _MAX_STEPS:
        raise ValueError(f"steps must be between 1 and {_MAX_STEPS:,}, got {steps:,}")


def prepare(rows: list[Row], known: dict[str, Day], assumed: Assumed) -> list[tuple[Row, Day | None]]:
    """Each row with its market; a row without one gets the fault that says so."""
    prepared: list[tuple[Row, Day | None]] = []
    for row in rows:
        day = None
        if row.order is not None:
            try:
                day = markets.market_for(row.symbol, row.order, known, assumed)
            except ValueError as error:
                row = dataclasses.replace(row, fault=str(error))
        prepared.append((row, day))
    return prepared


def _solve(run: Run, arrays: list[scheduling.Arrays], benchmark: scheduling.Benchmark) -> dict[str, np.ndarray]:
    """The schedules of the rows that have a market, in their order; nothing where there is none."""
    if not arrays:
        return {}
    with progress(run.common, "scheduling", len(arrays)) as advance:
        return scheduling.schedule(scheduling.stack(arrays), run.common.precision, advance, benchmark)


def _sensitivities(
    run: Run, names: list[str], arrays: list[scheduling.Arrays], benchmark: scheduling.Benchmark
) -> None:
    """Write and show the derivatives of the orders that have a market."""
    with progress(run.common, "differentiating", len(arrays)) as advance:
        found = derivatives.frame(names, scheduling.stack(arrays), run.common.precision, benchmark, advance)
    run.write_parquet("sensitivities.parquet", found)
    run.show(derivatives.table(found))
    run.result["sensitivities"] = derivatives.records(found)


def _arrays(row: Row, day: Day, risk_aversion: float, steps: int) -> scheduling.Arrays:
    order = row.order
    assert order is not None
    volatility, volume = day.window(order.start, order.end, steps)
    limit = math.inf if math.isnan(order.limit_pov) else order.limit_pov / (1 - order.limit_pov)
    scalars = (day.permanent_impact, day.eta, day.phi, day.psi, risk_aversion, limit)
    horizon, shares = np.asarray(order.end - order.start), np.asarray(order.shares)
    return scheduling.Arrays(horizon, shares, volatility, volume, *map(np.asarray, scalars))


def summarise(prepared: list[tuple[Row, Day | None]], solution: dict[str, np.ndarray]) -> "pl.DataFrame":
    """One row an order: what it costs, its status, and why where it failed."""
    import polars as pl

    from jaxexec.numerics.status import Status

    index = _places(prepared)
    rows = [row for row, _ in prepared]
    nothing = np.full(len(rows), math.nan)
    values = {
        name: _filled(solution[name], index) if solution else nothing
        for name in ("expected_cost", "variance", "objective", "duality_gap", "relative_gap")
    }
    codes = [int(solution["status"][i]) if i >= 0 else None for i in index]
    refused = np.array([code in (Status.NONFINITE_INPUT, Status.INFEASIBLE, Status.NONCONVEX) for code in codes])
    for name in ("duality_gap", "relative_gap"):  # nothing was solved, so there is nothing that a gap could bound
        values[name] = np.where(refused, math.nan, values[name])
    cost, arrival = values["expected_cost"], np.array([r.order.arrival_price if r.order else math.nan for r in rows])
    shares = np.array([row.order.shares if row.order else math.nan for row in rows])
    return pl.DataFrame(
        {
            "order_id": [row.order_id for row in rows],
            "symbol": [row.symbol for row in rows],
            "shares": shares,
            "start": [row.order.start if row.order else math.nan for row in rows],
            "end": [row.order.end if row.order else math.nan for row in rows],
            **values,
            "standard_deviation": np.sqrt(values["variance"]),
            "cost_bps": 1e4 * cost / (np.abs(shares) * arrival),
            "iterations": [int(solution["iterations"][i]) if i >= 0 else None for i in index],
            "status": ["BAD_ROW" if code is None else Status(code).name for code in codes],
            "remedy": [_remedy(row, code) for row, code in zip(rows, codes, strict=True)],
        },
        schema_overrides={"order_id": pl.String, "symbol": pl.String, "iterations": pl.Int32},
    )


def _remedy(row: Row, code: int | None) -> str:
    from jaxexec.numerics.status import Status

    if code is None:
        return row.fault
    return "" if code == Status.OK else Status(code).remedy


def _places(prepared: list[tuple[Row, Day | None]]) -> np.ndarray:
    """For each row its place among those that were solved; −1 where it was not."""
    solved = np.array([day is not None for _, day in prepared], dtype=bool)
    return np.where(solved, np.cumsum(solved) - 1, -1)


def _filled(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Values of the rows that were solved, NaN for the others."""
    shape = (-1,) + (1,) * (values.ndim - 1)
    return np.where((index >= 0).reshape(shape), values[index], np.nan)


def long_frame(prepared: list[tuple[Row, Day | None]], solution: dict[str, np.ndarray], steps: int) -> "pl.DataFrame":
    """One row an order and step; NaN where the order failed. A sale has positive trades."""
    import polars as pl

    index, count = _places(prepared), len(prepared)
    nothing = np.full((count, steps), math.nan)
    fields = {name: _filled(solution[name], index) for name in ("times", "inventory", "trades")} if solution else {}
    start = np.array([[row.order.start if row.order else math.nan] for row, _ in prepared]).reshape(count, 1)
    per_step = {
        "start": start + fields["times"][:, :-1] if fields else nothing,
        "end": start + fields["times"][:, 1:] if fields else nothing,
        "inventory": fields["inventory"][:, :-1] if fields else nothing,
        "trades": fields["trades"] if fields else nothing,
    }
    names = {"order_id": [row.order_id for row, _ in prepared], "symbol": [row.symbol for row, _ in prepared]}
    order = np.repeat(np.arange(count), steps)
    base = pl.DataFrame(names, schema={"order_id": pl.String, "symbol": pl.String})[order]
    step = pl.Series("step", np.tile(np.arange(1, steps + 1, dtype=np.int32), count))
    return base.with_columns(step, *(pl.Series(name, x.reshape(-1)) for name, x in per_step.items()))


def _report(run: Run, summary: "pl.DataFrame", benchmark: scheduling.Benchmark) -> int:
    """Say what came of it; the exit code."""
    usable = summary["status"].is_in(["OK", "OK_INACCURATE", "LOCAL"])
    failed = summary.filter(~usable)
    shown = summary.head(_SHOWN).select(list(_HEADINGS))
    footer = f"{summary.height:,} orders, {failed.height:,} failed. Costs in currency; a sale has positive shares."
    if benchmark != "arrival":
        footer += f" Cost and risk are those against the benchmark, {benchmark.upper()}."
    run.show(Table("Orders", list(_HEADINGS.values()), shown.rows(), footer))
    if failed.height:
        reasons = failed.select("order_id", "status", "remedy").head(_SHOWN)
        run.show(Table("Orders that failed", ["order", "status", "what to do"], reasons.rows()))
    gap = summary.filter(usable)["relative_gap"].max()
    run.result |= {"orders": summary.height, "failed": failed.height, "worst_relative_gap": gap}
    return SOME_ROWS_FAILED if failed.height else OK
