"""Quoted, effective, realised and Roll's spread: by hand, against statsmodels, and where the truth is known."""

import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from jaxexec import impact, tape
from jaxexec.numerics.moments import most_newey_west_lags
from jaxexec.numerics.status import Status
from jaxexec.tape.signed_tape import SignedTape
from tests.impact.simulated_stocks import assert_recovered
from tests.impact.test_measures_contract import day

SECOND = 10**9
OPEN = 34_200 * SECOND
DATES = [datetime.date(2024, 1, 2), datetime.date(2024, 1, 3)]
NAMES = ("quoted_spread", "effective_spread", "realised_spread", "price_impact")


class Trade(NamedTuple):
    symbol: str
    day: int
    seconds: int
    ticks: int
    size: int
    sign: int
    bid: int | None
    ask: int | None


def signed(rows: list[Trade]) -> SignedTape:
    frame = pl.DataFrame(rows, schema=["symbol", "day", "seconds", "ticks", "size", "sign", "bid_ticks", "ask_ticks"])
    moments = frame.select(
        pl.col("symbol", "ticks", "size", "sign", "bid_ticks", "ask_ticks"),
        date=pl.col("day").replace_strict(dict(enumerate(DATES)), return_dtype=pl.Date),
        time=OPEN + pl.col("seconds") * SECOND,
    )
    return SignedTape.from_frames(moments)


BY_HAND = [
    Trade("A", 0, 0, 100_100, 100, 1, 99_900, 100_100),
    Trade("A", 0, 10, 100_000, 300, -1, 100_000, 100_200),
    Trade("A", 0, 30, 100_300, 300, 1, 100_100, 100_300),
    Trade("A", 0, 40, 100_150, 900, 0, 100_200, 100_100),  # crossed: left out
    Trade("A", 0, 60, 100_400, 100, 1, 100_200, 100_400),
    Trade("A", 1, 0, 90_100, 200, 1, 90_000, 90_100),
    Trade("A", 1, 20, 90_000, 200, -1, 90_000, 90_200),
    Trade("B", 0, 5, 50_000, 100, 1, None, None),
]


def test_by_hand():
    """Half a minute later: the third trade for the first, the crossed quote for the second, the fifth for the third."""
    measured = impact.spread_measures(signed(BY_HAND), "30s", lags=0)
    assert measured.symbols == ("A", "B")
    assert measured.estimates.status.tolist() == [Status.OK, Status.INSUFFICIENT_DATA]
    assert measured.estimates.n.tolist() == [6, 0]
    np.testing.assert_allclose(measured["quoted_spread"][0], (0.02 * 4 + 0.01 + 0.02) / 6, rtol=1e-12)
    np.testing.assert_allclose(measured["effective_spread"][0], (0.02 * 4 + 0.01 + 0.02) / 6, rtol=1e-12)
    np.testing.assert_allclose(measured["price_impact"][0], 2 * (0.02 + 0.01) / 2, rtol=1e-10)
    np.testing.assert_allclose(measured["realised_spread"][0], 0.02 - 0.03, rtol=1e-10)
    by_share = impact.spread_measures(signed(BY_HAND), "30s", weighting="shares", lags=0)
    np.testing.assert_allclose(by_share["price_impact"][0], 2 * (0.02 + 3 * 0.01) / 4, rtol=1e-10)


def test_the_midpoint_at_that_very_time_comes_from_the_quotes():
    quotes = pl.DataFrame(
        {
            "symbol": "A",
            "date": DATES[0],
            "time": [OPEN + s * SECOND for s in (-1, 15, 35, 55)],
            "sequence": [1, 2, 3, 4],
            "bid_ticks": [99_900, 100_000, 100_500, 100_700],
            "ask_ticks": [100_100, 100_200, 100_300, 100_900],  # the third is crossed
        }
    )
    measured = impact.spread_measures(signed(BY_HAND), "30s", quotes=quotes, lags=0)
    # Trade 1 meets the second quote (0.01 up), trade 2 the crossed one, trade 3 the last (0.06 up); 4 and 5 the night.
    np.testing.assert_allclose(measured["price_impact"][0], 2 * (0.01 + 0.06) / 2, rtol=1e-10)
    spread = impact.quoted_spread(quotes, (OPEN, OPEN + 100 * SECOND), lags=0)
    # 15 seconds of the first, 20 of the second, the crossed one not, 45 of the last: all two cents wide.
    np.testing.assert_allclose(spread["quoted_spread"], [0.02], rtol=1e-12)
    wide = quotes.with_columns(ask_ticks=pl.Series([100_100, 100_200, 100_300, 101_100]))
    spread = impact.quoted_spread(wide, (OPEN, OPEN + 100 * SECOND), lags=0)
    np.testing.assert_allclose(spread["quoted_spread"], [(35 * 0.02 + 45 * 0.04) / 80], rtol=1e-12)
    assert spread.estimates.n.tolist() == [3]


