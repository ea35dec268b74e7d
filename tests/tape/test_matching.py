"""The join: strictly before, last among ties, never across symbols or days, against a search by eye."""

import datetime

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
