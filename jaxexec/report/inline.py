"""Figures as part of a page: SVG whose neutral colours follow the page from light to dark."""

import html
import re
from typing import TYPE_CHECKING

from jaxexec.presentation import to_svg
from jaxexec.presentation.style import FAINT, GRID, INK, PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {INK: "ink", FAINT: "faint", GRID: "grid", "#ffffff": "paper"}
_COLORS |= {color: f"c{index}" for index, color in enumerate(PALETTE)}

_NOT_DRAWN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_ID = re.compile(r'\bid="([^"]*)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]*)')
_COLOR = re.compile("|".join(_COLORS))
_ROOT = re.compile(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>")


def inline_svg(figure: "Figure", prefix: str, description: str) -> str:
    """An `<svg>` element for a page that may hold others.

    Args:
        figure: The figure.
        prefix: Put before every id, so that two figures never share one.
        description: What a screen reader says.
    """
    svg = _NOT_DRAWN.sub("", to_svg(figure).decode("utf-8"))
    used = {match.group(2) for match in _REFERENCE.finditer(svg)}
    svg = _ID.sub(lambda m: f'id="{prefix}{m.group(1)}"' if m.group(1) in used else "", svg)
    svg = _REFERENCE.sub(lambda m: f"{m.group(1)}{prefix}{m.group(2)}", svg)
    svg = _COLOR.sub(lambda m: f"var(--{_COLORS[m.group()]})", svg)
    label = html.escape(description, quote=True)
    root = f'<svg viewBox="\\1" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg" '
    root += 'xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"\s*\n\s*", "\n", _ROOT.sub(lambda m: root.replace("\\1", m.group(1)), svg, count=1)).strip()