def test_equals_statsmodels():
    d = day(4)
    lags, known = most_newey_west_lags(160), np.isfinite(d["later"])
    middle = (d["bid"] + d["ask"]) / 2
    result = impact.spread_measures_arrays(*(d[k] for k in ("price", "bid", "ask", "sign", "later", "size")))
    columns = [d["ask"] - d["bid"], 2 * d["sign"] * (d["price"] - middle)]
    columns += [2 * d["sign"] * (d["price"] - d["later"]), 2 * d["sign"] * (d["later"] - middle)]
    for k, column in enumerate(columns):
        weight = np.where(known | (k < 2), d["size"], 0)
        root = np.sqrt(weight)
        # Weighted least squares on a constant; the lags count trades, so rows of no weight stay.
        fit = sm.OLS(root * np.where(weight > 0, column, 0), root).fit(
            cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
        )
        np.testing.assert_allclose(result[NAMES[k]], fit.params[0], rtol=1e-10)
        np.testing.assert_allclose(result.std_errors[k], fit.bse[0], rtol=1e-10)


def test_what_one_side_pays_the_other_keeps_or_loses():
    d = day(5)
    d["later"] = np.nan_to_num(d["later"])
    for relative in (False, True):
        level = 50.0
        arrays = [d[k] + level for k in ("price", "bid", "ask")]
        result = impact.spread_measures_arrays(*arrays, d["sign"], d["later"] + level, relative=relative)
        np.testing.assert_allclose(
            result["effective_spread"], result["realised_spread"] + result["price_impact"], rtol=1e-10
        )
        assert 0 < result["effective_spread"] < (1e-3 if relative else 0.03)


