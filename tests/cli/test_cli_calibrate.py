"""`jaxexec calibrate` from rows of executions, meta-orders and flow: parameters, markets and the page."""

import json

import jax
import numpy as np
import polars as pl
import pytest

import jaxexec as jx
from jaxexec.calibration import Calibration, stated_market
from jaxexec.cli import calibrate as command
from jaxexec.cli import parameter_files
from jaxexec.storage import FileError, Manifest
from tests.calibration.test_meta_orders import orders

SAID = ("--volatility", "0.6", "--volume", "4e6")


@pytest.fixture
def executions(tmp_path):
    """Six stocks; impact is half as large again in the morning."""
    rng = np.random.default_rng(1)
    rate, morning = rng.uniform(0.01, 0.5, 240), rng.random(240) < 0.5
    paid = 0.1 * rate**0.6 * np.where(morning, 1.5, 1.0) + 0.01 + 1e-3 * rng.standard_normal(240)
    rows = {
        "symbol": [f"S{i % 6}" for i in range(240)],
        "participation": rate,
        "slippage": paid,
        "time": np.where(morning, "09:45", "14:30"),
        "desk": np.where(morning, "early", "late"),
    }
    path = tmp_path / "executions.csv"
    pl.DataFrame(rows).write_csv(path)
    return path


def market_of(path):
    with jax.enable_x64(True):  # a run in 32 bits has switched them off
        return Calibration.from_toml(path.read_text())


def test_executions_to_markets(cli, executions, tmp_path):
    """Parameters, those drawn together, a market a stock with its origins, and a page; and `solve` runs on them."""
    said = cli("calibrate", executions, "--source", "executions", *SAID, "--out", "fits")
    assert said.code == 0, said.err
    table = pl.read_parquet("fits/parameters.parquet")
    assert table.height == 18
    assert set(table["status"]) == {"OK"}
    phi = table.filter(pl.col("parameter") == "phi")
    shrunk = pl.read_parquet("fits/shrunk.parquet").filter(pl.col("parameter") == "phi")
    assert shrunk["estimate"].std() < phi["estimate"].std()
    assert "Fitted to executions" in said.out and "The data tell eta, phi and psi apart" in said.out
    Manifest.verify(tmp_path / "fits")

    path = next((tmp_path / "fits").glob("market-s0-*.toml"))
    market = market_of(path)
    assert market.symbol == "S0" and float(market.market.volume) == 4e6
    assert float(market.cost.phi) == pytest.approx(shrunk["estimate"][0])
    entry = market.of("phi")
    assert entry.origin == "estimated" and entry.std_error == pytest.approx(shrunk["std_error"][0])
    assert "drawn towards" in entry.note and market.of("volume").origin == "given"
    numbers = pl.read_parquet("fits/markets.parquet")
    assert numbers.height == 6 * 6 and set(numbers["origin"]) == {"estimated", "given"}

    page = (tmp_path / "fits" / "report.html").read_text()
    for words in ("Identification", "What is left over", "Assumptions", "<svg", "S0"):
        assert words in page
    assert "<script" not in page and page.count("<figure") == 6
    (tmp_path / "o.csv").write_text("id,symbol,side,qty,start,end\n1,S0,SELL,20000,09:30,12:00\n")
    said = cli("solve", "o.csv", "--market", "fits", "--steps", "6", "--out", "solved", "--json")
    assert said.code == 0, said.err


def test_executions_by_part(cli, executions):
    """Each part has parameters of its own, and a test says that they differ."""
    said = cli("calibrate", executions, "--source", "executions", "--by", "desk", "--out", "desk")
    assert said.code == 0, said.err
    table = pl.read_parquet("desk/parameters.parquet")
    assert table.height == 36 and set(table["part"]) == {"early", "late"}
    assert "Are the parts alike?" in said.out and "no market was written: give --market FILE" in said.err
    eta = table.filter(pl.col("parameter") == "eta").pivot("part", index="symbol", values="estimate")
    assert np.median(eta["early"] / eta["late"]) == pytest.approx(1.5, rel=0.1)


