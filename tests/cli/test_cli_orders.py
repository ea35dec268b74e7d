"""Orders as desks write them: names, sides, times, and a fault for every bad cell."""

import math

import polars as pl
import pytest

from jaxexec import storage
from jaxexec.cli.orders import read_orders
from jaxexec.cli.session import Session
from jaxexec.storage import FileError

SESSION = Session.parse("09:30-16:00", "America/New_York")


def orders(tmp_path, text):
    path = tmp_path / "orders.csv"
    path.write_text(text)
    return read_orders(path, SESSION)


@pytest.mark.parametrize(
    "header",
    [
        "order_id,symbol,side,quantity,start,end",
        "ClOrdID,Symbol,Side,OrderQty,EffectiveTime,ExpireTime",
        "Order ID,Ticker,SIDE,Amount,Start Time,End Time",
    ],
)
def test_usual_names_are_known(header, tmp_path):
    read = orders(tmp_path, f"{header}\nA1,IBM,SELL,100,09:30,16:00\n")
    order = read.rows[0].order
    assert (read.rows[0].order_id, read.rows[0].symbol) == ("A1", "IBM")
    assert (order.shares, order.start, order.end) == (100, 0, 1)
    assert math.isnan(order.adv) and list(read.mapping) == ["order_id", "symbol", "side", "quantity", "start", "end"]


@pytest.mark.parametrize(
    ("side", "sign"), [("SELL", 1), ("2", 1), ("Short", 1), ("5", 1), ("buy", -1), ("1", -1), ("B", -1)]
)
def test_sides(side, sign, tmp_path):
    read = orders(tmp_path, f"id,symbol,side,qty,start,end\n1,A,{side},7,0,1\n")
    assert read.rows[0].order.shares == 7 * sign


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0.25", 0.25),
        ("09:30", 0.0),
        ("12:45:00", 0.5),
        ("2024-03-11T12:45:00", 0.5),
        ("2024-03-11 16:00", 1.0),
        ("2024-03-11T16:45:00+00:00", 0.5),  # daylight saving began the day before
        ("2024-03-08T17:45:00Z", 0.5),
        ("20240311-16:45:00", 0.5),
    ],
)
def test_times(text, days):
    assert SESSION.fraction(text) == pytest.approx(days, abs=1e-12)


@pytest.mark.parametrize(
    "text", ["", "noon", "25:00", "09:29", "16:01", "-0.1", "1.1", "nan", "inf", "1e999", "20240311-xx:45:00"]
)
def test_what_is_no_time_of_the_session(text):
    with pytest.raises(ValueError, match=r"not a time|outside the session"):
        SESSION.fraction(text)


def test_a_time_zone_needs_the_exchanges():
    with pytest.raises(ValueError, match="--timezone"):
        Session().fraction("2024-03-11T16:45:00Z")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("1,A,HOLD,7,0,1,", "side 'HOLD'"),
        ("1,A,SELL,0,0,1,", "quantity: '0' is not positive"),
        ("1,A,SELL,-7,0,1,", "quantity: '-7'"),
        ("1,A,SELL,nan,0,1,", "quantity: 'nan'"),
        ("1,A,SELL,1e999,0,1,", "quantity: '1e999'"),
        ("1,A,SELL,1_000,0,1,", "quantity: '1_000' is not a number"),
        ("1,A,SELL,,0,1,", "quantity: '' is not a number"),
        ("1,A,SELL,7,0.5,0.5,", "end is not after start"),
        ("1,A,SELL,7,x,1,", "start: 'x' is not a time"),
        ("1,A,SELL,7,0,1,-1", "sigma: '-1'"),
        (",A,SELL,7,0,1,", "order_id is empty"),
    ],
)
def test_a_bad_cell_is_the_fault_of_its_row_alone(row, fault, tmp_path):
    good = "9,A,SELL,7,0,1,0.5"
    read = orders(tmp_path, f"id,symbol,side,qty,start,end,sigma\n{row}\n{good}\n")
    assert read.rows[0].order is None and fault in read.rows[0].fault
    assert read.rows[1].order.sigma == 0.5


def test_an_order_that_repeats_is_a_fault_and_the_first_one_stands(tmp_path):
    read = orders(tmp_path, "id,symbol,side,qty,start,end\n1,A,S,7,0,1\n1,A,S,8,0,1\n")
    assert read.rows[0].order.shares == 7 and "repeats" in read.rows[1].fault


def test_a_limit_on_participation_is_a_share_of_the_market(tmp_path):
    header = "id,symbol,side,qty,start,end,limit_pov"
    rows = orders(tmp_path, f"{header}\n1,A,S,7,0,1,\n2,A,S,7,0,1,0.1\n3,A,S,7,0,1,10\n4,A,S,7,0,1,0\n").rows
    assert math.isnan(rows[0].order.limit_pov) and rows[1].order.limit_pov == 0.1
    assert "between 0 and 1" in rows[2].fault and "not positive" in rows[3].fault


@pytest.mark.parametrize(
    ("header", "message"),
    [("id,symbol,side,qty,start", "no column for end"), ("id,symbol,ticker,side,qty,start,end", "both mean symbol")],
)
def test_columns_that_are_missing_or_twice(header, message, tmp_path):
    with pytest.raises(FileError, match=message):
        orders(tmp_path, header + "\n")


def test_parquet_with_numbers_and_times_reads_like_text(tmp_path):
    import datetime

    moment = datetime.datetime(2024, 3, 11, 9, 30)
    frame = pl.DataFrame(
        {
            "order_id": [1, 2],
            "symbol": ["=A", None],
            "side": [2, 1],
            "quantity": [7.5, None],
            "start": [moment, moment],
            "end": [datetime.time(16), datetime.time(12)],
        }
    )
    path = storage.write_parquet(tmp_path / "o.parquet", frame)
    rows = read_orders(path, SESSION).rows
    assert (rows[0].symbol, rows[0].order.shares, rows[0].order.end) == ("=A", 7.5, 1)
    assert rows[1].order is None and rows[1].symbol == ""
