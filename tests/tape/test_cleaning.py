"""Every rule drops what it should, is counted under its own name, and can be switched off."""

import datetime
import math
import warnings

import polars as pl
import pytest

from jaxexec import tape
from jaxexec.tape.cleaning import TRADE_RULES

# reason -> the change that makes a good trade break it
BAD_TRADES = {
    "missing_symbol": {"symbol": None},
    "missing_date": {"date": None},
    "missing_time": {"time": None},
    "missing_price": {"price": None},
    "price_not_finite": {"price": math.inf},
    "price_out_of_range": {"price": 1e13},
    "price_off_tick": {"price": 10.00005},
    "price_not_positive": {"price": -10.0},
    "missing_size": {"size": None},
    "size_not_finite": {"size": math.inf},
    "size_not_whole": {"size": 0.5},
    "size_not_positive": {"size": 0.0},
    "missing_correction": {"correction": None},
    "correction": {"correction": "01"},
    "auction": {"condition": "6 F"},
    "sale_condition": {"condition": "4 I"},
    "exchange_not_selected": {"exchange": "Z"},
    "outside_session": {"time": 60_000 * 10**9},
    "time_out_of_range": {"time": 90_000 * 10**9},
}
BAD_QUOTES = {
    "missing_symbol": {"symbol": None},
    "missing_bid": {"bid": math.nan},
    "ask_not_finite": {"ask": -math.inf},
    "bid_not_positive": {"bid": 0.0},
    "ask_not_positive": {"ask": 0.0},
    "bid_size_not_positive": {"bid_size": 0},
    "missing_ask_size": {"ask_size": None},
    "exchange_not_selected": {"exchange": "K"},
    "outside_session": {"time": 30_000 * 10**9},
}
GOOD_TRADE = {
    "symbol": "A", "date": datetime.date(2024, 1, 2), "time": 36_001 * 10**9, "price": 10.02, "size": 100.0,
    "condition": "F I", "correction": "00", "exchange": "N",
}  # fmt: skip
GOOD_QUOTE = {
    "symbol": "A", "date": datetime.date(2024, 1, 2), "time": 36_000 * 10**9, "bid": 10.0, "ask": 10.02,
    "bid_size": 1, "ask_size": 1, "exchange": "N",
}  # fmt: skip
CHECKED = {"trade_exchange": "N", "quote_exchange": ["N"], "off_tick": "drop", "unsorted": "sort"}


def frame(good, changes):
    rows = [good, *({**good, **change} for change in changes)]
    return pl.DataFrame(rows, infer_schema_length=None)


def test_each_reason_is_counted_once_and_the_ledger_balances():
    for repeat in (1, 3):
        trades = frame(GOOD_TRADE, list(BAD_TRADES.values()) * repeat)
        quotes = frame(GOOD_QUOTE, list(BAD_QUOTES.values()) * repeat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tape.TapeWarning)  # planted rows outside the session outnumber the good one
            ledger = tape.sign(trades, quotes, **CHECKED).ledger
        assert {d.reason: d.rows for d in ledger.dropped if d.table == "trades"} == dict.fromkeys(BAD_TRADES, repeat)
        assert {d.reason: d.rows for d in ledger.dropped if d.table == "quotes"} == dict.fromkeys(BAD_QUOTES, repeat)
        assert ledger.used == {"trades": 1, "quotes": 1} and ledger.balanced
        assert ledger.read == {"trades": trades.height, "quotes": quotes.height}


def test_ledger_balances_on_a_synthetic_tape_with_planted_rows():
    made = tape.synthetic.generate(3, 300, seed=4, model="realistic", tail=0)
    bad = made.trades.with_columns(
        price=pl.when(pl.int_range(pl.len()) % 7 == 0).then(float("nan")).otherwise("price"),
        tr_corr=pl.when(pl.int_range(pl.len()) % 5 == 0).then(pl.lit("08")).otherwise("tr_corr"),
        tr_scond=pl.when(pl.int_range(pl.len()) % 11 == 0).then(pl.lit("O")).otherwise("tr_scond"),
    )
    signed = tape.sign(pl.concat([bad, bad.tail(20)]), made.quotes, unsorted="sort")
    rows = range(900)
    copies = [i for i in range(880, 900) if i % 7 and i % 5 and i % 11]
    assert signed.ledger.balanced
    assert signed.ledger.rows("trades", "missing_price") == sum(i % 7 == 0 for i in [*rows, *range(880, 900)])
    assert signed.ledger.rows("trades", "duplicate") == len(copies)
    assert signed.ledger.table()[0] == {"stage": "read", "table": "trades", "reason": "rows read", "rows": 920}
    assert sum(r["rows"] for r in signed.ledger.table() if r["table"] == "trades") == 2 * 920


def test_unbalanced_ledger_says_so():
    ledger = tape.Ledger({"trades": 10}, {"trades": 10}).drop("clean", "trades", {"duplicate": 3}, used=6)
    assert not ledger.balanced
    assert ledger.drop("sign", "trades", {"midpoint": 1}, used=6).balanced


def test_ledgers_of_parts_add_up():
    made = tape.synthetic.generate(2, 200, seed=1)
    bad = made.trades.with_columns(size=pl.when(pl.col("tr_seqnum") % 9 == 0).then(0).otherwise("size"))
    whole = tape.sign(bad, made.quotes, midpoint="exclude").ledger
    parts = [
        tape.sign(bad.filter(sym_root=s), made.quotes.filter(sym_root=s), midpoint="exclude").ledger
        for s in ("S00000", "S00001")
    ]
    assert parts[0].merge(parts[1]) == whole
    assert tape.Ledger.from_dict(whole.to_dict()) == whole


