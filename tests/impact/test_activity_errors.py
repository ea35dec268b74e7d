"""Errors of volume, volatility and spread: over many simulated stocks, deviations are what the errors say."""

import datetime
import functools
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from jaxexec import impact

OPEN, HOUR = 34_200 * 10**9, 3_600 * 10**9
BINS, SAMPLES, STOCKS = 4, 6, 400
SIGMA, RATE, SIZE, SPREAD = 0.5, 600.0, 100.0, 0.02
DAY_SWING = 0.3


class Frames(NamedTuple):
    trades: pl.DataFrame
    cleaned: pl.DataFrame


@functools.cache
def simulated(days: int, quotes: bool = True) -> impact.Activity:
    """Poisson trades of exponential sizes, a Brownian midpoint, a half-spread that reverts over some trades.

    With several days volume and variance of a day are themselves random, of mean 1.
    """
    rng = np.random.default_rng([days, quotes])
    frames = []
    for stock in range(STOCKS):
        for day in range(days):
            volume, variance = np.exp(DAY_SWING * rng.standard_normal(2) - DAY_SWING**2 / 2) if days > 1 else (1, 1)
            count = rng.poisson(RATE * volume)
            at = np.sort(rng.uniform(0, 1, count))
            mid = 50 + SIGMA * variance**0.5 * np.cumsum(rng.standard_normal(count) * np.sqrt(np.diff(at, prepend=0)))
            width = np.empty(count)
            last = rng.standard_normal()
            for i, shock in enumerate(rng.standard_normal(count)):
                last = 0.8 * last + 0.6 * shock
                width[i] = SPREAD + 0.003 * last
            price = mid if quotes else mid + rng.choice([-0.01, 0.01], count)
            frames.append(
                {
                    "symbol": f"S{stock:03d}",
                    "date": datetime.date(2024, 1, 1) + datetime.timedelta(day),
                    "time": (OPEN + at * 6 * HOUR).astype(np.int64),
                    "ticks": np.round(price * 1e4).astype(np.int64),
                    "size": np.ceil(rng.exponential(SIZE, count)).astype(np.int64),
                    "bid_ticks": np.round((mid - width) * 1e4).astype(np.int64),
                    "ask_ticks": np.round((mid + width) * 1e4).astype(np.int64),
                }
            )
    frame = pl.concat([pl.DataFrame(x) for x in frames])
    frame = frame.with_columns(sign=pl.lit(1, pl.Int8), price=pl.col("ticks") * 1e-4)
    frame = frame if quotes else frame.drop("bid_ticks", "ask_ticks")
    session = (OPEN, OPEN + 6 * HOUR)
    return impact.activity(Frames(frame, frame), bins=BINS, session=session, samples_per_bin=SAMPLES)


def spread_of_deviations(estimate, error, truth):
    """Root mean square of deviations over that of the errors, and over each one's own error."""
    known = np.isfinite(error)
    assert known.mean() > 0.95
    apart, error = (estimate - truth)[known], error[known]
    return float(np.sqrt(np.mean(apart**2) / np.mean(error**2))), float(np.sqrt(np.mean((apart / error) ** 2)))


SIZE_MEAN = 1 / (1 - np.exp(-1 / SIZE))  # of an exponential rounded up


@pytest.mark.parametrize("days", [1, 8])
def test_deviations_are_what_the_errors_say(days):
    a = simulated(days)
    errors = a.errors
    assert errors is not None
    daily = RATE * SIZE_MEAN
    found = {
        "average_daily_volume": spread_of_deviations(a.average_daily_volume, errors.average_daily_volume, daily),
        "volume_rate": spread_of_deviations(a.volume_rate, errors.volume_rate, daily),
        "volatility": spread_of_deviations(a.volatility, errors.volatility, SIGMA),
        "daily_volatility": spread_of_deviations(a.daily_volatility, errors.daily_volatility, SIGMA),
        "half_spread": spread_of_deviations(a.half_spread, errors.half_spread, SPREAD),
        "mean_trade_size": spread_of_deviations(a.mean_trade_size, errors.mean_trade_size, SIZE_MEAN),
    }
    for name, (spread, of_own) in found.items():
        assert 0.9 < spread < 1.17, (name, spread)
        # Six changes in a bin of one day: their errors are right on average, and rough one by one.
        assert of_own < (2 if name == "volatility" else 1.4), (name, of_own)


def test_of_prices_the_errors_know_of_bounce():
    a = simulated(1, quotes=False)
    errors = a.errors
    assert errors is not None
    spread, _ = spread_of_deviations(a.daily_volatility, errors.daily_volatility, SIGMA)
    assert 0.9 < spread < 1.17
    assert np.isnan(errors.half_spread).all()


def test_errors_reach_the_market():
    """What is measured has the activity's error; what depends on it, the error carried over."""
    import jaxexec as jx

    made = jx.tape.synthetic.generate(stocks=1, trades=400, seed=1)
    tape = jx.tape.sign(made.trades, made.quotes, midpoint="keep")
    a = impact.activity(tape)
    assert a.errors is not None
    found = jx.calibrate(impact.glosten_harris(tape), a)
    volume, volatility, child, eta = (found.of(name) for name in ("volume", "volatility", "child size", "eta"))
    assert volume.std_error == pytest.approx(float(a.errors.average_daily_volume[0]))
    relative = float(a.errors.daily_volatility[0] / a.daily_volatility[0])
    assert volatility.std_error == pytest.approx(relative * volatility.value)
    assert child.std_error == pytest.approx(float(a.errors.mean_trade_size[0]))
    assert eta.std_error == pytest.approx(np.hypot(0.0062 * volatility.value, 0.142 * volatility.std_error))
    assert "not of other days" in volume.note
    assert all(np.isfinite(p.std_error) for p in found.provenance)
