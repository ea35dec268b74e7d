"""Small simulated stocks with known impact, and the statsmodels regressions they are compared with."""

from typing import NamedTuple

import numpy as np
import statsmodels.api as sm
from scipy.special import erf

TRUTH = np.array([3e-3, 5e-6, 6e-3, 2e-6])
WEIGHTS = np.array([0.25, 0.1, 0.05, 0.03, 0.02])


class Stock(NamedTuple):
    price: np.ndarray
    size: np.ndarray
    sign: np.ndarray


class Segments(NamedTuple):
    symbols: list
    stock: np.ndarray
    offsets: np.ndarray
    ticks: np.ndarray
    size: np.ndarray
    sign: np.ndarray


class Tape(NamedTuple):
    """Stands in for a `SignedTape`."""

    parts: Segments

    def segments(self) -> Segments:
        return self.parts


class Reference(NamedTuple):
    order_flow: sm.regression.linear_model.RegressionResults
    fit: sm.regression.linear_model.RegressionResults


def stock(trades: int, seed: int, noise: float = 0.01, weights=WEIGHTS) -> Stock:
    """Sizes are whole shares and prices lie on ticks of 1e-4, so that a tape holds them exactly."""
    rng = np.random.default_rng(seed)
    shocks, flow = 300 * rng.standard_normal(trades), np.zeros(trades)
    for t in range(trades):
        past = flow[max(t - 5, 0) : t][::-1]
        flow[t] = np.round(weights[: len(past)] @ past + shocks[t]) or 1.0
    sign = np.sign(flow)
    expected = sum(weights[j] * np.concatenate([np.zeros(j + 1), flow[: -j - 1]])[:trades] for j in range(5))
    c, lam, zeta, ell = TRUTH
    news = c * (sign - erf(expected / 300 / 2**0.5)) + lam * (flow - expected) + noise * rng.standard_normal(trades)
    price = 50 + np.cumsum(news) + zeta * sign + ell * flow
    return Stock(np.round(price, 4), np.abs(flow), sign)


def columns(s: Stock, form: str = "difference"):
    """Regressors, price changes and the autoregression of one segment, by statsmodels."""
    flow = s.sign * s.size
    order_flow = sm.OLS(flow[5:], sm.add_constant(lags(flow))).fit()
    return *design(s, order_flow.params, order_flow.scale**0.5, form), order_flow


def lags(flow: np.ndarray) -> np.ndarray:
    return np.column_stack([flow[5 - j : len(flow) - j] for j in range(1, 6)])


def design(s: Stock, weights: np.ndarray, deviation: float, form: str = "difference"):
    flow = s.sign * s.size
    expected = sm.add_constant(lags(flow), has_constant="add") @ weights
    transitory = [np.diff(s.sign)[4:], np.diff(flow)[4:]] if form == "difference" else [s.sign[5:], flow[5:]]
    surprise = s.sign[5:] - erf(expected / (deviation * 2**0.5))
    x = np.column_stack([np.ones(len(expected)), surprise, flow[5:] - expected, *transitory])
    return x, np.diff(s.price)[4:]


def reference(s: Stock, form: str = "difference", covariance: str = "hac", maxlags: int | None = None) -> Reference:
    x, y, order_flow = columns(s, form)
    options: dict = {}
    if covariance == "hac":
        maxlags = int(4 * (len(y) / 100) ** (2 / 9)) if maxlags is None else maxlags
        options = {"cov_type": "HAC", "cov_kwds": {"maxlags": maxlags, "use_correction": False}}
    elif covariance == "hc0":
        options = {"cov_type": "HC0"}
    return Reference(order_flow, sm.OLS(y, x).fit(**options))


def batch(stocks: list[Stock], trades: int = 512, lanes: int = 12):
    """Padded arrays and mask, of one shape for most tests, so that few programs are compiled; padding is NaN."""
    out = [np.full((lanes, trades), np.nan) for _ in range(3)]
    mask = np.zeros((lanes, trades), bool)
    for i, s in enumerate(stocks):
        mask[i, : len(s.price)] = True
        for array, values in zip(out, s, strict=True):
            array[i, : len(values)] = values
    return *out, mask


def tape(segments: list[tuple[int, Stock]]) -> Tape:
    """A tape of (stock index, one day's trades)."""
    stocks = np.array([i for i, _ in segments], np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(s.price) for _, s in segments])]).astype(np.int64)
    ticks = np.concatenate([np.round(s.price * 1e4) for _, s in segments]).astype(np.int64)
    size = np.concatenate([s.size for _, s in segments]).astype(np.int64)
    sign = np.concatenate([s.sign for _, s in segments]).astype(np.int8)
    return Tape(Segments([f"S{i}" for i in range(stocks.max() + 1)], stocks, offsets, ticks, size, sign))


def assert_recovered(estimates, std_errors, truth) -> None:
    """z-scores over stocks, (stocks, …): their mean is within 3/√stocks of 0, their width within 3/√(2 stocks) of 1."""
    z = (np.asarray(estimates) - truth) / np.asarray(std_errors)
    stocks = z.shape[0]
    assert np.isfinite(z).all()
    assert (np.abs(z.mean(0)) < 3 / stocks**0.5).all(), z.mean(0)
    assert (np.abs(z.std(0, ddof=1) - 1) < 3 / (2 * stocks) ** 0.5).all(), z.std(0, ddof=1)