def test_parts_by_time_number_and_word(tmp_path):
    """Times and numbers are cut in parts of equally many rows, words are parts themselves."""
    times = pl.Series([f"{9 + i % 7:02d}:{i % 60:02d}" for i in range(240)])
    parts = parameter_files.parts_of(tmp_path, times, "time", 3)
    assert parts.n_unique() == 3 and parts.unique().sort()[0].startswith("time 09:00 to ")
    assert parts.value_counts()["count"].min() > 60
    sizes = parameter_files.parts_of(tmp_path, pl.Series(np.arange(10) / 8), "vol", 2)
    assert sizes.to_list() == ["vol 0 to 0.5"] * 5 + ["vol 0.625 to 1.125"] * 5
    assert parameter_files.parts_of(tmp_path, pl.Series(["a", "b"]), "desk", 2).to_list() == ["a", "b"]
    for column, said in (
        (pl.Series(["x", None]), "desk, row 2: empty"),
        (pl.Series([1.0, 1.0]), "desk: values are too alike"),
        (pl.Series([f"w{i}" for i in range(21)]), "21 different texts"),
    ):
        with pytest.raises(FileError, match=said):
            parameter_files.parts_of(tmp_path, column, "desk", 2)


def test_fitted_costs_by_symbol(executions):
    costs = command.fitted_costs(executions)
    assert sorted(costs) == [f"S{i}" for i in range(6)]
    assert costs["S0"].values.shape == (3,)


def test_meta_orders_to_a_market(cli, tmp_path):
    """Into a copy of a market file; what the fit does not tell stays as it was."""
    data = {name: np.asarray(x[0]) for name, x in orders(1, (1, 300), noise=0.1).items()}
    pl.DataFrame(data).write_parquet("orders.parquet")
    (tmp_path / "base.toml").write_text(stated_market(0.5, 1e6, eta=1.0, psi=0.02, symbol="ABC").to_toml())
    words = ("calibrate", "orders.parquet", "--source", "meta-orders", "--market", "base.toml", "--out", "fits")
    assert cli(*words).code == 0
    table = pl.read_parquet("fits/parameters.parquet")
    assert list(table["parameter"]) == ["gamma", "alpha", "delta", "eta", "beta"]
    found = dict(zip(table["parameter"], table["estimate"], strict=True))
    (path,) = (tmp_path / "fits").glob("market-abc-*.toml")
    market = market_of(path)
    assert float(market.cost.eta) == pytest.approx(0.5 * found["eta"])
    assert float(market.cost.phi) == pytest.approx(found["beta"])
    assert float(market.cost.psi) == 0.02
    x, t, turnover = (float(np.median(data[name])) for name in ("turnover", "horizon", "inverse_turnover"))
    move = 0.5 * found["gamma"] * t * (x / t) ** found["alpha"] * turnover ** found["delta"]
    assert float(market.market.permanent_impact) == pytest.approx(move / (x * 1e6))
    assert market.of("permanent_impact").std_error > 0 and market.of("psi").origin == "given"


