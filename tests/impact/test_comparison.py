"""Panels side by side: against pandas and SciPy, and where a stock or a coefficient is missing."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from jaxexec.impact import compare, glosten_harris
from jaxexec.impact.comparison import rank_correlation
from tests.impact import simulated_stocks as simulate

STOCKS = [simulate.stock(n, seed) for seed, n in enumerate((60, 333, 700, 4, 64, 90))]


@pytest.fixture(scope="module")
def panels():
    """Another form; two terms, of four stocks of which one cannot be estimated."""
    whole = simulate.tape(list(enumerate(STOCKS)))
    return {
        "difference": glosten_harris(whole),
        "level": glosten_harris(whole, form="level"),
        "two terms": glosten_harris(
            simulate.tape(list(enumerate(STOCKS[:4]))), terms=("permanent_variable", "transitory_fixed")
        ),
    }


def test_table_is_the_join_of_the_panels(panels):
    comparison = compare(panels)
    assert comparison.symbols == ("S0", "S1", "S2", "S4", "S5")
    table = comparison.table()
    assert table.height == 5 * 4 * 2
    first = panels["difference"].table()
    for name in ("level", "two terms"):
        ours = table.filter((pl.col("panel") == name) & pl.col("estimate").is_not_null())
        keys = ["symbol", "coefficient"]
        theirs = panels[name].table().filter(pl.col("estimate").is_not_nan()).join(first, on=keys, suffix="_first")
        joined = ours.join(theirs, on=keys, suffix="_theirs")
        assert joined.height == ours.height == theirs.height
        np.testing.assert_array_equal(joined["difference"], joined["estimate_theirs"] - joined["estimate_first"])
        np.testing.assert_array_equal(joined["error_ratio"], joined["std_error_theirs"] / joined["std_error_first"])


def test_summary_counts_what_both_have(panels):
    comparison = panels["difference"].compare({"two terms": panels["two terms"]}, name="four terms")
    rows = {row[0]: row for row in comparison.presentation().rows}
    assert rows["permanent_fixed"][2:] == (0, None, None, None, None, None)
    table = comparison.table().filter(pl.col("coefficient") == "transitory_fixed").drop_nulls()
    stocks, reference, difference, in_errors, ratio, rank = rows["transitory_fixed"][2:]
    assert stocks == table.height == 3
    np.testing.assert_allclose(reference, table["reference"].median())
    np.testing.assert_allclose(difference, table["difference"].median())
    np.testing.assert_allclose(in_errors, (table["difference"].abs() / table["reference_std_error"]).median())
    np.testing.assert_allclose(ratio, table["error_ratio"].median())
    np.testing.assert_allclose(rank, spearmanr(table["reference"], table["estimate"]).statistic)
    assert "two terms" in comparison.summary() and "four terms" in comparison.summary("S1")
    assert len(comparison.plot().axes) == 4


def test_a_panel_agrees_with_itself(panels):
    same = panels["level"].compare(panels["level"])
    for row in same.presentation().rows:
        assert row[4:] == (0.0, 0.0, 1.0, pytest.approx(1.0))


def test_rank_correlation_with_ties():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 200), rng.integers(0, 4, 200)
    np.testing.assert_allclose(rank_correlation(x, y + x // 3), spearmanr(x, y + x // 3).statistic)
    assert np.isnan(rank_correlation(x, 0 * x))


def test_what_cannot_be_compared(panels):
    with pytest.raises(ValueError, match="two or more"):
        compare({"one": panels["level"]})
    with pytest.raises(ValueError, match="'a' is given to two"):
        panels["level"].compare({"a": panels["level"]}, name="a")
