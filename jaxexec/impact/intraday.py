"""Volume, volatility and spread through the day, as a market model needs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np

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

    @property
    def convention(self) -> str:
        """How volatility was measured, in one sentence."""
        how = {
            "midpoint": "sum of squared changes of the midpoint",
            "price": "sum of squared price changes with Zhou's correction for bid-ask bounce",
        }[self.source]
        return f"Volatility: {how}, {self.samples_per_bin} samples a bin, gaps between dates left out."

    def table(self) -> pl.DataFrame:
        """A row a stock and bin: symbol, start, end (ns since midnight), volume, volume_rate, volatility."""
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
            }
        )

    def presentation(self) -> Any:
        """What `summary()` shows, as a `presentation.Table`."""
        from jaxexec.presentation import Table

        columns = ("symbol", "days", "shares a day", "volatility", "half-spread", "shares a trade")
        shown = range(min(len(self.symbols), 20))
        rows = [
            (
                self.symbols[i],
                int(self.days[i]),
                float(self.average_daily_volume[i]),
                float(self.daily_volatility[i]),
                float(self.half_spread[i]),
                float(self.mean_trade_size[i]),
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
        curves = (self.volume[i], self.volume_rate[i], self.volatility[i])
        rows = [(a, b, *(float(x) for x in row)) for a, b, *row in zip(times[:-1], times[1:], *curves, strict=True)]
        columns = ("from", "to", "shares", "shares per day", "volatility (per √day)")
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
    by_stock = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name, value in vars(first).items()
        if isinstance(value, np.ndarray) and name != "bin_edges"
    }
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
    volume = _grid(cleaned.group_by("symbol", "bin").agg(pl.col("size").sum().alias("value")), symbols, bins)
    volume /= days[:, None]
    trades = tape.trades.filter(inside)
    quoted = "bid_ticks" in trades.columns and trades["bid_ticks"].null_count() < max(trades.height, 1)
    variance, seen = _variance(trades, symbols, edges, samples_per_bin, quoted)
    variance_rate = np.where(seen, variance, np.nan) * bins / days[:, None]
    return Activity(
        symbols=tuple(symbols),
        days=days,
        bin_edges=edges,
        volume=volume,
        volume_rate=volume * bins,
        average_daily_volume=volume.sum(1),
        volatility=np.sqrt(np.maximum(variance_rate, 0)),
        daily_volatility=np.sqrt(np.maximum(np.where(seen.any(1), variance.sum(1), np.nan) / days, 0)),
        mean_trade_size=stocks["mean_size"].to_numpy(),
        half_spread=_half_spread(trades, symbols, quoted),
        source="midpoint" if quoted else "price",
        samples_per_bin=samples_per_bin,
    )


def _binned(trades: pl.DataFrame, edges: np.ndarray) -> pl.DataFrame:
    import polars as pl

    place = np.searchsorted(edges, trades["time"].to_numpy(), side="right") - 1
    return trades.with_columns(pl.Series("bin", place, dtype=pl.Int64))


def _grid(values: pl.DataFrame, symbols: list[str], bins: int) -> np.ndarray:
    """Long frame (symbol, bin, value) as (stocks, bins), zero where there is no row."""
    import polars as pl

    index = pl.DataFrame({"symbol": pl.Series(symbols, dtype=pl.String), "row": np.arange(len(symbols))})
    placed = values.join(index, on="symbol")
    out = np.zeros((len(symbols), bins))
    out[placed["row"].to_numpy(), placed["bin"].to_numpy()] = placed["value"].to_numpy()
    return out


def _variance(
    trades: pl.DataFrame, symbols: list[str], edges: np.ndarray, samples: int, quoted: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Realised variance summed over the days, currency², and where a change was seen; both (stocks, bins)."""
    import polars as pl

    bins = len(edges) - 1
    level = (pl.col("bid_ticks") + pl.col("ask_ticks")) * (TICK / 2) if quoted else pl.col("ticks") * TICK
    # A trade is known from the next mark on: mark m closes the m-th sampling interval, mark 0 is the first trade.
    span = (edges[-1] - edges[0]) / (bins * samples)
    mark = (((pl.col("time") - int(edges[0])) / span).floor().cast(pl.Int64) + 1).clip(1, bins * samples)
    day = ["symbol", "date"]
    marks = (
        trades.sort(*day, "time", maintain_order=True)
        .select(*day, level=level, mark=mark)
        .drop_nulls()
        .group_by(*day, "mark", maintain_order=True)
        .agg(pl.col("level").last(), pl.col("level").first().alias("opening"))
    )
    change = pl.col("level") - pl.col("level").shift(1).over(day).fill_null(pl.col("opening"))
    moved = marks.with_columns(change=change)
    if quoted:
        square = pl.col("change") ** 2
    else:
        around = [pl.col("change").shift(lag).over(day).fill_null(0.0) for lag in (1, -1)]
        square = pl.col("change") * (pl.col("change") + around[0] + around[1])
    summed = moved.with_columns(value=square, bin=(pl.col("mark") - 1) // samples)
    summed = summed.group_by("symbol", "bin").agg(pl.col("value").sum(), pl.len().alias("count"))
    counts = summed.select("symbol", "bin", value=pl.col("count"))
    return _grid(summed.select("symbol", "bin", "value"), symbols, bins), _grid(counts, symbols, bins) > 0


def _half_spread(trades: pl.DataFrame, symbols: list[str], quoted: bool) -> np.ndarray:
    """Mean quoted half-spread at the trades where the quote is not crossed, currency per share."""
    import polars as pl

    if not quoted:
        return np.full(len(symbols), np.nan)
    width = (pl.col("ask_ticks") - pl.col("bid_ticks")) * (TICK / 2)
    mean = trades.filter(pl.col("ask_ticks") >= pl.col("bid_ticks")).group_by("symbol").agg(width.mean().alias("value"))
    index = pl.DataFrame({"symbol": pl.Series(symbols, dtype=pl.String)})
    joined = index.join(mean, on="symbol", how="left", maintain_order="left")
    return joined["value"].fill_null(float("nan")).to_numpy()
