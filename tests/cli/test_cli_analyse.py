"""From orders, fills and quotes to what they cost: files, clocks, markets, exit codes."""

import json
import math

import numpy as np
import polars as pl
import pytest

import jaxexec as jx
from jaxexec.cli.analyse import Clock
from jaxexec.cli.session import Session
from jaxexec.storage import Manifest

ORDERS = """ClOrdID,ticker,side,qty,start,end,decision price,arrival,end_px,adv,trader
1,A,SELL,1000,10:00,15:00,50.00,49.90,49.5,1e6,ann
2,A,2,500,10:00,15:00,50.00,49.90,,1e6,bob
3,B,BUY,300,0.1,0.6,20.00,20.10,20.3,2e6,ann
"""
FILLS = """ClOrdID,LastPx,LastQty,TransactTime,commission,venue
1,49.85,400,10:30,1,N
1,49.70,300,14:00:00.5,1,Q
2,49.80,500,11:00,,N
3,20.15,300,0.3,0.5,Q
"""
BAD = FILLS + "3,20.15,1,0.35,0,Q\n9,1,1,12:00,0,N\n"
MARKET = ("--volatility", "0.6", "--eta", "0.1", "--psi", "0.004", "--steps", "6")


@pytest.fixture(autouse=True)
def files(tmp_path):
    (tmp_path / "orders.csv").write_text(ORDERS)
    (tmp_path / "fills.csv").write_text(FILLS)
    (tmp_path / "bad.csv").write_text(BAD)


def test_orders_are_analysed(cli, tmp_path):
    said = cli("analyse", "orders.csv", "fills.csv", *MARKET, "--by", "trader", "--out", "out")
    assert said.code == 0, said.err
    assert "3 orders, 0 failed" in said.out and "Total by trader (bp)" in said.out
    assert "quantity = qty" in said.err
    manifest = Manifest.verify(tmp_path / "out")
    wanted = {"orders.parquet", "fills.parquet", "aggregate.parquet", "shortfall.svg", "presentation.json"}
    assert set(manifest.outputs) == wanted and list(manifest.inputs) == ["fills.csv", "orders.csv"]
    frame, aggregate, fills = (
        pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("orders", "aggregate", "fills")
    )
    assert frame["status"].to_list() == frame["model_status"].to_list() == ["OK"] * 3
    assert frame["shares"].to_list() == [1000, 500, -300] and fills.height == 4
    totals = 1000 * 50 - 400 * 49.85 - 300 * 49.7 - 300 * 49.5 + 2, 500 * (50 - 49.8), 300 * 0.15 + 0.5
    np.testing.assert_allclose(frame["total"], totals, rtol=1e-12)
    assert (frame["regret_at_most"] >= frame["regret_at_least"]).all()
    hours = 5 / 6.5
    grid = jx.TimeGrid.uniform(hours, 6)
    problem = jx.Liquidation(1000.0, jx.Market(grid, 0.6, 1e6), jx.PowerLawCost(0.1, 0.6, 0.004), 1e-6)
    sold = np.array([400, 0, 0, 0, 300, 0.0])
    np.testing.assert_allclose(frame["expected_cost"][0], jx.expected_cost(problem, sold), rtol=1e-7)
    np.testing.assert_allclose(frame["duration"], [4.000139 / 6.5, 1 / 6.5, 0.2], rtol=1e-6)
    total = aggregate.filter(pl.col("measure") == "total_bps")
    np.testing.assert_allclose(total["mean"], [1e4 * (totals[0] + totals[2]) / 56000, 1e4 * totals[1] / 25000])
    assert cli("report", "out", "--out", "page").code == 0


def test_a_bad_fill_fails_its_order_alone(cli, tmp_path):
    cli("analyse", "orders.csv", "fills.csv", "--out", "good", "--quiet")
    said = cli("analyse", "orders.csv", "bad.csv", "--out", "bad", "--json")
    assert said.code == 3
    result = json.loads(said.out)
    assert (result["orders"], result["failed"], result["faults"], result["without_model"]) == (3, 1, 2, 0)
    good, bad = (pl.read_parquet(tmp_path / name / "orders.parquet") for name in ("good", "bad"))
    assert bad.head(2).equals(good.head(2)) and math.isnan(bad["total"][2])
    assert "301 shares, more than the 300 ordered" in bad["fault"][2]
    said = cli("analyse", "orders.csv", "bad.csv", "--out", "bad")
    assert "no order has it" in said.out and "fills row 5" in said.out


def test_an_order_without_a_market_is_measured_and_said(cli, tmp_path):
    (tmp_path / "orders.csv").write_text(ORDERS.replace("2e6", ""))
    said = cli("analyse", "orders.csv", "fills.csv", *MARKET, "--out", "out")
    assert said.code == 3 and "orders without a comparison with a market: 1" in said.err
    frame = pl.read_parquet(tmp_path / "out" / "orders.parquet")
    assert frame["status"].to_list() == ["OK"] * 3 and "no volume" in frame["model_fault"][2]
    assert np.isfinite(frame["total"][2]) and np.isnan(frame["z_score"][2])


QUOTES = """SYMBOL,DT,BID,OFR
A,2024-03-01 09:45:00,49.95,50.05
A,2024-03-01 10:00:00,49.85,49.95
A,2024-03-01 10:30:00,49.00,49.10
A,2024-03-01 15:00:00,49.40,49.60
B,2024-03-01 09:31:00,20.05,20.15
B,2024-03-01 15:59:00,20.20,20.30
"""
TRADES = """SYMBOL,DT,PRICE,SIZE
A,2024-03-01 10:30:00,49.9,1000
A,2024-03-01 12:00:00,49.7,3000
B,2024-03-01 12:00:00,20.1,600
"""