def test_flow_to_a_kernel_and_its_cost(cli, tmp_path):
    """The kernel is in the file, read back; without another cost its limit of fast decay is the temporary impact."""
    rng = np.random.default_rng(2)
    step, flow = 1 / 390, 1000 * rng.standard_normal((4, 200))
    kernel = jx.ExponentialKernel(2e-6, 60.0)
    value = np.asarray(kernel.value(np.arange(200) * step))
    moves = np.stack([np.convolve(q, np.diff(value, prepend=0.0))[:200] for q in flow])
    frame = {"session": np.repeat(np.arange(4), 200), "flow": flow.ravel()}
    frame["returns"] = moves.ravel() + 1e-4 * rng.standard_normal(800)
    pl.DataFrame(frame).write_csv("flow.csv")
    words = ("calibrate", "flow.csv", "--source", "flow", "--step", str(step))
    said = cli(*words, *SAID, "--out", "fits")
    assert said.code == 0, said.err
    market = market_of(tmp_path / "fits" / "market.toml")
    assert isinstance(market.kernel, jx.ExponentialKernel)
    assert float(market.kernel.decay) == pytest.approx(60, rel=0.1)
    eta = float(market.kernel.impact) * 4e6 / float(market.kernel.decay)
    assert float(market.cost.eta) == pytest.approx(eta, rel=1e-9) and float(market.cost.phi) == 1
    assert market.of("eta").origin == "derived" and 0 < market.of("eta").std_error < 0.1 * eta
    narrow = ("--precision", "float32", "--quiet")  # fits are in 64 bits all the same
    kept = cli(*words, "--market", "fits/market.toml", "--out", "again", *narrow)
    assert kept.code == 0 and float(market_of(tmp_path / "again" / "market.toml").cost.eta) == float(market.cost.eta)
    page = (tmp_path / "fits" / "report.html").read_text()
    assert page.count("<figure") == 3


@pytest.mark.parametrize(
    ("row", "cell", "said"),
    [
        (2, "x0.1", "participation, row 2: no number ('x0.1')"),
        (1, "-0.1", "participation, row 1: not positive ('-0.1')"),
        (3, "inf", "participation, row 3: not finite ('inf')"),
    ],
)
def test_bad_cells_are_named(cli, executions, tmp_path, row, cell, said):
    lines = executions.read_text().splitlines()
    cells = lines[row].split(",")
    lines[row] = ",".join([cells[0], cell, *cells[2:]])
    executions.write_text("\n".join(lines))
    result = cli("calibrate", executions, "--source", "executions", "--out", "fits")
    assert result.code == 2 and said in result.err
    assert not (tmp_path / "fits").exists()


def test_what_is_refused(cli, executions, tmp_path):
    """Columns, options of another source, half a market; and nothing is written."""
    words = ("calibrate", executions, "--source")
    for options, said in (
        (("meta-orders",), "no column permanent"),
        (("executions", "--by", "colour"), "no column colour"),
        (("executions", "--step", "1"), "--step belongs to --source flow, not to executions"),
        (("executions", "--volume", "1e6"), "--volume needs --volatility"),
        (("executions", *SAID, "--eta", "-1"), "--eta must be finite"),
        (("executions", "--parts", "99"), "--parts must be between 2 and 20"),
        (("flow",), "--step is needed"),
        (("schedules",), "--market is needed"),
        (("executions", "--market", "none.toml"), "none.toml"),
    ):
        result = cli(*words, *options, "--out", "fits")
        assert result.code == 2 and said in result.err, (options, result.err)
    late = {name: np.asarray(x[0]) for name, x in orders(1, (1, 20), noise=0.1).items()}
    late["settled"] = late["horizon"] / 2
    pl.DataFrame(late).write_parquet("late.parquet")
    result = cli("calibrate", "late.parquet", "--source", "meta-orders", "--out", "fits")
    assert result.code == 2 and "settled, row 1: before the order ends" in result.err
    assert not (tmp_path / "fits").exists()


def test_what_the_data_cannot_tell_is_said(cli, executions, tmp_path):
    """One rate tells no exponent: exit code 3, the direction in words, the other stocks untouched."""
    frame = pl.read_csv(executions).with_columns(
        participation=pl.when(pl.col("symbol") == "S1").then(0.2).otherwise("participation")
    )
    frame.write_csv("one.csv")
    said = cli("calibrate", "one.csv", "--source", "executions", *SAID, "--out", "fits", "--json")
    assert said.code == 3 and json.loads(said.out)["failed"] == 1
    table = pl.read_parquet("fits/parameters.parquet")
    assert set(table.filter(pl.col("symbol") == "S1")["status"]) == {"RANK_DEFICIENT"}
    assert table.filter(pl.col("status") == "OK").height == 15
    assert "Not identified" in (tmp_path / "fits" / "report.html").read_text()
