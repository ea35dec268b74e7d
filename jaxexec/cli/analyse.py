"""`jaxexec analyse`: orders and their fills to what they cost, and why."""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter

from jaxexec.cli import markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.markets import Assumed, Day, MarketFiles
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.orders import Row, read_orders
from jaxexec.cli.run import Run, open_run, plan
from jaxexec.cli.session import Session
from jaxexec.cli.solve import prepare
from jaxexec.cli.tapes import tape_inputs
from jaxexec.presentation import Table
from jaxexec.storage import FileError, read_csv, read_parquet

if TYPE_CHECKING:
    import polars as pl

    from jaxexec import Analysis, Liquidation

_MAX_STEPS = 10_000
_SHOWN = 20
_DAY = 86_400.0
_USABLE = ("OK", "OK_INACCURATE", "LOCAL")
_TIMES = {"start": "arrival_time", "end": "end_time"}
_PLANNED = ("adv", "sigma", "spread", "limit_pov")
_ORDERS = {
    "decision_price": ("decision", "decisionpx"),
    "decision_time": (),
    "end_price": ("endpx",),
    "limit_price": ("limit", "limitpx"),
    "vwap": ("intervalvwap",),
    "twap": ("intervaltwap",),
    "close": ("closeprice", "closepx"),
    "prior_close": ("previousclose", "prevclose"),
    "interval_volume": ("marketvolume",),
}
_FILLS = {
    "order_id": ("clordid", "id", "ordid", "parentorderid"),
    "side": ("buysell", "direction"),
    "price": ("lastpx", "fillprice", "execprice", "px"),
    "size": ("lastqty", "lastshares", "fillqty", "quantity", "qty", "shares"),
    "time": ("transacttime", "filltime", "exectime", "timestamp"),
    "fee": ("fees", "commission"),
    "mid": ("midprice", "midpoint"),
}
Groups = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())]


def analyse(
    orders: Path,
    fills: Path,
    *,
    quotes: Path | None = None,
    trades: Path | None = None,
    market: MarketFiles = (),
    by: Groups = (),
    weights: Literal["value", "equal"] = "value",
    reference: Literal["decision", "arrival"] = "decision",
    risk_aversion: float | None = None,
    steps: int = 78,
    session: str | None = None,
    timezone: str | None = None,
    assumed: Assumed = markets.DEFAULT,
    common: Common = DEFAULT,
) -> int:
    """Orders and their fills to what they cost, and why.

    Args:
        orders: CSV or Parquet as for `jaxexec solve`, start being the arrival, with decision_price or arrival_price,
            and perhaps end_price, limit_price, vwap, twap, close, prior_close, interval_volume.
        fills: CSV or Parquet with order_id, price, size, and perhaps time, fee, mid, side, venue.
        quotes: Quotes of the market, for the prices that are missing.
        trades: Trades of the market, for the VWAP and the volume of each order's interval.
        market: Market files, or folders of them, that `jaxexec calibrate` wrote; own impact and regret need a market.
        by: Columns to aggregate by, such as symbol, side, trader, or of the fills, such as venue.
        weights: Whether orders count by their value or all alike.
        reference: Whose value the basis points are of.
        risk_aversion: Gamma in cost + gamma/2 variance, per currency, for the regret; that of the market file, or 1e-6,
            where none is given.
        steps: Steps that the interval of an order is cut in, where it has a market.
        session: Hours of the trading day; those of the market files, or 09:30-16:00 where they do not say.
        timezone: The exchange's time zone, where times carry one.
    """
    _check(risk_aversion, steps)
    markets.check_assumed(assumed)
    files = markets.market_files(market)
    session = markets.session_of(files, session)
    hours = Session.parse(session, timezone)
    read = read_orders(orders, hours)
    log = renamed(fills, _read(fills), _FILLS, ("order_id", "price", "size"))
    if common.dry_run:
        return plan("analyse", common, {"orders": len(read.rows), "fills": log.height})
    settings = {"by": list(by), "weights": weights, "reference": reference, "risk_aversion": risk_aversion}
    settings |= {"steps": steps, "session": session, "timezone": timezone}
    settings |= {"assumed": dataclasses.asdict(assumed), "precision": common.precision}
    inputs = [orders, fills, *tape_inputs(quotes, trades), *files]
    with open_run("analyse", common, settings, inputs) as run:
        run.note("columns: " + ", ".join(f"{name} = {column}" for name, column in read.mapping.items()))
        run.start_jax()
        import jaxexec as jx

        clock = Clock(hours)
        prepared, problems = [], None
        if read.rows and (files or assumed != markets.DEFAULT):
            prepared = prepare(read.rows, markets.read_markets(market), assumed)
            problems = _problems(prepared, risk_aversion, steps, common.precision)
        analysis = jx.analyse(
            _orders(orders, read.mapping),
            log,
            quotes=_tape(quotes, "quotes", clock),
            trades=_tape(trades, "trades", clock),
            problems=problems,
            reference=reference,
            clock=clock,
        )
        return _report(run, analysis, prepared, by, weights)


