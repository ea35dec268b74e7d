"""Faults 32 to 51: what is wrong with data, files and regressions, each by its number.

Dropped rows are counted under a reason of their own and the ledger balances; what cannot be used is an `InputError`; a
stock that cannot be estimated has a status. Tested elsewhere, all of it or the rest: 32 in `test_cleaning.py`; 33, 34,
36 and 37 in `test_signing.py`; 38 and 47 to 51 in `test_reading.py`; 40, 41, 42 and 45 in
`tests/impact/test_estimates.py` and `test_measures_contract.py`; 43 in `tests/impact/test_regression.py`; 46 in
`tests/impact/test_panel.py`; manifests, of 49, in `tests/storage`.
"""

import datetime
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxexec as jx
from jaxexec import tape
from jaxexec.impact.passes import fit_order_flow
from jaxexec.numerics.status import Status
from tests.tape.conftest import DATE, TEN

DAY_ONE = datetime.date(2024, 7, 1)


def reasons(signed, table="trades"):
    return {d.reason: d.rows for d in signed.ledger.dropped if d.table == table}


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_32_missing_fields_have_reasons_of_their_own(make_trades, make_quotes):
    prices = [10.0, None, float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 10.0, 10.0]
    sizes = [100.0, 100, 100, 100, 100, 100, 100, 0, -5]
    trades = make_trades([(k + 1, p, s) for k, (p, s) in enumerate(zip(prices, sizes, strict=True))])
    signed = tape.sign(trades, make_quotes([(0, 9.9, 10.0)]))
    expected = {"missing_price": 2, "price_not_finite": 2, "price_not_positive": 2, "size_not_positive": 2}
    assert reasons(signed) == expected
    assert signed.ledger.balanced and signed.trades.height == 1


def test_33_crossed_and_locked_quotes_prevail(make_trades, make_quotes):
    quotes = make_quotes([(0, 10.0, 10.02), (2, 10.03, 10.02), (4, 10.02, 10.02), (6, 10.0, 10.02)])
    signed = tape.sign(make_trades([(k, 10.02) for k in (1, 3, 5, 7)]), quotes)
    assert reasons(signed) == {"crossed_quote": 1, "locked_quote": 1}
    assert signed.trades["time"].to_list() == [TEN + 10**9, TEN + 7 * 10**9]


def test_34_trades_before_the_first_quote_are_no_rows_of_a_regression(make_trades, make_quotes):
    rows = [(k, 10.0 + 0.01 * (k * 7 % 5), 100 + k * 37 % 11) for k in range(60)]
    quotes = make_quotes([(9.5, 10.0, 10.03), (20.5, 10.0, 10.03)])
    signed = tape.sign(make_trades(rows), quotes, max_quote_age="10s")
    assert reasons(signed) == {"no_prevailing_quote": 10, "stale_quote": 30}
    assert jx.impact.glosten_harris(signed, order=1).estimates.n.tolist() == [20 - 1]


def test_35_sorting_gives_what_sorted_rows_give(make_trades, make_quotes):
    rng = np.random.default_rng(0)
    rows = [
        (int(t), 10 + 0.01 * int(p))
        for t, p in zip(np.sort(rng.integers(0, 40, 50)), rng.integers(0, 9, 50), strict=True)
    ]
    trades = make_trades(rows, sequence=list(range(50)), exchange=["N"] * 50)
    quotes = make_quotes([(k, 10.0, 10.05) for k in range(-1, 40)], sequence=list(range(41)))
    sorted_once = tape.sign(trades, quotes)
    shuffled = [frame.sample(fraction=1, shuffle=True, seed=7) for frame in (trades, quotes)]
    assert tape.sign(*shuffled, unsorted="sort").trades.equals(sorted_once.trades)
    with pytest.raises(tape.InputError) as error:
        tape.sign(*shuffled)
    back = int(np.flatnonzero(np.diff(shuffled[0]["time"].to_numpy()) < 0)[0]) + 1
    assert (error.value.field, error.value.index) == ("time", back)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(12)), st.permutations(range(9)))
