"""`jaxexec clean`: trades and quotes to signed trades."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxexec.cli.app import OK
from jaxexec.cli.options import DEFAULT, Common, Flag
from jaxexec.cli.run import open_run, plan
from jaxexec.cli.signing_run import write_parts, write_tape
from jaxexec.cli.tapes import tape_inputs

if TYPE_CHECKING:
    from jaxexec.tape import TapeStream


def clean(
    trades: Path,
    quotes: Path | None = None,
    *,
    nbbo: Path | None = None,
    rule: Literal["lee-ready", "quote", "tick", "emo", "clnv", "given"] = "lee-ready",
    midpoint: Literal["tick", "exclude", "keep"] | None = None,
    lag: str = "0s",
    interpolate: str | None = None,
    timezone: str | None = None,
    session: str = "09:30-16:00",
    quote_exchange: str | None = None,
    max_spread: float | None = None,
    max_spread_multiple: float | None = None,
    memory: float = 1.0,
    resume: Flag = False,
    common: Common = DEFAULT,
) -> int:
    """Trades and quotes to signed trades, with a ledger of every row dropped.

    Args:
        trades: File or folder of trades, CSV or Parquet; the vendor is recognised by the header.
        quotes: The same for quotes; rules "tick" and "given", and trades that carry their quote, do without.
        nbbo: NBBO file of TAQ (nbbom), where quotes are those of all venues (cqm): both make the complete NBBO.
        rule: How trades are signed.
        midpoint: What becomes of a trade at the midpoint.
        lag: A quote prevails if it is older than the trade by more than this.
        interpolate: Spread times of this resolution within it, such as 1s or 1ms.
        timezone: The exchange's zone, where times are universal, such as America/New_York.
        session: Hours of the trading day; auto takes the six and a half hours with the most trades.
        quote_exchange: Use quotes of this exchange only.
        max_spread: Drop quotes that are wider than this, in currency.
        max_spread_multiple: Drop quotes wider than this many times the stock's median spread of the day.
        memory: Gigabytes to use, about; Parquet files of more are signed part by part, by symbol.
        resume: Leave the parts that a run that was cut short wrote with the same options, and do the others.
    """
    inputs = tape_inputs(trades, quotes, nbbo)
    if common.dry_run:
        size = sum(path.stat().st_size for path in inputs)
        return plan("clean", common, {"files to read": len(inputs), "bytes to read": size})
    if not memory > 0:
        raise ValueError(f"memory must be positive, got {memory}")
    options: dict[str, Any] = {
        "rule": rule,
        "midpoint": midpoint,
        "lag": lag,
        "interpolate": interpolate,
        "timezone": timezone,
        "quote_exchange": quote_exchange,
        "max_spread": max_spread,
        "max_spread_multiple": max_spread_multiple,
    }
    hours = hours_of(session)
    with open_run("clean", common, {**options, "session": session}, inputs) as run:
        from jaxexec import tape

        options["session"] = hours
        options["nbbo"] = nbbo
        parts = _parts(trades, quotes, inputs, memory * 1e9, options)
        if parts is None:
            write_tape(run, tape.sign(trades, quotes, **options))
        else:
            write_parts(run, parts, resume)
    return OK


def _parts(
    trades: Path, quotes: Path | None, files: list[Path], memory: float, options: dict[str, Any]
) -> "TapeStream | None":
    """The tape cut into parts, or None where it fits in one or cannot be cut."""
    from jaxexec import tape
    from jaxexec.tape.files import is_parquet

    if options["session"] == "auto" or not all(map(is_parquet, files)):
        return None
    parts = tape.stream(trades, quotes, memory=memory, **options)
    return parts if len(parts) > 1 else None


def hours_of(session: str) -> "tuple[str, str] | Literal['auto']":
    """The open and the close as text, or that they are to be inferred."""
    from jaxexec.cli.session import Session

    if session == "auto":
        return "auto"
    Session.parse(session, None)
    first, last = session.split("-")
    return first.strip(), last.strip()
