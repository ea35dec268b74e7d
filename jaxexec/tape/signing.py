"""Who initiated each trade: quote test, tick test, Lee–Ready, in integer arithmetic."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxexec.tape.cleaning import REGULAR_CONDITIONS, as_settings, clean
from jaxexec.tape.clock import nanoseconds
from jaxexec.tape.errors import InputError, TapeWarning
from jaxexec.tape.matching import match
from jaxexec.tape.reading import as_polars, detected_mapping, path_of, read, require_choice
from jaxexec.tape.signed_tape import SIGNED_COLUMNS, SignedTape

if TYPE_CHECKING:
    import polars as pl

    from jaxexec.tape.cleaning import Clock, Session
    from jaxexec.tape.reading import Source

Rule = Literal["lee-ready", "quote", "tick"]
Midpoint = Literal["tick", "exclude", "keep"]


def sign(
    trades: Source,
    quotes: Source | None = None,
    *,
    rule: Rule = "lee-ready",
    midpoint: Midpoint | None = None,
    lag: str | int | datetime.timedelta = "0s",
    max_quote_age: str | int | datetime.timedelta | None = None,
    trade_columns: Mapping[str, str] | None = None,
    quote_columns: Mapping[str, str] | None = None,
    timezone: str | None = None,
    naive_timezone: str | None = None,
    unsorted: Literal["refuse", "sort"] = "refuse",
    off_tick: Literal["refuse", "drop"] = "refuse",
    round_lot: int = 1,
    session: Session = ("09:30", "16:00"),
    early_closes: Mapping[datetime.date, Clock] | None = None,
    quote_lead: str | int | datetime.timedelta = "30min",
    trade_exchange: str | Iterable[str] | None = None,
    quote_exchange: str | Iterable[str] | None = None,
    conditions: str | Iterable[str] | None = REGULAR_CONDITIONS,
    corrections: Iterable[str] | None = ("00",),
    duplicates: Literal["records", "fields"] = "records",
    without: Iterable[str] = (),
) -> SignedTape:
    """Read, clean, match and sign a tape: +1 where the buyer initiated the trade, −1 where the seller did.

    The quote test is the sign of 2p − bid − ask in integer ticks, so that a trade at the midpoint is seen to
    be one. The tick test is the sign of the last change of price among the cleaned trades of the same symbol
    and date. Lee and Ready (1991, Journal of Finance 46) use the first, and the second at the midpoint.

    Trades that get no sign are left out and counted in the ledger: `no_prevailing_quote`, `stale_quote`,
    `crossed_quote` and `locked_quote` (bid >= ask: there is no midpoint to compare with), `midpoint`,
    `tick_undetermined`.

    Args:
        trades: file, folder or table of trades; see `read`.
        quotes: the same for quotes; rule "tick" does without.
        rule: "lee-ready", "quote" (no tick test) or "tick" (no quotes).
        midpoint: what becomes of a trade at the midpoint: "tick", the tick test; "exclude", it is dropped;
            "keep", it stays with sign 0. None is "tick" for Lee–Ready and "exclude" for the quote rule. The
            documentation ("From trades to estimates") measures what each does to impact estimates.
        lag: a quote prevails if its time < trade time − lag; see `match`.
        max_quote_age: leave out trades whose prevailing quote is older than this; None sets no limit.
        trade_columns, quote_columns: mappings of columns; see `read`.
        timezone, naive_timezone, unsorted, off_tick, round_lot: see `read`.
        session, early_closes, quote_lead, trade_exchange, quote_exchange, conditions, corrections,
            duplicates, without: see `clean`.

    Warns:
        TapeWarning: most trades lie outside the session, or quotes of several venues are used as they came.

    Raises:
        InputError: as `read` and `clean`; an unknown rule; quotes missing where the rule needs them.
    """
    settings = as_settings({name: value for name, value in locals().items() if name not in ("trades", "quotes")})
    policy = _midpoint_policy(rule, midpoint)
    if quotes is None and rule != "tick":
        raise InputError("quotes", f"rule {rule!r} needs quotes; rule='tick' does without")
    trades = trades if path_of(trades) else as_polars(trades)  # once, for a lazy frame may be long to collect
    mapping = {"trades": detected_mapping(trades, "trades", trade_columns).to_dict()}
    if quotes is not None:
        quotes = quotes if path_of(quotes) else as_polars(quotes)
        mapping["quotes"] = detected_mapping(quotes, "quotes", quote_columns).to_dict()
    reading = {
        "timezone": timezone,
        "naive_timezone": naive_timezone,
        "unsorted": unsorted,
        "off_tick": off_tick,
        "round_lot": round_lot,
    }
    cleaned, book, ledger, hours = clean(
        read(trades, "trades", columns=trade_columns, **reading),
        None if quotes is None else read(quotes, "quotes", columns=quote_columns, **reading),
        session=session,
        early_closes=early_closes,
        quote_lead=quote_lead,
        trade_exchange=trade_exchange,
        quote_exchange=quote_exchange,
        conditions=conditions,
        corrections=corrections,
        duplicates=duplicates,
        without=without,
    )
    matched = _without_quotes(cleaned) if book is None else match(cleaned, book, lag)
    oldest = None if max_quote_age is None else nanoseconds(max_quote_age, "max_quote_age")
    signed, counts = _sign_matched(matched, rule, policy, oldest)
    ledger = ledger.drop("sign", "trades", counts, signed.height)
    for name in ("warning", "quotes"):
        if name in ledger.notes:
            warnings.warn(ledger.notes[name], TapeWarning, stacklevel=2)
    used = {**settings, "midpoint": policy, "hours": None if hours is None else list(hours)}
    return SignedTape(signed, cleaned, ledger, used, mapping)


def quote_test(ticks: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Sign of 2p − bid − ask, int8 (trades,): +1 above the midpoint, 0 at it; integer ticks below 2^53."""
    return np.sign(2 * ticks - bid - ask).astype(np.int8)


