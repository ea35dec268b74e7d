"""Every stock of a day of a thousand, and of the real sample, equals statsmodels: OLS, Newey–West, GLSAR.

statsmodels is given the exact changes of the ticks, and regressors of unit length: as they come, shares beside signs,
its own digits end before the ninth of a coefficient that is a ten-thousandth of its error.
"""

import warnings

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from jaxexec import tape
from jaxexec.impact import glosten_harris
from jaxexec.numerics.status import Status
from jaxexec.tape.signed_tape import SignedTape
from tests.impact import simulated_stocks as simulate


def regressions(signed):
    """By stock, for tapes of one date: changes, regressors of unit length, their lengths."""
    flat = signed.segments()
    for a, b in zip(flat.offsets[:-1], flat.offsets[1:], strict=True):
        numbers = (np.asarray(column[a:b], float) for column in (flat.ticks, flat.size, flat.sign))
        x, _, _ = simulate.columns(simulate.Stock(*numbers))
        lengths = np.linalg.norm(x, axis=0)
        yield np.diff(flat.ticks[a:b])[4:] * 1e-4, x / lengths, lengths


def equals(ours, theirs, stock):
    np.testing.assert_allclose(ours, theirs[1:], rtol=1e-9, err_msg=f"stock {stock}")


def assert_every_stock_equals_statsmodels(signed):
    ols, hac = (glosten_harris(signed, covariance=c).estimates for c in ("ols", "hac"))
    gls = glosten_harris(signed, estimator="cochrane-orcutt", covariance="ols", max_iterations=200).estimates
    stocks = len(signed.symbols)
    assert all(e.status.tolist() == [Status.OK] * stocks for e in (ols, hac, gls))
    with warnings.catch_warnings():  # of a result type of GLSAR that will change
        warnings.simplefilter("ignore", FutureWarning)
        for i, (y, x, lengths) in enumerate(regressions(signed)):
            plain = sm.OLS(y, x).fit(method="qr")
            equals(ols.coefficients[i], plain.params / lengths, i)
            equals(ols.std_errors[i], plain.bse / lengths, i)
            assert int(ols.n[i]) == plain.nobs
            options = {"maxlags": int(4 * (len(y) / 100) ** (2 / 9)), "use_correction": False}
            robust = plain.get_robustcov_results("HAC", use_t=False, **options)
            equals(hac.std_errors[i], robust.bse / lengths, i)
            model = sm.GLSAR(y, x, 1)
            fit = model.iterative_fit(300, rtol=1e-14)
            equals(gls.coefficients[i], fit.params / lengths, i)
            equals(gls.std_errors[i], fit.bse / lengths, i)
            np.testing.assert_allclose(gls.rho[i], float(np.squeeze(model.rho)), rtol=1e-9, err_msg=f"stock {i}")


def test_every_stock_of_a_day_of_a_thousand():
    made = tape.synthetic.generate(stocks=1000, trades=110, seed=11, tail=0.25)
    assert_every_stock_equals_statsmodels(tape.sign(made.trades, made.quotes, midpoint="keep"))


@pytest.mark.parametrize("day", [0, 1])
def test_each_day_of_the_real_sample(taq_sample, day):
    files = (taq_sample / "ctm_XXX.parquet", taq_sample / "cqm_XXX.parquet")
    signed = tape.sign(*files, midpoint="keep", session="auto", unsorted="sort", quote_exchange="N")
    date = signed.trades["date"].unique().sort()[day]
    assert_every_stock_equals_statsmodels(SignedTape.from_frames(signed.trades.filter(pl.col("date") == date)))
