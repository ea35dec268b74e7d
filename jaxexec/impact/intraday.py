"""Volume, volatility and spread through the day, as a market model needs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np

from jaxexec.impact.activity_errors import (
    ActivityErrors,
    Placed,
    days_of,
    mean_errors,
    variance_errors,
    volume_errors,
)
from jaxexec.impact.by_stock import ByStock, place_of
from jaxexec.tape.clock import SECOND, clock_text, time_of_day

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

REGULAR_SESSION = ("09:30", "16:00")
TICK = 1e-4  # currency per price tick


class CleanedTape(Protocol):
    """What `activity` needs of a `jaxexec.tape.SignedTape`."""

    @property
    def trades(self) -> pl.DataFrame: ...
    @property
    def cleaned(self) -> pl.DataFrame: ...
    @property
    def hours(self) -> tuple[int, int] | None: ...


@dataclass(frozen=True, repr=False)
class Activity(ByStock):
    """How active each stock is in each bin of the trading day. One trading day is one session long.

    Attributes:
        symbols: Names of the stocks, verbatim.
        days: Dates on which each stock traded, (stocks,).
        bin_edges: Nanoseconds since local midnight, (bins + 1,).
        volume: Mean shares traded per bin and day, (stocks, bins).
        volume_rate: The same as a rate, shares per trading day; its mean over bins is `average_daily_volume`.
        average_daily_volume: Shares per day, (stocks,).
        volatility: Currency per share per √(trading day), (stocks, bins); NaN where there is no price change to see.
        daily_volatility: Root of the day's realised variance, currency per share per √(trading day), (stocks,).
        mean_trade_size: Shares, (stocks,).
        half_spread: Mean quoted half-spread at the trades, currency per share, (stocks,); NaN without quotes.
        source: "midpoint" or "price": what volatility was measured from.
        samples_per_bin: Price samples a bin.
        errors: Standard errors of all these, of fields of the same names; None where they are not known.
    """

    symbols: tuple[str, ...]
    days: np.ndarray
    bin_edges: np.ndarray
    volume: np.ndarray
    volume_rate: np.ndarray
    average_daily_volume: np.ndarray
    volatility: np.ndarray
    daily_volatility: np.ndarray
    mean_trade_size: np.ndarray
    half_spread: np.ndarray
    source: Literal["midpoint", "price"]
    samples_per_bin: int
    errors: ActivityErrors | None = None

    @property
    def convention(self) -> str:
        """How volatility was measured, in one sentence."""
        how = {
            "midpoint": "sum of squared changes of the midpoint",
            "price": "sum of squared price changes with Zhou's correction for bid-ask bounce",
        }[self.source]
        return f"Volatility: {how}, {self.samples_per_bin} samples a bin, gaps between dates left out."

    def table(self) -> pl.DataFrame:
        """A row a stock and bin: symbol, start, end (ns since midnight), volume, rate and volatility with errors."""
        import polars as pl

        bins = len(self.bin_edges) - 1
        stocks = len(self.symbols)
        return pl.DataFrame(
            {
                "symbol": pl.Series([s for s in self.symbols for _ in range(bins)], dtype=pl.String),
                "start": np.tile(self.bin_edges[:-1], stocks),
                "end": np.tile(self.bin_edges[1:], stocks),
                "volume": self.volume.ravel(),
                "volume_rate": self.volume_rate.ravel(),
                "volatility": self.volatility.ravel(),
                "volume_rate_error": self._error("volume_rate").ravel(),
                "volatility_error": self._error("volatility").ravel(),
            }
        )

    def _error(self, name: str) -> np.ndarray:
        """Standard errors of a field, NaN where they are not known."""
        return np.full_like(getattr(self, name), np.nan) if self.errors is None else getattr(self.errors, name)

    def presentation(self) -> Any:
        """What `summary()` shows, as a `presentation.Table`."""
        from jaxexec.presentation import Table

        columns = ("symbol", "days", "shares a day", "± s.e.", "volatility", "± s.e.", "half-spread", "± s.e.")
        shown = range(min(len(self.symbols), 20))
        rows = [
            (
                self.symbols[i],
                int(self.days[i]),
                *(
                    float(x[i])
                    for name in ("average_daily_volume", "daily_volatility", "half_spread")
                    for x in (getattr(self, name), self._error(name))
                ),
            )
            for i in shown
        ]
        rest = len(self.symbols) - len(rows)
        return Table("Activity", columns, rows, self.convention + (f" {rest} more stocks not shown." if rest else ""))

    def sheets(self, symbol: str) -> tuple[Any, ...]:
        """The day of one stock, bin by bin."""
        from jaxexec.presentation import Table

        i = place_of(self.symbols, symbol)
        times = [clock_text(int(edge))[:8] for edge in self.bin_edges]
        errors = (self._error(name)[i] for name in ("volume_rate", "volatility"))
        curves = (self.volume[i], self.volume_rate[i], self.volatility[i], *errors)
        rows = [(a, b, *(float(x) for x in row)) for a, b, *row in zip(times[:-1], times[1:], *curves, strict=True)]
        columns = (
            "from",
            "to",
            "shares",
            "shares per day",
            "volatility (per √day)",
            "± shares per day",
            "± volatility",
        )
        return (Table(f"Activity of {symbol}, mean of {int(self.days[i])} days", columns, rows, self.convention),)

    def plot(self, quantity: Literal["volume_rate", "volatility"] = "volume_rate") -> Figure:
        """The curve of a few stocks through the day, or of many relative to their day: median and quartiles."""
        from jaxexec.presentation import steps_curve

        values = {"volume_rate": self.volume_rate, "volatility": self.volatility}[quantity]
        hours = self.bin_edges / (3600 * SECOND)
        unit = {"volume_rate": "shares per day", "volatility": "currency per share per √day"}[quantity]
        if len(self.symbols) <= 6:
            curves = dict(zip(self.symbols, values, strict=True))
        else:
            day = {"volume_rate": self.average_daily_volume, "volatility": self.daily_volatility}[quantity]
            relative = values[day > 0] / day[day > 0][:, None]
            low, middle, high = np.nanquantile(relative, [0.25, 0.5, 0.75], axis=0)
            curves, unit = {"lower quartile": low, "median": middle, "upper quartile": high}, "relative to the day"
        return steps_curve(hours, curves, f"{quantity} through the day".replace("_", " "), "hour", unit)


def activity(
    tape: CleanedTape | Iterable[CleanedTape],
    bins: int = 13,
    session: tuple[str | int, str | int] | None = None,
    *,
    samples_per_bin: int = 6,
) -> Activity:
    """Volume and volatility curves of every stock of a tape.

    Volume counts all cleaned trades, signed or not. Volatility is realised variance from sparse samples (Andersen,
    Bollerslev, Diebold and Labys 2001): the midpoint prevailing at the last trade before each of `samples_per_bin`
    marks a bin, about five minutes apart by default, so that bounce and the finest ripples of the quotes are left
    out. Tapes without quotes use prices and Zhou's (1996) first-order correction Σ r_i (r_{i−1} + r_i + r_{i+1}).
    A change over marks without a trade counts where it is seen.

    Args:
        tape: A `jaxexec.tape.SignedTape`, from files or from tables in memory (`SignedTape.from_frames`); or several
            that share no stock, such as a `jaxexec.tape.stream`, one after the other. Days that were signed apart go
            through `jaxexec.tape.pool` first.
        bins: Bins a session.
        session: Start and end, such as ("09:30", "13:00") or nanoseconds since local midnight; None is the session
            that the tape was cleaned to, or 09:30 to 16:00 where it does not say. Trades outside are not used.
        samples_per_bin: Price samples a bin.

    Returns:
        `Activity` over the symbols that have a cleaned trade within the session, sorted.

    Raises:
        ValueError: `bins`, `samples_per_bin` or `session` make no sense, no trade falls into the session, or parts
            share a stock or differ in their session or in having quotes.
    """
    if bins < 1 or samples_per_bin < 1:
        raise ValueError(f"bins and samples_per_bin must be at least 1, got {bins} and {samples_per_bin}")
    if hasattr(tape, "cleaned"):
        return _activity(cast(CleanedTape, tape), bins, session, samples_per_bin)
    parts = cast("Iterable[CleanedTape]", tape)
    return _joined([_activity(part, bins, session, samples_per_bin) for part in parts])


def _joined(parts: list[Activity]) -> Activity:
    """One result of the stocks of several."""
    if not parts:
        raise ValueError("there is no tape: a stream of them gave none")
    first = parts[0]
    if any(not np.array_equal(part.bin_edges, first.bin_edges) or part.source != first.source for part in parts):
        raise ValueError(
            "the parts differ in their session, or some have quotes and some none: pass session=(start, end)"
        )
    symbols = tuple(symbol for part in parts for symbol in part.symbols)
    if len(set(symbols)) < len(symbols):
        twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
        raise ValueError(f"symbol {twice!r} is in two tapes: pool them first (jaxexec.tape.pool)")
    by_stock: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name, value in vars(first).items()
        if isinstance(value, np.ndarray) and name != "bin_edges"
    }
    if first.errors is not None:
        apart = [vars(part.errors) for part in parts if part.errors is not None]
        by_stock["errors"] = ActivityErrors(**{k: np.concatenate([x[k] for x in apart]) for k in apart[0]})
    return replace(first, symbols=symbols, **by_stock)


def _activity(
    tape: CleanedTape, bins: int, session: tuple[str | int, str | int] | None, samples_per_bin: int
) -> Activity:
    import polars as pl

    start, end = (time_of_day(t) for t in (session or tape.hours or REGULAR_SESSION))
    if not 0 <= start < end:
        raise ValueError(f"session must be a pair of times of day, start < end, got {session!r}")
    edges = start + (end - start) * np.arange(bins + 1, dtype=np.int64) // bins
    inside = (pl.col("time") >= start) & (pl.col("time") < end)
    cleaned = _binned(tape.cleaned.filter(inside), edges)
    if cleaned.is_empty():
        raise ValueError("no trade falls into the session: pass session=(start, end)")
    stocks = (
        cleaned.group_by("symbol")
        .agg(pl.col("date").n_unique().alias("days"), pl.col("size").mean().alias("mean_size"))
        .sort("symbol")
    )
    symbols = stocks["symbol"].to_list()
    days = stocks["days"].to_numpy()
    placed = Placed(symbols, bins, samples_per_bin)
    volume = placed.by(cleaned, pl.col("size"), "bin", bins) / days[:, None]
    trades = tape.trades.filter(inside)
    quoted = "bid_ticks" in trades.columns and trades["bid_ticks"].null_count() < max(trades.height, 1)
    changes = _changes(trades, edges, samples_per_bin, quoted)
    seen = placed.rows(changes, "bin", bins) > 0
    variance = placed.by(changes, pl.col("square"), "bin", bins)
    variance_rate = np.where(seen, variance, np.nan) * bins / days[:, None]
    volatility = np.sqrt(np.maximum(variance_rate, 0))
    daily = np.sqrt(np.maximum(np.where(seen.any(1), variance.sum(1), np.nan) / days, 0))
    widths = _half_spreads(trades, quoted)
    half_spread, spread_error = _mean_half_spread(widths, edges, placed)
    volume_error, day_error = volume_errors(_marked(cleaned, edges, samples_per_bin), days, placed)
    variance_error, whole_error = variance_errors(changes, days, placed, not quoted)
    size = pl.col("size").cast(pl.Float64)
    errors = ActivityErrors(
        volume_rate=volume_error * bins,
        average_daily_volume=day_error,
        volatility=_of_root(volatility, np.where(seen, variance_error, np.nan) * bins),
        daily_volatility=_of_root(daily, whole_error),
        mean_trade_size=mean_errors(_marked(cleaned, edges, samples_per_bin), size, days, placed),
        half_spread=spread_error,
    )
    return Activity(
        symbols=tuple(symbols),
        days=days,
        bin_edges=edges,
        volume=volume,
        volume_rate=volume * bins,
        average_daily_volume=volume.sum(1),
        volatility=volatility,
        daily_volatility=daily,
        mean_trade_size=stocks["mean_size"].to_numpy(),
        half_spread=half_spread,
        source="midpoint" if quoted else "price",
        samples_per_bin=samples_per_bin,
        errors=errors,
    )


def _binned(trades: pl.DataFrame, edges: np.ndarray) -> pl.DataFrame:
    import polars as pl

    place = np.searchsorted(edges, trades["time"].to_numpy(), side="right") - 1
    return trades.with_columns(pl.Series("bin", place, dtype=pl.Int64))


def _marked(trades: pl.DataFrame, edges: np.ndarray, samples: int) -> pl.DataFrame:
    """Trades with the sampling interval that each falls into, `mark`, from 0."""
    import polars as pl

    marks = (len(edges) - 1) * samples
    span = (edges[-1] - edges[0]) / marks
    mark = ((pl.col("time") - int(edges[0])) / span).floor().cast(pl.Int64).clip(0, marks - 1)
    return trades.with_columns(mark=mark)


def _changes(trades: pl.DataFrame, edges: np.ndarray, samples: int, quoted: bool) -> pl.DataFrame:
    """A row a price sample: symbol, date, bin, the change to it, the change after it, and its square (currency²).

    Without quotes the square is Zhou's, with the products of neighbouring changes.
    """
    import polars as pl

    level = (pl.col("bid_ticks") + pl.col("ask_ticks")) * (TICK / 2) if quoted else pl.col("ticks") * TICK
    day = ["symbol", "date"]
    # A trade is known from the next mark on: mark m closes the m-th sampling interval, mark 0 is the first trade.
    marks = (
        _marked(trades, edges, samples)
        .sort(*day, "time", maintain_order=True)
        .select(*day, "mark", level=level)
        .drop_nulls()
        .group_by(*day, "mark", maintain_order=True)
        .agg(pl.col("level").last(), pl.col("level").first().alias("opening"))
    )
    change = pl.col("level") - pl.col("level").shift(1).over(day).fill_null(pl.col("opening"))
    moved = marks.with_columns(change=change)
    before, after = (pl.col("change").shift(lag).over(day) for lag in (1, -1))
    noise = pl.lit(0.0) if quoted else before.fill_null(0.0) + after.fill_null(0.0)
    square = pl.col("change") * (pl.col("change") + noise)
    return moved.select(*day, "change", bin=pl.col("mark") // samples, after=after, square=square)


def _of_root(root: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Standard error of a square root from that of the square; NaN where the root is zero."""
    positive = root > 0
    return np.where(positive, error / np.where(positive, 2 * root, 1), np.nan)


def _half_spreads(trades: pl.DataFrame, quoted: bool) -> pl.DataFrame:
    """Quoted half-spread at each trade where the quote is not crossed, currency per share."""
    import polars as pl

    if not quoted:
        return trades.head(0).select("symbol", "date", "time", width=pl.lit(0.0))
    valid = trades.filter(pl.col("ask_ticks") >= pl.col("bid_ticks"))
    return valid.select("symbol", "date", "time", width=(pl.col("ask_ticks") - pl.col("bid_ticks")) * (TICK / 2))


def _mean_half_spread(widths: pl.DataFrame, edges: np.ndarray, placed: Placed) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error, NaN without quotes; (stocks,) each."""
    import polars as pl

    count = placed.rows(widths)
    mean = np.where(count > 0, placed.by(widths, pl.col("width")) / np.maximum(count, 1), np.nan)
    marked = _marked(widths, edges, placed.samples)
    return mean, mean_errors(marked, pl.col("width"), days_of(widths, placed), placed)
