"""Signs: hand-made tapes, rational arithmetic, and the symmetries that no choice of numbers may break."""

import datetime
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxexec import tape

DATE = datetime.date(2024, 1, 2)
TEN = 36_000 * 1_000_000_000


def signs(signed):
    return signed.trades["sign"].to_list()


def test_quote_test_compares_with_the_midpoint(make_trades, make_quotes):
    quotes = make_quotes([(0, 10.00, 10.04)])
    trades = make_trades([(1, 10.04), (2, 10.00), (3, 10.03), (4, 10.01), (5, 10.02)])
    signed = tape.sign(trades, quotes, midpoint="keep")
    assert signs(signed) == [1, -1, 1, -1, 0]
    assert signed.trades["midpoint"].to_list() == [False] * 4 + [True]
    assert signed.ledger.balanced


def test_midpoints_that_doubles_mistake_are_seen(make_trades, make_quotes):
    """0.5 · (bid + ask) differs from the price by an ulp for a good part of these prices."""
    bids = [round(20 + 0.01 * k, 2) for k in range(400)]
    quotes = make_quotes([(k, bid, round(bid + 0.01, 2)) for k, bid in enumerate(bids)])
    trades = make_trades([(k + 0.5, round(bid + 0.005, 3)) for k, bid in enumerate(bids)])
    doubles = 0.5 * (quotes["bid"].to_numpy() + quotes["ask"].to_numpy()) != trades["price"].to_numpy()
    assert doubles.sum() > 20
    assert tape.sign(trades, quotes, midpoint="keep").trades["midpoint"].all()


def test_midpoint_policies(make_trades, make_quotes):
    quotes = make_quotes([(0, 10.00, 10.02), (3.5, 10.02, 10.04)])
    rows = [(1, 10.01), (2, 10.02), (3, 10.01), (3.2, 10.01), (4, 10.03), (5, 10.04)]
    by_tick = tape.sign(make_trades(rows), quotes)
    assert signs(by_tick) == [1, -1, -1, 1, 1]  # the first has no change of price before it
    assert by_tick.ledger.rows("trades", "tick_undetermined") == 1
    excluded = tape.sign(make_trades(rows), quotes, midpoint="exclude")
    assert signs(excluded) == [1, 1] and excluded.ledger.rows("trades", "midpoint") == 4
    assert signs(tape.sign(make_trades(rows), quotes, midpoint="keep")) == [0, 1, 0, 0, 0, 1]
    assert signs(tape.sign(make_trades(rows), quotes, rule="quote")) == [1, 1]
    assert all(t.ledger.balanced and t.cleaned.height == 6 for t in (by_tick, excluded))


def test_tick_rule_needs_no_quotes_and_starts_anew_each_day(make_trades):
    day = make_trades([(1, 10.0), (2, 10.1), (3, 10.1), (4, 10.0), (5, 10.0)])
    trades = pl.concat([day, day.with_columns(date=datetime.date(2024, 1, 3))])
    signed = tape.sign(trades, rule="tick")
    assert signs(signed) == [1, 1, -1, -1] * 2
    assert signed.ledger.rows("trades", "tick_undetermined") == 2
    assert signed.trades["bid_ticks"].null_count() == 8


def test_join_is_strict(make_trades, make_quotes):
    quotes = make_quotes([(1, 10.00, 10.02), (2, 10.04, 10.06)])
    trades = make_trades([(1, 10.02), (2, 10.03), (2.000000001, 10.03)])
    signed = tape.sign(trades, quotes)
    assert signs(signed) == [1, -1] and signed.ledger.rows("trades", "no_prevailing_quote") == 1
    lagged = tape.sign(trades, quotes, lag="1ns")
    assert signs(lagged) == [1, 1], "one nanosecond of lag brings the older quote back"


def test_ties_follow_the_sequence_number(make_trades, make_quotes):
    rows = [(1, 10.00, 10.02), (1, 10.04, 10.06), (1, 10.10, 10.12)]
    trades = make_trades([(2, 10.05)])
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        quotes = make_quotes([rows[i] for i in order], sequence=[[5, 7, 6][i] for i in order])
        assert tape.sign(trades, quotes, midpoint="keep").trades["bid_ticks"].to_list() == [100_400]
    assert tape.sign(trades, make_quotes(rows)).trades["bid_ticks"].to_list() == [101_000]


