"""Reading: vendors' columns, times and sizes; damaged, irregular and hostile files lead to typed errors."""

import datetime
import gzip
import os
import pathlib
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxexec import tape

DAY = datetime.date(2024, 7, 1)
HALF_PAST_NINE = 34_200 * 10**9


def wrds_trades(n=5, **changes):
    frame = pl.DataFrame(
        {
            "date": [DAY] * n,
            "time_m": [datetime.time(9, 30, k % 60, 250) for k in range(n)],
            "ex": ["N"] * n,
            "sym_root": ["BRK"] * n,
            "sym_suffix": ["B"] * n,
            "tr_scond": ["@"] * n,
            "size": [100] * n,
            "price": [10.0 + 0.01 * k for k in range(n)],
            "tr_corr": ["00"] * n,
            "tr_seqnum": list(range(n)),
        }
    )
    return frame.with_columns(**{name: pl.Series(values) for name, values in changes.items()})


def test_wrds_columns_of_either_case_and_table():
    frame = wrds_trades()
    read = tape.read(frame)
    assert read["symbol"].to_list() == ["BRK.B"] * 5
    assert read["time"][1] == HALF_PAST_NINE + 10**9 + 250_000
    assert read["ticks"].to_list() == [100_000, 100_100, 100_200, 100_300, 100_400]
    upper = frame.rename(str.upper)
    for same in (upper, frame.to_arrow(), frame.lazy(), frame.to_pandas(), read):
        assert tape.read(same).equals(read)
    assert tape.detected_mapping(upper).to_dict()["symbol"] == "SYM_ROOT"
    assert tape.detected_mapping(upper).format == "wrds-ctm"


def test_every_format_of_files_reads_the_same(tmp_path):
    frame = wrds_trades()
    expected = tape.read(frame)
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "bars.txt", separator="|")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    for name in ("t.parquet", "t.csv", "bars.txt", "t.csv.gz"):
        assert tape.read(tmp_path / name).equals(expected), name
    expected.write_csv(tmp_path / "canonical.csv")
    assert tape.read(tmp_path / "canonical.csv").equals(expected)


def test_highfrequency_and_nbbo_columns():
    stamps = [datetime.datetime(2024, 7, 1, 9, 30, k) for k in range(2)]
    quotes = pl.DataFrame({"DT": stamps, "SYMBOL": "X", "BID": 1.0, "OFR": 1.1, "BIDSIZ": 1, "OFRSIZ": 2, "EX": "N"})
    read = tape.read(quotes, "quotes", round_lot=100)
    assert read["ask_ticks"].to_list() == [11_000] * 2 and read["ask_size"].to_list() == [200] * 2
    assert read["date"][0] == DAY and read["time"].to_list() == [HALF_PAST_NINE, HALF_PAST_NINE + 10**9]
    assert tape.read(read, "quotes", round_lot=100)["ask_size"].to_list() == [200] * 2, "lots are counted once"
    nbbo = {"date": [DAY], "time_m": [datetime.time(9, 30)], "sym_root": ["X"], "best_bid": [1.0], "best_ask": [1.1]}
    assert tape.detected_mapping(pl.DataFrame(nbbo), "quotes").format == "wrds-complete-nbbo"
    assert tape.read(pl.DataFrame(nbbo), "quotes")["fault"].null_count() == 1, "absent sizes are no fault"


def test_other_columns_by_mapping():
    columns = {"symbol": "ticker", "time": "ts_event", "price": "px", "size": "qty"}
    epoch = int(datetime.datetime(2024, 7, 1, 13, 30, tzinfo=datetime.UTC).timestamp()) * 10**9
    frame = pl.DataFrame({"ticker": ["A"], "ts_event": [epoch], "px": [1.5], "qty": [7]})
    read = tape.read(frame, columns=columns, timezone="America/New_York")
    assert (read["date"][0], read["time"][0], read["ticks"][0]) == (DAY, HALF_PAST_NINE, 15_000)
    with pytest.raises(tape.InputError, match="timezone"):
        tape.read(frame, columns=columns)
    with pytest.raises(tape.InputError, match="qty2"):
        tape.read(frame, columns={**columns, "size": "qty2"})
    with pytest.raises(tape.InputError, match="volume"):
        tape.read(frame, columns={**columns, "volume": "qty"})


