"""Figures as bytes that are the same for the same figure: no dates, no random names."""

import io
from typing import TYPE_CHECKING, Any

from jaxexec.presentation.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_svg(figure: "Figure") -> bytes:
    """The figure as an SVG document; letters are drawn as paths, so it needs no font and carries no text."""
    return _saved(figure, "svg", {"Date": None, "Creator": None})


def to_png(figure: "Figure", dpi: float = 150.0) -> bytes:
    """The figure as a PNG image.

    Args:
        figure: The figure.
        dpi: Pixels an inch.
    """
    return _saved(figure, "png", {"Software": None}, dpi=dpi)


def _saved(figure: "Figure", kind: str, metadata: dict[str, None], **options: Any) -> bytes:
    out = io.BytesIO()
    with style():
        figure.savefig(out, format=kind, metadata=metadata, facecolor="white", **options)
    return out.getvalue()
