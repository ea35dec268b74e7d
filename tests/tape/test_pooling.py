"""Days signed apart and put together are the days signed at once; tables in memory; some symbols of a tape."""

import dataclasses
import datetime

import polars as pl
import pytest

from jaxexec import tape

DAYS = [datetime.date(2024, 7, d) for d in (1, 2)]


@pytest.fixture(scope="module")
def made():
    return [tape.synthetic.generate(stocks=3 - i, trades=60, seed=i, date=day) for i, day in enumerate(DAYS)]


@pytest.fixture(scope="module")
def days(made):
    return [tape.sign(m.trades, m.quotes, midpoint="keep") for m in made]


def test_pooled_days_are_the_days_signed_together(made, days):
    whole = tape.sign(
        pl.concat([m.trades for m in made]), pl.concat([m.quotes for m in made]), midpoint="keep", unsorted="sort"
    )
    pooled = tape.pool(reversed(days))
    assert pooled.trades.equals(whole.trades)
    assert pooled.cleaned["size"].sum() == whole.cleaned["size"].sum()
    assert pooled.ledger.balanced and pooled.ledger.read == whole.ledger.read
    assert pooled.hours == whole.hours and pooled.settings["rule"] == "lee-ready"
    assert pooled.segments().dates == whole.segments().dates


def test_settings_that_differ_are_not_claimed(made, days):
    other = tape.sign(made[1].trades, rule="tick")
    pooled = tape.pool([days[0], other])
    assert "rule" not in pooled.settings and pooled.hours == days[0].hours


def test_a_day_counts_once(days):
    with pytest.raises(tape.InputError, match="'S00000' has trades of 2024-07-02 in two tapes"):
        tape.pool([*days, days[1]])
    with pytest.raises(tape.InputError, match="empty"):
        tape.pool([])
    unsigned = dataclasses.replace(days[1], trades=days[1].trades.head(0))
    with pytest.raises(tape.InputError, match="'S00000' has trades of 2024-07-02 in two tapes"):
        tape.pool([unsigned, unsigned])
    with pytest.raises(tape.InputError, match=r"tapes\[1\]: a DataFrame is no signed tape"):
        tape.pool([days[0], days[1].trades])


def test_tapes_from_tables_in_memory(days):
    """Of pandas and Arrow as of polars."""
    frame = days[0].trades.select("symbol", "date", "time", "ticks", "size", "sign")
    here = tape.SignedTape.from_frames(frame).trades
    assert tape.SignedTape.from_frames(frame.to_arrow()).trades.equals(here)
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({name: frame[name].to_list() for name in frame.columns})
    assert tape.SignedTape.from_frames(table).trades.equals(here)
    with pytest.raises(tape.InputError, match="sign"):
        tape.SignedTape.from_frames(frame.drop("sign"))
    named = tape.SignedTape.from_frames(frame.with_columns(symbol=pl.lit("\x1b[31mX")))
    assert repr(named) == f"SignedTape({frame.height} trades of 1 symbols)"


def test_nothing_is_cut_off_to_make_whole_numbers(days):
    """Sizes in lots, prices where ticks belong: a cast alone would have made 1 of 1.5."""
    frame = days[0].trades.select("symbol", "date", "time", "ticks", "size", "sign")
    whole = frame.with_columns(pl.col("size").cast(pl.Float64), pl.col("symbol").cast(pl.Categorical))
    assert tape.SignedTape.from_frames(whole).trades.equals(frame)
    for name, value, words in (
        ("size", 1.5, "size, row 2 .*: 1.5 is no whole number"),
        ("ticks", float("nan"), "ticks, row 2 .*: nan is no whole number"),
    ):
        wrong = frame.with_columns(pl.when(pl.int_range(pl.len()) == 2).then(value).otherwise(pl.col(name)).alias(name))
        with pytest.raises(tape.InputError, match=words):
            tape.SignedTape.from_frames(wrong)
    with pytest.raises(tape.InputError, match="size: must be whole numbers, is String"):
        tape.SignedTape.from_frames(frame.with_columns(pl.col("size").cast(pl.String)))


def test_some_symbols(days):
    one = days[0].only("S00001")
    assert one.symbols == ["S00001"] and set(one.cleaned["symbol"]) == {"S00001"}
    assert one.trades.equals(days[0].trades.filter(pl.col("symbol") == "S00001"))
    with pytest.raises(tape.InputError, match="'Z' is not on the tape"):
        days[0].only("Z")
