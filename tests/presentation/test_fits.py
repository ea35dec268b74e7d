"""Pictures of a fit hold what they were given."""

import numpy as np
import pytest

from jaxexec import presentation
from jaxexec.presentation import to_svg


def test_data_their_means_and_the_curve():
    rng = np.random.default_rng(0)
    x = np.append(rng.uniform(0.01, 1, 200), np.nan)
    y = np.append(2 * x[:-1], 1.0)
    along = np.linspace(0.01, 1, 5)
    figure = presentation.fitted_curve(x, y, along, 2 * along, along, 3 * along, "t", "x", "y", log_x=True)
    (axes,) = figure.axes
    dots, curve = axes.lines[:2]
    assert len(dots.get_xdata()) == 200 and axes.get_xscale() == "log"
    np.testing.assert_array_equal(curve.get_ydata(), 2 * along)
    middle, mean = next(line for line in axes.lines if len(line.get_xdata()) == 12).get_data()
    np.testing.assert_allclose(mean, 2 * np.asarray(middle))
    alone = presentation.fitted_curve(x[:3], y[:3], along, along, along, along, "t", "x", "y", means=False).axes[0]
    assert len(alone.lines) == 2
    for broken in ((x, y[:3], along, along), (x, y, along, along[:2])):
        with pytest.raises(ValueError, match="shape"):
            presentation.fitted_curve(*broken, along, along, "t", "x", "y")
    assert to_svg(presentation.fitted_curve([], [], along, along, along, along, "t", "x", "y")).startswith(b"<?xml")


def test_residuals_beside_what_is_fitted_and_normal():
    left = np.random.default_rng(1).standard_normal(2000)
    beside, normal = presentation.residual_panels(np.exp(left), left, "t", "fitted", log_x=True).axes
    assert beside.get_xscale() == "log" and normal.get_xscale() == "linear"
    expected, found = normal.lines[-1].get_data()
    assert len(found) <= 1500 and np.max(np.abs(expected - found)[50:-50]) < 0.25
    with pytest.raises(ValueError, match="residuals"):
        presentation.residual_panels([1.0], [1.0, 2.0], "t", "fitted")


def test_a_correlogram_has_its_bound():
    axes = presentation.correlogram([0.5, -0.2], 0.1, "t", "lag").axes[0]
    segments = axes.collections[0].get_segments()
    assert [tuple(s[1]) for s in segments] == [(1.0, 0.5), (2.0, -0.2)]
    assert "± 0.10" in axes.get_legend().get_texts()[0].get_text()


def test_a_steps_curve_shades_its_errors():
    figure = presentation.steps_curve([0, 1, 2], {"v": [1.0, 2.0]}, "t", "x", "y", errors={"v": [0.5, np.nan]})
    edges = figure.axes[0].patches[-1].get_data()
    np.testing.assert_allclose(edges.values, [1.98, 2.0])
    np.testing.assert_allclose(edges.baseline, [0.02, 2.0])
    with pytest.raises(ValueError, match="errors of v"):
        presentation.steps_curve([0, 1, 2], {"v": [1.0, 2.0]}, "t", "x", "y", errors={"v": [0.5]})
