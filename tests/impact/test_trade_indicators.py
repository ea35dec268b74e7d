"""Madhavan–Richardson–Roomans and Huang–Stoll: exact data, statsmodels, the moment conditions, recovery."""

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.sandwich_covariance import S_hac_simple

from jaxexec import impact
from jaxexec.numerics.moments import most_newey_west_lags
from jaxexec.numerics.status import Status
from tests.impact import simulated_stocks as simulate

THETA, PHI, RHO, UNSIGNED = 0.004, 0.007, 0.35, 0.1
SPREAD, ALPHA, BETA, REVERSAL = 0.03, 0.25, 0.35, 0.8


def signs(shape: tuple[int, int], persistence: float, unsigned: float, rng: np.random.Generator) -> np.ndarray:
    """A Markov chain on −1, 0, 1 with autocorrelation `persistence`: a sign repeats (reverses) the last or is new."""
    odds = [(1 - unsigned) / 2, unsigned, (1 - unsigned) / 2]
    fresh = rng.choice([-1.0, 0.0, 1.0], p=odds, size=shape)
    repeat = rng.random(shape) < abs(persistence)
    out = fresh.copy()
    for t in range(1, shape[1]):
        out[:, t] = np.where(repeat[:, t], np.sign(persistence) * out[:, t - 1], fresh[:, t])
    return out


def mrr_stocks(stocks: int, trades: int, seed: int, noise: float = 0.01):
    """Prices of the paper: m_t = m_{t−1} + θ(D_t − ρ D_{t−1}) + ε, p_t = m_t + φ D_t + ξ with ξ of a tick."""
    rng = np.random.default_rng(seed)
    sign = signs((stocks, trades), RHO, UNSIGNED, rng)
    surprise = sign - RHO * np.pad(sign, ((0, 0), (1, 0)))[:, :-1]
    value = np.cumsum(THETA * surprise + noise * rng.standard_normal(sign.shape), 1)
    return value + PHI * sign + noise / 4 * rng.standard_normal(sign.shape), sign


def huang_stoll_stocks(stocks: int, trades: int, seed: int, noise: float = 0.01):
    """V_t = V_{t−1} + α(S/2)(D_{t−1} − (1 − 2π) D_{t−2}) + ε, m_t = V_t + β(S/2) Σ_{i<t} D_i, p_t = m_t + (S/2) D_t."""
    rng = np.random.default_rng(seed)
    sign = signs((stocks, trades), 1 - 2 * REVERSAL, 0.0, rng)
    one, two = (np.pad(sign, ((0, 0), (lag, 0)))[:, :-lag] for lag in (1, 2))
    half = SPREAD / 2
    steps = ALPHA * half * (one - (1 - 2 * REVERSAL) * two) + BETA * half * one
    return np.cumsum(steps + noise * rng.standard_normal(sign.shape), 1) + half * sign, sign


def test_exact_data_return_the_truth():
    """Relation 54. In a sample the surprise is taken with the sample's ρ, which the estimator must meet."""
    _, sign = mrr_stocks(1, 400, 0)
    now, last = sign[0, 1:], sign[0, :-1]
    rho = now @ last / (last @ last)
    price = np.concatenate([[50.0], 50 + np.cumsum((PHI + THETA) * now - (PHI + rho * THETA) * last + 1e-4)])
    result = impact.madhavan_richardson_roomans_arrays(price, sign[0])
    truth = [THETA, PHI, rho, np.mean(now == 0), 2 * (THETA + PHI), THETA / (THETA + PHI)]
    np.testing.assert_allclose(result.values, truth, rtol=1e-9)

    price, sign = huang_stoll_stocks(1, 400, 1, noise=0)
    one, before = sign[0, 1:-1], sign[0, :-2]
    predicted = one @ before / (before @ before)
    half = SPREAD / 2
    exact = half * sign[0, 2:] + (ALPHA + BETA - 1) * half * one - ALPHA * half * predicted * before
    path = np.concatenate([price[0, :2], price[0, 1] + np.cumsum(exact)])
    three = impact.huang_stoll_arrays(path, sign[0], components="three")
    truth = [SPREAD, ALPHA, BETA, 1 - ALPHA - BETA, (1 - predicted) / 2]
    np.testing.assert_allclose(three.values, truth, rtol=1e-9)


def moments_of_mrr(parameters, price, sign):
    theta, phi, rho, unsigned, alpha = parameters
    now, last = sign[1:], sign[:-1]
    u = np.diff(price) - alpha - (phi + theta) * now + (phi + rho * theta) * last
    return np.column_stack([now * last - rho * last**2, np.abs(now) - (1 - unsigned), u, u * now, u * last])