def test_trade_ties_follow_the_sequence_number(make_trades):
    rows, numbers = [(0, 9.0), (1, 10.0), (1, 10.2), (1, 10.1)], [1, 2, 4, 3]
    first = tape.sign(make_trades(rows, sequence=numbers), rule="tick")
    order = [0, 3, 1, 2]
    permuted = make_trades([rows[i] for i in order], sequence=[numbers[i] for i in order])
    assert first.trades["ticks"].to_list() == [100_000, 101_000, 102_000]
    assert tape.sign(permuted, rule="tick").trades.equals(first.trades)


def test_crossed_quote_prevails_and_its_trade_is_unknown(make_trades, make_quotes):
    quotes = make_quotes([(0, 10.00, 10.02), (1, 10.05, 10.03), (3, 10.01, 10.01), (5, 10.00, 10.02)])
    signed = tape.sign(make_trades([(0.5, 10.02), (2, 10.02), (4, 10.02), (6, 10.02)]), quotes)
    assert signs(signed) == [1, 1]
    assert signed.ledger.rows("trades", "crossed_quote") == signed.ledger.rows("trades", "locked_quote") == 1
    assert signed.ledger.used["quotes"] == 4 and signed.ledger.balanced


def test_stale_quotes(make_trades, make_quotes):
    signed = tape.sign(make_trades([(1, 10.02), (9, 10.02)]), make_quotes([(0, 10.0, 10.02)]), max_quote_age="5s")
    assert signs(signed) == [1] and signed.ledger.rows("trades", "stale_quote") == 1


def test_quotes_of_other_symbols_and_days_do_not_prevail(make_trades, make_quotes):
    quotes = make_quotes([(0, 10.0, 10.02)])
    others = [quotes.with_columns(symbol=pl.lit("B")), quotes.with_columns(date=datetime.date(2024, 1, 1))]
    signed = tape.sign(make_trades([(1, 10.02)]), pl.concat(others))
    assert signed.trades.height == 0 and signed.ledger.rows("trades", "no_prevailing_quote") == 1


def test_segments_cut_by_symbol_and_date(make_trades):
    day = make_trades([(1, 10.0), (2, 10.1), (3, 10.0, 200)])
    later = day.with_columns(date=datetime.date(2024, 1, 3))
    other = day.head(2).with_columns(symbol=pl.lit("0"))
    flat = tape.sign(pl.concat([day, other, later]), rule="tick").segments()
    assert flat.symbols == ["0", "A"] and flat.stock.tolist() == [0, 1, 1]
    assert flat.offsets.tolist() == [0, 1, 3, 5] and flat.offsets.dtype == np.int64
    assert flat.sign.tolist() == [1, 1, -1, 1, -1] and flat.sign.dtype == np.int8
    assert flat.size.tolist() == [100, 100, 200, 100, 200]
    assert flat.ticks.tolist() == [101_000, 101_000, 100_000, 101_000, 100_000]


def test_signed_tape_can_be_rebuilt_from_its_frames(make_trades, make_quotes):
    signed = tape.sign(make_trades([(1, 10.02), (2, 10.0)]), make_quotes([(0, 10.0, 10.02)]))
    ledger = tape.Ledger.from_dict(signed.ledger.to_dict())
    again = tape.SignedTape.from_frames(signed.trades, signed.cleaned, ledger=ledger, settings=signed.settings)
    assert again.trades.equals(signed.trades) and again.ledger == signed.ledger
    with pytest.raises(tape.InputError, match="sign"):
        tape.SignedTape.from_frames(signed.trades.with_columns(sign=pl.lit(2)))


def test_emo_and_clnv_at_every_tenth_of_the_spread(make_trades, make_quotes):
    """Trades at −1, 0, …, 11 tenths of a spread of ten cents, each after a trade at 10.30 (the tick test says −1) or
    at 9.80 (it says +1)."""
    quotes = make_quotes([(0, 10.00, 10.10)])
    at_tenths = [round(10 + tenth / 100, 2) for tenth in range(-1, 12)]

    def each(rule, last):
        prices = [10.05, *(price for at in at_tenths for price in (last, at))]
        signed = tape.sign(make_trades([(1 + k, price) for k, price in enumerate(prices)]), quotes, rule=rule)
        return signs(signed)[-2 * len(at_tenths) :][1::2]

    assert each("emo", 10.30) == [-1, -1, *[-1] * 9, 1, -1]
    assert each("emo", 9.80) == [1, -1, *[1] * 9, 1, 1]
    assert each("clnv", 10.30) == [-1, *[-1] * 4, *[-1] * 3, *[1] * 4, -1]
    assert each("clnv", 9.80) == [1, *[-1] * 4, *[1] * 3, *[1] * 4, 1]


