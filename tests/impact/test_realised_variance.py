"""Realised variance: by direct sums, on simulated paths with and without noise, and over the days of a tape."""

import datetime

import numpy as np
import polars as pl
import pytest

from jaxexec import impact, tape
from jaxexec.numerics.status import Status
from jaxexec.tape.signed_tape import SignedTape
from tests.impact.simulated_stocks import assert_recovered

SIGMA, NOISE = 0.5, 0.01
OPEN, CLOSE = 34_200 * 10**9, 57_600 * 10**9


def by_hand(price, elapsed, intervals, subgrids):
    """The four sums as they are written, with loops."""
    marks = np.arange(1, intervals + 1) / intervals
    level = [price[0]] + [price[max(np.sum(elapsed <= m) - 1, 0)] for m in marks]
    changes = np.diff(level)
    ranges = 0.0
    for k, end in enumerate(marks):
        inside = (elapsed <= end) & (elapsed > end - 1 / intervals)
        seen = np.append(price[inside], level[k])
        ranges += (seen.max() - seen.min()) ** 2 / (4 * np.log(2))
    bipower = np.pi / 2 * intervals / (intervals - 1) * np.sum(np.abs(changes[1:] * changes[:-1]))
    n = len(price) - 1
    fast = np.sum(np.diff(price) ** 2)
    slow = np.sum((price[subgrids:] - price[:-subgrids]) ** 2) / subgrids
    share = (n - subgrids + 1) / (subgrids * n)
    return [np.sum(changes**2), ranges, bipower, (slow - share * fast) / (1 - share)]


def test_equals_the_sums():
    """Also with trades that are masked out in the middle and at the end."""
    rng = np.random.default_rng(0)
    price, elapsed = np.cumsum(rng.standard_normal(200)), np.sort(rng.random(200)) ** 2
    mask = rng.random(200) < 0.8
    mask[150:] = False
    result = impact.realised_variance_arrays(price, elapsed, mask, intervals=9, subgrids=7)
    np.testing.assert_allclose(result.values, by_hand(price[mask], elapsed[mask], 9, 7), rtol=1e-10)
    np.testing.assert_allclose(result["bipower"], result.values[2])
    assert int(result.n) == mask.sum()
    assert result.subgrids == 7
    thrice = impact.realised_variance_arrays(3 * price + 40, elapsed, mask, intervals=9, subgrids=7)
    np.testing.assert_allclose(thrice.std_errors, 9 * np.asarray(result.std_errors), rtol=1e-7)
    with pytest.raises(KeyError, match="garch"):
        result["garch"]


def test_parkinson_from_a_high_and_a_low():
    elapsed = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 0.8])
    result = impact.realised_variance_arrays(np.array([5.0, 7.0, 4.0, 5.0, 5.0, 8.0]), elapsed, intervals=4)
    np.testing.assert_allclose(result["parkinson"], (3**2 + 1**2 + 0 + 3**2) / (4 * np.log(2)))
    np.testing.assert_allclose(result["close_to_close"], 1 + 1 + 9)


