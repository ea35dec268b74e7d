"""Figures: what is drawn is what was given, no global state, the same bytes each time."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from jaxexec import presentation
from jaxexec.presentation import to_png, to_svg

HOSTILE = "$\\frac{</script><img onerror=x>\u202e\x1b[1m 日本"
T = np.linspace(0, 1, 11)

MAKERS = {
    "curves": lambda n: presentation.curves(T, {n: T, n + "2": 1 - T}, n, n, n),
    "log": lambda n: presentation.curves(10.0 ** (-8 * T), {n: 1e6 * (T + 1)}, n, n, n, log_x=True, log_y=True),
    "steps_curve": lambda n: presentation.steps_curve(T, {n: T[1:] * 4e6}, n, n, n),
    "error_bars": lambda n: presentation.error_bars([n, "b"], [1, 2], [0.1, np.nan], n, n, truth=[1, 2]),
    "violins": lambda n: presentation.violins({n: np.sin(99 * T), "few": [1.0], "none": [np.nan]}, n, n),
    "trajectories": lambda n: presentation.trajectories(T, {n: 2e5 * (1 - T), "b": 1 - T}, n),
    "violin_panels": lambda n: presentation.violin_panels(
        {n: np.sin(99 * T), "few": [1.0], "": [np.nan]}, [n, "", "1"], n
    ),
    "interval_panels": lambda n: presentation.interval_panels([n, "b"], {n: ([1, 2], [0.1, np.nan])}, [n], n),
    "scatter_matrix": lambda n: presentation.scatter_matrix({n: T, "b": T**2, "c": 0 * T}, [n, "1", "x"], n),
    "agreement": lambda n: presentation.agreement({n: (T, {n: 2 * T, "b": T})}, [n], n, n),
    "frontier": lambda n: presentation.frontier(T + 1, 1e7 / (T + 1), n, points={n: (1.0, 2.0)}),
}


@pytest.mark.parametrize("name", MAKERS)
def test_hostile_names_are_drawn_as_plain_text(name):
    figure = MAKERS[name](HOSTILE)
    svg = to_svg(figure)
    root = ElementTree.fromstring(svg)
    assert not [e for e in root.iter() if e.tag.endswith(("}script", "}image", "}a", "}foreignObject"))]
    assert to_svg(figure) == svg
    assert b"T00:" not in svg and b"<dc:date>" not in svg


def test_bytes_do_not_depend_on_the_process_or_on_the_users_settings():
    code = "import hashlib,numpy as n;from jaxexec import presentation as p;x=n.arange(5.)\n"
    code += "print(hashlib.sha256(p.to_svg(p.curves(x,{'a':x},'t','x','y'))).hexdigest())"
    x = np.arange(5.0)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False}):
        here = to_svg(presentation.curves(x, {"a": x}, "t", "x", "y"))
        assert matplotlib.rcParams["font.size"] == 30
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == __import__("hashlib").sha256(here).hexdigest()


def test_png_is_a_png_and_the_same_again():
    figure = MAKERS["curves"]("a")
    png = to_png(figure, dpi=50)
    assert png.startswith(b"\x89PNG") and b"tIME" not in png and to_png(figure, dpi=50) == png


def test_no_window_and_no_global_list_of_figures():
    MAKERS["curves"]("a")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_curves_draw_what_they_are_given():
    axes = presentation.curves([1, 2], {"a": [3, 4], "b": [5, np.nan]}, "title", "x (days)", "y (cents)").axes[0]
    assert [line.get_ydata().tolist()[0] for line in axes.lines] == [3, 5]
    assert axes.get_title(loc="left") == "title"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (days)", "y (cents)")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_error_bars_span_the_interval_and_read_from_the_top():
    axes = presentation.error_bars(["first", "second"], [1.0, 2.0], [0.1, 0.2], "t", "x", level=2).axes[0]
    segments = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(segments[0], [[0.8, 1], [1.2, 1]])
    np.testing.assert_allclose(segments[1], [[1.6, 0], [2.4, 0]])
    assert axes.get_yticks().tolist() == [1, 0]


def test_violins_leave_out_what_cannot_be_shown():
    axes = presentation.violins({"a": [1, np.inf, np.nan, 10.0, -1]}, "t", "y", log_y=True).axes[0]
    assert axes.get_ylabel() == "log10 of y"
    assert axes.lines[0].get_ydata().tolist() == [0, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: presentation.curves([1, 2], {"line a": [1, 2, 3]}, "", "", ""),
        lambda: presentation.steps_curve([1, 2], {"line a": [1, 2]}, "", "", ""),
        lambda: presentation.error_bars(["line a"], [1, 2], [1], "", ""),
    ],
)
def test_wrong_lengths_name_the_line(make):
    with pytest.raises(ValueError, match=r"(line a|estimates) has shape"):
        make()