def test_given_sides_win_and_unknown_ones_are_counted(make_trades):
    trades = make_trades([(1, 10.0), (2, 10.1), (3, 10.2), (4, 10.3)], taker=["buy", "S", "N", None])
    signed = tape.sign(trades, rule="given", trade_columns={"side": "taker"})
    assert signs(signed) == [1, -1] and signed.ledger.rows("trades", "side_unknown") == 2 and signed.ledger.balanced
    assert tape.read(signed.cleaned)["side"].to_list() == [1, -1, None, None], "canonical trades keep their sides"
    with pytest.raises(tape.InputError, match="'side'"):
        tape.sign(trades, rule="given")
    with pytest.raises(tape.InputError, match="midpoint"):
        tape.sign(trades, rule="given", midpoint="keep", trade_columns={"side": "taker"})
    with pytest.raises(tape.InputError, match="no side") as error:
        tape.sign(trades.with_columns(taker=pl.lit("above")), rule="given", trade_columns={"side": "taker"})
    assert (error.value.field, error.value.index) == ("side", 0)


def test_trades_that_carry_their_quote_need_no_quotes(make_trades, make_quotes):
    trades = make_trades([(1, 10.02), (2, 10.0), (3, 10.01)], bid=[10.0, 10.0, None], ask=[10.02, 10.02, 10.02])
    signed = tape.sign(trades)
    assert signs(signed) == [1, -1] and signed.ledger.rows("trades", "no_prevailing_quote") == 1
    other = tape.sign(trades, make_quotes([(0, 9.0, 9.1)]))
    assert signs(other) == [1, 1, 1], "quotes that are given win"


def test_quote_rule_makes_no_tick_test(make_trades, make_quotes):
    with pytest.raises(tape.InputError, match="lee-ready"):
        tape.sign(make_trades([(1, 1.0)]), make_quotes([(0, 1.0, 2.0)]), rule="quote", midpoint="tick")
    with pytest.raises(tape.InputError, match="quotes"):
        tape.sign(make_trades([(1, 1.0)]))


# ---- any tape -----------------------------------------------------------------------------------------------------

tick = st.integers(1, 60)


@st.composite
def tapes(draw):
    trades = draw(st.lists(st.tuples(st.integers(0, 20), tick), min_size=1, max_size=25))
    quotes = draw(st.lists(st.tuples(st.integers(0, 20), tick, st.integers(-2, 8)), min_size=1, max_size=25))
    return sorted(trades, key=lambda t: t[0]), sorted(quotes, key=lambda q: q[0])


def frames(trades, quotes, scale=1, shift=0, later=0, shares=1, mirror=None):
    """Ticks of 1e-4 around 50; a mirror C sends price to C − price, bid to C − ask and ask to C − bid."""
    place = (lambda x: 500_000 + scale * x + shift) if mirror is None else (lambda x: mirror - 500_000 - x)
    bids, asks = [q[1] for q in quotes], [q[1] + q[2] for q in quotes]
    if mirror is not None:
        bids, asks = asks, bids
    shared = {"symbol": "A", "date": DATE}
    left = pl.DataFrame(
        {
            **shared,
            "time": [TEN + t[0] + later for t in trades],
            "price": [place(t[1]) / 1e4 for t in trades],
            "size": [100 * shares + 0 * t[0] for t in trades],
            "sequence": list(range(len(trades))),
        }
    )
    right = pl.DataFrame(
        {
            **shared,
            "time": [TEN + q[0] + later for q in quotes],
            "bid": [place(b) / 1e4 for b in bids],
            "ask": [place(a) / 1e4 for a in asks],
            "sequence": list(range(len(quotes))),
        }
    )
    return left, right


RULES = ["lee-ready", "quote", "tick", "emo", "clnv"]