def _check(risk_aversion: float | None, steps: int) -> None:
    if risk_aversion is not None and not (math.isfinite(risk_aversion) and risk_aversion >= 0):
        raise ValueError(f"risk_aversion must be finite and at least 0, got {risk_aversion}")
    if not 1 <= steps <= _MAX_STEPS:
        raise ValueError(f"steps must be between 1 and {_MAX_STEPS:,}, got {steps:,}")


class Clock:
    """Times of files in trading days: 0 at the open and 1 at the close of the first date, 1 more a calendar day.

    Attributes:
        hours: The session.
        first: The first date, as an ordinal; None before there is one.
        several: Whether tapes are of several dates, so that a time needs its own.
    """

    def __init__(self, hours: Session):
        self.hours = hours
        self.first: int | None = None
        self.several = False
        self._whole_day = Session(0.0, _DAY, hours.timezone)

    def __call__(self, cell: Any) -> float:
        """A number of trading days, a clock time, or a date and time.

        Raises:
            ValueError: It is none of these, or has no date where one is needed.
        """
        text = cell.isoformat() if hasattr(cell, "isoformat") else str(cell).strip()
        try:
            return float(text)
        except ValueError:
            seconds = round(_DAY * self._whole_day.fraction(text), 9)  # a tape's nanoseconds, to the last bit
        date = _date(text, self.hours)
        if date is None and self.several:
            raise ValueError(f"{text[:40]!r} has no date, and the market's tape is of several")
        return float(self.days(self.first or 0 if date is None else date, seconds))

    def days(self, date: Any, seconds: Any) -> Any:
        """Trading days of ordinals of dates and seconds after midnight."""
        if self.first is None:
            self.first = int(np.min(date, initial=np.iinfo(np.int64).max)) if np.size(date) else None
        within = (seconds - self.hours.open) / (self.hours.close - self.hours.open)
        return within + (date - (self.first or 0))


def _date(text: str, hours: Session) -> int | None:
    """The ordinal of the local date of a text, None of a clock time."""
    fix = len(text) >= 17 and text[8] == "-"
    iso = f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[9:]}+00:00" if fix else text
    if not ("T" in iso or " " in iso):
        return None
    moment = datetime.datetime.fromisoformat(iso)
    return (moment if moment.tzinfo is None else moment.astimezone(hours.timezone)).toordinal()


def _read(path: Path) -> "pl.DataFrame":
    return read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else read_csv(path)


def renamed(
    path: Path, frame: "pl.DataFrame", names: Mapping[str, Sequence[str]], required: Sequence[str]
) -> "pl.DataFrame":
    """A frame with its columns by our names; those that we do not know keep theirs.

    Args:
        path: Where it is from, for messages.
        frame: The frame.
        names: Our name, to the others that it may have, in small letters and digits.
        required: Names that must be there.

    Raises:
        FileError: A column is missing, or two are one.
    """
    found: dict[str, str] = {}
    for name, aliases in names.items():
        hits = [column for column in frame.columns if _bare(column) in (_bare(name), *aliases)]
        if len(hits) > 1:
            raise FileError(path, f"columns {hits[0]!r} and {hits[1]!r} both mean {name}", "Drop one of them.")
        if not hits and name in required:
            remedy = f"Name the columns {', '.join(required)} (found: {', '.join(frame.columns[:20])})."
            raise FileError(path, f"no column for {name}", remedy)
        found |= dict.fromkeys(hits, name)
    return frame.rename(found)


