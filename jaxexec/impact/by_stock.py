"""What all results by stock show of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

    def to_polars(self) -> pl.DataFrame:
        """The same as `table()`."""
        return self.table()

    def to_pandas(self) -> pd.DataFrame:
        """`table()` as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.table().to_dict(as_series=False))

    def summary(self) -> str:
        """Text: a few stocks one by one, many as a cross-section."""
        return self.presentation().text()

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return self.presentation().html()


__all__ = ["ByStock"]