def rational_sign(rule, price, bid, ask, by_tick):
    """One trade by one rule in exact fractions; 0 where the rule cannot say."""
    position = (price - bid) / (ask - bid)  # 0 at the bid, 1 at the ask
    by_quote = (position > Fraction(1, 2)) - (position < Fraction(1, 2))
    match rule:
        case "quote":
            return by_quote
        case "lee-ready":
            return by_quote or by_tick
        case "emo":
            return {Fraction(0): -1, Fraction(1): 1}.get(position, by_tick)
        case "clnv":
            near = 0 <= position <= Fraction(3, 10) or Fraction(7, 10) <= position <= 1
            return by_quote if near else by_tick


def rational_signs(left, right, rule, policy, lag):
    """Signs from the decimals of the frames, one trade at a time; None where there is no sign."""
    trades = [(t, Fraction(str(p))) for t, p in left.select("time", "price").rows()]
    quotes = [(t, Fraction(str(b)), Fraction(str(a))) for t, b, a in right.select("time", "bid", "ask").rows()]
    out = []
    for i, (time, price) in enumerate(trades):
        change = next((price - p for _, p in reversed(trades[:i]) if p != price), 0)
        by_tick = (change > 0) - (change < 0)
        before = [q for q in quotes if q[0] < time - lag]
        if rule == "tick":
            out.append(by_tick or None)
        elif not before or before[-1][1] >= before[-1][2]:
            out.append(None)
        else:
            _, bid, ask = before[-1]
            if policy != "tick" and 2 * price == bid + ask:
                out.append({"keep": 0, "exclude": None}[policy])
            else:
                out.append(rational_sign(rule, price, bid, ask, by_tick) or None)
    return out


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=80, deadline=None)
@given(tapes(), st.sampled_from(["tick", "keep", "exclude"]), st.integers(0, 3), st.integers(-499_990, 10**9))
def test_signs_equal_rational_arithmetic(rule, book, policy, lag, shift):
    """On every trade, by every rule and policy at the midpoint, for prices of a tick and of a hundred thousand."""
    policy = "keep" if (rule, policy) == ("quote", "tick") else policy
    left, right = frames(*book, shift=shift)
    signed = tape.sign(left, right, rule=rule, midpoint=policy, lag=lag)
    expected = rational_signs(left, right, rule, policy, lag)
    assert signs(signed) == [s for s in expected if s is not None]
    assert signed.trades["time"].to_list() == [t for t, s in zip(left["time"], expected, strict=True) if s is not None]
    assert signed.ledger.balanced and signed.ledger.used["trades"] == signed.trades.height


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30, deadline=None)
@given(tapes())
def test_mirrored_book_flips_every_sign(rule, book):
    policy = "keep" if rule == "quote" else None
    plain = tape.sign(*frames(*book), rule=rule, midpoint=policy)
    mirrored = tape.sign(*frames(*book, mirror=1_000_100), rule=rule, midpoint=policy)
    assert signs(mirrored) == [-s for s in signs(plain)]
    assert mirrored.trades["time"].equals(plain.trades["time"])


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=20, deadline=None)
@given(tapes(), st.integers(1, 1000), st.integers(1, 10**9), st.integers(2, 9))
def test_shifts_and_scales_leave_signs(rule, book, shift, later, shares):
    plain = signs(tape.sign(*frames(*book), rule=rule))
    for change in ({"shift": shift}, {"later": later}, {"shares": shares}, {"scale": 3}):
        assert signs(tape.sign(*frames(*book, **change), rule=rule)) == plain, change


@pytest.mark.parametrize("rule", ["lee-ready", "emo", "clnv"])
@settings(max_examples=20, deadline=None)
@given(tapes(), st.integers(0, 24))
def test_quotes_that_say_nothing_new_change_nothing(rule, book, which):
    trades, quotes = book
    plain = tape.sign(*frames(trades, quotes), rule=rule).trades
    i = which % len(quotes)
    repeated = quotes[: i + 1] + quotes[i:]
    assert tape.sign(*frames(trades, repeated), rule=rule).trades.equals(plain)
    needed = [q for q in quotes if q[0] < trades[-1][0]]
    assert tape.sign(*frames(trades, needed or quotes), rule=rule).trades.equals(plain)
    left, right = frames(trades, quotes)
    doubled = tape.sign(left, pl.concat([right, right[i]]), rule=rule, unsorted="sort")
    assert doubled.trades.equals(plain) and doubled.ledger.rows("quotes", "duplicate") == 1
