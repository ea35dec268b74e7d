"""Kyle's λ and Hasbrouck's autoregression: against statsmodels, against simulations with a known truth, on tapes."""

import datetime

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from statsmodels.tsa.api import VAR

from jaxexec import impact, tape
from jaxexec.numerics.status import Status
from jaxexec.tape.signed_tape import SignedTape
from tests.impact.simulated_stocks import assert_recovered

A, B = (-0.2, 0.05), (0.006, 0.001, -0.0005)
C, D = (-4.0, -1.0), (0.3, 0.1)
SIGMA_V, SIGMA_W = 0.01, 0.8


def autoregressions(stocks: int, trades: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    v, w = SIGMA_V * rng.standard_normal((trades, stocks)), SIGMA_W * rng.standard_normal((trades, stocks))
    r, x = np.zeros((trades, stocks)), np.zeros((trades, stocks))
    for t in range(2, trades):
        x[t] = sum(C[i] * r[t - 1 - i] + D[i] * x[t - 1 - i] for i in range(2)) + w[t]
        r[t] = sum(A[i] * r[t - 1 - i] for i in range(2)) + sum(B[i] * x[t - i] for i in range(3)) + v[t]
    return r.T[:, 100:], x.T[:, 100:]


def test_kyle_equals_statsmodels():
    rng = np.random.default_rng(0)
    flow = 500 * rng.standard_normal(160)
    change = 1e-3 + 2e-5 * flow + 0.02 * rng.standard_normal(160)
    result = impact.kyle_lambda_arrays(change, flow, lags=4)
    fit = sm.OLS(change, sm.add_constant(flow)).fit(cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": False})
    np.testing.assert_allclose(result.values, [fit.params[1], fit.params[0], fit.rsquared], rtol=1e-10)
    np.testing.assert_allclose(result.std_errors[:2], fit.bse[::-1], rtol=1e-10)
    assert impact.kyle_lambda_arrays(change, np.ones(160)).status == Status.RANK_DEFICIENT
    exact = impact.kyle_lambda_arrays(3e-5 * flow + 1e-3, flow)
    np.testing.assert_allclose(exact.values, [3e-5, 1e-3, 1], rtol=1e-10)


def test_bars_by_hand():
    """Bars of a minute: the first of a date has no price before, one without a trade does not count."""
    rows = [(0, 5, 100, 1, 4), (0, 50, 110, 1, 9), (0, 70, 120, 1, 16), (0, 80, 130, -1, 1), (0, 200, 90, -1, 25)]
    rows += [(0, 250, 95, 1, 36), (0, 310, 97, 1, 4), (1, 3, 50, 1, 4), (1, 64, 60, 1, 100), (1, 130, 50, -1, 9)]
    frame = pl.DataFrame(rows, schema=["day", "seconds", "ticks", "sign", "size"], orient="row")
    dates = {0: datetime.date(2024, 1, 2), 1: datetime.date(2024, 1, 3)}
    frame = frame.select(
        pl.col("ticks", "sign", "size"),
        symbol=pl.lit("A"),
        date=pl.col("day").replace_strict(dates, return_dtype=pl.Date),
        time=(36_000 + pl.col("seconds")) * 10**9,
    )
    changes = 1e-4 * np.array([20, -40, 5, 2, 10, -10])
    for flow, flows in (("shares", [15, -25, 36, 4, 100, -9]), ("root", [3, -5, 6, 2, 10, -3])):
        result = impact.kyle_lambda(SignedTape.from_frames(frame), "60s", flow=flow, lags=1)
        assert result.estimates.n.tolist() == [6]
        slope, intercept = np.polyfit(flows, changes, 1)
        np.testing.assert_allclose(result.estimates.values[0, :2], [slope, intercept], rtol=1e-9)


@pytest.fixture(scope="module")
def fitted():
    """One stock of 160 trades, ours and statsmodels' (flow first, as its Cholesky factor has causes run)."""
    r, x = (y[0] for y in autoregressions(1, 260, 3))
    result = impact.hasbrouck_arrays(r, x, order=2, horizon=3)
    return result, VAR(np.column_stack([x, r])).fit(2, trend="c")


def test_hasbrouck_equals_statsmodels(fitted):
    result, var = fitted
    np.testing.assert_allclose(result.flow_on_flow, var.coefs[:, 0, 0], rtol=1e-8)
    np.testing.assert_allclose(result.flow_on_change, var.coefs[:, 0, 1], rtol=1e-8)
    covariance = var.resid.T @ var.resid / len(var.resid)
    now = covariance[0, 1] / covariance[0, 0]
    np.testing.assert_allclose(result.change_on_flow[0], now, rtol=1e-8)
    np.testing.assert_allclose(result.change_on_flow[1:], var.coefs[:, 1, 0] - now * var.coefs[:, 0, 0], rtol=1e-8)
    np.testing.assert_allclose(result.change_on_change, var.coefs[:, 1, 1] - now * var.coefs[:, 0, 1], rtol=1e-8)
    shock = var.irf(3).orth_cum_effects[:, 1, 0] / np.linalg.cholesky(var.sigma_u)[0, 0]
    np.testing.assert_allclose(result.response, shock, rtol=1e-8)


def test_long_run_equals_statsmodels(fitted):
    """The random walk's variance is e'Ψ(1) Ω Ψ(1)'e, whatever the order of causes; the trades' part is Cholesky's."""
    result, var = fitted
    covariance = var.resid.T @ var.resid / len(var.resid)
    long_run = var.long_run_effects()[1]
    factor = np.linalg.cholesky(covariance)
    walk = long_run @ covariance @ long_run
    np.testing.assert_allclose(result.measured["permanent_response"], long_run @ factor[:, 0] / factor[0, 0], rtol=1e-8)
    np.testing.assert_allclose(result.measured["information_share"], (long_run @ factor[:, 0]) ** 2 / walk, rtol=1e-8)
    np.testing.assert_allclose(result.measured["random_walk_std"], walk**0.5, rtol=1e-8)


def test_responses_come_to_the_permanent_one():
    r, x = autoregressions(1, 260, 3)
    result = impact.hasbrouck_arrays(r, x, order=2, horizon=200)
    np.testing.assert_allclose(result.response[0, -1], result.measured["permanent_response"][0], rtol=1e-10)


def test_truth_is_recovered():
    """z of 96 stocks: centred, and of unit width."""
    a, b, c, d = (sum(x) for x in (A, B, C, D))
    determinant = (1 - a) * (1 - d) - b * c
    by_trades, alone = (b / determinant * SIGMA_W) ** 2, ((1 - d) / determinant * SIGMA_V) ** 2
    truth = [B[0], b / determinant, by_trades / (by_trades + alone), (by_trades + alone) ** 0.5]
    result = impact.hasbrouck_arrays(*autoregressions(96, 2100, 5), order=2, horizon=3).measured
    assert (np.asarray(result.status) == Status.OK).all()
    assert_recovered(result.values, result.std_errors, truth)


def test_shocks_that_never_die_are_refused():
    rng = np.random.default_rng(6)
    flow = np.zeros(160)
    for t in range(1, 160):
        flow[t] = 1.03 * flow[t - 1] + rng.standard_normal()
    result = impact.hasbrouck_arrays(rng.standard_normal(160) + flow, flow, order=2, horizon=3)
    assert result.status == Status.UNBOUNDED
    assert np.isnan(result.response).all()


def test_synthetic_tape():
    """Quotes and prices agree on what stays, though not on what bounces back; a stock has its own two days."""
    made = [tape.synthetic.generate(stocks=8, trades=900, seed=s, date=datetime.date(2024, 1, 2 + s)) for s in range(2)]
    signed = tape.sign(pl.concat([m.trades for m in made]), pl.concat([m.quotes for m in made]), midpoint="keep")
    quoted, traded = impact.hasbrouck(signed), impact.hasbrouck(signed, price="trade")
    assert quoted.usable.all()
    assert quoted.estimates.n.tolist() == traded.estimates.n.tolist() == [2 * (899 - 5)] * 8
    assert (traded["immediate_response"] > quoted["immediate_response"]).all()
    assert 0.5 < np.median(traded["permanent_response"] / quoted["permanent_response"]) < 2
    assert "midpoint changes and sign" in " ".join(quoted.summary().split())
    one = signed.trades.filter(pl.col("symbol") == "S00003")
    days = [frame.sort("time") for _, frame in one.group_by("date", maintain_order=True)]
    change = np.concatenate(
        [np.append(np.diff(((f["bid_ticks"] + f["ask_ticks"]) / 2e4).to_numpy()), [0.0] * 41) for f in days]
    )
    flow = np.concatenate([np.append(f["sign"].to_numpy().astype(float), [0.0] * 40) for f in days])
    mask = np.concatenate([np.arange(len(f) + 40) < len(f) - 1 for f in days])
    alone = impact.hasbrouck_arrays(change, flow, mask, order=5, horizon=0)
    np.testing.assert_allclose(quoted.estimates.values[3], alone.measured.values, rtol=1e-8)
    np.testing.assert_allclose(quoted.estimates.std_errors[3], alone.measured.std_errors, rtol=1e-8)


def test_refusals():
    made = tape.synthetic.generate(stocks=1, trades=100)
    signed = tape.sign(made.trades, made.quotes)
    for call, named in (
        (lambda: impact.kyle_lambda(signed, flow="dollars"), "flow"),
        (lambda: impact.kyle_lambda(signed, "0s"), "width"),
        (lambda: impact.hasbrouck(signed, price="bid"), "price"),
        (lambda: impact.hasbrouck(signed, flow="root"), "flow"),
    ):
        with pytest.raises(ValueError, match=named):
            call()
