"""From files to signs: read, clean, match, and ask a sign rule who initiated each trade."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxexec.tape.array_signs import sign_arrays
from jaxexec.tape.cleaning import REGULAR_CONDITIONS, as_settings, clean
from jaxexec.tape.clock import nanoseconds
from jaxexec.tape.errors import InputError, TapeWarning
from jaxexec.tape.matching import match
from jaxexec.tape.national_quotes import complete_nbbo
from jaxexec.tape.reading import as_polars, detected_mapping, path_of, read, require_choice
from jaxexec.tape.series import series_starts
from jaxexec.tape.sign_rules import SIGN_RULES
from jaxexec.tape.signed_tape import SIGNED_COLUMNS, SignedTape

if TYPE_CHECKING:
    import polars as pl

    from jaxexec.tape.cleaning import Clock, Session
    from jaxexec.tape.reading import Source

Rule = Literal["lee-ready", "quote", "tick", "emo", "clnv", "given"]
Midpoint = Literal["tick", "exclude", "keep"]
WITHOUT_QUOTES = ("tick", "given")


def sign(
    trades: Source,
    quotes: Source | None = None,
    *,
    nbbo: Source | None = None,
    rule: Rule = "lee-ready",
    midpoint: Midpoint | None = None,
    lag: str | int | datetime.timedelta = "0s",
    interpolate: str | int | datetime.timedelta | None = None,
    max_quote_age: str | int | datetime.timedelta | None = None,
    trade_columns: Mapping[str, str] | None = None,
    quote_columns: Mapping[str, str] | None = None,
    timezone: str | None = None,
    naive_timezone: str | None = None,
    unsorted: Literal["refuse", "sort"] = "refuse",
    off_tick: Literal["refuse", "drop"] = "refuse",
    round_lot: int = 1,
    date: datetime.date | None = None,
    session: Session = ("09:30", "16:00"),
    early_closes: Mapping[datetime.date, Clock] | None = None,
    quote_lead: str | int | datetime.timedelta = "30min",
    trade_exchange: str | Iterable[str] | None = None,
    quote_exchange: str | Iterable[str] | None = None,
    conditions: str | Iterable[str] | None = REGULAR_CONDITIONS,
    corrections: Iterable[str] | None = ("00",),
    duplicates: Literal["records", "fields"] = "records",
    max_spread: float | None = None,
    max_spread_multiple: float | None = None,
    without: Iterable[str] = (),
) -> SignedTape:
    """Read, clean, match and sign a tape: +1 where the buyer initiated the trade, −1 where the seller did.

    The quote test is the sign of 2p − bid − ask in integer ticks, so that a trade at the midpoint is seen to
    be one. The tick test is the sign of the last change of price among the cleaned trades of the same symbol
    and date. The rules, of which the documentation ("Which sign rule?") measures how often each is right:

    - "lee-ready": the quote test, and the tick test at the midpoint (Lee and Ready 1991, Journal of Finance 46);
    - "quote": the quote test alone;
    - "tick": the tick test alone, which needs no quotes;
    - "emo": by the quote at the bid and at the ask exactly, the tick test everywhere else (Ellis, Michaely and
      O'Hara 2000, Journal of Financial and Quantitative Analysis 35);
    - "clnv": the quote test in the outer three tenths of the spread on each side, the tick test in the middle
      and outside the quotes (Chakrabarty, Li, Nguyen and Van Ness 2007, Journal of Banking and Finance 31);
    - "given": the side that the tape itself names (LOBSTER, Databento, or a column mapped to `side`).

    Trades that get no sign are left out and counted in the ledger: `no_prevailing_quote`, `stale_quote`,
    `crossed_quote` and `locked_quote` (bid >= ask: there is no midpoint to compare with), `midpoint`,
    `tick_undetermined`, `side_unknown`.

    Args:
        trades: file, folder or table of trades; see `read`.
        quotes: the same for quotes; rules "tick" and "given" do without. Trades that carry the quote that
            prevailed at them (`bid` and `ask` in their own rows, as in Databento's tbbo) need none either: that
            quote is then taken as it stands, and `lag` and `interpolate` say nothing.
        nbbo: the NBBO file that `quotes`, those of all venues, complete; see `complete_nbbo`.
        rule: one of the above.
        midpoint: what becomes of a trade at the midpoint: "tick", the tick test; "exclude", it is dropped;
            "keep", it stays with sign 0. None is "exclude" for the quote rule and "tick" for the others. The
            documentation ("Which sign rule, which form, which standard error?") measures what each does to estimates.
        lag: a quote prevails if its time < trade time − lag; see `match`.
        interpolate: the resolution of time stamps that are too coarse to order trades and quotes, such as "1s"
            or "1ms": both are spread evenly within each unit; see `match`. None takes times as they stand.
        max_quote_age: leave out trades whose prevailing quote is older than this; None sets no limit.
        trade_columns, quote_columns: mappings of columns; see `read`.
        timezone, naive_timezone, unsorted, off_tick, round_lot, date: see `read`.
        session, early_closes, quote_lead, trade_exchange, quote_exchange, conditions, corrections,
            duplicates, max_spread, max_spread_multiple, without: see `clean`.

    Warns:
        TapeWarning: most trades lie outside the session, or quotes of several venues are used as they came.

    Raises:
        InputError: as `read` and `clean`; an unknown rule; quotes missing where the rule needs them.
    """
    settings = as_settings(
        {name: value for name, value in locals().items() if name not in ("trades", "quotes", "nbbo")}
    )
    policy = midpoint_policy(rule, midpoint)
    trades = trades if path_of(trades) else as_polars(trades)  # once, for a lazy frame may be long to collect
    mapping = {"trades": detected_mapping(trades, "trades", trade_columns).to_dict()}
    if quotes is not None:
        quotes = quotes if path_of(quotes) else as_polars(quotes)
        mapping["quotes"] = detected_mapping(quotes, "quotes", quote_columns).to_dict()
    if nbbo is not None:
        nbbo = nbbo if path_of(nbbo) else as_polars(nbbo)
        mapping["nbbo"] = detected_mapping(nbbo, "quotes").to_dict()
        _require_pair(quotes is not None, quote_exchange)
    _require_columns(rule, quotes is not None, mapping["trades"])
    reading = {
        "timezone": timezone,
        "naive_timezone": naive_timezone,
        "unsorted": unsorted,
        "off_tick": off_tick,
        "round_lot": round_lot,
        "date": date,
    }
    cleaned, book, ledger, hours = clean(
        read(trades, "trades", columns=trade_columns, **reading),
        _book(quotes, nbbo, quote_columns, reading),
        session=session,
        early_closes=early_closes,
        quote_lead=quote_lead,
        trade_exchange=trade_exchange,
        quote_exchange=quote_exchange,
        conditions=conditions,
        corrections=corrections,
        duplicates=duplicates,
        max_spread=max_spread,
        max_spread_multiple=max_spread_multiple,
        without=without,
    )
    matched = own_quotes(cleaned) if book is None else match(cleaned, book, lag, interpolate=interpolate)
    oldest = None if max_quote_age is None else nanoseconds(max_quote_age, "max_quote_age")
    signed, counts = sign_matched(matched, rule, policy, oldest)
    ledger = ledger.drop("sign", "trades", counts, signed.height)
    for name in ("warning", "quotes"):
        if name in ledger.notes:
            warnings.warn(ledger.notes[name], TapeWarning, stacklevel=2)
    used = {**settings, "midpoint": policy, "hours": None if hours is None else list(hours)}
    return SignedTape(signed.select(SIGNED_COLUMNS), cleaned, ledger, used, mapping)


def sign_matched(
    matched: pl.DataFrame, rule: str, policy: str, oldest: int | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Trades that get a sign, and how many do not, by reason.

    Args:
        matched: cleaned trades in order, with `bid_ticks`, `ask_ticks` and `quote_time`, as from `match`.
        rule: a name in `SIGN_RULES`, or "given".
        policy: what becomes of a trade at the midpoint: "tick", "keep" or "exclude".
        oldest: greatest age of a quote in nanoseconds; None sets no limit.

    Returns:
        The signed rows of `matched` with `sign` (Int8) and `midpoint` (Boolean); reason -> rows left out.
    """
    import polars as pl

    known = matched["bid_ticks"].is_not_null().to_numpy() & matched["ask_ticks"].is_not_null().to_numpy()
    ticks, time = matched["ticks"].to_numpy(), matched["time"].to_numpy()
    bid, ask, quoted = (matched[name].fill_null(0).to_numpy() for name in ("bid_ticks", "ask_ticks", "quote_time"))
    at_midpoint = known & (2 * ticks == bid + ask)
    if rule == "given":
        signs = matched["side"].fill_null(0).to_numpy()
        reasons = {"side_unknown": signs == 0}
    else:
        signs = sign_arrays(ticks, bid, ask, first=series_starts(matched), rule=rule)
        reasons = {"tick_undetermined": signs == 0}
    if rule not in WITHOUT_QUOTES:
        signs = np.where(at_midpoint & (policy == "keep"), 0, signs)
        reasons = {
            "no_prevailing_quote": ~known,
            "stale_quote": known & (time - quoted > (oldest if oldest is not None else np.iinfo(np.int64).max)),
            "crossed_quote": known & (bid > ask),
            "locked_quote": known & (bid == ask),
            "midpoint": at_midpoint & (policy == "exclude"),
            "tick_undetermined": (signs == 0) & ~(at_midpoint & (policy == "keep")),
        }
    unused, counts = np.zeros(len(ticks), bool), {}
    for reason, rows in reasons.items():
        counts[reason] = int(np.count_nonzero(rows & ~unused))
        unused |= rows
    signed = matched.with_columns(pl.Series("sign", signs, pl.Int8), pl.Series("midpoint", at_midpoint))
    return signed.filter(~unused), counts


def own_quotes(trades: pl.DataFrame) -> pl.DataFrame:
    """Trades with the quote that each of them carries, or with none."""
    import polars as pl

    if {"bid_ticks", "ask_ticks"} <= set(trades.columns):
        return trades.with_columns(quote_time="time")
    absent = pl.lit(None, dtype=pl.Int64)
    return trades.with_columns(bid_ticks=absent, ask_ticks=absent, quote_time=absent)


def _book(
    quotes: Source | None, nbbo: Source | None, columns: Mapping[str, str] | None, reading: Mapping[str, Any]
) -> pl.DataFrame | None:
    """Canonical quotes of one source or of two."""
    if quotes is None:
        return None
    if nbbo is None:
        return read(quotes, "quotes", columns=columns, **reading)
    return complete_nbbo(nbbo, quotes, quote_columns=columns, **reading)


def _require_pair(has_quotes: bool, quote_exchange: str | Iterable[str] | None) -> None:
    if not has_quotes:
        raise InputError(
            "nbbo", "lacks what one venue makes alone: give the quotes of all venues too, or it as `quotes`"
        )
    if quote_exchange is not None:
        raise InputError("quote_exchange", "the best quotes of all venues are of no single one: leave it out with nbbo")


def _require_columns(rule: str, has_quotes: bool, found: Mapping[str, str]) -> None:
    if rule == "given" and "side" not in found:
        raise InputError("side", "rule 'given' needs the tape's own: say which with trade_columns={'side': ...}")
    if rule not in WITHOUT_QUOTES and not has_quotes and not {"bid", "ask"} <= found.keys():
        raise InputError("quotes", f"rule {rule!r} needs quotes; rule='tick' does without")


def midpoint_policy(rule: str, midpoint: str | None) -> str:
    """What a rule does with trades at the midpoint, where the user does not say.

    Raises:
        InputError: an unknown rule or policy, or one that the rule cannot follow.
    """
    require_choice("rule", rule, (*SIGN_RULES, "given"))
    if rule == "given":
        if midpoint is not None:
            raise InputError("midpoint", "rule 'given' takes the side that the tape names, at the midpoint too")
        return "keep"
    if midpoint is None:
        return "exclude" if rule == "quote" else "tick"
    require_choice("midpoint", midpoint, ("tick", "exclude", "keep"))
    if (rule, midpoint) == ("quote", "tick"):
        raise InputError("midpoint", "rule 'quote' makes no tick test: use 'exclude' or 'keep', or rule='lee-ready'")
    return midpoint
