"""`jaxexec demo`: the whole path, from trades and quotes to a report."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jaxexec.cli import chapters
from jaxexec.cli.app import OK
from jaxexec.cli.clean import hours_of
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan, progress
from jaxexec.cli.story import Story
from jaxexec.cli.tapes import tape_inputs

_CHAPTERS: tuple[Callable[[Story], Any], ...] = (
    chapters.tape,
    chapters.impact,
    chapters.market,
    chapters.schedules,
    chapters.frontier,
    chapters.sensitivity,
    chapters.almgren_chriss,
)


def demo(
    *,
    trades: Path | None = None,
    quotes: Path | None = None,
    exchange: Annotated[str | None, Parameter(name=["--exchange", "--quote-exchange"])] = None,
    midpoint: str | None = None,
    session: str = "auto",
    stocks: int = 40,
    orders: int = 1000,
    seed: int = 0,
    common: Common = DEFAULT,
) -> int:
    """From trades and quotes to schedules and a report: on a synthetic day, or on your own files.

    Args:
        trades: Your trades; a synthetic day with known truth where none are given.
        quotes: Your quotes.
        exchange: Use quotes of this exchange only.
        midpoint: What becomes of a trade at the midpoint: tick, exclude or keep.
        session: Hours of the trading day, such as 09:30-16:00; auto takes the six and a half with the most trades.
        stocks: Stocks of the synthetic day.
        orders: Parent orders that are scheduled.
        seed: Seed of what is drawn at random.
    """
    _check(trades, quotes, stocks, orders, seed)
    inputs = tape_inputs(trades, quotes)
    if common.dry_run:
        return plan("demo", common, {"files to read": len(inputs), "orders": orders})
    settings = {"exchange": exchange, "midpoint": midpoint, "session": session}
    settings |= {"stocks": stocks, "orders": orders, "seed": seed}
    with open_run("demo", common, {**settings, "precision": common.precision}, inputs) as run:
        run.start_jax()
        assert run.runtime is not None
        run.note(f"device {run.runtime.device}, precision {run.runtime.precision}")
        story = Story(run, trades, quotes, exchange, midpoint, hours_of(session), stocks, orders, seed)
        with progress(common, "the whole path", len(_CHAPTERS)) as advance:
            for chapter in _CHAPTERS:
                chapter(story)
                advance(1)
        _write_report(run, story)
    return OK


def _check(trades: Path | None, quotes: Path | None, stocks: int, orders: int, seed: int) -> None:
    if (trades is None) != (quotes is None):
        raise ValueError("trades and quotes belong together: give both, or neither for a synthetic day")
    for name, value, most in (("stocks", stocks, 10_000), ("orders", orders, 1_000_000)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be between 1 and {most:,}, got {value:,}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def _write_report(run: Run, story: Story) -> None:
    """The page, and where it lies."""
    from jaxexec import report

    what = "Synthetic data of known truth" if story.synthetic else "Your trades and quotes"
    page = run.folder / "report.html"
    title = "From trades and quotes to optimal schedules"
    run.write(
        page.name,
        lambda path: report.write(
            path, story.sections, title, subtitle=what, facts=story.facts, provenance=run.provenance()
        ),
    )
    run.result |= {"report": str(page), **story.facts}
    run.note(f"the report is {page.resolve().as_uri()}")
