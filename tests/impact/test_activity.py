"""Volume, volatility and spread through the day."""

import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from jaxexec import impact, tape

OPEN, HOUR = 34_200 * 10**9, 3_600 * 10**9
DAYS = [datetime.date(2024, 1, 2), datetime.date(2024, 1, 3)]


class Frames(NamedTuple):
    trades: pl.DataFrame
    cleaned: pl.DataFrame


def by_hand(quotes: bool = True) -> Frames:
    """Two stocks; A trades on two days, its midpoint 1e-4·(100000, 100200, 100100, 100500) on the first."""
    rows = [
        ("A", DAYS[0], OPEN, 100_000, 100),
        ("A", DAYS[0], OPEN + HOUR // 4, 100_200, 200),
        ("A", DAYS[0], OPEN + HOUR // 2, 100_100, 300),
        ("A", DAYS[0], OPEN + 2 * HOUR - 1, 100_500, 400),
        ("A", DAYS[1], OPEN + HOUR, 90_000, 1000),
        ("B", DAYS[0], OPEN + HOUR, 50_000, 70),
        ("B", DAYS[0], OPEN + 9 * HOUR, 50_000, 999_999),
    ]
    frame = pl.DataFrame(rows, schema=["symbol", "date", "time", "ticks", "size"], orient="row")
    frame = frame.with_columns(sign=pl.lit(1, pl.Int8), price=pl.col("ticks") * 1e-4)
    if quotes:
        frame = frame.with_columns(bid_ticks=pl.col("ticks") - 100, ask_ticks=pl.col("ticks") + 100)
    return Frames(frame, frame.select("symbol", "date", "time", "price", "size"))


def test_by_hand():
    a = impact.activity(by_hand(), bins=2, session=(OPEN, OPEN + 2 * HOUR), samples_per_bin=2)
    assert a.symbols == ("A", "B")
    assert a.days.tolist() == [2, 1]
    assert a.bin_edges.tolist() == [OPEN, OPEN + HOUR, OPEN + 2 * HOUR]
    np.testing.assert_allclose(a.volume, [[300, 700], [0, 70]])
    np.testing.assert_allclose(a.average_daily_volume, [1000, 70])
    np.testing.assert_allclose(a.volume_rate.mean(1), a.average_daily_volume)
    # Marks half an hour apart: 100200 at the first (from 100000 at the open), 100100, none, 100500.
    first, second = 0.02**2 + 0.01**2, 0.04**2
    np.testing.assert_allclose(a.volatility[0] ** 2, [first * 2 / 2, second * 2 / 2], rtol=1e-9)
    np.testing.assert_allclose(a.daily_volatility[0] ** 2, (first + second) / 2, rtol=1e-9)
    np.testing.assert_allclose(a.half_spread, [0.01, 0.01], rtol=1e-9)
    np.testing.assert_allclose(a.mean_trade_size, [400, 70])
    assert a.source == "midpoint"


def test_without_quotes_bounce_is_taken_out():
    """A price that bounces around a moving midpoint shows the midpoint's volatility, here half of the variance."""
    rng = np.random.default_rng(0)
    time = OPEN + np.sort(rng.integers(0, 6 * HOUR, 20_000))
    ticks = 100_000 + 100 * rng.choice([-1, 1], 20_000) + np.round(np.cumsum(rng.normal(0, 50, 20_000))).astype(int)
    frame = pl.DataFrame({"symbol": "A", "date": DAYS[0], "time": time, "ticks": ticks, "size": 1})
    frame = frame.with_columns(sign=pl.lit(1, pl.Int8), price=pl.col("ticks") * 1e-4)
    a = impact.activity(Frames(frame, frame), bins=12, session=("09:30", "15:30"), samples_per_bin=200)
    assert a.source == "price"
    assert np.isnan(a.half_spread).all()
    np.testing.assert_allclose(a.daily_volatility, 5e-3 * 20_000**0.5, rtol=0.1)
    assert "Zhou" in a.convention


def test_synthetic_tape_has_the_volatility_and_volume_it_was_made_with():
    synthetic = tape.synthetic.generate(stocks=40, trades=2000, seed=3)
    a = impact.activity(tape.sign(synthetic.trades, synthetic.quotes, midpoint="keep"))
    truth = synthetic.truth.sort("symbol")
    np.testing.assert_allclose(a.average_daily_volume, truth["volume"], rtol=1e-12)
    ratio = a.daily_volatility / truth["volatility"].to_numpy()
    assert abs(ratio.mean() - 1) < 0.05
    assert a.table().shape == (40 * 13, 8)
    assert a.to_pandas().shape == (40 * 13, 8)
    assert "midpoint" in " ".join(a.summary().split())


def test_plots():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    a = impact.activity(by_hand(), bins=2, session=(OPEN, OPEN + 2 * HOUR))
    for quantity in ("volume_rate", "volatility"):
        figure = a.plot(quantity)
        assert figure.axes
        pyplot.close(figure)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bins": 0}, "bins"),
        ({"session": (5, 5)}, "session"),
        ({"session": (0, 1000)}, "no trade"),
        ({"samples_per_bin": 0}, "samples"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        impact.activity(by_hand(), **options)


def test_parts_of_a_tape_are_the_tape(tmp_path):
    """A stream, part by part; the parts must not share a stock, nor differ in what they measure."""
    files = tape.synthetic.write(tmp_path, stocks=6, trades=100, seed=3, bucket=2)
    whole = impact.activity(tape.sign(files["trades"], files["quotes"], midpoint="keep"))
    stream = tape.stream(files["trades"], files["quotes"], memory=6e5, midpoint="keep")
    assert len(stream) > 1
    parts = impact.activity(stream)
    assert parts.table().equals(whole.table()) and parts.presentation().rows == whole.presentation().rows
    first = stream.part(0)
    with pytest.raises(ValueError, match="is in two tapes"):
        impact.activity([first, first])
    with pytest.raises(ValueError, match="some have quotes"):
        impact.activity([first, tape.SignedTape.from_frames(first.trades.drop("bid_ticks"), settings=first.settings)])
    with pytest.raises(ValueError, match="gave none"):
        impact.activity([])
