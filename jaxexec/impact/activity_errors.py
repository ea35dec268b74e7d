"""How sure volume, volatility and spread through the day are.

| | several days | one day |
|---|---|---|
| volume | between days | compound Poisson, times the overdispersion of sampling intervals |
| volatility | between days | realised quarticity |
| half-spread, trade size | between days, as a ratio | between sampling intervals, as a ratio, Newey–West |

Between days the spread of the daily values over √days: it holds whatever days differ by. One day says nothing of
other days; its errors are those of the day itself, and too small for a market model where days differ much.

Sources: overdispersion, McCullagh and Nelder, Generalized Linear Models (1989), 6.2; realised quarticity, Barndorff-
Nielsen and Shephard, J. R. Stat. Soc. B 64 (2002); with noise, Zhou, J. Business & Economic Statistics 14 (1996); ratio
estimators, Cochran, Sampling Techniques (1977), 6; Newey and West, Econometrica 55 (1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ActivityErrors:
    """Standard errors of the fields of the same names of `Activity`; NaN where nothing can tell.

    Attributes:
        volume_rate: (stocks, bins).
        average_daily_volume: (stocks,).
        volatility: (stocks, bins).
        daily_volatility: (stocks,).
        mean_trade_size: (stocks,).
        half_spread: (stocks,).
    """

    volume_rate: np.ndarray
    average_daily_volume: np.ndarray
    volatility: np.ndarray
    daily_volatility: np.ndarray
    mean_trade_size: np.ndarray
    half_spread: np.ndarray


class Placed:
    """Sums of a frame's rows at the places that symbols, bins and sampling intervals have in arrays."""

    def __init__(self, symbols: list[str], bins: int, samples: int):
        import polars as pl

        self.bins, self.samples, self.stocks = bins, samples, len(symbols)
        rows = np.arange(len(symbols))
        self.index = pl.DataFrame({"symbol": pl.Series(symbols, dtype=pl.String), "row": rows})

    def by(self, frame: pl.DataFrame, value: pl.Expr, column: str | None = None, length: int = 1) -> np.ndarray:
        """Sums of `value` by symbol and `column`, (stocks, length), or (stocks,) without a column."""
        import polars as pl

        keys = ["symbol"] if column is None else ["symbol", column]
        summed = frame.group_by(keys).agg(value.sum().cast(pl.Float64).alias("value")).join(self.index, on="symbol")
        out = np.zeros((self.stocks, length))
        at = 0 if column is None else summed[column].to_numpy()
        out[summed["row"].to_numpy(), at] = summed["value"].to_numpy()
        return out[:, 0] if column is None else out

    def rows(self, frame: pl.DataFrame, column: str | None = None, length: int = 1) -> np.ndarray:
        """Numbers of rows, as `by`."""
        import polars as pl

        return self.by(frame, pl.col("symbol").is_not_null(), column, length)


