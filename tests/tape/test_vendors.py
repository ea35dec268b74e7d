"""Files as vendors write them: raw NYSE Daily TAQ, LOBSTER and Databento, made by hand, with prices kept exact."""

import datetime
import gzip

import polars as pl
import pytest

from jaxexec import tape

DAY = datetime.date(2024, 7, 1)
OPEN = 34_200 * 10**9
NEW_YORK = "America/New_York"

# ---- raw NYSE Daily TAQ ---------------------------------------------------------------------------------------------

TAQ_TRADES = """\
Time|Exchange|Symbol|Sale Condition|Trade Volume|Trade Price|Trade Stop Stock Indicator|Trade Correction Indicator|\
Sequence Number|Trade Id|Source of Trade|Trade Reporting Facility|Participant Timestamp
093000000000001|N|BRK B|@   |100|410.02| |00|7|1|C||093000000000000
093000123456789|P|BRK B|@F I|5|410.0001| |00|9|2|C||093000123450000
093001000000000|Q|XYZ| 4  |10|20| |00|3|1|N||093001000000000
END|20240701|3||||||||||
"""
TAQ_QUOTES = """\
Time|Exchange|Symbol|Bid_Price|Bid_Size|Offer_Price|Offer_Size|Quote_Condition|Sequence_Number|National_BBO_Ind
092959999999999|N|BRK B|410|2|410.02|3|R|1|A
"""
TAQ_NBBO = """\
Time|Exchange|Symbol|Bid_Price|Bid_Size|Offer_Price|Offer_Size|Quote_Condition|Sequence_Number|National_BBO_Ind|\
Best_Bid_Exchange|Best_Bid_Price|Best_Bid_Size|Best_Offer_Exchange|Best_Offer_Price|Best_Offer_Size
092959999999999|N|BRK B|409|2|411|3|R|1|A|P|410|5|Q|410.02|6
END|20240701|1
"""


