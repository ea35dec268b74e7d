"""`jaxexec clean`: trades and quotes to signed trades."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxexec.cli.app import OK
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan
from jaxexec.cli.tapes import CLEANED, SIGNED, tape_inputs
from jaxexec.presentation import table_of
from jaxexec.storage import write_json

if TYPE_CHECKING:
    from jaxexec.tape import SignedTape


def clean(
    trades: Path,
    quotes: Path | None = None,
    *,
    rule: Literal["lee-ready", "quote", "tick", "emo", "clnv", "given"] = "lee-ready",
    midpoint: Literal["tick", "exclude", "keep"] | None = None,
    lag: str = "0s",
    interpolate: str | None = None,
    timezone: str | None = None,
    session: str = "09:30-16:00",
    quote_exchange: str | None = None,
    common: Common = DEFAULT,
) -> int:
    """Trades and quotes to signed trades, with a ledger of every row dropped.

    Args:
        trades: File or folder of trades, CSV or Parquet; the vendor is recognised by the header.
        quotes: The same for quotes; rules "tick" and "given", and trades that carry their quote, do without.
        rule: How trades are signed.
        midpoint: What becomes of a trade at the midpoint.
        lag: A quote prevails if it is older than the trade by more than this.
        interpolate: Spread times of this resolution within it, such as 1s or 1ms.
        timezone: The exchange's zone, where times are universal, such as America/New_York.
        session: Hours of the trading day; auto takes the six and a half hours with the most trades.
        quote_exchange: Use quotes of this exchange only.
    """
    inputs = tape_inputs(trades, quotes)
    if common.dry_run:
        size = sum(path.stat().st_size for path in inputs)
        return plan("clean", common, {"files to read": len(inputs), "bytes to read": size})
    options = {"lag": lag, "interpolate": interpolate, "timezone": timezone, "quote_exchange": quote_exchange}
    settings = {"rule": rule, "midpoint": midpoint, "session": session, **options}
    hours = hours_of(session)
    with open_run("clean", common, settings, inputs) as run:
        from jaxexec import tape

        signed = tape.sign(
            trades,
            quotes,
            rule=rule,
            midpoint=midpoint,
            lag=lag,
            interpolate=interpolate,
            timezone=timezone,
            session=hours,
            quote_exchange=quote_exchange,
        )
        write_tape(run, signed)
    return OK


def write_tape(run: Run, signed: "SignedTape") -> None:
    """Write a signed tape, a file a day, and show its ledger."""
    for prefix, frame in ((SIGNED, signed.trades), (CLEANED, signed.cleaned)):
        for day, part in sorted(frame.partition_by("date", as_dict=True, maintain_order=True).items()):
            run.write_parquet(f"{prefix}{day[0].isoformat()}.parquet", part)  # pyright: ignore[reportAttributeAccessIssue]
    facts = {"ledger": signed.ledger.to_dict(), "settings": signed.settings, "mapping": signed.mapping}
    run.write("ledger.json", lambda path: write_json(path, facts))
    notes = [f"{name}: {text}" for name, text in signed.ledger.notes.items()]
    balance = "Rows read = rows used + rows dropped." if signed.ledger.balanced else "The ledger does not balance."
    run.show(table_of(signed.ledger.table(), "Ledger", " ".join([balance, *notes])))
    for name, columns in signed.mapping.items():
        run.note(f"{name}: " + ", ".join(f"{ours} = {theirs}" for ours, theirs in columns.items()))
    run.result |= {"trades": signed.trades.height, "symbols": len(signed.symbols), "balanced": signed.ledger.balanced}


def hours_of(session: str) -> "tuple[str, str] | Literal['auto']":
    """The open and the close as text, or that they are to be inferred."""
    from jaxexec.cli.session import Session

    if session == "auto":
        return "auto"
    Session.parse(session, None)
    first, last = session.split("-")
    return first.strip(), last.strip()