def tick_test(ticks: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sign of the last change of price, int8 (trades,); 0 where the price has not changed since the series
    began.

    Args:
        ticks: prices of trades in order, (trades,).
        first: True where a new series (symbol and date) begins, (trades,).
    """
    change = np.sign(np.diff(ticks, prepend=ticks[:1]))
    change[first] = 0
    places = np.arange(len(ticks))
    series_start = np.maximum.accumulate(np.where(first, places, 0))
    last_change = np.maximum.accumulate(np.where(change != 0, places, 0))
    return (
        np.where(last_change >= series_start, change[last_change], 0).astype(np.int8)
        if len(ticks)
        else change.astype(np.int8)
    )


def _sign_matched(
    matched: pl.DataFrame, rule: str, policy: str, oldest: int | None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Signed trades, and why the others have no sign."""
    import polars as pl

    known = matched["bid_ticks"].is_not_null().to_numpy()
    ticks, time = matched["ticks"].to_numpy(), matched["time"].to_numpy()
    bid, ask, quoted = (matched[name].fill_null(0).to_numpy() for name in ("bid_ticks", "ask_ticks", "quote_time"))
    by_quote = quote_test(ticks, bid, ask)
    at_midpoint = known & (by_quote == 0)
    by_tick = tick_test(ticks, _series_starts(matched))
    if rule == "tick":
        signs, reasons = by_tick, {"tick_undetermined": by_tick == 0}
    else:
        signs = np.where(at_midpoint & (policy == "tick"), by_tick, by_quote)
        reasons = {
            "no_prevailing_quote": ~known,
            "stale_quote": known & (time - quoted > (oldest if oldest is not None else np.iinfo(np.int64).max)),
            "crossed_quote": known & (bid > ask),
            "locked_quote": known & (bid == ask),
            "midpoint": at_midpoint & (policy == "exclude"),
            "tick_undetermined": at_midpoint & (policy == "tick") & (signs == 0),
        }
    unused, counts = np.zeros(len(ticks), bool), {}
    for reason, rows in reasons.items():
        counts[reason] = int(np.count_nonzero(rows & ~unused))
        unused |= rows
    signed = matched.with_columns(pl.Series("sign", signs, pl.Int8), pl.Series("midpoint", at_midpoint))
    return signed.filter(~unused).select(SIGNED_COLUMNS), counts


def _series_starts(trades: pl.DataFrame) -> np.ndarray:
    import polars as pl

    new = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in ("symbol", "date"))
    return trades.select(new.fill_null(True)).to_series().to_numpy()


def _without_quotes(trades: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    absent = pl.lit(None, dtype=pl.Int64)
    return trades.with_columns(bid_ticks=absent, ask_ticks=absent, quote_time=absent)


def _midpoint_policy(rule: str, midpoint: str | None) -> str:
    require_choice("rule", rule, ("lee-ready", "quote", "tick"))
    if midpoint is None:
        return "exclude" if rule == "quote" else "tick"
    require_choice("midpoint", midpoint, ("tick", "exclude", "keep"))
    if (rule, midpoint) == ("quote", "tick"):
        raise InputError("midpoint", "rule 'quote' makes no tick test: use 'exclude' or 'keep', or rule='lee-ready'")
    return midpoint