def test_the_moment_conditions_hold_and_give_the_errors():
    """The generalised method of moments by the book: Ĝ by differences, Ŝ by statsmodels, Ĝ⁻¹ Ŝ Ĝ⁻ᵀ / n."""
    price, sign = (x[0] for x in mrr_stocks(1, 600, 2))
    result = impact.madhavan_richardson_roomans_arrays(price, sign)
    fit = sm.OLS(np.diff(price), sm.add_constant(np.column_stack([sign[1:], sign[:-1]]))).fit()
    at = np.array([*result.values[:4], fit.params[0]])
    moments = moments_of_mrr(at, price, sign)
    assert (np.abs(moments.mean(0)) < 1e-12).all()
    np.testing.assert_allclose(result["implied_spread"], 2 * fit.params[1], rtol=1e-10)
    rows, step = len(moments), 1e-6
    moved = [moments_of_mrr(at + s * step * e, price, sign).mean(0) for e in np.eye(5) for s in (1, -1)]
    slope = np.stack([(a - b) / (2 * step) for a, b in zip(moved[::2], moved[1::2], strict=True)], 1)
    middle = S_hac_simple(moments, nlags=most_newey_west_lags(rows))
    bread = np.linalg.inv(slope * rows)
    covariance = bread @ middle @ bread.T
    np.testing.assert_allclose(result.covariance[:4, :4], covariance[:4, :4], rtol=1e-6, atol=1e-14)
    theta, phi = at[:2]
    share = np.array([phi, -theta]) / (theta + phi) ** 2
    np.testing.assert_allclose(
        result.std_error("information_share"), (share @ covariance[:2, :2] @ share) ** 0.5, rtol=1e-6
    )


def test_huang_stoll_equals_statsmodels():
    """λ = 1 + b₂/b₁, by statsmodels' covariance and the delta method."""
    price, sign = (x[0] for x in huang_stoll_stocks(1, 600, 3))
    result = impact.huang_stoll_arrays(price, sign, lags=7)
    design = sm.add_constant(np.column_stack([sign[1:], sign[:-1]]))
    fit = sm.OLS(np.diff(price), design).fit(cov_type="HAC", cov_kwds={"maxlags": 7, "use_correction": False})
    _, b1, b2 = fit.params
    np.testing.assert_allclose(result.values, [2 * b1, 1 + b2 / b1, -b2 / b1], rtol=1e-10)
    slope = np.array([0, -b2 / b1**2, 1 / b1])
    error = (slope @ fit.cov_params() @ slope) ** 0.5
    np.testing.assert_allclose(result.std_errors, [2 * fit.bse[1], error, error], rtol=1e-9)


@pytest.mark.parametrize("model", ["mrr", "two", "three"])
def test_truth_is_recovered(model):
    """z of 96 stocks: centred, and of unit width, so that the errors are those of the estimates."""
    if model == "mrr":
        result = impact.madhavan_richardson_roomans_arrays(*mrr_stocks(96, 2000, 4))
        truth = np.array([THETA, PHI, RHO, UNSIGNED, 2 * (THETA + PHI), THETA / (THETA + PHI)])
    else:
        result = impact.huang_stoll_arrays(*huang_stoll_stocks(96, 2000, 5), components=model)
        truth = np.array([SPREAD, ALPHA, BETA, 1 - ALPHA - BETA, REVERSAL])
        if model == "two":
            # Two components leave D_{t−2} out, whose expectation given D_{t−1} is (1 − 2π) D_{t−1}: it stands in.
            share = ALPHA + BETA - ALPHA * (1 - 2 * REVERSAL) ** 2
            truth = np.array([SPREAD, share, 1 - share])
    assert (np.asarray(result.status) == Status.OK).all()
    simulate.assert_recovered(result.values, result.std_errors, truth)


def test_signs_that_tell_nothing_apart():
    price, sign = (x[0] for x in mrr_stocks(1, 160, 6))
    alternating = np.resize([1.0, -1.0], 160)
    for wrong in (np.ones(160), np.zeros(160), alternating):
        for result in (
            impact.madhavan_richardson_roomans_arrays(price, wrong),
            impact.huang_stoll_arrays(price, wrong),
            impact.huang_stoll_arrays(price, wrong, components="three"),
        ):
            assert result.status == Status.RANK_DEFICIENT
            assert np.isnan(result.values).all()
    assert impact.huang_stoll_arrays(price, sign * 2).status == Status.NONFINITE_INPUT


def test_days_of_a_tape_are_pooled_and_nothing_crosses_them():
    """statsmodels' hac-panel with the day as group."""
    days = [simulate.stock(n, n) for n in (300, 90, 40)]
    other = simulate.stock(200, 7)
    made = simulate.tape([(0, days[0]), (1, other), (0, days[1]), (0, days[2])])
    result = impact.huang_stoll(made, lags=6)
    x = np.concatenate([np.column_stack([s.sign[1:], s.sign[:-1]]) for s in days])
    y = np.concatenate([np.diff(s.price) for s in days])
    groups = np.repeat(np.arange(3), [len(s.price) - 1 for s in days])
    fit = sm.OLS(y, sm.add_constant(x)).fit(
        cov_type="hac-panel", cov_kwds={"groups": groups, "maxlags": 6, "use_correction": False}
    )
    np.testing.assert_allclose(result["traded_spread"][0], 2 * fit.params[1], rtol=1e-9)
    np.testing.assert_allclose(result.estimates.std_errors[0, 0], 2 * fit.bse[1], rtol=1e-9)
    alone = impact.huang_stoll_arrays(other.price, other.sign, lags=6)
    np.testing.assert_allclose(result.estimates.values[1], alone.values, rtol=1e-9)
    np.testing.assert_allclose(result.estimates.std_errors[1], alone.std_errors, rtol=1e-9)
    mrr = impact.madhavan_richardson_roomans(made)
    np.testing.assert_allclose(mrr["implied_spread"], result["traded_spread"], rtol=1e-9)
    assert mrr.table().height == 12