@pytest.mark.parametrize("rule", [r for r in TRADE_RULES if r in BAD_TRADES])
def test_rules_can_be_switched_off(rule):
    trades = tape.read(frame(GOOD_TRADE, [BAD_TRADES[rule]]), unsorted="sort")
    on = tape.clean(trades, trade_exchange="N")
    off = tape.clean(trades, trade_exchange="N", without=[rule])
    assert (on.trades.height, off.trades.height) == (1, 2)
    assert on.ledger.rows("trades", rule) == 1 and off.ledger.balanced


def test_unknown_rules_and_options_are_refused():
    trades = tape.read(frame(GOOD_TRADE, []))
    for bad in (
        {"without": ["nonsense"]}, {"without": ["fault"]}, {"session": ("16:00", "09:30")}, {"session": "morning"},
        {"session": ("nine", "ten")}, {"duplicates": "all"},
    ):  # fmt: skip
        with pytest.raises(tape.InputError):
            tape.clean(trades, **bad)


def test_sale_conditions():
    codes = ["", "@", "F", " F I", "@ I", "4", "O", "Z", "@T", "I"]
    trades = tape.read(frame(GOOD_TRADE, [{"condition": c} for c in codes]))
    kept = tape.clean(trades)
    assert kept.trades["condition"].to_list() == ["F I", "", "@", "F", " F I", "@ I", "I"]
    assert kept.ledger.rows("trades", "auction") == 1 and kept.ledger.rows("trades", "sale_condition") == 3
    whole_lots = tape.clean(trades, conditions="@EF")
    assert whole_lots.ledger.rows("trades", "odd_lot") == 4
    assert tape.clean(trades, conditions=None).trades.height == 11


def test_duplicates_of_records_and_of_fields(make_trades):
    rows = [(1, 10.0), (1, 10.0), (1, 10.1), (1, 10.0)]
    numbered = tape.read(make_trades(rows, sequence=[1, 1, 2, 3]))
    assert tape.clean(numbered).trades["sequence"].to_list() == [1, 2, 3]
    assert tape.clean(numbered, duplicates="fields").trades["ticks"].to_list() == [100_000, 101_000]
    assert tape.clean(tape.read(make_trades(rows))).trades.height == 4, "equal fills without numbers all stay"


def test_session_bounds_and_lead(make_trades, make_quotes):
    trades = make_trades([(-1800.1, 10.02), (-1800, 10.02), (21_599.9, 10.02), (21_600, 10.02)])
    quotes = make_quotes([(-3600.1, 9.0, 9.02), (-3600, 10.0, 10.02), (21_600, 11.0, 11.02)])
    signed = tape.sign(trades, quotes)
    assert signed.trades.height == 2 and signed.ledger.used["quotes"] == 1
    early = tape.sign(trades, quotes, early_closes={datetime.date(2024, 1, 2): "13:00"})
    assert early.trades.height == 1 and early.ledger.rows("trades", "outside_session") == 3
    assert tape.sign(trades, quotes, session=None).ledger.rows("trades", "outside_session") == 0


def test_session_is_inferred_from_where_the_trades_are(make_trades):
    shifted = make_trades([(16_200 + 90 * k, 10.0) for k in range(260)])  # 14:30 to 21:00
    cleaned = tape.clean(tape.read(shifted), session="auto")
    assert cleaned.trades.height == 260 and cleaned.ledger.notes["session"].startswith("14:30:00–21:00:00")
    fixed = tape.clean(tape.read(shifted))
    assert fixed.trades.height == 60 and "14:30:00–21:00:00" in fixed.ledger.notes["warning"]
    few = tape.clean(tape.read(make_trades([(0, 10.0)])), session="auto")
    assert few.ledger.notes["session"].startswith("09:30:00–16:00:00"), "ties go to the usual session"


def test_wide_quotes_are_dropped_where_a_limit_is_given(make_trades, make_quotes):
    """Five units of currency (Holden and Jacobsen), fifty medians of the day (Barndorff-Nielsen et al., Q3)."""
    rows = [(k, 10.0, 10.02) for k in range(5)] + [(5, 10.0, 10.0), (6, 10.02, 10.0), (7, 10.0, 11.0)]
    rows += [(8, 10.0, 11.0001), (9, 8.0, 13.0), (10, 8.0, 13.0001)]
    trades, quotes = tape.read(make_trades([(20, 10.4)])), tape.read(make_quotes(rows), "quotes")

    def dropped(**options):
        ledger = tape.clean(trades, quotes, **options).ledger
        assert ledger.balanced
        return ledger.rows("quotes", "wide_quote"), ledger.rows("quotes", "wide_for_the_day")

    assert dropped() == (0, 0), "off unless asked for"
    assert dropped(max_spread=5) == (1, 0), "five is not above five"
    # The median of the nine positive spreads is 0.02: fifty of them are 1, and what is locked or crossed is not asked.
    assert dropped(max_spread_multiple=50) == (0, 3)
    assert dropped(max_spread=5, max_spread_multiple=50) == (1, 2)
    both = {"max_spread": 5, "max_spread_multiple": 50}
    assert dropped(**both, without=["wide_quote", "wide_for_the_day"]) == (0, 0)
    assert tape.sign(trades, quotes, max_spread=5).trades["bid_ticks"].to_list() == [80_000], "the one before prevails"
    for options in ({"max_spread": 0}, {"max_spread_multiple": float("nan")}):
        with pytest.raises(tape.InputError, match="positive"):
            tape.clean(trades, quotes, **options)
    other = tape.clean(trades, tape.read(make_quotes([(0, 10.0, 11.0001)]), "quotes"), max_spread_multiple=50)
    assert other.quotes.height == 1, "each day has its own median"
