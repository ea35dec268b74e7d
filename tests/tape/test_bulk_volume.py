"""Bulk volume: bars share by share, SciPy's distributions, and the symmetries of price and size."""

import datetime

import numpy as np
import polars as pl
import pytest
from scipy import stats

from jaxexec import tape


@pytest.fixture(scope="module")
def trades():
    """Two symbols, two days; sizes from a few shares to several bars."""
    rng = np.random.default_rng(4)
    frames = [
        pl.DataFrame(
            {
                "symbol": symbol,
                "date": datetime.date(2024, 1, day),
                "time": np.sort(rng.integers(34_200, 57_600, 60)) * 10**9,
                "ticks": 100_000 + np.cumsum(rng.integers(-3, 4, 60)),
                "size": rng.integers(1, 200, 60) ** 2 // 20 + 1,
            }
        )
        for symbol in "AB"
        for day in (2, 3)
    ]
    return pl.concat(frames)


def share_by_share(day, volume):
    """(last price, shares, change) of each bar of one day, one share at a time."""
    prices = [p for p, n in day.select("ticks", "size").rows() for _ in range(n)]
    ends = [*range(volume, len(prices), volume), len(prices)]
    last = [prices[end - 1] for end in ends]
    return list(zip(last, np.diff([0, *ends]).tolist(), np.diff([prices[0], *last]).tolist(), strict=True))


def test_bars_of_volume_equal_a_count_of_shares(trades):
    bars = tape.bulk_volume(trades, volume=700)
    for key, day in trades.group_by("symbol", "date", maintain_order=True):
        mine = bars.filter(pl.col("symbol") == key[0], pl.col("date") == key[1])
        assert mine.select("ticks", "volume", "change").rows() == share_by_share(day, 700)
        assert mine["bar"].to_list() == list(range(mine.height))
    assert (trades["size"] > 1400).any(), "a trade spans several bars"


@pytest.mark.parametrize("distribution", ["normal", "student"])
def test_shares_equal_scipy(trades, distribution):
    bars = tape.bulk_volume(trades, time="30min", distribution=distribution)
    cdf = stats.norm.cdf if distribution == "normal" else lambda z: stats.t.cdf(z, 0.25)
    for symbol, mine in bars.group_by("symbol"):
        change = mine["change"].to_numpy()
        np.testing.assert_allclose(mine["buy_fraction"], cdf(change / np.std(change, ddof=1)), rtol=1e-12)
        inside = trades.filter(pl.col("symbol") == symbol[0])
        assert mine["volume"].sum() == inside["size"].sum()
    one = trades.filter(pl.col("symbol") == "A", pl.col("date") == datetime.date(2024, 1, 2))
    first = bars.row(0, named=True)
    half_hour = one.filter(pl.col("time") // (1800 * 10**9) == first["bar"])
    assert (first["volume"], first["ticks"]) == (half_hour["size"].sum(), half_hour["ticks"][-1])
    assert first["change"] == half_hour["ticks"][-1] - one["ticks"][0]


def test_mirror_and_scale(trades):
    plain = tape.bulk_volume(trades, volume=500)["buy_fraction"].to_numpy()
    mirrored = tape.bulk_volume(trades.with_columns(ticks=200_000 - pl.col("ticks")), volume=500)
    np.testing.assert_allclose(mirrored["buy_fraction"].to_numpy(), 1 - plain, rtol=0, atol=1e-16)
    for change in ({"ticks": pl.col("ticks") * 4}, {"ticks": pl.col("ticks") + 77}, {"time": pl.col("time") + 5}):
        np.testing.assert_allclose(tape.bulk_volume(trades.with_columns(**change), volume=500)["buy_fraction"], plain)
    split = tape.bulk_volume(trades.with_columns(size=pl.col("size") * 2), volume=1000)
    np.testing.assert_array_equal(split["buy_fraction"].to_numpy(), plain)
    alone = tape.bulk_volume(trades.filter(pl.col("symbol") == "A"), volume=500)
    np.testing.assert_array_equal(alone["buy_fraction"].to_numpy(), plain[: alone.height])
    shuffled = trades.with_columns(sequence=pl.int_range(pl.len())).sample(fraction=1.0, shuffle=True, seed=3)
    np.testing.assert_array_equal(tape.bulk_volume(shuffled, volume=500)["buy_fraction"].to_numpy(), plain)


def test_prices_that_say_little(make_trades):
    still = tape.read(make_trades([(k, 10.0) for k in range(4)]))
    assert tape.bulk_volume(still, volume=100)["buy_fraction"].to_list() == [0.5] * 4
    rising = tape.read(make_trades([(k, 10.0 + 0.01 * k) for k in (1, 2)]))
    assert tape.bulk_volume(rising, volume=200)["buy_fraction"].to_list() == [None], "one bar has no deviation"
    assert tape.bulk_volume(still.head(0), volume=5).height == 0
    for options, field in (
        ({}, "volume"), ({"volume": 5, "time": "1min"}, "volume"), ({"volume": 0}, "volume"), ({"time": "0s"}, "time"),
        ({"volume": 5, "distribution": "cauchy"}, "distribution"), ({"volume": 5, "degrees_of_freedom": 0}, "degrees"),
    ):  # fmt: skip
        with pytest.raises(tape.InputError, match=field):
            tape.bulk_volume(still, **options)
    with pytest.raises(tape.InputError, match="cleaned") as error:
        tape.bulk_volume(still.with_columns(size=pl.Series([1, 0, 1, 1])), volume=5)
    assert error.value.index == 1
