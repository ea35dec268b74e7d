"""Estimates come back to the truth they were simulated with, and their errors are as wide as they say.

z over stocks for each form, set of terms and estimator of Glosten and Harris, for Kyle's λ and for spreads. In files of
their own, by the same `assert_recovered`: Huang–Stoll and Madhavan–Richardson–Roomans, Hasbrouck, Roll, realised
variances; and `test_panel.py`, the synthetic tape through reading, matching and signing.
"""

import numpy as np
import pytest

from jaxexec import impact
from jaxexec.impact import COEFFICIENTS
from jaxexec.tape.order_flow import expectations
from tests.impact import simulated_stocks as simulate

STOCKS, TRADES = 160, 1000
RHO = 0.35


@pytest.fixture(scope="module")
def flow():
    """Signed sizes that follow an autoregression of five lags, and the expectations that the estimator forms."""
    rng = np.random.default_rng(2)
    signed = np.zeros((STOCKS, TRADES))
    for t in range(TRADES):
        past = signed[:, max(t - 5, 0) : t][:, ::-1]
        drawn = np.round(past @ simulate.WEIGHTS[: past.shape[1]] + 300 * rng.standard_normal(STOCKS))
        signed[:, t] = np.where(drawn == 0, 1, drawn)
    return signed, np.array([expectations(x) for x in signed])


def columns(flow, form: str) -> np.ndarray:
    """Regressors of the rows from the sixth trade on, (stocks, rows, 4)."""
    signed, expected = flow
    sign = np.sign(signed)
    surprises = [sign[:, 5:] - expected[:, 1], signed[:, 5:] - expected[:, 0]]
    fixed, variable = (np.diff(x)[:, 4:] if form == "difference" else x[:, 5:] for x in (sign, signed))
    return np.stack([*surprises, fixed, variable], -1)


def noise(kind: str, x: np.ndarray) -> np.ndarray:
    """Errors of each price change; "uneven" ones are larger where order flow surprises."""
    u = 0.01 * np.random.default_rng(3).standard_normal(x.shape[:2])
    if kind == "uneven":
        return u * (0.1 + np.abs(x[..., 1]) / 300)
    if kind == "serial":
        for t in range(1, u.shape[1]):
            u[:, t] += RHO * u[:, t - 1]
    return u


TWO = ("permanent_variable", "transitory_fixed")
CASES = {
    "difference": ("difference", COEFFICIENTS, "white", {"covariance": "ols"}),
    "level": ("level", COEFFICIENTS, "white", {}),
    "two terms": ("difference", TWO, "uneven", {"covariance": "hc3"}),
    "white errors": ("difference", COEFFICIENTS, "uneven", {"covariance": "hc0"}),
    "newey-west": ("difference", COEFFICIENTS, "serial", {"lags": "andrews", "prewhiten": True}),
    "cochrane-orcutt": ("difference", COEFFICIENTS, "serial", {"estimator": "cochrane-orcutt", "covariance": "ols"}),
    "prais-winsten": ("difference", COEFFICIENTS, "serial", {"estimator": "prais-winsten", "covariance": "ols"}),
}


@pytest.mark.parametrize("case", CASES)
def test_glosten_harris(flow, case):
    form, terms, errors, options = CASES[case]
    x = columns(flow, form)
    truth = np.where([term in terms for term in COEFFICIENTS], simulate.TRUTH, 0)
    change = np.pad(x @ truth + noise(errors, x), ((0, 0), (5, 0)))
    signed = flow[0]
    result = impact.glosten_harris_arrays(
        np.cumsum(change, 1), np.abs(signed), np.sign(signed), form=form, terms=terms, **options
    )
    assert (np.asarray(result.status) <= 1).all()
    simulate.assert_recovered(result.coefficients, result.std_errors, truth[truth != 0])
    if "estimator" in options:
        # ρ of a sample has an error of √((1 − ρ²)/n) and, with five coefficients, a bias of a few nths.
        z = (np.asarray(result.rho) - RHO) * (TRADES / (1 - RHO**2)) ** 0.5
        assert abs(z.mean()) < 3 / STOCKS**0.5 + 8 / TRADES**0.5
        assert abs(z.std() - 1) < 0.2


def test_errors_that_ignore_what_is_there_are_too_narrow(flow):
    """The check can fail: classical errors where the variance goes with order flow."""
    x = columns(flow, "difference")
    signed = flow[0]
    price = np.cumsum(np.pad(x @ simulate.TRUTH + noise("uneven", x), ((0, 0), (5, 0))), 1)
    result = impact.glosten_harris_arrays(price, np.abs(signed), np.sign(signed), covariance="ols")
    with pytest.raises(AssertionError):
        simulate.assert_recovered(result.coefficients, result.std_errors, simulate.TRUTH)


def test_kyle():
    rng = np.random.default_rng(5)
    flow = 500 * rng.standard_normal((STOCKS, TRADES))
    slope, drift = 2e-5, 1e-3
    error = 0.02 * rng.standard_normal(flow.shape) * (0.5 + np.abs(flow) / 800)
    result = impact.kyle_lambda_arrays(drift + slope * flow + error, flow)
    simulate.assert_recovered(result.values[:, :2], result.std_errors[:, :2], [slope, drift])
    explained = (slope * 500) ** 2
    left = 0.02**2 * (0.25 + 500 / 800 * (2 / np.pi) ** 0.5 + (500 / 800) ** 2)  # E (½ + |f|/800)²
    share = explained / (explained + left)
    simulate.assert_recovered(result["r2"], result.std_error("r2"), share)


def test_spreads():
    """Half-spreads around 1 cent, impact of half a cent; news between a trade and the later midpoint."""
    rng = np.random.default_rng(6)
    shape = (STOCKS, TRADES)
    sign = rng.choice([-1.0, 1.0], shape)
    middle = 50 + np.cumsum(0.01 * rng.standard_normal(shape), 1)
    half = 0.01 * rng.gamma(4, 0.25, shape)
    inside = 0.2 * rng.random(shape)
    later = middle + 0.005 * sign + 0.01 * rng.standard_normal(shape)
    price = middle + sign * half * (1 - inside)
    result = impact.spread_measures_arrays(price, middle - half, middle + half, sign, later)
    simulate.assert_recovered(result.values, result.std_errors, [0.02, 0.018, 0.008, 0.01])
    quoted = impact.quoted_spread_arrays(middle - half, middle + half, rng.exponential(1, shape))
    simulate.assert_recovered(quoted.values, quoted.std_errors, 0.02)
