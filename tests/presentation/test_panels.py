"""Figures of several axes: each in its own unit, what is drawn is what was given."""

import numpy as np
import pytest

from jaxexec import presentation
from jaxexec.presentation.panels import scales

X = np.linspace(-1.0, 3.0, 5001)


def test_numbers_of_one_unit_have_one_scale_and_are_readable():
    found = scales([X * 2e-6, X * 1e-8, X, X * 1e-3, X * 4e5], ["a per b", "a per b", "1", "1", "shares"])
    assert found == [(1e6, "1e−6 a per b")] * 2 + [(1.0, "")] * 2 + [(1e-6, "1e6 shares")]


def test_intervals_are_where_they_were_given():
    figure = presentation.interval_panels(["x", "y"], {"a": ([2e-6, 3e-6], [1e-6, 0.0])}, ["$"], "t")
    (bar,) = figure.axes[0].containers
    np.testing.assert_allclose(bar.lines[0].get_xdata(), [2, 3])
    segments = bar.lines[2][0].get_segments()
    np.testing.assert_allclose([s[:, 0] for s in segments], [[2 - 1.96, 2 + 1.96], [3, 3]])
    assert figure.axes[0].get_xlabel() == "1e−6 $"


def test_lines_are_least_squares_of_all_points_though_few_are_drawn():
    rng = np.random.default_rng(0)
    y = 2.0 - 0.5 * X + rng.standard_normal(len(X))
    y[7] = np.nan
    figure = presentation.scatter_matrix({"x": X, "y": y}, ["1", "1"], "t")
    below = figure.axes[2]
    points, line = below.lines
    assert len(points.get_xdata()) == 2000
    known = np.isfinite(y)
    slope, intercept = np.polyfit(X[known], y[known], 1)
    np.testing.assert_allclose(line.get_ydata(), intercept + slope * line.get_xdata(), rtol=1e-10)
    correlation = np.corrcoef(X[known], y[known])[0, 1]
    assert float(figure.axes[1].texts[0].get_text().removeprefix("r = ").replace("−", "-")) == round(correlation, 2)


def test_lengths_are_checked():
    with pytest.raises(ValueError, match="units"):
        presentation.violin_panels({"a": X}, [], "t")
    with pytest.raises(ValueError, match="b has shape"):
        presentation.scatter_matrix({"a": X, "b": X[1:]}, ["1", "1"], "t")
    with pytest.raises(ValueError, match="a has shape"):
        presentation.interval_panels(["x"], {"a": (X, X)}, ["1"], "t")