def test_prices_come_from_quotes_and_trades(cli, tmp_path):
    (tmp_path / "q.csv").write_text(QUOTES)
    (tmp_path / "t.csv").write_text(TRADES)
    bare = "id,symbol,side,qty,start,end,decision_time\n1,A,SELL,1000,10:00,15:00,09:50\n3,B,BUY,300,0.1,0.6,0.05\n"
    (tmp_path / "o.csv").write_text(bare)
    (tmp_path / "f.csv").write_text(FILLS.replace("2,49.80,500,11:00,,N\n", ""))
    said = cli("analyse", "o.csv", "f.csv", "--quotes", "q.csv", "--trades", "t.csv", "--out", "out", "--json")
    assert said.code == 0, (said.err, pl.read_parquet(tmp_path / "out" / "orders.parquet")["fault"].to_list())
    frame = pl.read_parquet(tmp_path / "out" / "orders.parquet")
    np.testing.assert_allclose(frame["decision_price"], [50.0, 20.1])
    np.testing.assert_allclose(frame["arrival_price"], [49.9, 20.1])
    np.testing.assert_allclose(frame["end_price"], [49.5, 20.1])
    # The quote of 10:30 itself is not before the fill of 10:30.
    np.testing.assert_allclose(frame["spread"], [400 * (49.9 - 49.85) + 300 * (49.05 - 49.7), 300 * 0.05], rtol=1e-9)
    np.testing.assert_allclose(frame["pov"], [700 / 4000, 300 / 600])
    average = (400 * 49.85 + 300 * 49.7) / 700
    np.testing.assert_allclose(frame["vwap_slippage_bps"][0], 1e4 * (49.75 - average) / 49.75, rtol=1e-9)
    twap = (0.5 * 49.9 + 4.5 * 49.05) / 5
    np.testing.assert_allclose(frame["twap_slippage_bps"][0], 1e4 * (twap - average) / twap, rtol=1e-9)
    (tmp_path / "q.csv").write_text(QUOTES + "B,2024-03-04 09:31:00,20.05,20.15\n")
    said = cli("analyse", "o.csv", "f.csv", "--quotes", "q.csv", "--out", "out")
    assert said.code == 3 and "has no date" in said.out


def test_dates_times_and_zones_on_one_clock():
    clock = Clock(Session.parse("09:30-16:00", "America/New_York"))
    assert clock("2024-03-01T09:30:00") == 0 and clock("2024-03-01 16:00") == 1
    assert clock("20240301-15:00:00") == pytest.approx(0.5 / 6.5)  # UTC, as FIX has it
    assert clock("2024-03-04T10:00:00-05:00") == pytest.approx(3 + 0.5 / 6.5)
    assert clock("12:45") == 0.5 and clock("0.25") == 0.25
    assert clock("2024-02-29T18:00") == pytest.approx(-1 + 8.5 / 6.5)  # decided the evening before
    assert clock("16:00:05") > 1  # a print of the closing auction
    with pytest.raises(ValueError, match="'noon' is not a time"):
        clock("noon")


def test_dry_quiet_and_empty(cli, tmp_path):
    before = sorted(tmp_path.iterdir())
    said = cli("analyse", "orders.csv", "fills.csv", "--dry-run", "--json")
    assert said.code == 0 and (json.loads(said.out)["orders"], json.loads(said.out)["fills"]) == (3, 4)
    assert sorted(tmp_path.iterdir()) == before
    said = cli("analyse", "orders.csv", "fills.csv", "--quiet")
    assert (said.code, said.out, said.err) == (0, "", "")
    (tmp_path / "none.csv").write_text(ORDERS.splitlines()[0] + "\n")
    (tmp_path / "nothing.csv").write_text(FILLS.splitlines()[0] + "\n")
    assert cli("analyse", "none.csv", "nothing.csv", *MARKET, "--out", "empty").code == 0
    assert pl.read_parquet(tmp_path / "empty" / "orders.parquet").height == 0
    assert not (tmp_path / "empty" / "shortfall.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["orders.csv"], "--fills requires an argument"),
        (["orders.csv", "missing.csv"], "no such file"),
        (["orders.csv", "orders.csv"], "no column for price"),
        (["fills.csv", "fills.csv"], "no column for symbol"),
        (["orders.csv", "fills.csv", "--by", "desk"], "by: no column 'desk'"),
        (["orders.csv", "fills.csv", "--reference", "close"], "arrival"),
        (["orders.csv", "fills.csv", "--steps", "0"], "steps must be between 1"),
        (["orders.csv", "fills.csv", "--risk-aversion", "-1"], "risk_aversion must be finite"),
        (["orders.csv", "fills.csv", "--quotes", "missing.csv"], "missing.csv"),
        (["orders.csv", "fills.csv", "--eta", "-1"], "--eta must be finite and positive"),
        (["orders.csv", "double.csv"], "both mean price"),
    ],
)
def test_wrong_use_is_a_message_and_exit_code_2(words, message, cli, tmp_path):
    (tmp_path / "double.csv").write_text("id,price,last_px,size\n1,1,1,1\n")
    said = cli("analyse", *words)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err and said.out == ""


def test_help_and_options(cli):
    said = cli("analyse", "--help")
    assert said.code == 0
    for option in (
        "--quotes",
        "--market",
        "--by",
        "--out",
        "--json",
        "--quiet",
        "--dry-run",
        "--precision",
        "--config",
    ):
        assert option in said.out
