"""The join: strictly before, last among ties, never across symbols or days, against a search by eye."""

import datetime
from fractions import Fraction

import numpy as np
import polars as pl
import pytest

from jaxexec import tape
from jaxexec.tape import matching

DAY = datetime.date(2024, 1, 2)


def random_tape(rng, trades=400, quotes=300):
    def keys(n):
        return {
            "symbol": rng.choice(["A", "B", "C", ""], n).tolist(),
            "date": [DAY + datetime.timedelta(int(k)) for k in rng.integers(0, 3, n)],
            "time": rng.integers(0, 50, n),
        }

    left = pl.DataFrame(keys(trades))
    columns = {"sequence": np.arange(quotes), "bid_ticks": np.arange(quotes), "ask_ticks": np.arange(quotes) + 1}
    return left, pl.DataFrame(keys(quotes)).with_columns(**{k: pl.Series(v) for k, v in columns.items()})


@pytest.mark.parametrize("block", [matching._GROUPS_A_BLOCK, 2])
@pytest.mark.parametrize("lag", [0, 7])
def test_match_equals_a_search_by_eye(lag, block, monkeypatch):
    monkeypatch.setattr(matching, "_GROUPS_A_BLOCK", block)
    trades, quotes = random_tape(np.random.default_rng(3))
    matched = tape.match(trades, quotes, lag)
    rows = quotes.rows(named=True)
    for trade, found in zip(trades.rows(named=True), matched["bid_ticks"], strict=True):
        mine = [
            (q["time"], q["sequence"], q["bid_ticks"])
            for q in rows
            if (q["symbol"], q["date"]) == (trade["symbol"], trade["date"]) and q["time"] < trade["time"] - lag
        ]
        assert found == (max(mine)[2] if mine else None)
    assert 0 < matched["bid_ticks"].null_count() < trades.height
    assert matched.select(trades.columns).equals(trades)


def test_match_with_nothing_to_match():
    trades, quotes = random_tape(np.random.default_rng(0))
    assert tape.match(trades, quotes.head(0))["ask_ticks"].null_count() == trades.height
    assert tape.match(trades.head(0), quotes).height == 0


def test_bad_lag():
    trades, quotes = random_tape(np.random.default_rng(0))
    for lag in ("5", "-1s", "1 fortnight", -3):
        with pytest.raises(tape.InputError, match="lag"):
            tape.match(trades, quotes, lag)


# ---- times of low resolution ----------------------------------------------------------------------------------------

SECOND = 10**9


def in_seconds(seconds, symbol="A", **columns):
    time = pl.Series([s * SECOND for s in seconds], dtype=pl.Int64)
    frame = pl.DataFrame({"symbol": symbol, "date": DAY, "time": time, "sequence": np.arange(len(seconds))})
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def quotes_at(seconds, **columns):
    return in_seconds(seconds, bid_ticks=np.arange(len(seconds)), ask_ticks=np.arange(len(seconds)), **columns)


@pytest.mark.parametrize(
    ("trades", "quotes", "expected"),
    [
        # one trade at 1/2; quotes at 1/4 and 3/4: the first prevails
        ([10], [10, 10], [0]),
        # trade and quote both at 1/2: not strictly before, so that the quote of the second before prevails
        ([10], [9, 10], [0]),
        ([10], [10], [None]),
        # trades at 1/6, 3/6, 5/6; quotes at 1/4 and 3/4
        ([10, 10, 10], [10, 10], [None, 0, 1]),
        ([10, 10, 10], [8, 10, 10], [0, 1, 2]),
        # trades at 1/4, 3/4; quotes at 1/6, 3/6, 5/6
        ([10, 10], [10, 10, 10], [0, 1]),
        # 3/10 of five trades against 3/10 of five quotes: equal, the one before
        ([10] * 5, [10] * 5, [None, 0, 1, 2, 3]),
        ([9, 10, 12], [9, 9, 10, 10, 11], [0, 2, 4]),
    ],
)
def test_times_are_spread_within_the_second(trades, quotes, expected):
    matched = tape.match(in_seconds(trades), quotes_at(quotes), interpolate="1s")
    assert matched["bid_ticks"].to_list() == expected
    assert matched["time"].to_list() == [s * SECOND for s in trades], "times come out as they went in"


@pytest.mark.parametrize("lag", [0, 2])
def test_interpolated_match_equals_fractions(lag):
    trades, quotes = random_tape(np.random.default_rng(5), 300, 400)
    trades = trades.with_columns(sequence=pl.Series(np.random.default_rng(6).permutation(300)))

    def spread(frame):
        """(symbol, date) -> (time as a fraction, place of the row), by hand."""
        rows: dict = {}
        for place, row in enumerate(frame.rows(named=True)):
            rows.setdefault((row["symbol"], row["date"], row["time"]), []).append((row["sequence"], place))
        out: dict = {}
        for (symbol, date, time), members in rows.items():
            for i, (_, place) in enumerate(sorted(members), start=1):
                when = time + Fraction(2 * i - 1, 2 * len(members))
                out.setdefault((symbol, date), []).append((when, place))
        return out

    book, found = spread(quotes), tape.match(trades, quotes, lag, interpolate=1)["bid_ticks"].to_list()
    for key, members in spread(trades).items():
        for when, place in members:
            before = [q for q in book.get(key, []) if q[0] < when - lag]
            assert found[place] == (max(before)[1] if before else None)


def test_interpolation_refuses_times_finer_than_its_unit():
    fine = in_seconds([1, 2]).with_columns(time=pl.Series([SECOND, SECOND + 1]))
    with pytest.raises(tape.InputError, match="trades have times finer") as error:
        tape.match(fine, quotes_at([0]), interpolate="1s")
    assert error.value.index == 1
    with pytest.raises(tape.InputError, match="quotes have times finer"):
        tape.match(in_seconds([1]), quotes_at([0, 0]).with_columns(pl.col("time") + 5), interpolate="1ms")
    with pytest.raises(tape.InputError, match="lag"):
        tape.match(in_seconds([1]), quotes_at([0]), "1ms", interpolate="1s")
    with pytest.raises(tape.InputError, match="positive"):
        tape.match(in_seconds([1]), quotes_at([0]), interpolate="0s")


def test_sign_hands_the_unit_over(make_trades, make_quotes):
    """Two trades and two quotes of one second: the second trade comes after the first quote."""
    trades, quotes = (
        make_trades([(5, 10.02), (5, 10.02)]),
        make_quotes([(4, 10.00, 10.02), (5, 10.02, 10.04), (5, 9, 9.5)]),
    )
    assert tape.sign(trades, quotes).trades["sign"].to_list() == [1, 1]
    assert tape.sign(trades, quotes, interpolate="1s").trades["bid_ticks"].to_list() == [100_000, 100_200]
