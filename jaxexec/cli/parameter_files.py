"""Files of executions, meta-orders and order flow: their columns, every cell checked, and as arrays."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxexec.storage import FileError, read_csv, read_parquet

if TYPE_CHECKING:
    import polars as pl

Source = Literal["tape", "executions", "meta-orders", "flow", "schedules"]
_COLUMNS: dict[str, tuple[str, ...]] = {
    "executions": ("participation", "slippage"),
    "meta-orders": ("permanent", "realised", "turnover", "horizon", "settled", "volatility", "inverse_turnover"),
    "flow": ("flow", "returns"),
}
_OPTIONAL = {"executions": ("error_std", "state"), "meta-orders": (), "flow": ()}
_POSITIVE = ("participation", "error_std", "turnover", "horizon", "settled", "volatility", "inverse_turnover")
_MOST_PARTS = 20


class Lane(NamedTuple):
    """The rows of one symbol, or of one part of it.

    Attributes:
        symbol: Its name; empty where the file has no such column.
        part: What part of the rows it is; empty where it is all of them.
        columns: (rows,) each; of flow (sessions, steps), filled up at the end.
        mask: True for a row without an empty cell, of the same shape.
    """

    symbol: str
    part: str
    columns: dict[str, np.ndarray]
    mask: np.ndarray


def read_rows(path: Path) -> "pl.DataFrame":
    """A CSV or Parquet file as a frame with at least one row.

    Raises:
        FileError: It cannot be read, or has no row.
    """
    frame = read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else read_csv(path)
    if not frame.height:
        raise FileError(path, "no rows", "Give at least a few rows a symbol.")
    return frame


def read_columns(path: Path, source: Source, by: str | None = None, parts: int = 2) -> "pl.DataFrame":
    """The columns of a CSV or Parquet file that a source needs, as numbers, and `symbol`, `session` and `part`.

    Args:
        path: The file.
        source: What its rows are.
        by: Column that parts the rows.
        parts: How many parts, where that column has numbers or times of day.

    Raises:
        FileError: A column is missing, or a cell holds what it cannot; column and row are named, the first row being 1.
    """
    import polars as pl

    frame = read_rows(path)
    needed = _COLUMNS[source]
    for name in (*needed, *([by] if by else [])):
        if name not in frame.columns:
            found = ", ".join(frame.columns[:20])
            raise FileError(path, f"no column {name}", f"Name the columns {', '.join(needed)} (found: {found}).")
    wanted = [*needed, *(name for name in _OPTIONAL[source] if name in frame.columns)]
    columns = {name: number_column(path, frame, name, name in _POSITIVE) for name in wanted}
    if source == "meta-orders":
        early = (columns["settled"] < columns["horizon"]).fill_null(value=False)
        if early.any():
            row = int(early.arg_max() or 0) + 1
            raise FileError(path, f"settled, row {row}: before the order ends (horizon)", "Correct the cell.")
    names = {name: text_column(frame, name) for name in ("symbol", "session")}
    part = parts_of(path, frame[by], by, parts) if by else pl.Series([""] * frame.height, dtype=pl.String)
    return pl.DataFrame({**names, "part": part, **columns})


def text_column(frame: "pl.DataFrame", name: str) -> "pl.Series":
    """A column as text, empty where there is none."""
    import polars as pl

    if name not in frame.columns:
        return pl.Series(name, [""] * frame.height, dtype=pl.String)
    return frame[name].cast(pl.String).fill_null("")


def number_column(path: Path, frame: "pl.DataFrame", name: str, positive: bool = False) -> "pl.Series":
    """A column as numbers, null where a cell is empty.

    Raises:
        FileError: A cell is no number, not finite, or not positive where it must be.
    """
    import polars as pl

    given = frame[name]
    values = given.cast(pl.Float64, strict=False)
    empty = given.is_null()
    if given.dtype == pl.String:
        empty = empty | (given.str.strip_chars() == "").fill_null(value=True)
    faults = {
        "no number": values.is_null() & ~empty,
        "not finite": (~values.is_finite()).fill_null(value=False),
        "not positive": (values <= 0).fill_null(value=False) if positive else pl.Series([False]),
    }
    for fault, where in faults.items():
        if where.any():
            row = int(where.arg_max() or 0)
            raise FileError(path, f"{name}, row {row + 1}: {fault} ({str(given[row])[:30]!r})", "Correct the cell.")
    return values


def parts_of(path: Path, column: "pl.Series", name: str, parts: int) -> "pl.Series":
    """The part of each row: that of its size or time of day where the column has these, else its text.

    Raises:
        FileError: A cell is empty, or there are too many texts or too few numbers for parts.
    """
    import polars as pl

    from jaxexec.calibration import states_of

    if column.is_null().any():
        raise FileError(path, f"{name}, row {int(column.is_null().arg_max() or 0) + 1}: empty", "Fill the cell.")
    texts = [value.isoformat() if hasattr(value, "isoformat") else str(value) for value in column.to_list()]
    numbers, clock = _as_numbers(texts)
    if numbers is None:
        kinds = len(set(texts))
        if kinds > _MOST_PARTS:
            reason = f"{name} has {kinds:,} different texts, more than {_MOST_PARTS} parts"
            raise FileError(path, reason, "Name a column of numbers or times, or of fewer words.")
        return pl.Series(name, texts, dtype=pl.String)
    try:
        states = states_of(numbers, parts)
    except ValueError as error:
        raise FileError(path, f"{name}: {error}", "Give another --parts.") from error
    labels = []
    for state in range(parts):
        inside = numbers[states == state]
        ends = (_clock(x) if clock else f"{x:.4g}" for x in (inside.min(), inside.max()))
        labels.append(f"{name} {' to '.join(ends)}")
    return pl.Series(name, [labels[state] for state in states], dtype=pl.String)


def _as_numbers(texts: Sequence[str]) -> tuple[np.ndarray | None, bool]:
    """Texts as finite numbers, or as seconds after midnight; None where they are neither. And which it was."""
    try:
        numbers = np.array([float(text) for text in texts])
        return (numbers if np.isfinite(numbers).all() else None), False
    except ValueError:
        pass
    try:
        times = [datetime.time.fromisoformat(text.strip().partition("T")[2] or text.strip()) for text in texts]
    except ValueError:
        return None, False
    return np.array([t.hour * 3600.0 + t.minute * 60 + t.second for t in times]), True


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600:02d}:{int(seconds) // 60 % 60:02d}"


def lanes(frame: "pl.DataFrame", source: Source) -> list[Lane]:
    """The rows of each symbol and part, symbols in the order of their coming, parts in that of their names."""
    found = []
    symbols = {symbol: i for i, symbol in enumerate(frame["symbol"].unique(maintain_order=True))}
    groups = frame.partition_by(["symbol", "part"], maintain_order=True)
    for group in sorted(groups, key=lambda g: (symbols[g["symbol"][0]], g["part"][0])):
        sessions = group.partition_by("session", maintain_order=True) if source == "flow" else [group]
        shape = (len(sessions), max(session.height for session in sessions))
        names = [name for name in frame.columns if name not in ("symbol", "session", "part")]
        columns, mask = {name: np.ones(shape) for name in names}, np.zeros(shape, bool)
        for at, session in enumerate(sessions):
            known = ~np.any(np.stack([session[name].is_null().to_numpy() for name in names]), axis=0)
            mask[at, : session.height] = known
            for name in names:
                values = session[name].fill_null(1.0).to_numpy()
                columns[name][at, : session.height] = np.where(known, values, 1.0)
        if source != "flow":
            columns, mask = {name: x[0] for name, x in columns.items()}, mask[0]
        found.append(Lane(group["symbol"][0], group["part"][0], columns, mask))
    return found


def padded(rows: Sequence[Lane]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns and mask of all lanes as one batch, filled up to the longest."""
    shape = tuple(max(lane.mask.shape[axis] for lane in rows) for axis in range(rows[0].mask.ndim))
    mask = np.zeros((len(rows), *shape), bool)
    columns = {name: np.ones((len(rows), *shape)) for name in rows[0].columns}
    for at, lane in enumerate(rows):
        place = (at, *(slice(0, n) for n in lane.mask.shape))
        mask[place] = lane.mask
        for name, values in lane.columns.items():
            columns[name][place] = values
    return columns, mask