@pytest.mark.parametrize(
    "text", ["09:30:00.000000001", "9:30:00.000000001", "093000000000001"]
)  # the last is the form of raw daily TAQ
def test_text_times(text):
    frame = pl.DataFrame({"symbol": ["A"], "date": ["20240701"], "time": [text], "price": ["1.5"], "size": ["7"]})
    read = tape.read(frame)
    assert (read["date"][0], read["time"][0], read["size"][0]) == (DAY, HALF_PAST_NINE + 1, 7)


@pytest.mark.parametrize("text", ["34200.5", "93000", "09:61:00", "noon", "25"])
def test_times_that_could_mean_anything_are_refused(text):
    times = ["09:30:00", text]
    frame = pl.DataFrame({"symbol": "A", "date": "2024-07-01", "time": times, "price": 1.0, "size": 1})
    with pytest.raises(tape.InputError) as error:
        tape.read(frame)
    assert (error.value.field, error.value.index) == ("time", 1)


def test_both_days_of_a_clock_change():
    """2024-03-10 begins in winter time and ends in summer time; the session is in summer time already."""
    stamps = [datetime.datetime(2024, 3, 8, 14, 30), datetime.datetime(2024, 3, 11, 13, 30)]
    frame = pl.DataFrame({"symbol": "A", "time": stamps, "price": 1.0, "size": 1})
    read = tape.read(frame, timezone="America/New_York", naive_timezone="UTC")
    assert read["time"].to_list() == [HALF_PAST_NINE] * 2
    aware = frame.with_columns(pl.col("time").dt.replace_time_zone("UTC"))
    assert tape.read(aware, timezone="America/New_York").equals(read)
    skipped = frame.with_columns(time=datetime.datetime(2024, 3, 10, 2, 30))
    with pytest.raises(tape.InputError, match="timezone"):
        tape.read(skipped, timezone="UTC", naive_timezone="America/New_York")


def test_float_dust_in_times_is_kept():
    dusty = pl.Series([36_081_479_000_092]).cast(pl.Time)
    assert tape.read(wrds_trades(1, time_m=dusty))["time"][0] == 36_081_479_000_092


# ---- errors that name their place -----------------------------------------------------------------------------------


def test_missing_column_names_file_column_header_and_remedy(tmp_path):
    path = tmp_path / "t.parquet"
    wrds_trades().drop("price").write_parquet(path)
    with pytest.raises(tape.InputError) as error:
        tape.read(path)
    message = str(error.value)
    assert error.value.field == "price" and error.value.path == str(path)
    for part in (str(path), "price", "sym_root", "columns={'price'"):
        assert part in message