def paths(days: int, trades: int, seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Brownian days of uneven times with a bounce of ±noise."""
    rng = np.random.default_rng(seed)
    elapsed = np.sort(rng.random((days, trades)), 1)
    steps = np.diff(elapsed, axis=1, prepend=0)
    price = np.cumsum(SIGMA * np.sqrt(steps) * rng.standard_normal((days, trades)), 1)
    return price + noise * rng.choice([-1, 1], (days, trades)), elapsed


def scores(result, truth: float) -> np.ndarray:
    assert (np.asarray(result.status) == Status.OK).all()
    return (np.asarray(result.values) - truth) / np.asarray(result.std_errors)


def test_recovers_the_variance_of_a_clean_path():
    """z of 128 days, centred and of unit width; but the range, which trades do not see in full, is too short."""
    result = impact.realised_variance_arrays(*paths(128, 2000, 1, 0.0), intervals=60, subgrids=20)
    for k in (0, 2, 3):
        assert_recovered(result.values[:, k], result.std_errors[:, k], SIGMA**2)
    assert scores(result, SIGMA**2)[:, 1].mean() < -0.5


def test_only_two_scales_see_through_the_noise():
    price, elapsed = paths(128, 2000, 2, NOISE)
    result = impact.realised_variance_arrays(price, elapsed, intervals=60)
    assert_recovered(result.values[:, 3], result.std_errors[:, 3], SIGMA**2)
    # Close to close counts the noise of each of its 60 changes twice: 2 m ν².
    bias = np.asarray(result["close_to_close"]).mean() - SIGMA**2
    np.testing.assert_allclose(bias, 2 * 60 * NOISE**2, rtol=0.5)
    best = 2000 ** (2 / 3) * (12 * NOISE**4 / SIGMA**4) ** (1 / 3)
    assert 0.5 < np.median(result.subgrids) / best < 2


def test_a_jump_counts_in_all_but_bipower():
    price, elapsed = paths(128, 2000, 1, 0.0)
    plain = impact.realised_variance_arrays(price, elapsed, intervals=60, subgrids=20)
    jumped = price + np.where(elapsed > 0.503, 1.0, 0.0)
    after = impact.realised_variance_arrays(jumped, elapsed, intervals=60, subgrids=20)
    moved = np.asarray(after.values - plain.values).mean(0)
    np.testing.assert_allclose(moved[[0, 3]], 1, rtol=0.1)
    assert moved[2] < 0.2


def test_refusals_have_a_status():
    price, elapsed = (x[0, :200] for x in paths(1, 200, 4, 0.0))
    few = np.arange(200) < 4
    backwards = elapsed[::-1]
    for wrong, mask, status in (
        (elapsed, few, Status.INSUFFICIENT_DATA),
        (backwards, ~few, Status.NONFINITE_INPUT),
        (2 * elapsed, ~few, Status.NONFINITE_INPUT),
    ):
        assert impact.realised_variance_arrays(price, wrong, mask, intervals=9, subgrids=7).status == status


def day_of(price, elapsed, date) -> pl.DataFrame:
    time = OPEN + np.round(elapsed * (CLOSE - OPEN)).astype(np.int64)
    ticks = np.round((price + 50) * 1e4).astype(np.int64)
    return pl.DataFrame({"symbol": "A", "date": date, "time": time, "ticks": ticks, "size": 1, "sign": 1})


def test_days_of_a_tape_are_averaged():
    price, elapsed = paths(3, 300, 5, 0.0)
    dates = [datetime.date(2024, 1, 2 + d) for d in range(3)]
    frames = [day_of(price[d], elapsed[d], dates[d]) for d in range(3)]
    # A day of three trades is no day; a trade after the session is none of it.
    frames += [day_of(price[0, :3], elapsed[0, :3], datetime.date(2024, 1, 5))]
    frames += [frames[0][:1].with_columns(time=pl.lit(CLOSE + 1, pl.Int64))]
    result = impact.realised_volatility(SignedTape.from_frames(pl.concat(frames)), intervals=20, subgrids=5)
    each = impact.realised_variance_arrays(np.round(price, 4), elapsed, intervals=20, subgrids=5)
    mean = np.asarray(each.values).mean(0)
    np.testing.assert_allclose(result.estimates.values[0], mean**0.5, rtol=1e-6)
    error = np.sum(np.asarray(each.std_errors) ** 2, 0) ** 0.5 / 3
    np.testing.assert_allclose(result.estimates.std_errors[0], error / (2 * mean**0.5), rtol=1e-6)
    assert result.estimates.n.tolist() == [900]
    assert result.table()["unit"].unique().to_list() == ["currency per share per √day"]


def test_synthetic_tape():
    """The volatility that the tape was made with, from prices and from midpoints; and the root of what is negative."""
    made = tape.synthetic.generate(stocks=30, trades=1500, seed=3)
    signed = tape.sign(made.trades, made.quotes, midpoint="keep")
    truth = made.truth.sort("symbol")["volatility"].to_numpy()
    for price in ("trade", "midpoint"):
        ratio = impact.realised_volatility(signed, 40, price=price)["two_scale"] / truth
        assert abs(ratio.mean() - 1) < 0.1, price
    bounce = np.resize([50.0, 50.1], 300)
    still = day_of(bounce - 50, np.linspace(0.01, 0.99, 300), datetime.date(2024, 1, 2))
    result = impact.realised_volatility(SignedTape.from_frames(still), 40, subgrids=4)
    assert np.isnan(result["two_scale"]).all()
    assert (
        result.table()["estimate"].null_count() == 2
    )  # bipower is zero here, for the bounce falls on every other mark
    with pytest.raises(ValueError, match="price"):
        impact.realised_volatility(signed, price="bid")
    with pytest.raises(ValueError, match="session"):
        impact.realised_volatility(signed, session=("16:00", "09:30"))