def test_36_order_within_ties_is_that_of_sequence_numbers(trade_order, quote_order):
    """Twelve trades at three times, nine quotes at three: wherever the rows of a tie stand in the file."""
    trades = pl.DataFrame(
        {
            "symbol": "A",
            "date": DATE,
            "time": [TEN + k // 4 for k in range(12)],
            "price": [10.00, 10.03, 10.01, 10.02, 10.02, 10.02, 10.01, 10.0, 10.03, 10.01, 10.01, 10.02],
            "size": 100,
            "sequence": list(range(12)),
        }
    )
    bids = [10.0, 10.01, 9.99, 10.0, 10.02, 10.01, 10.0, 9.98, 10.0]
    quotes = pl.DataFrame(
        {"symbol": "A", "date": DATE, "time": [TEN - 1 + k // 3 for k in range(9)], "sequence": list(range(9))}
    ).with_columns(bid=pl.Series(bids), ask=pl.Series([b + 0.02 for b in bids]).round(2))
    expected = tape.sign(trades, quotes).trades
    mixed = tape.sign(trades[list(trade_order)], quotes[list(quote_order)], unsorted="sort").trades
    assert mixed.equals(expected)


def test_37_a_price_one_ulp_off_the_midpoint_is_at_it(make_trades, make_quotes):
    bid, ask = 10.01, 10.04
    middle = 10.025
    prices = [np.nextafter(middle, 0), middle, np.nextafter(middle, 99), middle + 1e-4, middle - 1e-4]
    signed = tape.sign(
        make_trades([(k + 1, p) for k, p in enumerate(prices)]), make_quotes([(0, bid, ask)]), midpoint="keep"
    )
    assert signed.trades["sign"].to_list() == [0, 0, 0, 1, -1]
    assert signed.trades["midpoint"].to_list() == [True, True, True, False, False]


def test_38_leap_seconds_half_days_and_days_of_a_clock_change(make_trades, make_quotes):
    leap = {"symbol": "A", "date": datetime.date(2016, 12, 31), "price": 10.0, "size": 1}
    read = tape.read(pl.DataFrame({**leap, "time": ["23:59:59.5", "23:59:60.5", "23:59:60.999999999"]}))
    assert read["fault"].null_count() == 3 and read["time"].to_list()[1] == 86_400 * 10**9 + 500_000_000
    with pytest.raises(tape.InputError, match="23:59:61"):
        tape.read(pl.DataFrame({**leap, "time": ["23:59:61"]}))
    assert reasons_of_clean(read) == {"outside_session": 3}

    # 14:30 universal is 09:30 in New York in winter and 10:30 in summer.
    stamps = [datetime.datetime(2024, 3, day, 14, 30, tzinfo=datetime.UTC) for day in (8, 11)]
    dated = pl.DataFrame({"symbol": "A", "time": stamps, "price": 10.0, "size": 1})
    with pytest.raises(tape.InputError, match="timezone"):
        tape.read(dated)
    local = tape.read(dated, timezone="America/New_York")
    assert [t // (3600 * 10**9) for t in local["time"]] == [9, 10]

    trades = make_trades([(10_799.9, 10.02), (10_800, 10.02)])  # one o'clock
    half = tape.sign(trades, make_quotes([(0, 10.0, 10.02)]), early_closes={DATE: "13:00"})
    assert reasons(half) == {"outside_session": 1}


def reasons_of_clean(read):
    return {d.reason: d.rows for d in tape.clean(read).ledger.dropped}


HOSTILE = ["", " ", "NaN", "../x", "=cmd()", "a\0b", "‮gpj", "<script>alert(1)</script>", "\x1b[31m", "aapl", "AAPL"]


def test_39_symbols_are_data_in_every_output():
    made = tape.synthetic.generate(len(HOSTILE), 60, seed=3)
    names = dict(zip(sorted(made.trades["sym_root"].unique()), HOSTILE, strict=True))
    trades, quotes = (f.with_columns(pl.col("sym_root").replace_strict(names)) for f in (made.trades, made.quotes))
    signed = tape.sign(trades, quotes, midpoint="keep", unsorted="sort")
    panel = jx.impact.glosten_harris(signed)
    assert set(panel.symbols) == set(HOSTILE) and panel.usable.all()
    assert set(panel.table()["symbol"]) == set(HOSTILE)
    four = signed.trades.filter(pl.col("symbol").is_in(HOSTILE[5:9]))
    few = jx.impact.glosten_harris(tape.SignedTape.from_frames(four))
    for text in (few.summary(), signed.summary(), panel.summary()):
        assert not set(text) & {"\x1b", "\0", "‮"}
    assert "<script" not in few._repr_html_() and "&lt;script" in few._repr_html_()


# ---- stocks ---------------------------------------------------------------------------------------------------------


def test_40_41_stocks_that_cannot_be_estimated_leave_the_batch_alone():
    """No trades, one, as few as parameters; all buys, one size: a status each, and the others to the bit."""
    made = tape.synthetic.generate(6, 120, seed=5)
    signed = tape.sign(made.trades, made.quotes, midpoint="keep").trades
    alone = jx.impact.glosten_harris(tape.SignedTape.from_frames(signed)).estimates
    row = pl.int_range(pl.len()).over("symbol")
    rows = {"S00001": 0, "S00002": 1, "S00003": 11}
    short = signed.filter(row < pl.col("symbol").replace_strict(rows, default=10**6))
    spoilt = short.with_columns(
        sign=pl.when(pl.col("symbol") == "S00004").then(1).otherwise("sign").cast(pl.Int8),
        size=pl.when(pl.col("symbol") == "S00004").then(100).otherwise("size"),
    )
    panel = jx.impact.glosten_harris(tape.SignedTape.from_frames(spoilt))
    found = dict(zip(panel.symbols, panel.estimates.status.tolist(), strict=True))
    few, flat = Status.INSUFFICIENT_DATA, Status.RANK_DEFICIENT
    assert found == {"S00000": 0, "S00002": few, "S00003": few, "S00004": flat, "S00005": 0}
    table = panel.table().filter(pl.col("status") != "OK")
    assert table["estimate"].is_nan().all() and table["std_error"].is_nan().all()
    assert panel.collinear("S00004") == ("permanent_fixed", "permanent_variable"), "order flow that never varies"
    assert panel.collinear("S00000") == panel.collinear("S00002") == ()
    with pytest.raises(KeyError, match="nobody"):
        panel.collinear("nobody")
    for place, stock in ((0, 0), (4, 5)):
        assert np.array_equal(panel.estimates.coefficients[place], alone.coefficients[stock])
        assert np.array_equal(panel.estimates.std_errors[place], alone.std_errors[stock])


@pytest.mark.parametrize("options", [{}, {"covariance": "hc3"}], ids=["sums", "batches"])
def test_41_collinear_terms_are_named_and_the_rest_can_be_estimated(options):
    """One size: the changes of D and DV are the same thing. Without the one that is named there is an estimate."""
    made = tape.synthetic.generate(3, 120, seed=6)
    signed = tape.sign(made.trades, made.quotes, midpoint="keep").trades
    one_size = pl.when(pl.col("symbol") == "S00001").then(100).otherwise("size")
    spoilt = tape.SignedTape.from_frames(signed.with_columns(size=one_size))
    panel = jx.impact.glosten_harris(spoilt, **options)
    assert panel.estimates.status.tolist() == [Status.OK, Status.RANK_DEFICIENT, Status.OK]
    named = panel.collinear("S00001")
    assert named == ("transitory_variable",)
    rest = tuple(term for term in jx.impact.COEFFICIENTS if term not in named)
    again = jx.impact.glosten_harris(spoilt, terms=rest, **options)
    assert again.estimates.status[1] == Status.OK and again.collinear("S00001") == ()


def test_41_collinear_regressors_are_named():
    """A constant one, and the last of three that add up; what the others make of the response is still unique."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 80, 3))
    x[1, :, 0] = 4.0
    x[2, :, 2] = x[2, :, 0] - 2 * x[2, :, 1]
    y = x.sum(2) + rng.standard_normal((3, 80))
    result = jx.impact.regress(y, x)
    assert result.status.tolist() == [Status.OK, Status.RANK_DEFICIENT, Status.RANK_DEFICIENT]
    expected = [[False] * 4, [False, True, False, False], [False, False, False, True]]
    assert result.dependent.tolist() == expected
    kept = jx.impact.regress(y[2], x[2, :, :2])
    fitted = kept.coefficients[0] + x[2, :, :2] @ np.asarray(kept.coefficients[1:])
    design = np.column_stack([np.ones(80), x[2]])
    np.testing.assert_allclose(fitted, design @ np.linalg.lstsq(design, y[2])[0], rtol=1e-9)


@pytest.mark.parametrize("lags", [-1, 2.5, True, "many"])
def test_42_lags_that_are_no_number_of_lags(lags):
    made = tape.synthetic.generate(1, 60, seed=1)
    signed = tape.sign(made.trades, made.quotes, midpoint="keep")
    with pytest.raises(ValueError, match="lags"):
        jx.impact.glosten_harris(signed, lags=lags)


def test_42_more_lags_than_rows_is_a_status():
    """A panel has stocks of every length: those too short for the lags are refused, nothing is cut in silence."""
    made = tape.synthetic.generate(2, 60, seed=1)
    long = tape.synthetic.generate(1, 400, seed=2)
    signed = [tape.sign(m.trades, m.quotes, midpoint="keep").trades for m in (made, long)]
    frames = pl.concat([signed[0], signed[1].with_columns(symbol=pl.lit("T"))])
    estimates = jx.impact.glosten_harris(tape.SignedTape.from_frames(frames), lags=80).estimates
    assert estimates.status.tolist() == [Status.INSUFFICIENT_DATA] * 2 + [Status.OK]
    assert estimates.lags[2] == 80


def test_44_counts_beyond_32_bits():
    """Synthetic counters: five billion rows of one stock, more shares than 2⁵³ in one tape, ledgers beyond both."""
    rows = 5 * 10**9
    moments = np.diag([float(rows), 4.0 * rows, 9.0 * rows])
    fit = fit_order_flow(jnp.asarray(moments[..., None]), jnp.zeros(1), jnp.zeros(1))
    assert fit.rows.tolist() == [rows] and not fit.failed[0]
    np.testing.assert_allclose(fit.residual_std, 3, rtol=1e-9)

    made = tape.synthetic.generate(1, 200, seed=8)
    signed = tape.sign(made.trades, made.quotes, midpoint="keep").trades
    factor = 2**44
    huge = signed.with_columns(pl.col("size") * factor)
    assert sum(huge["size"].to_list()) > 2**53
    one, two = (jx.impact.glosten_harris(tape.SignedTape.from_frames(f)).estimates for f in (signed, huge))
    np.testing.assert_allclose(two.coefficients, one.coefficients / [1, factor, 1, factor], rtol=1e-9)
    volume = jx.tape.SignedTape.from_frames(huge).segments().size
    assert volume.dtype == np.int64 and volume.sum() == sum(huge["size"].to_list())

    ledger = tape.Ledger({"trades": 2**40}, {"trades": 2**40 - 3}).drop("clean", "trades", {"fault": 3}, 2**40 - 3)
    both = ledger.merge(ledger)
    assert both.balanced and both.read["trades"] == 2**41
    assert tape.Ledger.from_dict(both.to_dict()).rows("trades", "fault") == 6


def test_45_an_outlier_of_a_trillion_overflows_nothing(make_trades):
    """In one stock of a tape: a number or a status, and not a bit of the others."""
    made = tape.synthetic.generate(3, 200, seed=9)
    signed = tape.sign(made.trades, made.quotes, midpoint="keep").trades
    here = (pl.int_range(pl.len()) == 77).over("symbol") & (pl.col("symbol") == "S00001")
    far = signed.with_columns(size=pl.when(here).then(10**14).otherwise("size"))
    one, two = (jx.impact.glosten_harris(tape.SignedTape.from_frames(f)).estimates for f in (signed, far))
    usable = two.status[1] <= Status.LOCAL
    assert np.isfinite(two.std_errors[1]).all() == usable
    for stock in (0, 2):
        assert np.array_equal(one.std_errors[stock], two.std_errors[stock])


# ---- files ----------------------------------------------------------------------------------------------------------


def trades_frame(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"symbol": "A", "date": DAY_ONE, "time": range(TEN, TEN + rows), "price": 10.0, "size": 100})


def test_47_a_drifting_folder_is_refused_before_anything_is_computed(tmp_path):
    """Of columns that are not even read: the file and the column are named, whichever way it is taken."""
    trades_frame(5).with_columns(extra=1).write_parquet(tmp_path / "a.parquet")
    trades_frame(5).with_columns(extra=1.5).write_parquet(tmp_path / "b.parquet")
    for attempt in (lambda: tape.read(tmp_path), lambda: list(tape.stream(tmp_path, rule="tick"))):
        with pytest.raises(tape.InputError, match="extra") as error:
            attempt()
        assert error.value.path == str(tmp_path / "b.parquet")


DAMAGE = """
import json, pathlib, random, resource, sys
from jaxexec import tape
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
folder, chance = pathlib.Path(sys.argv[1]), random.Random(11)
whole = (folder / "good.parquet").read_bytes()
bad, counts = folder / "bad.parquet", {"read": 0, "refused": 0}
for trial in range(150):
    content = bytearray(whole)
    match trial % 5:
        case 0:  # bits
            for _ in range(chance.randrange(1, 6)):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        case 1:  # bytes of the footer, where the readers trust what they are told
            at = len(content) - 9 - chance.randrange(int.from_bytes(content[-8:-4], "little"))
            content[at] = chance.randrange(256)
        case 2:  # the end is missing, with and without a footer put back
            cut = chance.randrange(len(content))
            content = content[:cut] + (content[-400:] if chance.random() < 0.5 else b"")
        case 3:  # a stretch of zeros
            at = chance.randrange(len(content))
            content[at : at + 40] = bytes(len(content[at : at + 40]))
        case 4:  # the length of the footer
            content[-8:-4] = chance.choice([0, 1, 2**31 - 1, 2**32 - 1, len(content)]).to_bytes(4, "little")
    bad.write_bytes(content)
    try:
        tape.clean(tape.read(bad, off_tick="drop", unsorted="sort", max_bytes=10**7), session=None)
        counts["read"] += 1
    except tape.InputError as error:
        assert error.path == str(bad), error
        counts["refused"] += 1
print(json.dumps(counts))
"""


def test_48_damaged_parquet_never_ends_the_process(tmp_path):
    """In a process of its own, in limited memory: rows or a typed error that names the file, 150 times."""
    pq.write_table(trades_frame(400).to_arrow(), tmp_path / "good.parquet", row_group_size=150)
    done = child(DAMAGE, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["refused"] > 90 and sum(counts.values()) == 150


def child(script, *arguments):
    # Without caches or threads of JAX, which is not needed here.
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_49_a_flip_that_decodes_is_seen_by_the_manifest(tmp_path):
    """Of what `clean` writes; of other people's files, page checksums are verified where there are any."""
    from jaxexec.cli.tapes import read_signed
    from jaxexec.storage import FileError, Manifest

    path = tmp_path / "signed-2024-07-01.parquet"
    frame = trades_frame(500).with_columns(ticks=100_000, sign=pl.lit(1, pl.Int8))
    pq.write_table(frame.to_arrow(), path, compression="none", use_dictionary=False, write_statistics=False)
    Manifest.of(tmp_path, [path.name], command=["x"], settings={}, inputs=[], device="", precision="").write(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.find(np.float64(10.0).tobytes())
    content[at + 6] ^= 8
    path.write_bytes(content)
    assert pl.read_parquet(path)["price"][0] != 10.0, "it decodes"
    with pytest.raises(FileError, match="changed"):
        read_signed(tmp_path)


BOMB = """
import resource, sys
from jaxexec import tape
resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))
for path in sys.argv[1:]:
    try:
        tape.read(path, max_bytes=10**8)
        print("read")
    except tape.InputError as error:
        assert error.path == path and "max_bytes" in str(error), error
        print("refused")
"""


def test_50_a_file_that_unpacks_to_too_much_is_refused_in_little_memory(tmp_path):
    """Repeated entries: a megabyte on the disk and by the footer's own count, gigabytes of one long symbol."""
    rows = 1 << 22
    numbers = {"time": np.full(rows, TEN), "price": np.full(rows, 10.0), "size": np.ones(rows, np.int64)}
    for name, symbol in (("rows", "A"), ("text", "x" * 3_000)):
        repeated = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([symbol]))
        pq.write_table(pa.table({"symbol": repeated, **numbers}), tmp_path / f"{name}.parquet", store_schema=False)
    paths = [tmp_path / f"{name}.parquet" for name in ("rows", "text")]
    assert all(path.stat().st_size < 1 << 21 for path in paths)
    done = child(BOMB, *paths)
    assert done.stdout.split() == ["refused"] * 2, done.stderr[-2000:]


def test_51_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """Appended to, replaced by one of the same size, or taken away."""
    path = tmp_path / "t.parquet"
    trades_frame(50).write_parquet(path)
    content = path.read_bytes()

    def appended():
        path.write_bytes(content + b"PAR1")

    def replaced():
        (tmp_path / "other").write_bytes(content)
        (tmp_path / "other").replace(path)

    from jaxexec.tape import files

    whole = files._read_parquet
    for change in (appended, replaced, path.unlink):
        path.write_bytes(content)

        def changed(*arguments, change=change):
            out = whole(*arguments)
            change()
            return out

        monkeypatch.setattr(files, "_read_parquet", changed)
        with pytest.raises(tape.InputError, match=r"changed while|cannot be opened") as error:
            tape.read(path)
        assert error.value.path == str(path)


def test_51_one_file_under_several_names_is_read_once(tmp_path):
    folder = tmp_path / "day"
    folder.mkdir()
    trades_frame(5).write_parquet(folder / "a.parquet")
    (folder / "b.parquet").hardlink_to(folder / "a.parquet")
    (folder / "c.parquet").symlink_to(folder / "a.parquet")
    assert tape.read(folder).height == 5
    (folder / "d.parquet").symlink_to(folder / "d.parquet")
    with pytest.raises(tape.InputError, match="cannot be opened"):
        tape.read(folder)
    (folder / "d.parquet").unlink()
    os.mkfifo(folder / "e.parquet")
    with pytest.raises(tape.InputError, match="regular"):
        tape.read(folder)
