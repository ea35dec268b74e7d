"""Several signed tapes as one: days that were signed apart."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING

from jaxexec.tape.errors import InputError
from jaxexec.tape.ledger import Ledger
from jaxexec.tape.signed_tape import SignedTape

if TYPE_CHECKING:
    import polars as pl


def pool(tapes: Iterable[SignedTape]) -> SignedTape:
    """One tape of the days of several, in memory, for what takes one tape: activity, spreads, and the like.

    `impact.glosten_harris` takes the list itself, and then holds one day at a time.

    Args:
        tapes: Signed tapes, in any order; a symbol has each date in one of them.

    Returns:
        The tape: rows of the ledgers add up, and settings and mappings are those that all tapes share.

    Raises:
        InputError: There is no tape, one is none, or a symbol has a date in two of them.
    """
    import polars as pl

    parts = list(tapes)
    if not parts:
        raise InputError("tapes", "there is no tape: the list of them is empty")
    for number, part in enumerate(parts):
        if not isinstance(part, SignedTape):
            raise InputError(f"tapes[{number}]", f"a {type(part).__name__} is no signed tape: see sign")
    # A day on which no trade could be signed has cleaned ones all the same.
    days = pl.concat([pl.concat(_days(frame) for frame in (part.trades, part.cleaned)).unique() for part in parts])
    twice = days.filter(days.is_duplicated()).sort("symbol", "date")
    if twice.height:
        symbol, date = twice.row(0)
        raise InputError("tapes", f"symbol {symbol!r} has trades of {date} in two tapes: a day counts once")
    first = parts[0]
    return SignedTape.from_frames(
        pl.concat([part.trades for part in parts], how="diagonal_relaxed"),
        pl.concat([part.cleaned for part in parts], how="diagonal_relaxed"),
        ledger=reduce(Ledger.merge, [part.ledger for part in parts]),
        settings={k: v for k, v in first.settings.items() if all(p.settings.get(k) == v for p in parts)},
        mapping={k: v for k, v in first.mapping.items() if all(p.mapping.get(k) == v for p in parts)},
    )


def _days(frame: pl.DataFrame) -> pl.DataFrame:
    """Each symbol and date once."""
    import polars as pl

    return frame.select(pl.col("symbol").cast(pl.String), "date").unique()