def _bare(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _orders(path: Path, mapping: Mapping[str, str]) -> "pl.DataFrame":
    """The orders with all their columns but those that only plan them."""
    known = {_TIMES.get(name, name): (_bare(column),) for name, column in mapping.items() if name not in _PLANNED}
    frame = _read(path).drop(mapping[name] for name in _PLANNED if name in mapping)
    return renamed(path, frame, {**known, **_ORDERS}, ())


def _tape(path: Path | None, kind: Literal["trades", "quotes"], clock: Clock) -> dict[str, Any] | None:
    """Quotes or trades of the market on the clock of the orders."""
    import polars as pl

    from jaxexec import tape

    if path is None:
        return None
    zone = clock.hours.timezone
    frame = tape.read(path, kind, timezone=None if zone is None else zone.key).drop_nulls(["date", "time"])
    dates = frame["date"].cast(pl.Int32).to_numpy().astype(np.int64) + datetime.date(1970, 1, 1).toordinal()
    clock.several |= len(np.unique(dates)) > 1
    times = clock.days(dates, frame["time"].to_numpy() / 1e9)
    columns = ("bid", "ask") if kind == "quotes" else ("price", "size")
    return {"symbol": frame["symbol"], "time": times, **{name: frame[name] for name in columns}}


def _problems(
    prepared: list[tuple[Row, Day | None]], risk_aversion: float | None, steps: int, precision: str
) -> "Liquidation":
    """One problem a row, from arrival to end; of NaN where there is no market."""
    import jax

    import jaxexec as jx

    nothing = (math.nan, math.nan, np.full(steps, math.nan), np.full(steps, math.nan), *[math.nan] * 5)
    rows = []
    for row, day in prepared:
        order = row.order
        if day is None or order is None:
            rows.append(nothing)
            continue
        curves = day.window(order.start, order.end, steps)
        scalars = (day.permanent_impact, day.eta, day.phi, day.psi, markets.preferred(day, risk_aversion))
        rows.append((order.end - order.start, order.shares, *curves, *scalars))
    columns = [np.stack(cells).astype(precision) for cells in zip(*rows, strict=True)]

    def problem(horizon, shares, volatility, volume, permanent_impact, eta, phi, psi, gamma) -> "Liquidation":
        market = jx.Market(jx.TimeGrid.uniform(horizon, steps), volatility, volume, permanent_impact)
        return jx.Liquidation(shares, market, jx.PowerLawCost(eta, phi, psi), gamma)

    return jax.jit(jax.vmap(problem))(*columns)


def _report(
    run: Run, analysis: "Analysis", prepared: list[tuple[Row, Day | None]], by: Sequence[str], weights: Any
) -> int:
    """Show and write what came of it; the exit code."""
    import polars as pl

    frame = analysis.to_polars()
    alone = 0
    if prepared:
        reasons = ["" if day is not None else row.fault for row, day in prepared]
        frame = frame.with_columns(pl.Series("model_fault", reasons, dtype=pl.String))
        alone = frame.filter((pl.col("status") == "OK") & ~pl.col("model_status").is_in(_USABLE)).height
    groups = analysis.aggregate(by, weights=weights)
    run.show(analysis.table(weights=weights))
    if by:
        run.show(_groups(groups, by))
    if analysis.faults:
        rows = [
            (fault.order_id, f"{fault.frame} row {fault.row}", fault.field, fault.reason) for fault in analysis.faults
        ]
        footer = f"Faults: {len(rows):,}; rows are counted from 0."
        run.show(Table("Orders that failed", ["order", "where", "field", "why"], rows[:_SHOWN], footer))
    if alone:
        run.note(f"orders without a comparison with a market: {alone:,} (see model_fault and model_status)")
    run.write_parquet("orders.parquet", frame)
    run.write_parquet("fills.parquet", analysis.fills_to_polars())
    run.write_parquet("aggregate.parquet", groups)
    if analysis.failed < frame.height:
        run.write_picture("shortfall.svg", analysis.plot(), "Where the shortfall of all orders went.")
    run.result |= {"orders": frame.height, "failed": analysis.failed, "faults": len(analysis.faults)}
    run.result["without_model"] = alone
    return SOME_ROWS_FAILED if analysis.failed or analysis.faults or alone else OK


def _groups(groups: "pl.DataFrame", by: Sequence[str]) -> Table:
    """The groups by what they cost in all."""
    import polars as pl

    counted = "orders" if "orders" in groups.columns else "fills"
    measure = "total_bps" if counted == "orders" else "arrival_slippage_bps"
    rows = groups.filter(pl.col("measure") == measure).select(*by, counted, "mean", "std_error", "q5", "q50", "q95")
    footer = f"Groups: {rows.height:,}; all measures are in aggregate.parquet."
    title = f"{measure.removesuffix('_bps').replace('_', ' ').capitalize()} by {', '.join(by)} (bp)"
    return Table(title, [name.replace("_", " ") for name in rows.columns], rows.head(_SHOWN).rows(), footer)
