"""How one cell is shown: numbers with the digits that matter, text that cannot act on a terminal."""

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

MISSING = "–"

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str, limit: int | None = None) -> str:
    r"""Text with control and formatting characters spelled out, so that it can neither act nor deceive.

    An escape character becomes `\x1b`, a line break `\n`, a right-to-left override `\u202e`.

    Args:
        text: Any text.
        limit: Longest result, in characters; a longer one ends in an ellipsis.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(_spelled(c) if unicodedata.category(c) in _HIDDEN else c for c in text)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def is_number(value: Any) -> bool:
    """Whether a cell is a number (NumPy's and JAX's scalars included, booleans not)."""
    return isinstance(scalar(value), int | float) and not isinstance(scalar(value), bool)


def scalar(value: Any) -> Any:
    """A scalar of NumPy or JAX as a Python object; anything else unchanged."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    return value.item() if getattr(value, "shape", None) == () else value


def format_number(value: float, digits: int = 4) -> str:
    """A number with `digits` significant digits: 1,235 or 0.001235 or 1.235e-07; NaN as a dash.

    Integers and large numbers keep all the digits before the point, with thousands separated.
    """
    if isinstance(value, int):
        return _signed(f"{value:,}") if abs(value) < 10**15 else _exponent(value, digits)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e9:
        return _exponent(value, digits)
    return _signed(f"{value:,.{_decimals(value, digits)}f}")


def format_column(values: Sequence[Any], digits: int = 4) -> list[str]:
    """The cells of one column as text, with one number of decimals where their sizes are alike.

    None and NaN are dashes, booleans yes or no; text is shown by `visible`.
    """
    cells = [scalar(value) for value in values]
    sizes = [abs(x) for x in cells if isinstance(x, float) and math.isfinite(x) and x != 0]
    alike = bool(sizes) and min(sizes) >= 1e-4 and max(sizes) < 100 * min(sizes) and max(sizes) < 1e9
    decimals = max(_decimals(max(sizes), digits), _decimals(min(sizes), digits - 1)) if alike else None
    return [_cell(cell, digits, decimals) for cell in cells]


def _cell(cell: Any, digits: int, decimals: int | None) -> str:
    if cell is None:
        return MISSING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float) and decimals is not None and math.isfinite(cell):
        return _signed(f"{cell:,.{decimals}f}")
    if isinstance(cell, int | float):
        return format_number(cell, digits)
    return visible(str(cell))


def _decimals(value: float, digits: int) -> int:
    """Decimals that leave `digits` significant digits."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _exponent(value: float, digits: int) -> str:
    return _signed(f"{value:.{digits - 1}e}")


def _signed(text: str) -> str:
    """A typographic minus, and none before a zero."""
    if not text.startswith("-"):
        return text
    return "−" + text[1:] if any(c in "123456789" for c in text.split("e")[0]) else text[1:]
