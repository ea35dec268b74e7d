"""Where the symbols of large files lie, and how to cut them into buckets that fit in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from jaxexec.tape.errors import InputError
from jaxexec.tape.files import is_parquet, row_groups


class Bucket(NamedTuple):
    """Symbols after `after` up to and with `last`, in the order of their bytes; None is without bound.

    `rows` is how many rows have to be read for it, at most.
    """

    after: str | None
    last: str | None
    rows: int

    def reaches(self, low: str | None, high: str | None) -> bool:
        """Whether some symbol between `low` and `high` may be among these."""
        behind = self.after is not None and high is not None and high <= self.after
        ahead = self.last is not None and low is not None and low > self.last
        return not (behind or ahead)

    def ends(self, high: str | None) -> bool:
        """Whether a row group that goes up to `high` ends here: its rows without a symbol are then counted here."""
        if high is None:
            return self.after is None
        return (self.after is None or high > self.after) and (self.last is None or high <= self.last)


class Span(NamedTuple):
    """One row group of one file."""

    group: int
    rows: int
    low: str | None
    high: str | None


@dataclass(frozen=True)
class Extent:
    """The row groups of the files of one table, file by file."""

    column: str
    files: tuple[tuple[Path, tuple[Span, ...]], ...]

    @property
    def spans(self) -> list[Span]:
        """The row groups of all files."""
        return [span for _, spans in self.files for span in spans]

    def runs(self, bucket: Bucket) -> Iterator[tuple[Path, list[int], bool]]:
        """Row groups that a bucket may have rows in, in their order, and whether they end in it."""
        for path, spans in self.files:
            near = [span for span in spans if bucket.reaches(span.low, span.high)]
            for end, run in groupby(near, key=lambda span: bucket.ends(span.high)):
                yield path, [span.group for span in run], end


def extent(files: Sequence[Path], column: str) -> Extent:
    """The extent of Parquet files whose symbols stand in `column`.

    Raises:
        InputError: a file cannot be read, or is no Parquet file.
    """
    found = []
    for path in files:
        if not is_parquet(path):
            raise InputError("source", "only Parquet can be read in parts; write it as Parquet first", path=path)
        groups = row_groups(path, column)
        found.append((path, tuple(Span(i, g.rows, g.low, g.high) for i, g in enumerate(groups))))
    return Extent(column, tuple(found))


def cut(extents: Sequence[Extent], rows: int) -> list[Bucket]:
    """Buckets of at most `rows` rows where the row groups allow it; together they hold every symbol.

    Cuts fall where row groups end, so that a row group is read for two buckets at most where the files are sorted by
    symbol. A symbol is never cut.
    """
    count = _Count([span for one in extents for span in one.spans if span.rows])
    places: list[str | None] = [None]
    for here, following in pairwise([*count.ends, None]):
        if here != places[-1] and count(places[-1], following) > rows:
            places.append(here)
    return [Bucket(after, last, count(after, last)) for after, last in pairwise([*places, None])]


class _Count:
    """Rows of the row groups that reach into a range: those that begin before its end less those that end before it."""

    def __init__(self, spans: Sequence[Span]):
        known = [span for span in spans if span.low is not None and span.high is not None]
        self.anywhere = sum(span.rows for span in spans) - sum(span.rows for span in known)
        self.lows, self.begun = _running([(span.low, span.rows) for span in known])
        self.highs, self.ended = _running([(span.high, span.rows) for span in known])

    @property
    def ends(self) -> list[str]:
        return list(dict.fromkeys(self.highs))

    def __call__(self, after: str | None, last: str | None) -> int:
        begun = self.begun[-1] if last is None else self.begun[bisect_right(self.lows, last)]
        ended = 0 if after is None else self.ended[bisect_right(self.highs, after)]
        return self.anywhere + begun - ended


def _running(pairs: Sequence[tuple[Any, int]]) -> tuple[list[str], list[int]]:
    ordered = sorted(pairs)
    return [place for place, _ in ordered], [0, *accumulate(rows for _, rows in ordered)]