def test_raw_taq_trades(tmp_path):
    path = tmp_path / "EQY_US_ALL_TRADE_20240701"
    path.write_text(TAQ_TRADES)
    read = tape.read(path)
    assert tape.detected_mapping(path).to_dict()["format"] == "taq-trades"
    assert read["symbol"].to_list() == ["BRK.B", "BRK.B", "XYZ"]
    assert read["time"].to_list() == [OPEN + 1, OPEN + 123_456_789, OPEN + 10**9]
    assert read["ticks"].to_list() == [4_100_200, 4_100_001, 200_000] and read["size"].to_list() == [100, 5, 10]
    assert read["sequence"].to_list() == [7, 9, 3] and read["correction"].to_list() == ["00"] * 3
    assert set(read["date"]) == {DAY} and read["fault"].null_count() == 3
    cleaned = tape.clean(read)
    assert cleaned.trades.height == 2 and cleaned.ledger.rows("trades", "sale_condition") == 1
    (tmp_path / "EQY_US_ALL_TRADE_20240701.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert tape.read(tmp_path / "EQY_US_ALL_TRADE_20240701.gz").equals(read)
    other = tape.read(path, date=datetime.date(2020, 1, 2))
    assert set(other["date"]) == {datetime.date(2020, 1, 2)}, "the argument wins over the name"


def test_raw_taq_without_a_date_says_what_to_do(tmp_path):
    path = tmp_path / "trades.txt"
    path.write_text(TAQ_TRADES)
    with pytest.raises(tape.InputError, match="date="):
        tape.read(path)
    assert tape.read(path, date=DAY).height == 3
    guessed = pl.read_csv(path, separator="|", comment_prefix="END")
    with pytest.raises(tape.InputError, match="read this column as text"):
        tape.read(guessed, date=DAY)


def test_raw_taq_quotes_and_nbbo(tmp_path):
    for name, text, form, sizes in (
        ("SPLITS_US_ALL_BBO_B_20240701", TAQ_QUOTES, "taq-quotes", [200, 300]),
        ("EQY_US_ALL_NBBO_20240701", TAQ_NBBO, "taq-nbbo", [500, 600]),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(text)
        read = tape.read(tmp_path / name, "quotes", round_lot=100)
        assert tape.detected_mapping(tmp_path / name, "quotes").format == form
        assert read.select("bid_ticks", "ask_ticks").row(0) == (4_100_000, 4_100_200), form
        assert [read["bid_size"][0], read["ask_size"][0]] == sizes and read["date"].to_list() == [DAY]
    (tmp_path / "t_20240701.csv").write_text(TAQ_TRADES)
    signed = tape.sign(tmp_path / "t_20240701.csv", tmp_path / "EQY_US_ALL_NBBO_20240701")
    assert signed.trades["sign"].to_list() == [1, -1] and signed.ledger.balanced


def test_a_short_line_that_is_no_trailer_is_still_an_error(tmp_path):
    path = tmp_path / "EQY_US_ALL_TRADE_20240701"
    path.write_text(TAQ_TRADES.replace("END|20240701|3||||||||||", "093002000000000|N|XYZ"))
    with pytest.raises(tape.InputError, match="Expected 13 columns, got 3"):
        tape.read(path)


# ---- LOBSTER --------------------------------------------------------------------------------------------------------

STEM = "AAPL_2012-06-21_34200000_57600000_{}_1.csv"
MESSAGES = """\
34200.017459617,1,16113575,18,5853300,1
34200.18960767,4,16113575,18,5853300,1
34200.19,5,0,7,5853750,-1
34201,7,0,0,-1,-1
34201.000000001,4,206,100,5853800,-1
"""
BOOK = """\
5859400,200,5853300,18
5859400,200,5853000,150
5853800,200,5853000,150
5853800,200,5853000,150
9999999999,0,5853000,150
"""


@pytest.fixture
def lobster(tmp_path):
    for name, text in (("message", MESSAGES), ("orderbook", BOOK)):
        (tmp_path / STEM.format(name)).write_text(text)
    return tmp_path


def test_lobster_executions_have_the_other_side_of_the_resting_order(lobster):
    read = tape.read(lobster / STEM.format("message"))
    assert read["fault"].to_list() == ["not_a_trade", None, None, "not_a_trade", None]
    assert set(read["symbol"]) == {"AAPL"} and set(read["date"]) == {datetime.date(2012, 6, 21)}
    assert read["time"].to_list() == [
        OPEN + 17_459_617, OPEN + 189_607_670, OPEN + 190_000_000, OPEN + 10**9, OPEN + 10**9 + 1
    ]  # fmt: skip
    assert read["ticks"].to_list() == [5_853_300, 5_853_300, 5_853_750, -1, 5_853_800]
    assert read["side"].to_list()[1:3] == [-1, 1], "a resting buy order that is executed was sold to"
    signed = tape.sign(lobster, rule="given")
    assert signed.trades["sign"].to_list() == [-1, 1, 1]
    assert signed.ledger.rows("trades", "not_a_trade") == 2 and signed.ledger.balanced
    assert signed.mapping["trades"] == {
        "format": "lobster-messages", "symbol": "symbol (file name)", "date": "date (file name)", "time": "Time",
        "price": "Price", "size": "Size", "side": "Direction", "action": "Type",
    }  # fmt: skip


def test_lobster_books_take_their_times_from_the_messages(lobster):
    for source in (lobster, lobster / STEM.format("orderbook"), lobster / STEM.format("message")):
        read = tape.read(source, "quotes")
        assert read["ask_ticks"].to_list() == [5_859_400, 5_859_400, 5_853_800, 5_853_800, 9_999_999_999]
        assert read["bid_size"].to_list() == [18, 150, 150, 150, 150] and read["time"][1] == OPEN + 189_607_670
    cleaned = tape.clean(tape.read(lobster), read)
    assert cleaned.ledger.rows("quotes", "ask_size_not_positive") == 1, "LOBSTER's mark of an empty side"
    signed = tape.sign(lobster, lobster, rule="quote", midpoint="keep")
    assert signed.trades.select("bid_ticks", "sign").rows() == [(5_853_300, -1), (5_853_000, -1), (5_853_000, 1)]


def test_lobster_files_that_do_not_belong_together_are_refused(lobster):
    (lobster / STEM.format("orderbook")).write_text(BOOK.rsplit("\n", 2)[0] + "\n")
    with pytest.raises(tape.InputError, match="row by row"):
        tape.read(lobster, "quotes")
    (lobster / STEM.format("message")).write_text(MESSAGES.replace("5853750", "585375.5"))
    with pytest.raises(tape.InputError, match="no integer") as error:
        tape.read(lobster)
    assert (error.value.field, error.value.index) == ("price", 2)
    (lobster / STEM.format("message")).write_text("34200,1,2\n")
    with pytest.raises(tape.InputError, match="3 columns, not 6"):
        tape.read(lobster)
    (lobster / STEM.format("message")).unlink()
    with pytest.raises(tape.InputError, match="cannot be opened") as error:
        tape.read(lobster, "quotes")
    assert error.value.path == str(lobster / STEM.format("message"))


def test_a_mapping_overrules_the_name(tmp_path):
    path = tmp_path / STEM.format("message")
    path.write_text("symbol,date,time,price,size\nA,2024-07-01,09:31:00,1.5,7\n")
    assert tape.read(path, columns={"price": "price"})["ticks"].to_list() == [15_000]


# ---- Databento ------------------------------------------------------------------------------------------------------

START = int(datetime.datetime(2024, 7, 1, 13, 30, tzinfo=datetime.UTC).timestamp()) * 10**9
HEADER = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,sequence"
TOP = "bid_px_00,ask_px_00,bid_sz_00,ask_sz_00,bid_ct_00,ask_ct_00"
MBP = [  # time, action, side, price, size, bid, ask, in 1e-9
    (1, "A", "B", 10_000_000_000, 5, 10_000_000_000, 10_020_000_000),
    (2, "T", "B", 10_020_000_000, 5, 10_000_000_000, 10_020_000_000),
    (2, "T", "B", 10_020_000_000, 5, 10_000_000_000, 10_020_000_000),
    (2, "C", "A", 10_020_000_000, 5, 10_000_000_000, 10_030_000_000),
    (3, "T", "A", 10_000_000_000, 9, 10_000_000_000, 10_030_000_000),
    (4, "T", "N", 10_015_000_000, 1, 10_000_000_000, 10_030_000_000),
    (5, "R", "N", 2**63 - 1, 0, 2**63 - 1, 2**63 - 1),
]


def databento(rows, decimals=False, iso=False, top=True):
    def price(units):
        text = "" if units == 2**63 - 1 else f"{units // 10**9}.{units % 10**9:09d}"
        return text if decimals else str(units)

    def when(k):
        return f"2024-07-01T13:30:00.{k:09d}Z" if iso else str(START + k)

    lines = [f"{HEADER},{TOP},symbol" if top else f"{HEADER},symbol"]
    for k, action, side, at, size, bid, ask in rows:
        book = f",{price(bid)},{price(ask)},3,4,1,1" if top else ""
        lines.append(f"{when(k + 7)},{when(k)},1,2,15,{action},{side},0,{price(at)},{size},0,0,77{book},X")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("decimals", [False, True])
@pytest.mark.parametrize("iso", [False, True])
def test_databento_mbp_1_holds_trades_and_quotes(tmp_path, decimals, iso):
    path = tmp_path / "mbp-1.csv"
    path.write_text(databento(MBP, decimals, iso))
    read = tape.read(path, timezone=NEW_YORK)
    assert read["fault"].to_list() == ["not_a_trade", None, None, "not_a_trade", None, None, "not_a_trade"]
    trades = read.filter(pl.col("fault").is_null())
    assert trades["time"].to_list() == [OPEN + 2, OPEN + 2, OPEN + 3, OPEN + 4]
    assert trades["ticks"].to_list() == [100_200, 100_200, 100_000, 100_150]
    assert trades["side"].to_list() == [1, 1, -1, None]
    read.write_csv(tmp_path / "canonical.csv")
    assert tape.read(tmp_path / "canonical.csv").equals(read), "sides, quotes and faults are read again"
    quotes = tape.read(path, "quotes", timezone=NEW_YORK)
    assert quotes["ask_ticks"].to_list() == [100_200] * 3 + [100_300] * 3 + [None]
    assert quotes["fault"][6] == "missing_bid" and quotes["bid_size"].to_list() == [3] * 7
    assert tape.sign(path, rule="given", timezone=NEW_YORK).trades["sign"].to_list() == [1, 1, -1], (
        "equal fills both stay"
    )
    by_book = tape.sign(path, path, midpoint="keep", timezone=NEW_YORK)
    assert (
        by_book.trades["sign"].to_list() == tape.sign(path, midpoint="keep", timezone=NEW_YORK).trades["sign"].to_list()
    )
    assert by_book.trades["sign"].to_list() == [1, 1, -1, 0] and by_book.ledger.balanced


def test_databento_trades_and_tbbo(tmp_path):
    only = [row for row in MBP if row[1] == "T"]
    (tmp_path / "tbbo.csv").write_text(databento(only))
    (tmp_path / "trades.csv").write_text(databento(only, top=False))
    assert tape.sign(tmp_path / "tbbo.csv", midpoint="keep", timezone=NEW_YORK).trades["sign"].to_list() == [
        1,
        1,
        -1,
        0,
    ]
    assert tape.read(tmp_path / "trades.csv", timezone=NEW_YORK)["ticks"].to_list() == [
        100_200,
        100_200,
        100_000,
        100_150,
    ]
    with pytest.raises(tape.InputError, match="mbp-1"):
        tape.read(tmp_path / "tbbo.csv", "quotes", timezone=NEW_YORK)
    with pytest.raises(tape.InputError, match="needs quotes"):
        tape.sign(tmp_path / "trades.csv", timezone=NEW_YORK)
    received = pl.read_csv(tmp_path / "trades.csv").drop("ts_event")
    assert tape.read(received, timezone=NEW_YORK)["time"][0] == OPEN + 9


def test_databento_prices_that_lose_digits_are_refused(tmp_path):
    """10.020000001, and the same digit beyond what a double holds."""
    for price in (10_020_000_001, 9_000_000_020_000_001):
        (tmp_path / "t.csv").write_text(databento([(2, "T", "B", price, 5, 1, 2)], top=False))
        with pytest.raises(tape.InputError, match="lose digits") as error:
            tape.read(tmp_path / "t.csv", timezone=NEW_YORK)
        assert (error.value.field, error.value.index) == ("price", 0)
        dropped = tape.read(tmp_path / "t.csv", off_tick="drop", timezone=NEW_YORK)
        assert dropped["fault"].to_list() == ["price_off_tick"] and dropped["ticks"].to_list() == [None]


# ---- the NBBO of TAQ in two files -----------------------------------------------------------------------------------

NBBO_DAY = {"date": DAY, "sym_root": "A", "sym_suffix": None}


def wrds_nbbo() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """nbbom, cqm and what complete_nbbo would hold of them, by hand; sequence numbers are common to both files."""
    # (seconds after the open, sequence number, bid, ask), where several venues make the best quotes
    several = [(0, 1, 10.00, 10.04), (3, 9, 10.01, 10.03), (3, 12, 10.00, 10.05)]
    # … and where one venue quotes: with the source and indicator that say whether this is the NBBO by itself
    alone = [
        (1, 3, 10.01, 10.02, "C", "1"),  # CQS: yes
        (2, 5, 9.90, 10.90, "C", "4"),  # CQS: no, its appendage is in the NBBO file
        (3, 10, 10.02, 10.03, "N", "4"),  # UQDF: yes; between two of the NBBO file at the same time
        (4, 15, 9.80, 10.80, "N", "1"),  # UQDF: no
        (5, 16, 9.70, 10.70, "C", None),
    ]

    def stamped(rows, **columns):
        time = [datetime.time(9, 30, second) for second, *_ in rows]
        return pl.DataFrame({**{k: [v] * len(rows) for k, v in NBBO_DAY.items()}, "time_m": time, **columns})

    def column(rows, k):
        return [row[k] for row in rows]

    nbbom = stamped(
        several, qu_seqnum=column(several, 1), ex=["N"] * 3, bid=[1.0] * 3, bidsiz=[1] * 3, ask=[99.0] * 3,
        asksiz=[1] * 3, best_bid=column(several, 2), best_bidsiz=[2] * 3, best_ask=column(several, 3),
        best_asksiz=[3] * 3,
    )  # fmt: skip
    cqm = stamped(
        alone, qu_seqnum=column(alone, 1), ex=["N", "P", "Q", "K", "Z"], bid=column(alone, 2), bidsiz=[1] * 5,
        ask=column(alone, 3), asksiz=[1] * 5, qu_source=column(alone, 4), natbbo_ind=column(alone, 5),
    )  # fmt: skip
    both = sorted(several + [row[:4] for row in (alone[0], alone[2])])
    complete = stamped(both, qu_seqnum=column(both, 1), best_bid=column(both, 2), best_ask=column(both, 3))
    return nbbom, cqm, complete


def nbbo_trades() -> pl.DataFrame:
    """A trade after each quote; by the NBBO file alone, or by the quote file alone, some would have another sign."""
    when = [datetime.time(9, 30, k, 500_000) for k in range(6)]
    price = [10.03, 10.01, 10.016, 10.024, 10.03, 10.02]
    return pl.DataFrame({**{k: [v] * 6 for k, v in NBBO_DAY.items()}, "time_m": when, "price": price, "size": 100})


@pytest.mark.parametrize("numbers", [False, True])
def test_nbbo_in_two_files_is_the_complete_one(tmp_path, numbers):
    """Holden and Jacobsen (2014): the NBBO file lacks the moments when one venue makes both sides."""
    nbbom, cqm, complete = wrds_nbbo()
    trades = nbbo_trades()
    if numbers:  # as floats, which gaps make of them
        cqm = cqm.with_columns(pl.col("natbbo_ind").cast(pl.Float64))
    nbbom, cqm = (frame.rename(str.upper) for frame in (nbbom, cqm))
    assert tape.detected_mapping(nbbom, "quotes").format == "wrds-nbbom"
    expected = tape.sign(trades, complete, midpoint="keep")
    signed = tape.sign(trades, cqm, nbbo=nbbom, midpoint="keep")
    assert signed.trades.equals(expected.trades)
    assert signed.ledger.rows("quotes", "not_the_nbbo") == 3 and signed.ledger.balanced
    assert signed.ledger.read["quotes"] == 8 and "quotes" not in signed.ledger.notes, "no remark on several venues"
    assert signed.mapping["nbbo"]["bid"] == "BEST_BID"
    for one in (tape.sign(trades, nbbom, midpoint="keep"), tape.sign(trades, cqm, midpoint="keep", quote_exchange="N")):
        assert not one.trades["sign"].equals(expected.trades["sign"])
    read = tape.complete_nbbo(nbbom, cqm, round_lot=100)
    assert read["bid_size"].to_list()[:4] == [200, 200, 200, 100] and set(read["exchange"]) == {""}
    for name, frame in (("t", trades), ("q", cqm), ("n", nbbom)):
        frame.write_parquet(tmp_path / f"{name}.parquet")
    files = [tmp_path / f"{name}.parquet" for name in "tq"]
    (part,) = tape.stream(*files, nbbo=tmp_path / "n.parquet", midpoint="keep")
    assert part.trades.equals(expected.trades)


def test_raw_nbbo_in_two_files(tmp_path):
    quotes = TAQ_QUOTES.replace("National_BBO_Ind", "National_BBO_Ind|Source_Of_Quote").replace("|A\n", "|1|C\n")
    (tmp_path / "SPLITS_US_ALL_BBO_B_20240701").write_text(quotes.replace("410.02", "410.01"))
    (tmp_path / "EQY_US_ALL_NBBO_20240701").write_text(TAQ_NBBO)
    both = tape.complete_nbbo(tmp_path / "EQY_US_ALL_NBBO_20240701", tmp_path / "SPLITS_US_ALL_BBO_B_20240701")
    assert both["ask_ticks"].to_list() == [4_100_200, 4_100_100] and both["fault"].null_count() == 2


def test_pairs_that_are_none_are_refused():
    nbbom, cqm, complete = wrds_nbbo()
    trades = nbbo_trades()
    for arguments, options, field in (
        ((trades, cqm.drop("natbbo_ind")), {"nbbo": nbbom}, "natbbo_ind"),
        ((trades, cqm), {"nbbo": cqm}, "nbbo"),
        ((trades, complete), {"nbbo": nbbom}, "nbbo_indicator"),
        ((trades,), {"nbbo": nbbom}, "nbbo"),
        ((trades, cqm), {"nbbo": nbbom, "quote_exchange": "N"}, "quote_exchange"),
        ((trades, cqm.drop("qu_source")), {"quote_columns": {"nbbo_indicator": "natbbo_ind"}}, "feed"),
    ):
        with pytest.raises(tape.InputError) as error:
            tape.sign(*arguments, **options)
        assert error.value.field == field