def test_lags_span_the_later_midpoint():
    """News of forty trades is in every price impact, and signs come in runs: a few lags make the error too small."""
    rng = np.random.default_rng(8)
    stocks, trades, ahead = 96, 2000, 40
    sign = np.repeat(rng.choice([-1.0, 1.0], (stocks, trades // 40 + 1)), 40, axis=1)
    value = np.cumsum(0.01 * rng.standard_normal(sign.shape) + 0.002 * sign, 1)
    later, sign = value[:, ahead:], sign[:, :trades]
    middle = value[:, :trades] - 0.002 * sign
    quotes = (middle + 0.01 * sign, middle - 0.01, middle + 0.01, sign, later)
    wide = impact.spread_measures_arrays(*quotes, overlap=np.full(stocks, ahead))
    fixed, few = (impact.spread_measures_arrays(*quotes, lags=lags) for lags in (ahead, None))
    assert wide.lags.tolist() == [ahead] * stocks
    np.testing.assert_allclose(wide.std_errors, fixed.std_errors, rtol=1e-10)
    spread = np.std(wide["price_impact"])
    assert spread / np.mean(few.std_error("price_impact")) > 1.7
    assert 0.8 < spread / np.mean(wide.std_error("price_impact")) < 1.5
    with pytest.raises(ValueError, match="overlap"):
        impact.spread_measures_arrays(*quotes, overlap=3)


def test_bad_inputs_have_a_status():
    d = day(6)
    arrays = {k: d[k] for k in ("price", "bid", "ask", "sign", "later")}
    arrays = dict(zip(("price", "bid", "ask", "sign", "later_midpoint"), arrays.values(), strict=True))
    crossed = {**arrays, "ask": arrays["bid"] - 0.01}
    for wrong in (crossed, {**arrays, "sign": d["sign"] / 2}, {**arrays, "weight": -d["size"]}):
        assert impact.spread_measures_arrays(**wrong).status == Status.NONFINITE_INPUT
    never = {**arrays, "later_midpoint": np.full(160, np.nan)}
    assert impact.spread_measures_arrays(**never).status == Status.INSUFFICIENT_DATA
    assert impact.quoted_spread_arrays(d["bid"], d["ask"], np.zeros(160)).status == Status.INSUFFICIENT_DATA


def test_roll_by_hand_and_with_the_sign_of_the_covariance():
    price = np.cumsum(np.random.default_rng(0).standard_normal(160))
    for path in (price, np.cumsum(price)):
        change = np.diff(path)
        last, now = change[:-1], change[1:]
        covariance = np.mean(last * now) - last.mean() * now.mean()
        result = impact.roll_spread_arrays(path)
        np.testing.assert_allclose(result["serial_covariance"], covariance, rtol=1e-10)
        np.testing.assert_allclose(result["roll_spread"], -2 * np.sign(covariance) * abs(covariance) ** 0.5, rtol=1e-10)
    assert impact.roll_spread_arrays(np.full(160, 3.0)).status == Status.RANK_DEFICIENT


def test_roll_recovers_the_spread_of_its_own_model():
    rng = np.random.default_rng(1)
    stocks, trades, spread = 128, 2000, 0.04
    price = np.cumsum(0.01 * rng.standard_normal((stocks, trades)), 1)
    price += spread / 2 * rng.choice([-1, 1], (stocks, trades))
    result = impact.roll_spread_arrays(price)
    assert_recovered(result["roll_spread"], result.std_error("roll_spread"), spread)


@pytest.fixture(scope="module")
def synthetic():
    made = tape.synthetic.generate(stocks=20, trades=600, seed=3)
    cleaned = tape.clean(tape.read(made.trades, "trades"), tape.read(made.quotes, "quotes"))
    return made, cleaned, tape.sign(made.trades, made.quotes, midpoint="keep")


def test_synthetic_tape(synthetic):
    """Bounce is Roll's; quotes of both sources tell much the same; a stock does not depend on the others."""
    made, cleaned, trades = synthetic
    one = impact.spread_measures(trades)
    two = impact.spread_measures(trades, quotes=cleaned.quotes)
    for name in NAMES[:2]:
        np.testing.assert_array_equal(one[name], two[name])
    error = np.asarray(one.estimates.std_error("price_impact"))
    assert (np.abs(one["price_impact"] - two["price_impact"]) < 4 * error).all()
    truth = made.truth.sort("symbol")
    effective = impact.roll_spread(trades)
    assert np.median(effective["roll_spread"] / (2 * truth["transitory_fixed"].to_numpy())) > 0.7
    keep = pl.col("symbol") == "S00007"
    alone = impact.spread_measures(SignedTape.from_frames(trades.trades.filter(keep)))
    np.testing.assert_allclose(alone.estimates.std_errors[0], one.estimates.std_errors[7], rtol=1e-10)


def test_tables(synthetic):
    _, _, trades = synthetic
    many = impact.spread_measures(trades)
    table = many.table()
    assert table.columns == ["symbol", "measure", "unit", "estimate", "std_error", "t", "n", "status"]
    assert table.height == 80
    assert many.to_pandas().shape == many.to_polars().shape == (80, 8)
    assert "20 stocks" in many.summary()
    assert "<table" in many._repr_html_()
    few = impact.spread_measures(signed(BY_HAND), "30s", lags=0)
    assert "1 of 2 stocks could not be estimated" in " ".join(str(few).split())
    assert few.table().filter(pl.col("symbol") == "B")["estimate"].null_count() == 4


def test_refusals(synthetic):
    _, cleaned, trades = synthetic
    bare = SignedTape.from_frames(trades.trades.drop("bid_ticks", "ask_ticks"))
    with pytest.raises(ValueError, match="roll_spread"):
        impact.spread_measures(bare)
    with pytest.raises(ValueError, match="weighting"):
        impact.spread_measures(trades, weighting="volume")
    with pytest.raises(ValueError, match="after"):
        impact.spread_measures(trades, "soon")
    with pytest.raises(ValueError, match="session"):
        impact.quoted_spread(cleaned.quotes, ("16:00", "09:30"))
