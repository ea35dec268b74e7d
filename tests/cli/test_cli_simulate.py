"""What one order costs, from the command line; and schedules against other benchmarks."""

import json

import numpy as np
import polars as pl
import pytest

import jaxexec as jx
from jaxexec.storage import Manifest

ASSUMED = ("--volatility", "0.6", "--volume", "4e6", "--eta", "0.1", "--steps", "6")
GAPPED = """
schema = 1
symbol = "A"
session = "09:30:00-16:00:00"
[grid]
times = [0.0, 0.25, 0.5, 1.0]
[market]
volatility = [0.6, 0.6, 0.6]
volume = [4e6, 0.0, 4e6]
permanent_impact = 0.0
drift = 0.0
gap_variance = 0.0
[cost]
kind = "power-law"
eta = 0.1
phi = 0.6
psi = 0.004
"""


def test_simulate(cli, tmp_path):
    words = ("simulate", "20000", *ASSUMED, "--paths", "4000", "--seed", "3", "--sampling", "pseudo", "--out", "out")
    said = cli(*words)
    assert said.code == 0 and "What the order costs" in said.out and "pseudo paths" in said.out
    manifest = Manifest.verify(tmp_path / "out")
    assert {"simulation.parquet", "histogram.parquet", "simulation.svg", "paths.svg"} < set(manifest.outputs)
    assert manifest.settings["seed"] == 3
    table = pl.read_parquet(tmp_path / "out" / "simulation.parquet")
    assert table["schedule"].to_list() == ["best", "TWAP", "VWAP"] and set(table["status"]) == {"OK"}
    market = jx.Market(jx.TimeGrid.uniform(1.0, 6), 0.6, 4e6)
    problem = jx.Liquidation(2e4, market, jx.PowerLawCost(0.1, 0.6), 1e-6)
    for row, trades in zip(table.to_dicts(), (jx.solve(problem).trades, jx.twap(problem)), strict=False):
        assert abs(row["mean"] - jx.expected_cost(problem, trades)) < 4 * row["mean_error"]
        assert abs(row["variance"] - jx.variance(problem, trades)) < 4 * row["variance_error"]
    histogram = pl.read_parquet(tmp_path / "out" / "histogram.parquet")
    assert histogram.group_by("schedule").agg(pl.col("paths").sum())["paths"].to_list() == table["paths"].to_list()
    assert (histogram["to"] > histogram["from"]).all()


def test_simulate_refuses_and_plans(cli, tmp_path):
    for words, message in (
        (("simulate", "0", *ASSUMED), "shares must be finite and not 0"),
        (("simulate", "1", *ASSUMED, "--paths", "3"), "paths must be between 64"),
        (("simulate", "1", *ASSUMED, "--sampling", "latin"), "sampling"),
        (("simulate", "1", *ASSUMED, "--price", "-1"), "price must be positive"),
        (("simulate", "1", *ASSUMED, "--volume-noise", "-1"), "volume_noise must be"),
        (("solve", "o.csv", *ASSUMED, "--benchmark", "noon"), "benchmark"),
    ):
        said = cli(*words)
        assert said.code == 2 and message in said.err
    said = cli("simulate", "20000", *ASSUMED, "--dry-run", "--json")
    assert said.code == 0 and json.loads(said.out)["schedules"] == 3
    assert not (tmp_path / "jaxexec-simulate").exists()


def test_even_trading_that_cannot_be_is_said_and_the_rest_is_shown(cli, tmp_path):
    """A market without volume in the middle of the day: TWAP would trade there."""
    (tmp_path / "market.toml").write_text(GAPPED)
    words = ("simulate", "20000", "--market", "market.toml", "--steps", "8", "--paths", "2048")
    said = cli(*words, "--out", "out")
    assert said.code == 0 and "TWAP would trade where the market has no volume" in said.out.replace("\n", " ")
    assert (tmp_path / "out" / "simulation.svg").exists()
    table = pl.read_parquet(tmp_path / "out" / "simulation.parquet")
    assert table["status"].to_list() == ["OK", "INFEASIBLE", "OK"] and np.isnan(table["mean"][1])


@pytest.mark.parametrize("name", ["twap", "close"])
def test_benchmarks(name, cli, tmp_path):
    (tmp_path / "o.csv").write_text("id,symbol,side,qty,start,end\n1,A,SELL,20000,0,1\n")
    said = cli("solve", "o.csv", *ASSUMED, "--risk-aversion", "1e-4", "--benchmark", name, "--out", "out")
    assert said.code == 0 and f"benchmark, {name.upper()}" in said.out.replace("\n", " ")
    trades = pl.read_parquet(tmp_path / "out" / "schedules.parquet")["trades"].to_numpy()
    if name == "twap":
        np.testing.assert_allclose(trades, 20000 / 6, rtol=1e-9)
    else:
        assert np.all(np.diff(trades) > 0)  # later is safer: the risk is what the close does
