"""What all results by stock show of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


class ByStock(ABC):
    """A result with rows for each stock: one table of numbers, one to be looked at, and their other forms."""

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

    def _repr_html_(self) -> str:
        return self.presentation().html()


def place_of(symbols: Sequence[str], symbol: str) -> int:
    """Where a stock is among others.

    Raises:
        ValueError: It is none of them.
    """
    if symbol not in symbols:
        some = ", ".join(repr(s) for s in symbols[:5]) + (", …" if len(symbols) > 5 else "")
        raise ValueError(f"symbol {symbol!r} is none of the {len(symbols)} stocks: {some}")
    return symbols.index(symbol)


__all__ = ["ByStock", "place_of"]
