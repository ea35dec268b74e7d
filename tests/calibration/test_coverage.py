"""What `python -m benchmarks coverage` measures: intervals that cover, and the truth from anywhere.

Seeds are those of the study, made of the names of its cases.
"""

import numpy as np
import pytest

from benchmarks.coverage_cases import CASES, covered, from_random_starts, usable
from tests.calibration.coverage import LEAST, MOST, REPLICATIONS

# The rest differ from these by what is fixed or by more rows: they are left to the study.
LEFT = {
    "execution_cost, phi fixed",
    "execution_cost, hc3, errors alike",
    "execution_cost, huber and hc3, heavy tails",
    "meta_order_impact, joint, exponents fixed",
    "meta_order_impact, joint, hc3, errors of unequal size",
    "meta_order_impact, separate, hc3, errors of unequal size",
    "propagator, power-law, scale free",
    "execution_cost, huber",
    "observed_preferences, risk aversion",
    "observed_preferences, risk aversion and phi",
    "observed_preferences, cost alone",
}
CLAIMED = [case for case in CASES if case.honest and case.name not in LEFT]


@pytest.mark.parametrize("case", CLAIMED, ids=[case.name for case in CLAIMED])
def test_intervals_cover_and_searches_return_the_truth(case):
    fits = case.fit(case.draw(np.random.default_rng(case.seed), REPLICATIONS, 1.0), None)
    count = usable(fits).sum()
    assert count >= 0.998 * REPLICATIONS
    share = covered(case, fits) / count
    assert np.all((share >= LEAST) & (share <= MOST)), dict(zip(case.truth, share, strict=True))
    # Of the same shapes, so that nothing is compiled again.
    assert from_random_starts(case, 20, REPLICATIONS) < 1e-8


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("execution_cost, robust, errors grow with size", 0.92),
        ("propagator, exponential, correlated errors", 0.92),
    ],
)
def test_errors_that_do_not_hold_are_told_from_those_that_do(name, most):
    """The documentation says that these intervals fail: they do."""
    (case,) = (case for case in CASES if case.name == name)
    fits = case.fit(case.draw(np.random.default_rng(case.seed), REPLICATIONS, 1.0), None)
    assert np.min(covered(case, fits) / usable(fits).sum()) < most
