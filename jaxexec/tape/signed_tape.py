"""The signed tape: trades with the side that initiated them, ready for impact estimates."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxexec.tape.clock import clock_text
from jaxexec.tape.errors import InputError, printable
from jaxexec.tape.ledger import Ledger
from jaxexec.tape.reading import as_polars

if TYPE_CHECKING:
    import polars as pl

SIGNED_COLUMNS = (
    "symbol",
    "date",
    "time",
    "ticks",
    "price",
    "size",
    "sign",
    "bid_ticks",
    "ask_ticks",
    "midpoint",
)


class Segments(NamedTuple):
    """Signed trades as flat arrays, cut into segments of one symbol on one date (compressed rows).

    Trades of segment i are `offsets[i]:offsets[i + 1]`, in the order of time.
    """

    symbols: list[str]
    """One entry a stock, sorted."""
    stock: np.ndarray
    """Index into `symbols`, int64 (segments,)."""
    dates: list[datetime.date]
    """One entry a segment."""
    offsets: np.ndarray
    """int64 (segments + 1,)."""
    time: np.ndarray
    """Nanoseconds since local midnight, int64 (trades,)."""
    ticks: np.ndarray
    """Prices in units of 1e-4 currency, int64 (trades,)."""
    size: np.ndarray
    """Shares, int64 (trades,)."""
    sign: np.ndarray
    """+1 buyer-initiated, −1 seller-initiated, 0 a midpoint trade that was kept, int8 (trades,)."""


@dataclass(frozen=True)
class SignedTape:
    """Signed trades and how they came about.

    Attributes:
        trades: symbol, date, time (Int64, ns since local midnight), ticks (Int64, 1e-4 currency), price
            (Float64), size (Int64, shares), sign (Int8), bid_ticks, ask_ticks (Int64, null under the tick
            rule without quotes), midpoint (Boolean, the trade was at the midpoint exactly); sorted by symbol,
            date, time and sequence.
        cleaned: all cleaned trades in canonical columns, those without a sign included: what volume curves
            need.
        ledger: rows read, used and dropped.
        settings: the options that were used, as plain types, and "hours", the session they came to in nanoseconds
            since local midnight.
        mapping: "trades", "quotes" -> format and columns that were recognised.
    """

    trades: pl.DataFrame
    cleaned: pl.DataFrame
    ledger: Ledger
    settings: Mapping[str, Any]
    mapping: Mapping[str, Mapping[str, str]]

    @classmethod
    def from_frames(
        cls,
        trades: Any,
        cleaned: Any = None,
        *,
        ledger: Ledger | None = None,
        settings: Mapping[str, Any] | None = None,
        mapping: Mapping[str, Mapping[str, str]] | None = None,
    ) -> SignedTape:
        """A tape from tables in memory: frames that were saved, or trades that were signed elsewhere.

        Args:
            trades: a polars, pandas or Arrow table with the columns of `trades` above; of these symbol, date, time,
                ticks, size and sign must be there. Sorted here by symbol, date and time, stably.
            cleaned: all cleaned trades, likewise; without them the signed ones stand in.
            ledger: without one, all rows count as read and used.
            settings, mapping: as above.

        Raises:
            InputError: a column is missing, a null or a fraction where a whole number must be, or a sign other than
                −1, 0, 1.
        """
        import polars as pl

        trades, cleaned = as_polars(trades), None if cleaned is None else as_polars(cleaned)
        needed = ("symbol", "date", "time", "ticks", "size", "sign")
        for name in needed:
            if name not in trades.columns:
                raise InputError(name, f"signed trades lack this column; found: {', '.join(trades.columns)}")
            if trades[name].null_count():
                raise InputError(name, "is null", index=int(trades[name].is_null().arg_true()[0]))
        wrong = ~trades["sign"].is_in([-1, 0, 1])
        if wrong.any():
            raise InputError("sign", "is not −1, 0 or 1", index=int(wrong.arg_true()[0]))
        for name in ("time", "ticks", "size"):
            _require_whole(trades[name])
        types = {"symbol": pl.String, "time": pl.Int64, "ticks": pl.Int64, "size": pl.Int64, "sign": pl.Int8}
        ordered = trades.cast(types).sort("symbol", "date", "time", maintain_order=True)  # pyright: ignore[reportArgumentType]
        rows = {"trades": ordered.height}
        return cls(
            ordered,
            ordered if cleaned is None else cleaned,
            ledger or Ledger(rows, rows),
            settings or {},
            mapping or {},
        )

    def __repr__(self) -> str:
        """A line; frames would show symbols as they are, and those can steer a terminal."""
        return f"SignedTape({self.trades.height:,} trades of {len(self.symbols):,} symbols)"

    @property
    def hours(self) -> tuple[int, int] | None:
        """The session that was kept, (start, end) in nanoseconds since local midnight; None where it is not known."""
        hours = self.settings.get("hours")
        return None if hours is None else (int(hours[0]), int(hours[1]))

    @property
    def symbols(self) -> list[str]:
        """Symbols with at least one signed trade, sorted, verbatim."""
        return self.trades["symbol"].rle().struct.field("value").unique().sort().to_list()

    def only(self, *symbols: str) -> SignedTape:
        """The tape of some of its symbols; ledger and settings stay those of the whole.

        Raises:
            InputError: a symbol is not on the tape.
        """
        import polars as pl

        for symbol in symbols:
            if symbol not in self.symbols:
                raise InputError("symbol", f"{printable(symbol)!r} is not on the tape of {len(self.symbols)} symbols")
        wanted = pl.col("symbol").is_in(list(symbols))
        return replace(self, trades=self.trades.filter(wanted), cleaned=self.cleaned.filter(wanted))

    def segments(self) -> Segments:
        """The signed trades as flat arrays by symbol and date."""
        starts = np.unique(np.concatenate([_run_starts(self.trades[name]) for name in ("symbol", "date")]))
        first = self.trades.select("symbol", "date")[starts]
        stock = first["symbol"].rank("dense").to_numpy().astype(np.int64) - 1
        offsets = np.append(starts, self.trades.height)
        arrays = (self.trades[name].to_numpy() for name in ("time", "ticks", "size", "sign"))
        symbols = first["symbol"].unique().sort().to_list()
        return Segments(symbols, stock, first["date"].to_list(), offsets, *arrays)

    def summary(self) -> str:
        """A few lines of text: what was read, used and dropped, and the balance of buys and sells."""
        signs = self.trades["sign"]
        head = (
            f"Signed tape: {self.trades.height:,} trades of {len(self.symbols):,} symbols; "
            f"{(signs > 0).sum():,} buys, {(signs < 0).sum():,} sells, {(signs == 0).sum():,} unsigned midpoints"
        )
        lines = [
            head,
            f"rule {self.settings.get('rule', 'unknown')}, midpoint {self.settings.get('midpoint', 'unknown')}",
        ]
        lines += [f"{name}: {text}" for name, text in self.ledger.notes.items()]
        if self.trades.height:
            first, last = self.trades["time"].min(), self.trades["time"].max()
            lines.append(f"times {clock_text(int(first))} to {clock_text(int(last))}")  # pyright: ignore[reportArgumentType]
        lines += [f"{r['table']:7} {r['stage']:6} {r['reason']:24} {r['rows']:>14,}" for r in self.ledger.table()]
        lines.append("ledger balances" if self.ledger.balanced else "LEDGER DOES NOT BALANCE")
        return "\n".join(printable(line) for line in lines)


def _require_whole(values: pl.Series) -> None:
    """Refuse what a cast to integers would cut off, such as sizes in lots or prices where ticks belong."""
    if values.dtype.is_float():
        wrong = ~(values.is_finite() & (values == values.round()))
        if wrong.any():
            row = int(wrong.arg_true()[0])
            raise InputError(values.name, f"{values[row]} is no whole number", index=row)
    elif not (values.dtype.is_integer() or values.dtype.is_temporal()):
        raise InputError(values.name, f"must be whole numbers, is {values.dtype}")


def _run_starts(values: pl.Series) -> np.ndarray:
    """Rows at which a value differs from the one before, the first among them, (runs,)."""
    lengths = values.rle().struct.field("len").to_numpy().astype(np.int64)
    return np.cumsum(lengths) - lengths
