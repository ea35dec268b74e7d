"""The waterfall: bars stand where the ones before them ended, gaps are shown as gaps, names are plain text."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxexec import presentation
from jaxexec.presentation import to_svg

PARTS = {"delay": 20.0, "own impact": 3.0, "timing": -30.0, "fees": 0.04}


def test_each_part_begins_where_the_last_one_ended():
    axes = presentation.waterfall(PARTS, "title", "cost (bp)", total="shortfall").axes[0]
    bars = [(bar.get_y(), bar.get_height()) for bar in axes.patches]
    np.testing.assert_allclose(bars, [(0, 20), (20, 3), (23, -30), (-7, 0.04), (0, -6.96)])
    assert [tick.get_text() for tick in axes.get_xticklabels()][-1] == "shortfall"
    assert [text.get_text() for text in axes.texts] == ["20.0", "3.0", "−30.0", "0.0", "−7.0"]
    low, high = axes.get_ylim()
    assert low < -7 and high > 23
    gain, cost = axes.patches[2].get_facecolor(), axes.patches[0].get_facecolor()
    assert gain != cost != axes.patches[-1].get_facecolor()


def test_what_is_not_known_is_left_out_and_said():
    axes = presentation.waterfall({"a": 1.0, "b": np.nan, "c": 2.0}, "t").axes[0]
    assert axes.patches[-1].get_height() == 3.0
    assert axes.texts[1].get_text() == "–"


@pytest.mark.parametrize("parts", [{}, {"a": 0.0}, {"a": 1e12, "b": -1e12}, {"a": 1e-9}, {"a": np.inf}])
def test_degenerate_parts_are_drawn(parts):
    assert to_svg(presentation.waterfall(parts, "t")).startswith(b"<?xml")


def test_hostile_names_are_plain_text():
    name = "$\\frac{</script><img onerror=x>\u202e\x1b[1m"
    figure = presentation.waterfall({name: 1.0}, name, name, total=name)
    root = ElementTree.fromstring(to_svg(figure))
    assert not [e for e in root.iter() if e.tag.endswith(("}script", "}image", "}a", "}foreignObject"))]
    assert to_svg(figure) == to_svg(figure)
