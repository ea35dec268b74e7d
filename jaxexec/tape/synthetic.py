"""Synthetic tapes in the columns of WRDS daily TAQ, whose true signs and impact parameters are known.

    tape = synthetic.generate(stocks=300, trades=2000, seed=0)
    signed = sign(tape.trades, tape.quotes, midpoint="keep")

Every stock has its own random stream, so that it does not depend on how many others there are.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxexec.tape.errors import InputError
from jaxexec.tape.order_flow import LAGS, Day, Truth, draw_truth, simulate
from jaxexec.tape.schema import TICKS_PER_UNIT

if TYPE_CHECKING:
    import os

    import polars as pl

Model = Literal["exact", "realistic"]

_DATE = datetime.date(2024, 1, 2)
_FEWEST_TRADES = 2


class SyntheticTape(NamedTuple):
    """Trades, quotes and what is true of them.

    `trades`: date, time_m, ex, sym_root, sym_suffix, tr_scond, size, price, tr_corr, tr_seqnum and true_sign
    (Int8; 0 for a midpoint trade of the exact model). `quotes`: date, time_m, ex, sym_root, sym_suffix, bid,
    bidsiz, ask, asksiz, qu_seqnum. `truth`: a row a stock; symbol, trades, permanent_fixed,
    permanent_variable, transitory_fixed, transitory_variable, noise, sign_persistence, size_scale,
    midpoint_probability, intraday_curvature, opening_price, ar_1 … ar_5, volatility (currency per share per
    √day), volume (shares).
    """

    trades: pl.DataFrame
    quotes: pl.DataFrame
    truth: pl.DataFrame


def generate(
    stocks: int = 300,
    trades: int = 2000,
    seed: int = 0,
    model: Model = "exact",
    *,
    date: datetime.date = _DATE,
    tail: float | None = None,
    flickers: int = 1,
) -> SyntheticTape:
    """A synthetic day.

    Model "exact" obeys Sadka's price equation to within the rounding of prices to 1e-4, with signed sizes
    that follow a fifth-order autoregression: estimates differ from the truth by sampling error alone,
    provided midpoint trades are kept (`midpoint="keep"`). Model "realistic" adds what tapes have: signs that
    persist, round and odd lots, bursts, prices on cents, quotes that flicker; its truth is what the estimator
    is after, not what it must recover.

    Args:
        stocks: number of symbols, S00000, S00001, …
        trades: mean number of trades a stock.
        seed: any integer >= 0; the same seed gives the same tape.
        model: "exact" or "realistic".
        date: the day.
        tail: σ of the lognormal number of trades a stock, at least 50; 0 gives every stock `trades`. None is
            0 for the exact model and 1.2 for the realistic one.
        flickers: quotes between two trades that change nothing, of the realistic model: it has this and two more
            quotes a trade.

    Raises:
        InputError: an unknown model, a negative or too small number.
    """
    import polars as pl

    parts = list(_stocks(range(stocks), trades, seed, model, date, tail, flickers))
    if not parts:
        raise InputError("stocks", "must be at least 1")
    return SyntheticTape(*(pl.concat(frames) for frames in zip(*parts, strict=True)))


def write(
    folder: str | os.PathLike[str],
    stocks: int = 300,
    trades: int = 2000,
    seed: int = 0,
    model: Model = "exact",
    *,
    date: datetime.date = _DATE,
    tail: float | None = None,
    flickers: int = 1,
    bucket: int = 20,
) -> dict[str, Path]:
    """Write what `generate` makes to `trades.parquet`, `quotes.parquet` and `truth.parquet`, `bucket` stocks
    at a time.

    Memory holds one bucket. A file takes its name only when it is complete.

    Args:
        folder: made where it is not there.
        stocks, trades, seed, model, date, tail, flickers: see `generate`.
        bucket: stocks a row group.

    Returns:
        "trades", "quotes", "truth" -> the file.

    Raises:
        InputError: as `generate`; a bucket of no stocks.
    """
    import pyarrow.parquet as pq

    if stocks < 1 or bucket < 1:
        raise InputError("stocks" if stocks < 1 else "bucket", "must be at least 1")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = {name: target / f"{name}.parquet" for name in SyntheticTape._fields}
    partial = {name: path.with_suffix(".parquet.partial") for name, path in paths.items()}
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for first in range(0, stocks, bucket):
            numbers = range(first, min(first + bucket, stocks))
            for name, frame in zip(paths, _bucket(numbers, trades, seed, model, date, tail, flickers), strict=True):
                table = frame.to_arrow()
                if name not in writers:
                    writers[name] = pq.ParquetWriter(partial[name], table.schema, compression="zstd")
                writers[name].write_table(table)
    finally:
        for writer in writers.values():
            writer.close()
    for name, path in paths.items():
        partial[name].replace(path)
    return paths


def _bucket(
    numbers: range, trades: int, seed: int, model: Model, date: datetime.date, tail: float | None, flickers: int
) -> list[pl.DataFrame]:
    import polars as pl

    parts = zip(*_stocks(numbers, trades, seed, model, date, tail, flickers), strict=True)
    return [pl.concat(frames) for frames in parts]


def _stocks(
    numbers: range, trades: int, seed: int, model: Model, date: datetime.date, tail: float | None, flickers: int
) -> Iterator[SyntheticTape]:
    if model not in ("exact", "realistic"):
        raise InputError("model", f"{model!r} is not 'exact' or 'realistic'")
    exact = model == "exact"
    tail = (0.0 if exact else 1.2) if tail is None else tail
    bounds = ("trades", trades, _FEWEST_TRADES), ("seed", seed, 0), ("tail", tail, 0), ("flickers", flickers, 0)
    for field, value, least in bounds:
        if value < least:
            raise InputError(field, f"must be at least {least}")
    for number in numbers:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        truth = draw_truth(trades, tail, exact, rng)
        day = simulate(truth, exact, rng, flickers)
        symbol = f"S{number:05d}"
        yield SyntheticTape(
            _trade_frame(symbol, date, day, rng),
            _quote_frame(symbol, date, day, rng),
            _truth_frame(symbol, truth, day),
        )


def _trade_frame(symbol: str, date: datetime.date, day: Day, rng: np.random.Generator) -> pl.DataFrame:
    import polars as pl

    n = len(day.time)
    sweep = rng.random(n) < 0.3
    condition = np.where(day.size < 100, np.where(sweep, "F I", "I"), np.where(sweep, "F", "@"))
    venues = np.array(["N", "Q", "P", "D"])[rng.integers(0, 4, n)]
    columns = {
        "time_m": pl.Series(day.time).cast(pl.Time),
        "ex": venues.tolist(),
        "sym_root": pl.Series([symbol]).new_from_index(0, n),
        "sym_suffix": pl.Series([None], dtype=pl.String).new_from_index(0, n),
        "tr_scond": condition.tolist(),
        "size": day.size,
        "price": day.ticks / TICKS_PER_UNIT,
        "tr_corr": pl.Series(["00"]).new_from_index(0, n),
        "tr_seqnum": np.arange(1, n + 1, dtype=np.int64),
        "true_sign": day.sign,
    }
    return pl.DataFrame({"date": pl.Series([date]).new_from_index(0, n), **columns})


def _quote_frame(symbol: str, date: datetime.date, day: Day, rng: np.random.Generator) -> pl.DataFrame:
    import polars as pl

    n = len(day.quote_time)
    sizes = rng.integers(1, 20, (2, n))
    columns = {
        "time_m": pl.Series(day.quote_time).cast(pl.Time),
        "ex": pl.Series(["N"]).new_from_index(0, n),
        "sym_root": pl.Series([symbol]).new_from_index(0, n),
        "sym_suffix": pl.Series([None], dtype=pl.String).new_from_index(0, n),
        "bid": day.bid / TICKS_PER_UNIT,
        "bidsiz": sizes[0],
        "ask": day.ask / TICKS_PER_UNIT,
        "asksiz": sizes[1],
        "qu_seqnum": np.arange(1, n + 1, dtype=np.int64),
    }
    return pl.DataFrame({"date": pl.Series([date]).new_from_index(0, n), **columns})


def _truth_frame(symbol: str, truth: Truth, day: Day) -> pl.DataFrame:
    import polars as pl

    row = asdict(truth)
    # What is observed is the latent flow but for midpoint trades, so that its autoregression is damped by them.
    observed = [(1.0 - truth.midpoint_probability) * a for a in row.pop("autoregression")] or [None] * LAGS
    row |= {f"ar_{lag}": coefficient for lag, coefficient in enumerate(observed, start=1)}
    row |= {"volatility": day.volatility, "volume": int(day.size.sum())}
    return pl.DataFrame({"symbol": symbol, **row}).with_columns(pl.col("^(ar_.|sign_persistence)$").cast(pl.Float64))
