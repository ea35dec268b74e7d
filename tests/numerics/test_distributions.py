"""Distribution functions against SciPy and the closed forms of one and two degrees of freedom."""

import numpy as np
import pytest
from scipy import stats

from jaxexec.numerics.distributions import normal_cdf, student_cdf

X = np.concatenate([np.linspace(-40, 40, 2001), [-1e12, -1e-9, 0.0, 1e-9, 1e12]])


def test_normal_to_the_last_digits():
    np.testing.assert_allclose(normal_cdf(X), stats.norm.cdf(X), rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(normal_cdf(X[X > 0]), 1 - normal_cdf(-X[X > 0]))


@pytest.mark.parametrize("degrees", [0.25, 0.5, 3.0, 10.0, 1e3])
def test_student_equals_scipy(degrees):
    np.testing.assert_allclose(
        student_cdf(X[np.abs(X) > 1e-6], degrees), stats.t.cdf(X[np.abs(X) > 1e-6], degrees), rtol=1e-11
    )
    np.testing.assert_array_equal(student_cdf(X[X > 0], degrees), 1 - student_cdf(-X[X > 0], degrees))


def test_student_in_closed_form():
    tail = np.arctan2(1.0, np.abs(X)) / np.pi
    np.testing.assert_allclose(student_cdf(X, 1.0), np.where(X > 0, 1 - tail, tail), rtol=1e-13)
    root = np.hypot(np.sqrt(2.0), np.abs(X))
    tail = 1.0 / (root * (root + np.abs(X)))  # ½ (1 − |x|/√(2 + x²)) without cancellation
    np.testing.assert_allclose(student_cdf(X, 2.0), np.where(X > 0, 1 - tail, tail), rtol=1e-12)


def test_student_at_the_ends():
    ends = np.array([-np.inf, -1e300, 0.0, 1e300, np.inf, np.nan])
    for degrees in (0.25, 2.0):
        found = student_cdf(ends, degrees)
        assert found[0] == 0 and found[4] == 1 and found[2] == 0.5 and np.isnan(found[5])
        assert 0 <= found[1] < 1e-70 and found[3] == 1
