"""Many days: the sums of each, added up, are the regression of all days stacked by hand."""

import datetime
import weakref
from collections.abc import Sequence

import jax
import numpy as np
import polars as pl
import pytest

from jaxexec.impact import glosten_harris
from jaxexec.numerics.status import Status
from jaxexec.tape import SignedTape
from tests.impact import simulated_stocks as simulate
from tests.impact.test_estimates import pooled

MONDAY = datetime.date(2024, 1, 8)
# Days of one stock have other lengths and other mean flows; C is missing on one day, D has too few trades in all.
LENGTHS = ({"A": 700, "B": 64, "D": 4}, {"C": 333, "A": 40}, {"B": 150, "A": 560, "C": 90, "D": 5})


def day(number: int, stocks: dict[str, simulate.Stock]) -> pl.DataFrame:
    frames = [
        pl.DataFrame(
            {
                "symbol": name,
                "date": MONDAY + datetime.timedelta(number),
                "time": np.arange(len(s.price)) * 10**9,
                "ticks": np.round(s.price * 1e4).astype(np.int64),
                "size": s.size.astype(np.int64),
                "sign": s.sign.astype(np.int8),
            }
        )
        for name, s in stocks.items()
    ]
    return pl.concat(frames)


@pytest.fixture(scope="module")
def stocks():
    return [
        {name: simulate.stock(n, 10 * i + ord(name)) for name, n in lengths.items()}
        for i, lengths in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="module")
def frames(stocks):
    return [day(i, of_day) for i, of_day in enumerate(stocks)]


@pytest.fixture(scope="module")
def tapes(frames):
    return [SignedTape.from_frames(frame) for frame in frames]


@pytest.fixture(scope="module")
def panel(tapes):
    return glosten_harris(tapes, lags=8)


def test_equals_statsmodels_on_stacked_days(panel, stocks):
    assert panel.symbols == ("A", "B", "C", "D")
    for i, name in enumerate("ABC"):
        fit = pooled([of_day[name] for of_day in stocks if name in of_day], 8)
        np.testing.assert_allclose(panel.estimates.coefficients[i], fit.params[1:], rtol=1e-9)
        np.testing.assert_allclose(panel.estimates.std_errors[i], fit.bse[1:], rtol=1e-9)
        np.testing.assert_allclose(panel.estimates.intercept[i], fit.params[0], rtol=1e-8, atol=1e-12)
        assert panel.estimates.n[i] == fit.nobs
    assert panel.estimates.status.tolist() == [0, 0, 0, Status.INSUFFICIENT_DATA]


@pytest.mark.parametrize(
    "options", [{"lags": 8}, {"form": "level", "covariance": "hc0"}, {"covariance": "hc3"}], ids=str
)
def test_equals_one_tape_of_all_days_in_any_order(tapes, frames, options):
    """Relation 47. HC3 goes by whole stocks, which are put together in memory; the rule's lags are of pooled rows."""
    whole = glosten_harris(SignedTape.from_frames(pl.concat(frames)), **options).estimates
    for days in (tapes, tapes[::-1]):
        found = glosten_harris(days, **options)
        assert found.symbols == ("A", "B", "C", "D")
        for (path, a), b in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(found.estimates), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-15, err_msg=str(path))
        np.testing.assert_allclose(found.estimates.coefficients, whole.coefficients, rtol=1e-11)


class Parts:
    """Segments that can be watched."""

    def __init__(self, segments):
        self.__dict__ |= segments._asdict()


class Held:
    """A day that can be watched."""

    def __init__(self, segments):
        self.parts = Parts(segments)

    def segments(self):
        return self.parts


class Loaded(Sequence):
    """Days that are made when they are asked for; `alive` counts those that then are still held."""

    def __init__(self, frames):
        self.frames, self.asked, self.alive, self.made = frames, [], [], weakref.WeakSet()

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, i):
        self.asked.append(i)
        self.alive.append(len(self.made))
        day = Held(SignedTape.from_frames(self.frames[i]).segments())
        self.made |= {day, day.parts}
        return day


class Shrinking(Loaded):
    """Days that lose a trade after their first reading."""

    def __getitem__(self, i):
        later = len(self.asked) >= len(self.frames)
        self.asked.append(i)
        return SignedTape.from_frames(self.frames[i].head(self.frames[i].height - later))


def test_days_are_read_one_at_a_time_and_three_times(panel, frames):
    days = Loaded(frames)
    again = glosten_harris(days, lags=8)
    assert days.asked == [0, 1, 2] * 3
    assert days.alive == [0] * 9
    assert np.array_equal(again.estimates.std_errors, panel.estimates.std_errors, equal_nan=True)


def test_a_day_counts_once_and_must_not_change(tapes, frames):
    with pytest.raises(ValueError, match=r"'A' has trades of 2024-01-08 in two tapes"):
        glosten_harris([tapes[0], tapes[1], tapes[0]])
    with pytest.raises(ValueError, match="'A' has trades of 2024-01-08"):
        glosten_harris([tapes[0], tapes[0]], covariance="hc3")
    with pytest.raises(ValueError, match="'A' is in two parts of a stream"):
        glosten_harris(iter(tapes))
    with pytest.raises(ValueError, match="is empty"):
        glosten_harris([])
    with pytest.raises(ValueError, match="dates"):
        glosten_harris([simulate.tape([(0, simulate.stock(64, 0))])])
    shrinking = Shrinking(frames)
    with pytest.raises(ValueError, match=r"tapes\[0\] changed"):
        glosten_harris(shrinking)


def test_days_of_the_real_sample(taq_sample):
    from jaxexec import tape

    files = (taq_sample / "ctm_XXX.parquet", taq_sample / "cqm_XXX.parquet")
    signed = tape.sign(*files, midpoint="keep", session="auto", unsorted="sort", quote_exchange="N")
    days = [SignedTape.from_frames(frame) for frame in signed.trades.partition_by("date")]
    whole, apart = glosten_harris(signed).estimates, glosten_harris(days).estimates
    assert len(days) == 2 and apart.n == whole.n
    np.testing.assert_allclose(apart.coefficients, whole.coefficients, rtol=1e-12)
    np.testing.assert_allclose(apart.covariance, whole.covariance, rtol=1e-12)
