"""What all results by stock show of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


_MOST, _LONGEST = 5, 20  # symbols that are named, and their characters


class ByStock(ABC):
    """A result with rows for each stock: one table of numbers, one to be looked at, and their other forms."""

    symbols: tuple[str, ...]

    @abstractmethod
    def table(self) -> pl.DataFrame:
        """All numbers."""

    @abstractmethod
    def presentation(self) -> Any:
        """What `summary()` shows, as a `presentation.Table`."""

    @abstractmethod
    def sheets(self, symbol: str) -> tuple[Any, ...]:
        """What `summary(symbol)` shows of one stock, a `presentation.Table` each."""

    def to_polars(self) -> pl.DataFrame:
        """The same as `table()`."""
        return self.table()

    def to_pandas(self) -> pd.DataFrame:
        """`table()` as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.table().to_dict(as_series=False))

    def summary(self, symbol: str | None = None) -> str:
        """Text: of one stock all there is; else a few stocks one by one, many as a cross-section.

        Raises:
            ValueError: There is no such stock.
        """
        if symbol is None:
            return self.presentation().text()
        return "\n".join(sheet.text() for sheet in self.sheets(symbol))

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        """A line, however many stocks there are."""
        return f"{type(self).__name__}({_some(self.symbols)})"

    def _repr_html_(self) -> str:
        return self.presentation().html()


def _some(symbols: Sequence[str]) -> str:
    named = [repr(s if len(s) <= _LONGEST else f"{s[: _LONGEST - 1]}…") for s in symbols[:_MOST]]
    return f"{len(symbols)} stocks: {', '.join(named)}" + (", …" if len(symbols) > _MOST else "")


def place_of(symbols: Sequence[str], symbol: str) -> int:
    """Where a stock is among others.

    Raises:
        ValueError: It is none of them.
    """
    if symbol not in symbols:
        raise ValueError(f"symbol {symbol!r} is none of the {_some(symbols)}")
    return symbols.index(symbol)


__all__ = ["ByStock", "place_of"]
