"""A calibration from rows or schedules, made in memory first, so that nothing is written where something fails."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxexec.cli import fit_page, markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.base_markets import Base
from jaxexec.cli.fit_pictures import Drawn, part_pictures, pictures, schedule_pictures
from jaxexec.cli.parameter_files import Source, lanes, read_columns
from jaxexec.cli.row_fits import Fitted, fit_rows, parameters, tests_of_parts, with_fit
from jaxexec.cli.run import Run
from jaxexec.cli.schedule_files import check_fitted, fit_schedules, read_schedules
from jaxexec.cli.session import Session
from jaxexec.presentation import Table
from jaxexec.storage import FileError, safe_name

if TYPE_CHECKING:
    from jaxexec.calibration import Calibration, StateTest
    from jaxexec.cli.calibrate import FromRows

_PICTURED = 3


@dataclasses.dataclass(frozen=True)
class RowCalibration:
    """What a file of rows came to.

    Attributes:
        source: What the rows are.
        found: The fits.
        put: Markets with fits in them, and the part that each is of.
        refused: Name and reason of each market that was wanted and could not be.
        missing: What to give for a market to be written; empty where one was.
        drawn: Pictures.
        tests: Of each symbol in parts, whether these differ.
    """

    source: Source
    found: "Sequence[Fitted]"
    put: "Sequence[tuple[Calibration, str]]"
    refused: Sequence[tuple[str, str]]
    missing: str
    drawn: Sequence[Drawn]
    tests: "Mapping[str, StateTest]"

    def write(self, run: Run) -> int:
        """Tables, markets and the page; the exit code."""
        from jaxexec.cli.calibrate import write_files

        table = parameters(self.found)
        run.write_parquet("parameters.parquet", table)
        if self.found[0].pooled is not None:
            run.write_parquet("shrunk.parquet", parameters(self.found, pooled=True))
        made = [market for market, _ in self.put]
        write_files(run, made, [part for _, part in self.put])
        rows = "orders" if self.found[0].orders else "rows"
        estimates = fit_page.estimates(self.source, table, len(self.found), rows)
        verdicts = fit_page.verdicts(self.found)
        shown = [estimates, verdicts]
        tests = [fit_page.part_tests(self.tests)] if self.tests else []
        results = [fit_page.overview(made)] if made else []
        if self.refused:
            results.append(Table("Without a market", ["fit", "reason"], self.refused[: fit_page.SHOWN]))
        for one in (*shown, *tests, *results):
            run.show(one)
        if self.missing:
            run.note(f"no market was written: {self.missing}")
        self._write_page(run, estimates, verdicts, tests, results, made)
        failed = sum(not one.usable for one in self.found)
        run.result |= {"symbols": len({one.symbol for one in self.found}), "fits": len(self.found)}
        run.result |= {"failed": failed, "markets": len(made), "without a market": len(self.refused)}
        return SOME_ROWS_FAILED if failed or self.refused else OK

    def _write_page(
        self, run: Run, estimates: Table, verdicts: Table, tests: Any, results: Any, made: "Sequence[Calibration]"
    ) -> None:
        residual, across = ([d for d in self.drawn if d.name.startswith(k)] for k in ("residuals", "parts-"))
        fits = [one for one in self.drawn if one not in residual and one not in across]
        prose = "Every number with its standard error and its origin." if made else ""
        if self.missing:
            prose += f" No market was written: {self.missing}."
        if len(made) > 1:
            results = [*results, *(market.table() for market in made[:_PICTURED])]
        parts = [
            ("Estimates", fit_page.model_of(self.source), [estimates, *tests, *across]),
            ("Data and fit", "" if fits else "No fit can be drawn.", fits),
            ("What the data can tell", "", [verdicts]),
            *([("What is left over", "", residual)] if residual else []),
            ("The market", prose, results),
            ("What is assumed", "", [fit_page.assumptions(self.source, made)]),
        ]
        usable = sum(one.usable for one in self.found)
        rows = "orders" if self.found[0].orders else "rows"
        facts = {"fits": len(self.found), "usable": usable, rows: sum(one.rows for one in self.found)}
        facts |= {"markets written": len(made)}
        fit_page.write_page(run, f"Calibration from {self.source}", parts, facts, self.drawn)


def of_rows(source: Source, path: Path, base: Base, options: "FromRows") -> RowCalibration:
    """Executions, meta-orders or flow.

    Raises:
        FileError, ValueError: The file or the base cannot be used.
    """
    rows = lanes(read_columns(path, source, options.by, options.parts), source)
    found = fit_rows(source, rows, options.step, options.form)
    bases = base.calibrations(dict.fromkeys(one.symbol for one in found))
    as_cost = source == "flow" and not base.market and base.eta is None and options.form != "power-law"
    put, refused = put_into(source, bases, found, as_cost)
    missing = "" if bases else "give --market FILE, or --volatility and --volume"
    drawn = [
        _named(picture, one, len(found))
        for one in found[:_PICTURED]
        for picture in pictures(source, one, options.step or 0.0)
    ]
    if options.by:
        drawn += part_pictures(found, fit_page.UNITS[source])
    return RowCalibration(source, found, put, refused, missing, drawn, tests_of_parts(found))


def of_schedules(path: Path, base: Base, options: "FromRows") -> RowCalibration:
    """Observed schedules.

    Raises:
        FileError, ValueError: The file or the base cannot be used.
    """
    session = Session.parse(markets.session_of(base.files, options.session), None)
    orders = read_schedules(path, options.horizon, session)
    symbols = dict.fromkeys(order.symbol for order in orders)
    bases = _of_symbols(path, base.calibrations(symbols), list(symbols))
    days = {symbol: markets.day_of(market) for symbol, market in bases.items()}
    names, together = check_fitted(options.fit), options.one_for_all
    found = fit_schedules(orders, days, names, together)
    drawn = []
    if together:
        drawn = schedule_pictures(found[0], orders, days, _PICTURED)
    else:
        for one, order in list(zip(found, orders, strict=True))[:_PICTURED]:
            drawn += [_named(picture, one, len(found)) for picture in schedule_pictures(one, [order], days, 1)]
    if together:
        every = [dataclasses.replace(found[0], symbol=symbol) for symbol in symbols]
        put, refused = put_into("schedules", bases, every)
        missing = ""
    else:
        alone = [one for one in found if sum(one.symbol == other.symbol for other in found) == 1]
        put, refused = put_into("schedules", bases, [dataclasses.replace(one, part="") for one in alone])
        several = len(found) - len(alone)
        missing = (
            f"{several:,} orders share a symbol and reveal a preference each; --common finds one" if several else ""
        )
    return RowCalibration("schedules", found, put, refused, missing, drawn, {})


def _of_symbols(path: Path, bases: "dict[str, Calibration]", symbols: list[str]) -> "dict[str, Calibration]":
    """A market for each symbol; the only one there is serves schedules without a symbol.

    Raises:
        FileError: A symbol has no market.
    """
    if symbols == [""] and len(bases) == 1:
        return {"": next(iter(bases.values()))}
    for symbol in symbols:
        if symbol not in bases:
            reason = f"no market for the symbol {symbol[:40]!r}"
            raise FileError(path, reason, f"Give its file with --market (there: {', '.join(list(bases)[:10])}).")
    return {symbol: bases[symbol] for symbol in symbols}


def put_into(
    source: Source, bases: "Mapping[str, Calibration]", found: "Sequence[Fitted]", as_cost: bool = False
) -> "tuple[list[tuple[Calibration, str]], list[tuple[str, str]]]":
    """Copies of markets with the fits put in, and the names and reasons of those that could not be.

    A fit of a symbol goes into that symbol's market, one without a symbol into all.
    """
    put, refused = [], []
    for one in found if bases else ():
        wanted = [bases[one.symbol]] if one.symbol in bases else [] if one.symbol else list(bases.values())
        if not wanted:
            refused.append((one.name, f"no market file has the symbol {one.symbol[:40]!r}"))
        for base in wanted:
            try:
                put.append((with_fit(source, base, one, as_cost), one.part))
            except ValueError as error:
                refused.append((one.name, str(error)))
    return put, refused


def _named(picture: Drawn, one: Fitted, count: int) -> Drawn:
    """A picture whose file is that of its fit, where there are several."""
    return picture if count == 1 else picture._replace(name=f"{picture.name}-{safe_name(one.name)}")
