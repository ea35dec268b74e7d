"""`jaxexec calibrate --source schedules`: what a desk traded, to the risk aversion that `solve` then uses."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from jaxexec.calibration import Calibration, observed_preferences
from jaxexec.cli import markets, schedule_files
from jaxexec.cli.session import Session
from jaxexec.storage import FileError

ETA, PHI, GAMMA = 0.1, 0.75, 3e-6
DAY = markets.Day(np.array([0.0, 1.0]), np.array([0.6]), np.array([4e6]), 0.0, ETA, PHI, 0.0)
SAID = ("--volatility", "0.6", "--volume", "4e6", "--eta", str(ETA), "--phi", str(PHI))
STEPS = 6


def traded(count, noise, seed=0):
    """Optimal schedules, each with deviations that last."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0, 1, STEPS + 1)
    even = [np.full(STEPS, (-1) ** i * 1e5 * (1 + i % 3)) for i in range(count)]
    orders = [schedule_files.Observed(f"o{i}", "", times, trades) for i, trades in enumerate(even)]
    best = schedule_files.optimal_shares(orders, {"": DAY})({"risk_aversion": GAMMA})
    bent = noise * rng.standard_normal((count, 1)) * np.sin(np.pi * times)
    left = best + bent
    return [order._replace(trades=-order.shares * np.diff(share)) for order, share in zip(orders, left, strict=True)]


def test_round_trip_through_solve(cli, tmp_path):
    """What `solve` wrote reveals the risk aversion it was given; the market that is written carries it to `solve`."""
    rows = [f"{i},,{side},{q},09:30,16:00" for i, (side, q) in enumerate([("SELL", 2e5), ("BUY", 3e5)])]
    (tmp_path / "o.csv").write_text("id,symbol,side,qty,start,end\n" + "\n".join(rows) + "\n")
    words = ("solve", "o.csv", *SAID, "--risk-aversion", str(GAMMA), "--steps", str(STEPS), "--out", "solved")
    assert cli(*words, "--quiet").code == 0
    said = cli("calibrate", "solved/schedules.parquet", "--source", "schedules", "--common", *SAID, "--out", "desk")
    assert said.code == 0, said.err
    assert "risk_aversion" in said.out
    market = Calibration.from_toml((tmp_path / "desk" / "market.toml").read_text())
    assert market.risk_aversion == pytest.approx(GAMMA, rel=1e-6)
    assert market.of("risk_aversion").origin == "estimated" and market.of("eta").origin == "given"
    page = (tmp_path / "desk" / "report.html").read_text()
    assert page.count("<figure") == 3 and "Traded less optimal" not in page  # letters of figures are paths
    again = cli("solve", "o.csv", "--market", "desk/market.toml", "--steps", str(STEPS), "--out", "again", "--quiet")
    assert again.code == 0
    first, second = (pl.read_parquet(f"{name}/schedules.parquet")["trades"] for name in ("solved", "again"))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_errors_between_orders_bear_deviations_that_last():
    """They are what the orders' own estimates spread by; errors of independent deviations are half of that."""
    orders = traded(60, 0.03)
    problem = schedule_files.problems(orders, {"": DAY})
    each = observed_preferences(problem, np.stack([order.trades for order in orders]))
    logs = np.asarray(each.free_values)[:, 0]
    between = logs.std(ddof=1) / len(logs) ** 0.5
    one = eqx.tree_at(lambda f: f.values, _first(each), jnp.exp(jnp.asarray([logs.mean()])))
    found = schedule_files.between_orders(one, orders, {"": DAY})
    assert float(jnp.sqrt(found.free_covariance[0, 0])) == pytest.approx(between, rel=0.15)
    assert float(found.std_errors[0]) == pytest.approx(between * float(one.values[0]), rel=0.15)
    assert int(found.n) == 60
    within = float(np.sqrt(np.mean(np.asarray(each.free_covariance)[:, 0, 0]) / len(logs)))
    assert within < 0.7 * between
    assert abs(logs.mean() - np.log(GAMMA)) < 3 * between


def _first(batch):
    import jax

    return jax.tree.map(lambda x: x[0], batch)


def read(tmp_path, frame, horizon=None):
    pl.DataFrame(frame).write_csv(tmp_path / "s.csv")
    return schedule_files.read_schedules(tmp_path / "s.csv", horizon, Session())


