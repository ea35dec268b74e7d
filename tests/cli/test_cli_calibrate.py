"""`jaxexec calibrate` from rows of executions, meta-orders and flow."""

import numpy as np
import polars as pl
import pytest

from jaxexec.cli import calibrate as command
from tests.calibration.test_meta_orders import orders


@pytest.fixture
def executions(tmp_path):
    rng = np.random.default_rng(1)
    rate = rng.uniform(0.01, 0.5, 240)
    paid = 0.1 * rate**0.6 + 0.01 + 1e-3 * rng.standard_normal(240)
    symbols = [f"S{i % 6}" for i in range(240)]
    path = tmp_path / "executions.csv"
    pl.DataFrame({"symbol": symbols, "participation": rate, "slippage": paid}).write_csv(path)
    return path


def test_executions_to_parameters(cli, executions):
    said = cli("calibrate", executions, "--source", "executions", "--out", "fits")
    assert said.code == 0, said.err
    table = pl.read_parquet("fits/parameters.parquet")
    assert table.height == 18
    assert set(table["status"]) == {"OK"}
    phi = table.filter(pl.col("parameter") == "phi")
    assert np.all(np.abs(phi["estimate"].to_numpy() - 0.6) < 4 * phi["std_error"].to_numpy())
    shrunk = pl.read_parquet("fits/shrunk.parquet").filter(pl.col("parameter") == "phi")
    assert shrunk["estimate"].std() < phi["estimate"].std()
    assert "Fitted to executions" in said.out


def test_fitted_costs_by_symbol(executions):
    costs = command.fitted_costs(executions)
    assert sorted(costs) == [f"S{i}" for i in range(6)]
    assert costs["S0"].values.shape == (3,)


def test_meta_orders_to_parameters(cli):
    data = {name: np.asarray(x[0]) for name, x in orders(1, (1, 300), noise=0.1).items()}
    pl.DataFrame(data).write_parquet("orders.parquet")
    assert cli("calibrate", "orders.parquet", "--source", "meta-orders", "--out", "fits").code == 0
    table = pl.read_parquet("fits/parameters.parquet")
    assert list(table["parameter"]) == ["gamma", "alpha", "delta", "eta", "beta"]


def test_what_is_refused(cli, executions):
    said = cli("calibrate", executions, "--source", "meta-orders", "--out", "fits")
    assert said.code == 2
    assert "no column permanent" in said.err
    text = executions.read_text().replace("S1,", "S1,x", 1)
    executions.write_text(text)
    said = cli("calibrate", executions, "--source", "executions", "--out", "fits")
    assert said.code == 2
    assert "participation, row 2: no number" in said.err
