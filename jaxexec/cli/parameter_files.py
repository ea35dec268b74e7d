"""Rows of executions, meta-orders or order flow to fitted parameters: what `jaxexec calibrate --source` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.run import Run
from jaxexec.presentation import Table
from jaxexec.storage import FileError, read_csv, read_parquet

if TYPE_CHECKING:
    import polars as pl

Source = Literal["tape", "executions", "meta-orders", "flow"]
_COLUMNS: dict[str, tuple[str, ...]] = {
    "executions": ("participation", "slippage"),
    "meta-orders": ("permanent", "realised", "turnover", "horizon", "settled", "volatility", "inverse_turnover"),
    "flow": ("flow", "returns"),
}
_OPTIONAL = {"executions": ("error_std",), "meta-orders": (), "flow": ()}
_SHOWN = 10


def fit_file(run: Run, path: Path, source: Source, step: float | None) -> int:
    """Fit every symbol of a file, write and show the parameters; the exit code."""
    frame = read_columns(path, source)
    symbols, columns, mask = padded(frame, source)
    fits = _fitted(source, columns, mask, step)
    table = parameters(symbols, fits)
    run.write_parquet("parameters.parquet", table)
    shown = table.filter(table["symbol"].is_in(symbols[:_SHOWN]))
    run.show(Table(f"Fitted to {source}", shown.columns, shown.rows(), f"{len(symbols):,} symbols."))
    if source == "executions" and len(symbols) > len(fits.names) + 1:
        from jaxexec.calibration import shrink

        run.write_parquet("shrunk.parquet", parameters(symbols, shrink(fits).stocks))
    failed = int(np.sum(np.asarray(fits.status) > 2))
    run.result |= {"symbols": len(symbols), "failed": failed}
    return SOME_ROWS_FAILED if failed else OK


def read_columns(path: Path, source: Source) -> "pl.DataFrame":
    """The columns of a CSV or Parquet file that a source needs, as numbers, and `symbol` and `session`.

    Raises:
        FileError: a column is missing, or holds what is no number; column and row are named.
    """
    import polars as pl

    frame = read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else read_csv(path)
    needed = _COLUMNS[source]
    for name in needed:
        if name not in frame.columns:
            found = ", ".join(frame.columns[:20])
            raise FileError(path, f"no column {name}", f"Name the columns {', '.join(needed)} (found: {found}).")
    if not frame.height:
        raise FileError(path, "no rows", "Give at least a few rows a symbol.")
    wanted = [*needed, *(name for name in _OPTIONAL[source] if name in frame.columns)]
    columns = {name: frame[name].cast(pl.Float64, strict=False) for name in wanted}
    for name, column in columns.items():
        bad = column.is_null() & frame[name].is_not_null()
        if bad.any():
            raise FileError(path, f"{name}, row {int(bad.arg_max() or 0) + 1}: no number", "Correct the cell.")
    names = {
        name: frame[name].cast(pl.String).fill_null("") if name in frame.columns else pl.Series([""] * frame.height)
        for name in ("symbol", "session")
    }
    return pl.DataFrame({**names, **columns})


def padded(frame: "pl.DataFrame", source: Source) -> tuple[list[str], dict[str, np.ndarray], np.ndarray]:
    """Symbols, columns (symbols, rows) or (symbols, sessions, steps), and the mask of rows without an empty cell."""
    by = ["symbol", "session"] if source == "flow" else ["symbol"]
    groups = frame.partition_by(by, maintain_order=True)
    keys = [group.row(0)[: len(by)] for group in groups]
    symbols = list(dict.fromkeys(key[0] for key in keys))
    place, counts = [], dict.fromkeys(symbols, 0)
    for symbol, *_ in keys:
        place.append((symbols.index(symbol), counts[symbol]))
        counts[symbol] += 1
    shape = (len(symbols), max(counts.values()), max(group.height for group in groups))
    names = [name for name in frame.columns if name not in ("symbol", "session")]
    columns = {name: np.ones(shape) for name in names}
    mask = np.zeros(shape, bool)
    for at, group in zip(place, groups, strict=True):
        known = ~np.any(np.stack([group[name].is_null().to_numpy() for name in names]), axis=0)
        mask[at][: group.height] = known
        for name in names:
            columns[name][at][: group.height] = np.where(known, group[name].fill_null(1.0).to_numpy(), 1.0)
    if source == "flow":
        return symbols, columns, mask
    return symbols, {name: x[:, 0] for name, x in columns.items()}, mask[:, 0]


def _fitted(source: Source, columns: dict[str, np.ndarray], mask: np.ndarray, step: float | None) -> Any:
    from jaxexec import calibration

    if source == "executions":
        return calibration.execution_cost(mask=mask, **columns)  # pyright: ignore[reportArgumentType]
    if source == "meta-orders":
        return calibration.meta_order_impact(mask=mask, **columns)  # pyright: ignore[reportArgumentType]
    if step is None:
        raise ValueError("--step is needed with --source flow: days between two rows, such as 0.0025641 for a minute")
    return calibration.propagator(columns["flow"], columns["returns"], mask, step=step).parameters


def parameters(symbols: list[str], fits: Any) -> "pl.DataFrame":
    """A row a symbol and parameter: estimate, standard error, 95 % interval, rows and status."""
    import polars as pl

    from jaxexec.numerics.status import Status

    ends = fits.intervals()
    values, errors = np.asarray(fits.values, np.float64), np.asarray(fits.std_errors, np.float64)
    rows = [
        {
            "symbol": symbol,
            "parameter": name,
            "estimate": float(values[i, k]),
            "std_error": float(errors[i, k]),
            "low": float(ends[i, k, 0]),
            "high": float(ends[i, k, 1]),
            "rows": int(fits.n[i]),
            "status": Status(int(fits.status[i])).name,
        }
        for i, symbol in enumerate(symbols)
        for k, name in enumerate(fits.names)
    ]
    return pl.DataFrame(rows)