def test_forms_of_schedules(tmp_path):
    """Shares by step, by time, and inventories say the same; rows may come in any order."""
    by_step = {"order": ["a"] * 3, "step": [2, 1, 3], "shares": [30.0, 60.0, 10.0]}
    (a,) = read(tmp_path, by_step, 0.3)
    assert a.trades.tolist() == [60, 30, 10] and a.order_id == "a"
    np.testing.assert_allclose(a.times, [0, 0.1, 0.2, 0.3])
    clock = {"start": ["09:30", "11:27"], "end": ["11:27", "16:00"], "inventory": [100.0, 40.0], "symbol": ["X", "X"]}
    (b,) = read(tmp_path, clock)
    assert b.trades.tolist() == [60, 40] and b.symbol == "X"
    np.testing.assert_allclose(b.times, [0, 0.3, 1])
    (c,) = read(tmp_path, {"time": [0.0, 0.3, 1.0], "inventory": [-100.0, -40.0, 0.0]})
    assert c.trades.tolist() == [-60, -40] and c.left.tolist() == [1, 0.4, 0]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"step": [1, 2]}, "no column trades or inventory"),
        ({"shares": [1.0, 2.0]}, "no column step, or start and end"),
        ({"step": [1, 2], "shares": ["1", "x"]}, r"trades, row 2: no number \('x'\)"),
        ({"step": [1, 2], "shares": [1.0, None]}, "trades, row 2: empty"),
        ({"step": [1, 1], "shares": [1.0, 2.0]}, "row 2: a step or a time comes twice"),
        ({"step": [1, 2, 4], "shares": [1.0, 2.0, 1.0]}, "row 3: steps are no consecutive numbers"),
        ({"step": [1], "shares": [1.0]}, "fewer than two steps"),
        ({"step": [1, 2], "shares": [1.0, -1.0]}, "sold and bought cancel"),
        ({"start": ["09:30", "12:00"], "end": ["11:00", "16:00"], "shares": [1, 2]}, "row 2: it does not begin where"),
        (
            {"start": ["09:30", "lunch"], "end": ["11:00", "16:00"], "shares": [1, 2]},
            "start, row 2: 'lunch' is not a time",
        ),
        ({"order": ["a", "a"], "symbol": ["X", "Y"], "step": [1, 2], "shares": [1, 2]}, "order 'a' has two symbols"),
    ],
)
def test_bad_schedules_are_named(tmp_path, frame, said):
    with pytest.raises(FileError, match=said):
        read(tmp_path, frame)


def test_what_is_refused(cli, tmp_path):
    """Parameters that there are not, markets of other symbols, orders of unlike length; nothing is written."""
    rows = [("a", "X", 1, 60.0), ("a", "X", 2, 40.0), ("b", "X", 1, 60.0), ("b", "X", 2, 30.0), ("b", "X", 3, 10.0)]
    pl.DataFrame(rows, schema=["order", "symbol", "step", "shares"], orient="row").write_csv("s.csv")
    (tmp_path / "m.toml").write_text(
        'schema = 1\nsymbol = "ABC"\n[grid]\ntimes = [0.0, 1.0]\n[market]\nvolatility = 0.6\nvolume = 4e6\n'
        '[cost]\nkind = "power-law"\neta = 0.1\nphi = 0.75\n'
    )
    words = ("calibrate", "s.csv", "--source", "schedules", "--out", "desk")
    for options, said in (
        ((*SAID, "--fit", "gamma"), "--fit names 'gamma': known are risk_aversion"),
        ((*SAID, "--fit", "eta,eta"), "--fit must name different parameters"),
        ((*SAID, "--horizon", "2"), "--horizon must be above 0 days and at most 1"),
        ((*SAID, "--common"), "'a' has 2, 'b' has 3"),
        (("--market", "m.toml"), "no market for the symbol 'X'"),
        (("--volatility", "0.6", "--volume", "4e6"), "--market is needed"),
        (("--market", "m.toml", "--eta", "1"), "--eta cannot be given beside --market"),
    ):
        result = cli(*words, *options)
        assert result.code == 2 and said in result.err, (options, result.err)
    assert not (tmp_path / "desk").exists()
    broken = (tmp_path / "m.toml").read_text() + "[preferences]\nrisk_aversion = -1.0\n"
    (tmp_path / "m.toml").write_text(broken)
    result = cli(*words, "--market", "m.toml")
    assert result.code == 2 and "preferences.risk_aversion must be a number, finite and at least 0" in result.err
