"""A tape in buckets: the same trades, signs, ledger and estimates as the whole, whatever the buckets."""

import datetime
import functools

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import jaxexec as jx
from jaxexec.tape import InputError, sign, stream, synthetic
from jaxexec.tape.buckets import Bucket, Extent, Span, cut
from jaxexec.tape.streaming import BYTES_A_ROW

ROW = 3 * BYTES_A_ROW


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve stocks of two days, sorted by symbol, in small row groups; trades and quotes are cut differently."""
    days = [synthetic.generate(12, 120, seed=day, date=datetime.date(2024, 1, 2 + day), tail=0.8) for day in range(2)]
    folder = tmp_path_factory.mktemp("tape")
    paths = {}
    for name, rows in (("trades", 170), ("quotes", 410)):
        frame = pl.concat([getattr(day, name) for day in days]).sort("sym_root", "date", maintain_order=True)
        paths[name] = folder / f"{name}.parquet"
        pq.write_table(frame.to_arrow(), paths[name], row_group_size=rows)
    return paths["trades"], paths["quotes"]


@pytest.fixture(scope="module")
def whole(made):
    return sign(*made, midpoint="keep")


@pytest.mark.parametrize("rows", [1, 2_000, 10**9])
def test_buckets_hold_what_the_whole_holds(made, whole, rows):
    parts = stream(*made, midpoint="keep", memory=rows * ROW)
    assert {1: len(parts) > 8, 2_000: 2 < len(parts) < 9, 10**9: len(parts) == 1}[rows]
    tapes = list(parts)
    assert pl.concat([tape.trades for tape in tapes]).equals(whole.trades)
    ledger = functools.reduce(lambda a, b: a.merge(b), (tape.ledger for tape in tapes))
    assert ledger.read == whole.ledger.read
    assert ledger.used == whole.ledger.used
    assert {d[:3]: d.rows for d in ledger.dropped} == {d[:3]: d.rows for d in whole.ledger.dropped}
    assert tapes[0].hours == whole.hours


def test_estimates_do_not_depend_on_the_buckets(made, whole):
    every = jx.impact.glosten_harris(whole)
    parts = jx.impact.glosten_harris(stream(*made, midpoint="keep", memory=600 * ROW))
    assert parts.symbols == every.symbols
    for name in ("coefficients", "std_errors", "r2"):
        found, expected = getattr(parts.estimates, name), getattr(every.estimates, name)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_symbol_in_two_tapes_is_refused(whole):
    with pytest.raises(ValueError, match="S00000"):
        jx.impact.glosten_harris([whole, whole])
    with pytest.raises(ValueError, match="no tape"):
        jx.impact.glosten_harris([])


def test_cuts_are_few_and_cover_everything():
    spans = [Span(i, 10, f"S{i}", f"S{i + 1}") for i in range(6)]
    buckets = cut([Extent("symbol", ((None, tuple(spans)),))], 30)
    assert [b.after for b in buckets] == [None, *(b.last for b in buckets[:-1])]
    assert buckets[-1].last is None
    assert all(b.rows <= 30 for b in buckets)
    assert len(buckets) <= 4
    assert cut([Extent("symbol", ((None, (Span(0, 10, None, None),)),))], 1) == [Bucket(None, None, 10)]
    assert cut([], 1) == [Bucket(None, None, 0)]


def test_rows_of_a_bucket_are_counted_as_they_are_read():
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 50, (40, 2)), 1)
    spans = [Span(i, int(rng.integers(1, 9)), f"{a:02}", f"{b:02}") for i, (a, b) in enumerate(ends)]
    for rows in (1, 20, 60, 1_000):
        for bucket in cut([Extent("symbol", ((None, tuple(spans)),))], rows):
            assert bucket.rows == sum(s.rows for s in spans if bucket.reaches(s.low, s.high))


def test_rows_without_a_symbol_are_counted_once(made, tmp_path):
    frame = pl.read_parquet(made[0]).with_row_index("i")
    spoilt = frame.with_columns(sym_root=pl.when(pl.col("i") % 50 == 7).then(None).otherwise("sym_root")).drop("i")
    path = tmp_path / "trades.parquet"
    pq.write_table(spoilt.to_arrow(), path, row_group_size=170)
    whole = sign(path, made[1])
    parts = list(stream(path, made[1], memory=600 * ROW))
    missing = sum(tape.ledger.rows("trades", "missing_symbol") for tape in parts)
    assert missing == whole.ledger.rows("trades", "missing_symbol") > 0
    assert sum(tape.trades.height for tape in parts) == whole.trades.height


def test_symbols_without_quotes_are_a_bucket_all_the_same(made, tmp_path):
    quotes = pl.read_parquet(made[1]).filter(pl.col("sym_root") < "S00004")
    path = tmp_path / "quotes.parquet"
    pq.write_table(quotes.to_arrow(), path, row_group_size=300)
    parts = list(stream(made[0], path, memory=300 * ROW))
    assert {s for tape in parts for s in tape.symbols} == {"S00000", "S00001", "S00002", "S00003"}
    unquoted = sum(tape.ledger.rows("trades", "no_prevailing_quote") for tape in parts)
    assert unquoted == sign(made[0], path).ledger.rows("trades", "no_prevailing_quote")


def test_the_tick_rule_needs_no_quotes(made):
    parts = stream(made[0], rule="tick", memory=300 * ROW)
    assert pl.concat([tape.trades for tape in parts]).equals(sign(made[0], rule="tick").trades)


def test_refusals(made, tmp_path):
    csv = tmp_path / "trades.csv"
    pl.read_parquet(made[0]).head(5).write_csv(csv)
    with pytest.raises(InputError, match="Parquet"):
        stream(csv, made[1])
    with pytest.raises(InputError, match="auto"):
        stream(*made, session="auto")
    with pytest.raises(InputError, match="memory"):
        stream(*made, memory=0)
    with pytest.raises(InputError, match="needs quotes"):
        next(iter(stream(made[0])))
    with pytest.raises(InputError, match="path"):
        stream(pl.read_parquet(made[0]), made[1])
    with pytest.raises(InputError, match="rule"):
        next(iter(stream(*made, rule="guess")))


def test_an_error_says_which_symbols_its_row_is_counted_in(made, tmp_path):
    frame = pl.read_parquet(made[0])
    last = pl.int_range(frame.height) == frame.height - 1
    path = tmp_path / "trades.parquet"
    spoilt = frame.with_columns(price=pl.when(last).then(pl.col("price") + 1e-6).otherwise("price"))
    pq.write_table(spoilt.to_arrow(), path, row_group_size=170)
    parts = iter(stream(path, made[1], memory=600 * ROW))
    next(parts)
    with pytest.raises(InputError, match="multiple of 1e-4") as caught:
        list(parts)
    assert "'the last'" in caught.value.__notes__[0]
