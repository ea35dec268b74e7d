"""From orders to schedules: markets, batches, files, exit codes."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import jaxexec as jx
from jaxexec.cli import markets, scheduling
from jaxexec.cli.markets import Assumed, Day
from jaxexec.cli.orders import Order
from jaxexec.storage import Manifest

ASSUMED = ("--volatility", "0.6", "--volume", "4e6", "--eta", "0.1", "--steps", "6")
GOOD = "id,symbol,side,qty,start,end,arrival\n1,A,SELL,20000,0,1,50\n2,=B,BUY,20000,0,1,50\n"
BAD = GOOD + "3,<script>,SELL,nan,0,1,50\n"
DAY = Day(np.array([0, 0.25, 1.0]), np.array([0.5, 1.0]), np.array([8e6, 1e6]), 1e-7, 0.1, 0.6, 0.01)


@pytest.fixture
def orders(tmp_path):
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_text(BAD)


def test_good_orders_are_scheduled(orders, cli, tmp_path):
    said = cli("solve", "good.csv", *ASSUMED, "--out", "out")
    assert said.code == 0 and "2 orders, 0 failed" in said.out and "quantity = qty" in said.err
    manifest = Manifest.verify(tmp_path / "out")
    assert set(manifest.outputs) == {"orders.parquet", "schedules.parquet", "presentation.json"}
    assert list(manifest.inputs) == ["good.csv"] and manifest.settings["steps"] == 6
    summary, steps = (pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("orders", "schedules"))
    assert summary["status"].to_list() == ["OK", "OK"] and summary["relative_gap"].max() < 1e-8
    assert steps.height == 12 and steps["step"].to_list() == [*range(1, 7)] * 2
    trades = steps["trades"].to_numpy().reshape(2, 6)
    np.testing.assert_allclose(trades.sum(axis=1), [20000, -20000])
    np.testing.assert_allclose(trades[0], -trades[1])
    direct = jx.solve(
        jx.Liquidation(2e4, jx.Market(jx.TimeGrid.uniform(1.0, 6), 0.6, 4e6), jx.PowerLawCost(0.1, 0.6), 1e-6)
    )
    np.testing.assert_allclose(trades[0], direct.trades, rtol=1e-7)
    np.testing.assert_allclose(summary["cost_bps"][0], 1e4 * float(direct.expected_cost) / 1e6, rtol=1e-7)


def test_a_bad_row_is_said_and_the_others_do_not_change(orders, cli, tmp_path):
    cli("solve", "good.csv", *ASSUMED, "--out", "good", "--quiet")
    said = cli("solve", "bad.csv", *ASSUMED, "--out", "bad", "--json")
    assert said.code == 3
    assert (json.loads(said.out)["orders"], json.loads(said.out)["failed"]) == (3, 1)
    good, bad = (pl.read_parquet(tmp_path / name / "schedules.parquet") for name in ("good", "bad"))
    assert bad.head(12).equals(good)
    assert bad.tail(6)["trades"].is_nan().all() and bad["symbol"].to_list()[-1] == "<script>"
    row = pl.read_parquet(tmp_path / "bad" / "orders.parquet").row(2, named=True)
    assert row["status"] == "BAD_ROW" and "quantity" in row["remedy"] and np.isnan(row["expected_cost"])


def test_a_limit_is_kept_or_cannot_be(cli, tmp_path):
    (tmp_path / "o.csv").write_text(
        "id,symbol,side,qty,start,end,limit_pov\n1,A,SELL,200000,0,1,0.1\n2,A,SELL,200000,0,1,0.01\n"
    )
    said = cli("solve", "o.csv", *ASSUMED, "--risk-aversion", "1e-5", "--out", "out")
    assert said.code == 3
    trades = pl.read_parquet(tmp_path / "out" / "schedules.parquet")["trades"].to_numpy().reshape(2, 6)
    most = trades[0].max()
    assert most / (4e6 / 6 + most) == pytest.approx(0.1)  # of the whole market, own shares included
    row = pl.read_parquet(tmp_path / "out" / "orders.parquet").row(1, named=True)
    assert row["status"] == "INFEASIBLE" and np.isnan(row["relative_gap"]) and np.isnan(trades[1]).all()


def test_nothing_but_bad_rows(cli, tmp_path):
    (tmp_path / "o.csv").write_text("id,symbol,side,qty,start,end\n1,A,SELL,1,0,1\n")
    said = cli("solve", "o.csv", "--out", "out")
    assert said.code == 3 and "no volatility: give --volatility, column sigma or a market file" in said.out
    assert pl.read_parquet(tmp_path / "out" / "schedules.parquet").height == 78


def test_an_empty_file_of_orders(cli, tmp_path):
    (tmp_path / "o.csv").write_text("id,symbol,side,qty,start,end\n")
    assert cli("solve", "o.csv", "--out", "out").code == 0
    assert pl.read_parquet(tmp_path / "out" / "orders.parquet").height == 0


def test_a_dry_run_does_nothing(orders, cli, tmp_path):
    before = sorted(tmp_path.iterdir())
    said = cli("solve", "good.csv", *ASSUMED, "--dry-run", "--json")
    assert said.code == 0 and json.loads(said.out)["rows"] == 12
    assert sorted(tmp_path.iterdir()) == before


def test_quiet_is_quiet(orders, cli):
    said = cli("solve", "good.csv", *ASSUMED, "--quiet")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_the_same_orders_give_the_same_bytes(orders, cli, tmp_path):
    for out in ("a", "b"):
        cli("solve", "good.csv", *ASSUMED, "--out", out, "--quiet")
    for name in ("orders.parquet", "schedules.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_float32_is_asked_for_and_kept(orders, tmp_path):
    words = ["solve", "good.csv", *ASSUMED, "--precision", "float32", "--out", "out", "--json"]
    command = [sys.executable, "-m", "jaxexec.cli", *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(said.stdout)["failed"] == 0
    assert pl.read_parquet(tmp_path / "out" / "schedules.parquet")["trades"].dtype == pl.Float32
    assert Manifest.read(tmp_path / "out").precision == "float32"


def test_a_window_keeps_shares_and_variance():
    volatility, volume = DAY.window(0.1, 0.7, 5)
    assert volume.sum() * 0.12 == pytest.approx(0.15 * 8e6 + 0.45 * 1e6)
    assert (volatility**2).sum() * 0.12 == pytest.approx(0.15 * 0.25 + 0.45 * 1.0)
    assert volume.max() <= 8e6 and volume.min() >= 1e6


def test_a_row_wins_over_the_market_of_its_symbol():
    order = Order(1.0, 0.0, 1.0, arrival_price=np.nan, adv=1e6, sigma=2.0, spread=0.5, limit_pov=np.nan)
    day = markets.market_for("A", order, {"A": DAY}, Assumed())
    assert np.sum(day.volume * np.diff(day.edges)) == pytest.approx(1e6)
    assert np.sum(day.volatility**2 * np.diff(day.edges)) == pytest.approx(4.0)
    assert day.volume[0] / day.volume[1] == pytest.approx(8) and day.psi == 0.25 and day.eta == 0.1


@pytest.mark.parametrize("limits", [(np.inf, np.inf, np.inf), (np.inf, 0.08, 0.01)])
def test_orders_and_their_limits(limits):
    """The second order is held back by its limit, the third cannot be done within its own."""
    done = []
    curve, column = np.ones((3, 4)), np.ones(3)
    orders = scheduling.Arrays(
        horizon=column,
        shares=2e5 * column,
        volatility=0.6 * curve,
        volume=4e6 * curve,
        permanent_impact=0 * column,
        eta=0.1 * column,
        phi=0.6 * column,
        psi=0 * column,
        risk_aversion=1e-5 * column,
        rho_max=np.array(limits),
    )
    found = scheduling.schedule(orders, "float64", done.append)
    assert sum(done) == 3 and found["trades"].shape == (3, 4)
    rates = found["trades"] / 1e6
    assert rates[0].max() > 0.08
    if np.isinf(limits[1]):
        np.testing.assert_array_equal(rates[0], rates[1])
    else:
        assert rates[1].max() == pytest.approx(0.08) and rates[1].sum() == pytest.approx(0.2)
        assert found["status"][2] == jx.Status.INFEASIBLE and np.isnan(rates[2]).all()


def test_sensitivities_are_those_of_differences(orders, cli, tmp_path):
    said = cli("solve", "bad.csv", *ASSUMED, "--sensitivities", "--out", "out", "--json")
    assert said.code == 3
    rows = json.loads(said.out)["sensitivities"]
    assert len(rows) == 2 * 9  # the row that has no market has none
    frame = pl.read_parquet(tmp_path / "out" / "sensitivities.parquet")
    assert frame["order_id"].to_list() == ["1"] * 9 + ["2"] * 9 and frame.height == len(rows)

    def cost(eta=0.1, volume=4e6, horizon=1.0):
        market = jx.Market(jx.TimeGrid.uniform(horizon, 6), 0.6, volume)
        return jx.solve(jx.Liquidation(2e4, market, jx.PowerLawCost(eta, 0.6), 1e-6))

    first = {row["parameter"]: row for row in rows if row["order_id"] == "1"}
    for name, value in {"eta": 0.1, "volume": 4e6, "horizon": 1.0}.items():
        up, down = (cost(**{name: value * k}) for k in (1.0001, 0.9999))
        for answer in ("objective", "expected_cost"):
            slope = (float(getattr(up, answer)) - float(getattr(down, answer))) / (2e-4 * value)
            assert first[name][f"d_{answer}"] == pytest.approx(slope, rel=1e-5)
            elasticity = slope * value / float(getattr(cost(), answer))
            assert first[name][f"elasticity_of_{answer}"] == pytest.approx(elasticity, rel=1e-5)
    second = {row["parameter"]: row for row in rows if row["order_id"] == "2"}
    assert second["shares"]["d_objective"] == pytest.approx(-first["shares"]["d_objective"], rel=1e-9)
    shown = cli("solve", "good.csv", *ASSUMED, "--sensitivities", "--out", "shown")
    assert "Sensitivities" in shown.out and "risk_aversion" in shown.out and "d objective" in shown.out


def test_sensitivities_where_there_is_no_market(cli, tmp_path):
    (tmp_path / "o.csv").write_text("id,symbol,side,qty,start,end\n1,A,SELL,1,0,1\n")
    assert cli("solve", "o.csv", "--sensitivities", "--out", "out").code == 3
    assert not (tmp_path / "out" / "sensitivities.parquet").exists()
