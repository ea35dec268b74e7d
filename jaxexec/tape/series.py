"""Series: the rows of one symbol on one date, and whether rows stand in the order of series, time and sequence.

Strings are compared with their neighbours only. Sorting or joining a day of quotes by symbol would cost several times
as much, and files come sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

KEYS = ("symbol", "date")


def series_starts(frame: pl.DataFrame) -> np.ndarray:
    """True where the symbol or the date is not that of the row before, bool (rows,)."""
    import polars as pl

    new = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in KEYS)
    starts = frame.select(new).to_series().to_numpy().copy()
    starts[:1] = True
    return starts


def in_order(frame: pl.DataFrame) -> bool:
    """Whether a frame without nulls is sorted by symbol, date, time and sequence."""
    starts = series_starts(frame)
    first = frame.filter(starts).select(KEYS)
    if not first.equals(first.unique().sort(KEYS)):
        return False
    time, sequence = (frame[name].to_numpy() for name in ("time", "sequence"))
    later = time[1:] > time[:-1]
    later |= (time[1:] == time[:-1]) & (sequence[1:] >= sequence[:-1])
    return bool(np.all(later | starts[1:]))


def series_numbers(frame: pl.DataFrame, known: pl.DataFrame) -> np.ndarray:
    """The row of `known` (symbol and date, each once) that each row belongs to, int64 (rows,); −1 for none."""
    import polars as pl

    starts = series_starts(frame)
    runs = frame.filter(starts).select(KEYS)
    places = runs.join(known.select(KEYS).with_row_index("place"), on=KEYS, how="left", maintain_order="left")
    return places["place"].cast(pl.Int64).fill_null(-1).to_numpy()[np.cumsum(starts) - 1]


__all__ = ["KEYS", "in_order", "series_numbers", "series_starts"]
