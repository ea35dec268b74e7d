"""Small hand-made tapes in canonical names; times are given in seconds after 10:00."""

import datetime

import polars as pl
import pytest

DATE = datetime.date(2024, 1, 2)
TEN = 36_000 * 1_000_000_000


def at(seconds: float) -> int:
    return TEN + round(seconds * 1e9)


@pytest.fixture
def make_trades():
    def make(rows, **columns):
        """Rows are (seconds, price) or (seconds, price, size)."""
        rows = [(*row, 100)[:3] for row in rows]
        frame = pl.DataFrame(
            {
                "symbol": "A",
                "date": DATE,
                "time": pl.Series([at(row[0]) for row in rows], dtype=pl.Int64),
                "price": pl.Series([row[1] for row in rows], dtype=pl.Float64),
                "size": pl.Series([row[2] for row in rows]),
            }
        )
        return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})

    return make


@pytest.fixture
def make_quotes():
    def make(rows, **columns):
        """Rows are (seconds, bid, ask)."""
        frame = pl.DataFrame(
            {
                "symbol": "A",
                "date": DATE,
                "time": pl.Series([at(row[0]) for row in rows], dtype=pl.Int64),
                "bid": pl.Series([row[1] for row in rows], dtype=pl.Float64),
                "ask": pl.Series([row[2] for row in rows], dtype=pl.Float64),
            }
        )
        return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})

    return make