def test_unknown_format(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("alpha,beta\n1,2\n")
    with pytest.raises(tape.InputError, match="columns found: alpha, beta"):
        tape.read(path)
    with pytest.raises(tape.InputError, match="twice"):
        tape.read(pl.DataFrame({"price": [1.0], "PRICE": [1.0]}))
    with pytest.raises(tape.InputError, match="no path"):
        tape.read([1, 2, 3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(tape.InputError, match="kind"):
        tape.read(wrds_trades(), "orders")  # pyright: ignore[reportArgumentType]


def test_unsorted_times_name_the_first_bad_row():
    frame = wrds_trades()[[0, 1, 3, 2, 4]]
    with pytest.raises(tape.InputError) as error:
        tape.read(frame)
    assert (error.value.field, error.value.index) == ("time", 3)
    assert tape.read(frame, unsorted="sort").equals(tape.read(wrds_trades()))


def test_interleaved_symbols_are_sorted_each_for_itself():
    one, two = wrds_trades(), wrds_trades(sym_root=["A"] * 5)
    interleaved = pl.concat([one, two])[[0, 5, 1, 6, 2, 3, 7, 4, 8, 9]]
    assert tape.read(interleaved).height == 10
    with pytest.raises(tape.InputError) as error:
        tape.read(interleaved[[0, 1, 4, 3, 2]])
    assert error.value.index == 4


def test_prices_between_ticks_name_row_and_price():
    frame = wrds_trades(price=[10.0, 10.01, 10.00005, 10.0, 10.0])
    with pytest.raises(tape.InputError, match=r"10\.00005") as error:
        tape.read(frame)
    assert (error.value.field, error.value.index) == ("price", 2)
    assert tape.read(frame, off_tick="drop")["fault"].to_list() == [None, None, "price_off_tick", None, None]
    with pytest.raises(tape.InputError, match="price"):
        tape.read(wrds_trades().cast({"price": pl.Float32}))


def test_every_decimal_of_four_places_is_exact():
    ticks = np.arange(1, 200_000, 7)
    frame = pl.DataFrame(
        {"symbol": "A", "date": DAY, "time": 0, "price": [float(f"{t / 1e4:.4f}") for t in ticks], "size": 1}
    )
    assert (tape.read(frame)["ticks"].to_numpy() == ticks).all()


def test_text_that_is_no_number_names_its_row(tmp_path):
    path = tmp_path / "t.csv"
    wrds_trades().with_columns(pl.col("price").cast(pl.String)).with_columns(
        price=pl.Series(["1.0", "", "NaN", "1.2.3", "1"])
    ).write_csv(path)
    with pytest.raises(tape.InputError) as error:
        tape.read(path)
    assert (error.value.field, error.value.index) == ("price", 3)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_damaged_parquet_leads_to_a_typed_error(tmp_path):
    good = tmp_path / "good.parquet"
    wrds_trades(500, time_m=[datetime.time(9, 30)] * 500).write_parquet(good)
    whole = good.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    damaged = {
        "empty": b"",
        "magic only": b"PAR1PAR1",
        "truncated": whole[: len(whole) // 2],
        "no head": whole[100:],
        "text": b"date,time_m\n1,2\n" * 10,
        "huge footer": whole[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1",
        "zeroed footer": whole[: -8 - footer] + b"\0" * footer + whole[-8:],
    }
    path = tmp_path / "bad.parquet"
    for name, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(tape.InputError) as error:
            tape.read(path)
        assert error.value.path == str(path), name


def test_flipped_bytes_leave_the_process_alive(tmp_path):
    """In a process of its own: every flip ends in rows or in a typed error, never in a crash or another error."""
    wrds_trades(200, time_m=[datetime.time(9, 30)] * 200).write_parquet(tmp_path / "good.parquet")
    script = """
import pathlib, random, sys
from jaxexec import tape
folder = pathlib.Path(sys.argv[1])
whole, chance = (folder / "good.parquet").read_bytes(), random.Random(5)
outcomes = set()
for _ in range(60):
    content = bytearray(whole)
    content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    (folder / "bad.parquet").write_bytes(content)
    try:
        tape.read(folder / "bad.parquet", off_tick="drop", unsorted="sort", max_bytes=10**7)
        outcomes.add("read")
    except tape.InputError:
        outcomes.add("refused")
print(sorted(outcomes))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout


def test_files_that_unpack_to_too_much_are_refused(tmp_path):
    wrds_trades(1000, time_m=[datetime.time(9, 30)] * 1000).write_parquet(tmp_path / "t.parquet")
    wrds_trades(1000, time_m=[datetime.time(9, 30)] * 1000).write_csv(tmp_path / "t.csv")
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(tape.InputError, match="max_bytes"):
            tape.read(tmp_path / name, max_bytes=1000)


def test_irregular_sources_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "blank.csv").write_text("\n\n")
    sources = ["pipe.parquet", "loop.csv", "nothing", "absent.parquet", "blank.csv"]
    for source in [*(tmp_path / name for name in sources), "/dev/zero", "nul\0.csv"]:
        with pytest.raises(tape.InputError) as error:
            tape.read(source)
        assert error.value.path == str(source)


def test_folder_reads_each_file_once_in_order(tmp_path):
    later = datetime.date(2024, 7, 2)
    wrds_trades(date=[later] * 5).drop("tr_seqnum").write_parquet(tmp_path / "b.parquet")
    wrds_trades().drop("tr_seqnum").write_parquet(tmp_path / "a.parquet")
    (tmp_path / "c.parquet").hardlink_to(tmp_path / "a.parquet")
    (tmp_path / "_SUCCESS.csv").write_text("")
    (tmp_path / "notes.md").write_text("x")
    read = tape.read(tmp_path)
    assert read["date"].to_list() == [DAY] * 5 + [later] * 5
    assert read["sequence"].to_list() == list(range(10))


def test_folder_with_a_drifting_schema_names_file_and_column(tmp_path):
    wrds_trades().write_parquet(tmp_path / "a.parquet")
    for changed in (
        wrds_trades().cast({"size": pl.Float64}),
        wrds_trades().with_columns(size_extra=1),
        wrds_trades().rename({"size": "SIZE"}),
    ):
        changed.write_parquet(tmp_path / "b.parquet")
        with pytest.raises(tape.InputError, match="size") as error:
            tape.read(tmp_path)
        assert error.value.path == str(tmp_path / "b.parquet")


def test_page_checksums_are_verified(tmp_path):
    table = pa.table(wrds_trades(2000, time_m=[datetime.time(9, 30)] * 2000).to_arrow())
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    where = content.find(np.float64(10.05).tobytes())
    assert where > 0
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(tape.InputError, match="cannot be read"):
        tape.read(path)


# ---- hostile symbols ------------------------------------------------------------------------------------------------

HOSTILE = [
    "", " ", "NaN", "null", "../x", "=cmd()", "a\0b", "‮gpj", "🤖", "<script>", "\x1b[31m", "aapl", "AAPL", "x" * 10_000,
]  # fmt: skip


def test_symbols_are_kept_verbatim(tmp_path):
    trades = pl.concat(
        [
            pl.DataFrame(
                {"symbol": s, "date": DAY, "time": [36_000 * 10**9 + k for k in (1, 2)], "price": [1.0, 1.1], "size": 1}
            )
            for s in HOSTILE
        ]
    )
    signed = tape.sign(trades, rule="tick")
    assert signed.symbols == sorted(HOSTILE, key=lambda s: s.encode())
    assert signed.segments().symbols == signed.symbols and signed.ledger.balanced
    assert "\x1b" not in signed.summary() and "\0" not in signed.summary()
    trades.write_parquet(tmp_path / "t.parquet")
    assert tape.read(tmp_path / "t.parquet")["symbol"].to_list() == trades["symbol"].to_list()


def test_errors_escape_control_characters():
    error = tape.InputError("a\x1b[31m", "new\nline", path="p\x07")
    assert str(error).isprintable() and error.field == "a\x1b[31m"


def test_importing_the_room_loads_neither_polars_nor_jax():
    script = "import sys, jaxexec.tape; print({'polars', 'pyarrow', 'pandas', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_malformed_line_is_named(tmp_path):
    path = tmp_path / "trades.csv"
    path.write_text("symbol,date,time,price,size\nA,2024-01-02,09:31:00,10.0,1\nA,2024-01-02,09:32:00,10.0\n")
    with pytest.raises(tape.InputError, match=r"Row #3: Expected 5 columns, got 4"):
        tape.read(path, "trades")


def test_no_public_name_is_hidden_by_a_module_of_its_name():
    """Importing a submodule binds its name in the package: a function of that name would then be gone."""
    files = {path.stem for path in pathlib.Path(tape.__file__).parent.glob("*.py")}
    assert files & set(tape.__all__) == {"synthetic"}