def volume_errors(trades: pl.DataFrame, days: np.ndarray, placed: Placed) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the mean volume of a bin, (stocks, bins), and of a day, (stocks,).

    Args:
        trades: symbol, date, bin, mark and size of the trades within the session.
        days: Dates of each stock.
        placed: Places of the stocks.
    """
    import polars as pl

    size = pl.col("size").cast(pl.Float64)
    between = _between_days(trades, size, "bin", days, placed)
    whole = _between_days(trades, size, None, days, placed)
    squares = placed.by(trades, size**2, "bin", placed.bins)
    marks = placed.bins * placed.samples
    each = placed.by(trades, size, "mark", marks)
    # Neighbouring intervals, so that the shape of the day is no dispersion.
    swings = (np.diff(each, axis=1) ** 2).sum(1) / 2 * marks / max(marks - 1, 1)
    dispersion = np.ones(placed.stocks) if marks == 1 else _ratio(swings, squares.sum(1))
    single = np.sqrt(dispersion[:, None] * squares)
    one = days == 1
    return np.where(one[:, None], single, between), np.where(one, np.sqrt((single**2).sum(1)), whole)


def variance_errors(
    changes: pl.DataFrame, days: np.ndarray, placed: Placed, bounce: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the mean realised variance of a bin, (stocks, bins), and of a day, (stocks,).

    Of one day it is √(⅔ Σr⁴). With Zhou's correction, of changes of variance c₀ and noise of variance ν², a change has
    6c₀² − 16ν²c₀ + 16ν⁴ (his 6σ⁴ + 8σ²ν² + 8ν⁴ for c₀ = σ² + 2ν²), of which c₀² is seen as r⁴/3 and ν² as the mean of
    −r_i r_{i+1}.

    Args:
        changes: symbol, date, bin, the `change`, the one after it (`after`, null at the end of a day) and its `square`,
            corrected where there is noise.
        days: Dates of each stock.
        placed: Places of the stocks.
        bounce: Whether squares are corrected for noise.
    """
    import polars as pl

    between = _between_days(changes, pl.col("square"), "bin", days, placed)
    whole = _between_days(changes, pl.col("square"), None, days, placed)
    fourth = placed.by(changes, pl.col("change") ** 4, "bin", placed.bins)
    variance = 2 / 3 * fourth
    if bounce:
        pairs = placed.by(changes, pl.col("after").is_not_null())
        noise = np.maximum(-_ratio(placed.by(changes, pl.col("change") * pl.col("after")), pairs), 0)[:, None]
        second = placed.by(changes, pl.col("change") ** 2, "bin", placed.bins)
        count = placed.rows(changes, "bin", placed.bins)
        variance = np.maximum(2 * fourth - 16 * noise * second + 16 * noise**2 * count, variance)
    one = days == 1
    return np.where(one[:, None], np.sqrt(variance), between), np.where(one, np.sqrt(variance.sum(1)), whole)


def mean_errors(rows: pl.DataFrame, value: pl.Expr, days: np.ndarray, placed: Placed) -> np.ndarray:
    """Errors of the mean of `value` over all rows of a stock, whose number is random too, (stocks,).

    Args:
        rows: symbol, date, mark and what `value` needs.
        value: What is averaged.
        days: Dates of each stock, of these rows.
        placed: Places of the stocks.
    """
    import polars as pl

    total, count = placed.by(rows, value), placed.rows(rows)
    mean = _ratio(total, count)
    daily = rows.group_by("symbol", "date").agg(value.sum().alias("sum"), pl.len().alias("count"))
    apart = daily.join(_means(mean, placed), on="symbol").with_columns(
        apart=pl.col("sum") - pl.col("mean") * pl.col("count")
    )
    between = placed.by(apart, pl.col("apart") ** 2) * _ratio(days, days - 1)
    marks = placed.bins * placed.samples
    each = placed.by(rows, value, "mark", marks) - mean[:, None] * placed.rows(rows, "mark", marks)
    lags = min(int(4 * (marks / 100) ** (2 / 9)), marks - 1)
    single = (each**2).sum(1)
    for lag in range(1, lags + 1):
        single += 2 * (1 - lag / (lags + 1)) * (each[:, lag:] * each[:, :-lag]).sum(1)
    spread = np.sqrt(np.maximum(np.where(days == 1, single, between), 0))
    # A single row tells nothing of how rows differ.
    return np.where(count > 1, _ratio(spread, count), np.nan)


def days_of(rows: pl.DataFrame, placed: Placed) -> np.ndarray:
    """Dates of each stock in a frame, (stocks,)."""
    return placed.rows(rows.unique(["symbol", "date"]))


def _between_days(
    rows: pl.DataFrame, value: pl.Expr, column: str | None, days: np.ndarray, placed: Placed
) -> np.ndarray:
    """Standard error of the mean over days of the sums of a day; a day without a row has the sum zero."""
    import polars as pl

    keys = ["symbol", "date"] + ([column] if column else [])
    length = placed.bins if column else 1
    daily = rows.group_by(keys).agg(value.sum().cast(pl.Float64).alias("sum"))
    first, second = (placed.by(daily, expression, column, length) for expression in (pl.col("sum"), pl.col("sum") ** 2))
    days = days.astype(float)[:, None] if column else days.astype(float)
    mean = _ratio(first, days)
    square = np.maximum(second - days * mean**2, 0)
    # What is left of equal days is rounding.
    square = np.where(square <= 1e-12 * second, 0, square)
    return np.sqrt(_ratio(square, days * (days - 1)))


def _means(mean: np.ndarray, placed: Placed) -> pl.DataFrame:
    import polars as pl

    return placed.index.select("symbol", mean=pl.Series(mean))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above/below, NaN where `below` is zero."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
