"""Cleaning by named rules, each of which can be switched off, with a ledger of what each one dropped."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from jaxexec.tape.clock import DAY, clock_text, nanoseconds, time_of_day
from jaxexec.tape.errors import InputError
from jaxexec.tape.ledger import Ledger
from jaxexec.tape.schema import CANONICAL, TICKS_PER_UNIT
from jaxexec.tape.series import in_order

if TYPE_CHECKING:
    import polars as pl

    Clock = str | int | datetime.time
    Session = tuple[Clock, Clock] | Literal["auto"] | None

REGULAR_CONDITIONS = "@EFI"
"""Sale conditions of trades that are kept: regular, automatic execution, intermarket sweep, odd lot.

Rule T3 of Barndorff-Nielsen, Hansen, Lunde and Shephard (2009, "Realized kernels in practice: trades and
quotes", Econometrics Journal 12) deletes trades with a condition other than E and F; the odd lots (I) that
the tape has carried since December 2013 are regular trades but for their size. Out go, by the codes of the
NYSE Daily TAQ client specification, late and out-of-sequence reports (L, P, U, Z), trades outside hours (T),
average, derivative and contingent prices (4, 7, B, H, V, W), special settlement (C, N, R), and auctions.
"""
AUCTION_CONDITIONS = "OQM569"
"""Prints of the opening (O, Q), the reopening (5) and the close (M, 6; 9 corrected)."""

_HALF_HOUR = DAY // 48
_SESSION_HALF_HOURS = 13

TRADE_RULES = (
    "fault", "price_not_positive", "size_not_positive", "correction", "auction", "odd_lot", "sale_condition",
    "exchange_not_selected", "outside_session", "duplicate",
)  # fmt: skip
QUOTE_RULES = (
    "fault", "bid_not_positive", "ask_not_positive", "bid_size_not_positive", "ask_size_not_positive",
    "exchange_not_selected", "wide_quote", "outside_session", "duplicate",
    "wide_for_the_day",
)  # fmt: skip


class Cleaned(NamedTuple):
    """Cleaned canonical frames, sorted by symbol, date, time and sequence, and the ledger of the rest.

    `hours` is the session used, (start, end) in nanoseconds since local midnight; None for the whole day.
    """

    trades: pl.DataFrame
    quotes: pl.DataFrame | None
    ledger: Ledger
    hours: tuple[int, int] | None


def clean(
    trades: pl.DataFrame,
    quotes: pl.DataFrame | None = None,
    *,
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
) -> Cleaned:
    """Drop what is no regular trade or no usable quote, and count it.

    The rules, in this order (a row is counted under the first that it breaks): for trades `fault` (a missing,
    infinite or unrepresentable field, counted under its own name), `price_not_positive`, `size_not_positive`,
    `correction`, `auction`, `odd_lot`, `sale_condition`, `exchange_not_selected`, `outside_session`,
    `duplicate`; for quotes `fault`, `bid_not_positive`, `ask_not_positive`, `bid_size_not_positive`,
    `ask_size_not_positive`, `exchange_not_selected`, `wide_quote`, `outside_session`, `duplicate`,
    `wide_for_the_day`.

    Crossed and locked quotes stay: to drop one would revive the quote that it replaced. So it is with a wide quote that
    is dropped, which is what its two rules are for: they take it for a slip. Neither is on unless a limit is given.

    Args:
        trades: canonical trades, as from `read`.
        quotes: canonical quotes, or None.
        session: (start, end) as local times of day, start <= time < end; "auto", the thirteen consecutive
            half hours with the most trades (ties go to 09:30, then to the earliest), for tapes whose clock is
            shifted; None, the whole day. The session used is in `ledger.notes`.
        early_closes: date -> end of the session, for half days.
        quote_lead: quotes from this long before the session are kept, for they prevail at its start (Holden
            and Jacobsen 2014, Journal of Finance 69, take quotes from 09:00 and trades from 09:30).
        trade_exchange: venue code or codes of trades to keep; None keeps all.
        quote_exchange: the same for quotes.
        conditions: codes of sale conditions to keep (a trade stays if each of its codes is among them); None
            keeps all.
        corrections: correction indicators to keep (Barndorff-Nielsen et al. 2009, rule T2); None keeps all.
        duplicates: what a duplicate is: "records", a row equal in every column, sequence number included (so
            that where the source numbers nothing, equal fills all stay); "fields", equal in all columns but
            the sequence number. The first row stays.
        max_spread: drop quotes with ask − bid above this, currency (`wide_quote`); 5 is the limit of Holden and
            Jacobsen (2014). None, the default, sets none.
        max_spread_multiple: drop quotes with a spread above this many times the median of the positive spreads that the
            other rules leave to the symbol on that date (`wide_for_the_day`); 50 is rule Q3 of Barndorff-Nielsen et al.
            (2009). It looks at the whole day. None, the default, sets none.
        without: names of rules to switch off. `fault` cannot be.

    Raises:
        InputError: an unknown rule, session or exchange option.
    """
    off = _rules_off(without)
    selected = (_codes(trade_exchange), _codes(quote_exchange))
    kept, counts = _apply(trades, _trade_rules(conditions, corrections, selected[0]), off)
    hours, notes = _session(kept, session)
    closes = {date: time_of_day(end, "early_closes") for date, end in (early_closes or {}).items()}
    kept, more = _finish(kept, "trades", hours, closes, duplicates, off)
    ledger = Ledger({"trades": trades.height}, {}, (), notes).drop("clean", "trades", {**counts, **more}, kept.height)
    if quotes is None:
        return Cleaned(kept, None, ledger, hours)
    quoted = hours if hours is None else (hours[0] - nanoseconds(quote_lead, "quote_lead"), hours[1])
    _require_limits(max_spread=max_spread, max_spread_multiple=max_spread_multiple)
    left, counts = _apply(quotes, _quote_rules(selected[1], max_spread), off)
    venues = left["exchange"].drop_nulls().n_unique() if "exchange" in left.columns else 0
    if venues > 1:
        notes["quotes"] = (
            f"of {venues} venues, each taken as it came: not a best bid and offer. Name the one that prevails "
            "with quote_exchange, or give quotes that are merged"
        )
    left, more = _finish(left, "quotes", quoted, closes, duplicates, off)
    if max_spread_multiple is not None and "wide_for_the_day" not in off:
        narrow = left.filter(_not_wide_for_the_day(max_spread_multiple))
        left, more["wide_for_the_day"] = narrow, left.height - narrow.height
    ledger = Ledger({**ledger.read, "quotes": quotes.height}, ledger.used, ledger.dropped, notes)
    return Cleaned(kept, left, ledger.drop("clean", "quotes", {**counts, **more}, left.height), hours)


Rules = list[tuple[str, "pl.Expr"]]


def _trade_rules(conditions: str | Iterable[str] | None, corrections: Iterable[str] | None, venues: list[str] | None):
    import polars as pl

    rules: Rules = [("price_not_positive", pl.col("ticks") <= 0), ("size_not_positive", pl.col("size") <= 0)]
    if corrections is not None:
        rules.append(("correction", ~pl.col("correction").is_in(list(corrections))))
    if conditions is not None:
        code, allowed = pl.col("condition"), set(conditions)
        auctions = "".join(sorted(set(AUCTION_CONDITIONS) - allowed))
        if auctions:
            rules.append(("auction", code.str.contains(f"[{auctions}]")))
        if "I" not in allowed:
            rules.append(("odd_lot", code.str.contains("I", literal=True)))
        known = allowed | {*AUCTION_CONDITIONS, "I", " "}  # each of these has a rule of its own
        rules.append(("sale_condition", code.str.strip_chars("".join(sorted(known))) != ""))
    return rules + _venue_rule(venues)


def _quote_rules(venues: list[str] | None, max_spread: float | None) -> Rules:
    import polars as pl

    columns = ("bid_ticks", "ask_ticks", "bid_size", "ask_size")
    rules: Rules = [(f"{name.removesuffix('_ticks')}_not_positive", pl.col(name) <= 0) for name in columns]
    rules += _venue_rule(venues)
    if max_spread is not None:
        rules.append(("wide_quote", _spread() > round(max_spread * TICKS_PER_UNIT)))
    return rules


def _spread() -> pl.Expr:
    """In ticks."""
    import polars as pl

    return pl.col("ask_ticks") - pl.col("bid_ticks")


def _not_wide_for_the_day(multiple: float) -> pl.Expr:
    spread = _spread()
    usual = spread.filter(spread > 0).median().over("symbol", "date")
    return (spread <= multiple * usual).fill_null(True)


def _require_limits(**limits: float | None) -> None:
    for name, limit in limits.items():
        if limit is not None and not 0 < limit < float("inf"):
            raise InputError(name, f"{limit!r} is no positive number")


def _venue_rule(venues: list[str] | None) -> Rules:
    import polars as pl

    return [] if venues is None else [("exchange_not_selected", ~pl.col("exchange").str.strip_chars().is_in(venues))]


def _apply(frame: pl.DataFrame, rules: Rules, off: set[str]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows that break no rule, and the number of rows that break each one first."""
    import polars as pl

    reason = pl.lit(None, dtype=pl.String)
    for name, broken in reversed(rules):
        if name not in off:
            reason = pl.when(broken.fill_null(False)).then(pl.lit(name)).otherwise(reason)
    why = frame.select(pl.coalesce("fault", reason)).to_series()
    if why.null_count() == frame.height:
        return frame, {}
    counts = why.drop_nulls().value_counts(sort=True)
    found: dict[str, int] = dict(zip(*counts.get_columns(), strict=True))
    order = [*(name for name, _ in rules if name in found), *found]
    return frame.filter(why.is_null()), {name: found[name] for name in dict.fromkeys(order)}


def _finish(
    frame: pl.DataFrame,
    table: str,
    hours: tuple[int, int] | None,
    closes: Mapping[datetime.date, int],
    duplicates: str,
    off: set[str],
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The session, the order and the duplicates, which need the rows that the other rules leave."""
    import polars as pl

    counts: dict[str, int] = {}
    if hours is not None and "outside_session" not in off:
        end = pl.col("date").replace_strict(closes, default=hours[1], return_dtype=pl.Int64)
        inside = frame.filter(pl.col("time") >= hours[0], pl.col("time") < (end if closes else hours[1]))
        counts["outside_session"] = frame.height - inside.height
        frame = inside
    sorted_by = ("symbol", "date", "time", "sequence")
    if any(frame[name].null_count() for name in sorted_by) or not in_order(frame):
        frame = frame.sort(sorted_by, maintain_order=True)
    if duplicates not in ("records", "fields"):
        raise InputError("duplicates", f"{duplicates!r} is not 'records' or 'fields'")
    if "duplicate" not in off:
        first = frame.filter(_first_of_its_kind(frame, table, duplicates == "records"))
        counts["duplicate"] = frame.height - first.height
        frame = first
    return frame, counts


def _first_of_its_kind(frame: pl.DataFrame, table: str, by_record: bool) -> pl.Series:
    """False for rows that repeat an earlier one; only rows that tie with a neighbour are compared in full."""
    import polars as pl

    keys = ["symbol", "date", "time", *(["sequence"] if by_record else [])]
    fields = [name for name in CANONICAL[table] if name not in ("fault", *([] if by_record else ["sequence"]))]
    same = pl.all_horizontal(pl.col(key) == pl.col(key).shift() for key in keys).fill_null(False)
    tied = frame.select(same | same.shift(-1, fill_value=False)).to_series()
    rows = tied.arg_true()
    if not rows.len():
        return ~tied
    repeated = ~frame[rows].select(pl.struct(fields).is_first_distinct()).to_series()
    keep = pl.Series([True], dtype=pl.Boolean).new_from_index(0, frame.height)
    return keep.scatter(rows.filter(repeated), False)


def _session(trades: pl.DataFrame, session: Session) -> tuple[tuple[int, int] | None, dict[str, str]]:
    """(start, end) in nanoseconds, and what the ledger should say of it."""
    if session is None:
        return None, {"session": "whole day"}
    if session == "auto":
        hours = _busiest_session(trades)
        return hours, {"session": f"{_hours_text(hours)} (inferred: the half hours with the most trades)"}
    if isinstance(session, str) or len(session) != 2:
        raise InputError("session", f"{session!r} is not (start, end), 'auto' or None")
    hours = (time_of_day(session[0]), time_of_day(session[1]))
    if hours[0] >= hours[1]:
        raise InputError("session", f"{_hours_text(hours)} ends before it starts")
    notes = {"session": _hours_text(hours)}
    inside = trades["time"].is_between(*hours, closed="left").sum()
    if trades.height and 2 * inside < trades.height:
        notes["warning"] = (
            f"only {inside:,} of {trades.height:,} regular trades lie in the session {notes['session']}; "
            f"session='auto' would take {_hours_text(_busiest_session(trades))}, or give timezone"
        )
    return hours, notes


def _busiest_session(trades: pl.DataFrame) -> tuple[int, int]:
    import numpy as np

    bins = np.bincount((trades["time"] // _HALF_HOUR).clip(0, 47).to_numpy(), minlength=48)
    totals = np.convolve(bins, np.ones(_SESSION_HALF_HOURS, np.int64), mode="valid")
    start = 19 if totals[19] == totals.max() else int(totals.argmax())  # 19 half hours past midnight is 09:30
    return start * _HALF_HOUR, (start + _SESSION_HALF_HOURS) * _HALF_HOUR


def _hours_text(hours: tuple[int, int]) -> str:
    return f"{clock_text(hours[0])}–{clock_text(hours[1])}"


def _codes(exchange: str | Iterable[str] | None) -> list[str] | None:
    return None if exchange is None else [exchange] if isinstance(exchange, str) else list(exchange)


def _rules_off(without: Iterable[str]) -> set[str]:
    off = {without} if isinstance(without, str) else set(without)
    unknown = sorted(off - {*TRADE_RULES, *QUOTE_RULES} | off & {"fault"})
    if unknown:
        raise InputError("without", f"{unknown[0]!r} is no rule that can be switched off")
    return off


def as_settings(options: Mapping[str, object]) -> dict[str, object]:
    """Options as plain JSON types, for the record that a signed tape carries."""
    plain: dict[str, object] = {}
    for name, value in options.items():
        if isinstance(value, str | int | float | bool | None):
            plain[name] = value
        elif isinstance(value, Mapping):
            plain[name] = {str(key): str(item) for key, item in value.items()}
        else:
            plain[name] = [str(item) for item in value] if isinstance(value, Iterable) else str(value)
    return plain
