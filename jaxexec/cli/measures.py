"""`jaxexec measures`: signed trades to spreads, their components, Kyle's λ, lasting impact and volatility."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan
from jaxexec.cli.tapes import signed_files, whole_stocks

if TYPE_CHECKING:
    from jaxexec.impact import Measures
    from jaxexec.tape import SignedTape

Kind = Literal["spreads", "roll", "components", "inventory", "kyle", "hasbrouck", "volatility"]
KINDS: tuple[Kind, ...] = ("spreads", "roll", "components", "inventory", "kyle", "hasbrouck", "volatility")


def measures(
    signed: Annotated[tuple[Path, ...], Parameter(required=True)],
    /,
    *,
    only: tuple[Kind, ...] = (),
    after: str = "5min",
    bar: str = "5min",
    winsorise: float = 0.01,
    common: Common = DEFAULT,
) -> int:
    """Signed trades to measures of liquidity and volatility for each stock.

    Args:
        signed: Folders that `jaxexec clean` wrote, or Parquet files of signed trades; several are days of one tape.
        only: Measures wanted: spreads (quoted, effective, realised, price impact), roll, components (Madhavan,
            Richardson and Roomans), inventory (Huang and Stoll), kyle, hasbrouck, volatility; all where none is named.
        after: How much later the midpoint of the realised spread is taken.
        bar: Width of the bars of Kyle's λ.
        winsorise: Share drawn in at each end of the pictured cross-sections.
    """
    if not 0 <= winsorise < 0.5:
        raise ValueError(f"winsorise must be at least 0 and below 0.5, got {winsorise}")
    inputs = signed_files(signed)
    wanted: tuple[Kind, ...] = tuple(kind for kind in KINDS if not only or kind in only)
    if common.dry_run:
        return plan("measures", common, {"files to read": len(inputs), "measures": ", ".join(wanted)})
    settings = {"only": wanted, "after": after, "bar": bar, "winsorise": winsorise, "precision": common.precision}
    with open_run("measures", common, settings, inputs) as run:
        run.start_jax()
        found = _measured(run, whole_stocks(signed), wanted, after, bar)
        return _report(run, found, (winsorise, 1 - winsorise) if winsorise else None)


def _measured(
    run: Run, parts: "Iterable[SignedTape]", wanted: tuple[Kind, ...], after: str, bar: str
) -> "dict[Kind, Measures]":
    """The measures of all parts; those that need quotes are left out where the tape has none."""
    from jaxexec.impact.measures import joined

    each: dict[Kind, list[Measures]] = {kind: [] for kind in wanted}
    quoted = True
    for part in parts:
        quoted &= "bid_ticks" in part.trades.columns and part.trades["bid_ticks"].null_count() < part.trades.height
        for kind in each:
            if kind != "spreads" or quoted:
                each[kind].append(_estimators(after, bar, quoted)[kind](part))
    if not quoted:
        run.note("no quotes at the trades: no spreads; Hasbrouck's prices are those of trades")
        each.pop("spreads", None)
    return {kind: joined(of_parts) for kind, of_parts in each.items()}


def _estimators(after: str, bar: str, quoted: bool) -> "dict[Kind, Callable[[Any], Measures]]":
    from jaxexec import impact

    return {
        "spreads": lambda tape: impact.spread_measures(tape, after),
        "roll": impact.roll_spread,
        "components": impact.madhavan_richardson_roomans,
        "inventory": impact.huang_stoll,
        "kyle": lambda tape: impact.kyle_lambda(tape, bar),
        "hasbrouck": lambda tape: impact.hasbrouck(tape, price="midpoint" if quoted else "trade"),
        "volatility": impact.realised_volatility,
    }


def _report(run: Run, found: "dict[Kind, Measures]", winsorise: tuple[float, float] | None) -> int:
    """Write and show all measures; the exit code."""
    import polars as pl

    frames = []
    for kind, measured in found.items():
        frames.append(measured.table().select(pl.lit(kind).alias("kind"), pl.all()))
        run.show(measured.presentation())
        run.write_picture(f"{kind}.svg", measured.plot(winsorise), f"{measured.title}. {measured.convention}")
    table = pl.concat(frames) if frames else pl.DataFrame()
    run.write_parquet("measures.parquet", table)
    stocks = table["symbol"].n_unique() if frames else 0
    failed = {kind: int((~measured.usable).sum()) for kind, measured in found.items()}
    run.result |= {"stocks": stocks, "measures": list(found), "failed": failed}
    if any(failed.values()):
        some = ", ".join(f"{kind} of {count:,}" for kind, count in failed.items() if count)
        run.note(f"{some} out of {stocks:,} stocks could not be measured (see status in measures.parquet)")
    return SOME_ROWS_FAILED if any(failed.values()) else OK
