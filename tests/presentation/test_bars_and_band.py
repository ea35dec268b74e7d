"""Bars lie where their amounts are, the largest on top; a band holds its line."""

import numpy as np
import pytest

from jaxexec import presentation
from jaxexec.presentation import to_svg


def test_bars_are_in_order_of_size():
    axes = presentation.bars(["a", "b", "$c$"], [1.0, -3.0, np.nan], "title", "change").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["$c$", "a", "b"]
    assert [bar.get_width() for bar in axes.patches] == [0.0, 1.0, -3.0]
    assert axes.patches[1].get_facecolor() != axes.patches[2].get_facecolor()
    with pytest.raises(ValueError, match="values"):
        presentation.bars(["a"], [1.0, 2.0], "title", "change")


def test_a_band_holds_its_line():
    x, y = np.arange(4.0), np.array([4.0, 2.0, 1.0, 0.0])
    axes = presentation.band(x, y, y - 1, y + 2, "title", "step", "inventory", name="90 %").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), y)
    edge = axes.collections[0].get_paths()[0].vertices
    assert edge[:, 1].min() == -1 and edge[:, 1].max() == 6
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"90 %", "estimate"}
    with pytest.raises(ValueError, match="low"):
        presentation.band(x, y, y[:2], y, "title", "step", "inventory")
    assert to_svg(presentation.bars([], [], "nothing", "change")).startswith(b"<?xml")
