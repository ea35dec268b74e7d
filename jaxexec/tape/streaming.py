"""Signing a tape that is larger than memory: bucket by bucket of symbols, each as if it were the whole tape."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxexec.tape.buckets import Bucket, Extent, cut, extent
from jaxexec.tape.errors import InputError
from jaxexec.tape.files import read_table, tape_files
from jaxexec.tape.national_quotes import flagged_columns
from jaxexec.tape.reading import detected_mapping, require_same_header
from jaxexec.tape.schema import Kind, resolve_mapping
from jaxexec.tape.signed_tape import SignedTape
from jaxexec.tape.signing import sign

if TYPE_CHECKING:
    import polars as pl

# Bytes a row at the peak of `sign`, measured on quotes of WRDS's columns: as read, canonical, sorted and matched.
BYTES_A_ROW = 330
# Parts in memory at a time: two are being signed, while whoever goes through the stream holds one.
_SIGNING, _AT_A_TIME = 2, 3


@dataclasses.dataclass(frozen=True)
class TapeStream:
    """A tape on disk, cut into buckets of symbols. Iterating signs one bucket after the other.

    Attributes:
        trades, quotes, nbbo: where the rows lie.
        buckets: ranges of symbols; every symbol is in one, with all its dates.
        options: the options of `sign`.
    """

    trades: Extent
    quotes: Extent | None
    buckets: tuple[Bucket, ...]
    options: Mapping[str, Any]
    nbbo: Extent | None = None

    def __len__(self) -> int:
        return len(self.buckets)

    def __iter__(self) -> Iterator[SignedTape]:
        """The parts in order; the next ones are being signed meanwhile."""
        return self.signed(range(len(self)))

    def signed(self, which: Iterable[int]) -> Generator[SignedTape]:
        """The parts of some buckets, in the order asked for; the next ones are being signed meanwhile."""
        with ThreadPoolExecutor(_SIGNING) as pool:
            numbers = iter(which)
            waiting = deque(pool.submit(self.part, i) for i in islice(numbers, _SIGNING))
            try:
                while waiting:
                    part = waiting.popleft().result()
                    waiting.extend(pool.submit(self.part, i) for i in islice(numbers, 1))
                    yield part
                    del part
            finally:
                pool.shutdown(cancel_futures=True)

    def part(self, number: int) -> SignedTape:
        """The signed tape of one bucket. What it is does not depend on the other buckets.

        Raises:
            InputError: as `sign`; rows are counted within the bucket, which the message names.
        """
        bucket = self.buckets[number]
        trades, quotes, nbbo = (None if e is None else self._raw(name, e, bucket) for name, e in self._extents)
        assert trades is not None
        try:
            return sign(trades, quotes, nbbo=nbbo, **self.options)
        except InputError as error:
            after, last = bucket.after or "the first", bucket.last or "the last"
            error.add_note(f"Rows are counted among those of the symbols after {after!r} up to {last!r}.")
            raise

    @cached_property
    def _extents(self) -> tuple[tuple[str, Extent | None], ...]:
        return ("trades", self.trades), ("quotes", self.quotes), ("nbbo", self.nbbo)

    @cached_property
    def _columns(self) -> dict[str, Mapping[str, str] | None]:
        """Which columns are read, where the header alone does not say it."""
        quotes = self.options.get("quote_columns")
        if self.quotes is not None and self.nbbo is not None:
            quotes = flagged_columns(self.quotes.files[0][0], quotes)
        return {"trades": self.options.get("trade_columns"), "quotes": quotes}

    def _raw(self, name: str, where: Extent, bucket: Bucket) -> pl.DataFrame:
        """The rows of a bucket, in the columns of the vendor that are used."""
        import polars as pl

        kind: Kind = "trades" if name == "trades" else "quotes"
        columns = self._columns.get(name)

        def choose(header):
            return list(dict.fromkeys(resolve_mapping(header, kind, columns).columns.values()))

        parts: list[pl.DataFrame] = []
        first: dict[str, str] = {}
        # An empty bucket still has its columns: those of no row group of the first file.
        for path, groups, ends in [*where.runs(bucket)] or [(where.files[0][0], [], False)]:
            table, header = read_table(path, choose, groups=groups)
            first = first or header
            require_same_header(first, header, path)
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            parts.append(_of_bucket(frame, where.column, bucket, ends))
        return pl.concat(parts)


def stream(
    trades: str | os.PathLike[str],
    quotes: str | os.PathLike[str] | None = None,
    *,
    nbbo: str | os.PathLike[str] | None = None,
    memory: float = 1e9,
    **options: Any,
) -> TapeStream:
    """Sign a tape of Parquet files that need not fit in memory: `for part in stream(…)` gives a `SignedTape` each.

    A part holds whole symbols, over all dates of the files, and is what `sign` would make of them alone: results do not
    depend on how many parts there are. `impact.glosten_harris` takes a stream in place of a tape.

    Memory is about 0.4 GB, and 330 bytes for each row of three parts: two are signed while the third is used. Buckets
    are cut where row groups end, by the bounds on symbols that Parquet keeps for each; files sorted by symbol, as WRDS
    sends them, are read about once. A symbol is never cut, nor a row group of many symbols: write such files again,
    sorted, with smaller row groups.

    Args:
        trades: Parquet file, or folder of them.
        quotes: the same for quotes; None where `sign` does without.
        nbbo: the same for an NBBO that `quotes` complete; see `complete_nbbo`.
        memory: bytes that the parts may take, about.
        options: those of `sign`. `session="auto"` is refused, for no part knows the hours of the others.

    Raises:
        InputError: as `sign`; files that are no Parquet; `memory` is not positive.
    """
    if not memory > 0:
        raise InputError("memory", f"{memory!r} is no positive number of bytes")
    if options.get("session") == "auto":
        raise InputError("session", "'auto' needs the whole tape; say (start, end), or None for the whole day")
    extents: dict[str, Extent | None] = {}
    for name, source in (("trades", trades), ("quotes", quotes), ("nbbo", nbbo)):
        kind: Kind = "trades" if name == "trades" else "quotes"
        columns = None if name == "nbbo" else options.get(f"{kind[:-1]}_columns")
        extents[name] = None if source is None else _extent(source, kind, columns)
    some = [e for e in extents.values() if e is not None]
    buckets = cut(some, max(1, int(memory / (_AT_A_TIME * BYTES_A_ROW))))
    made = extents["trades"]
    assert made is not None
    return TapeStream(made, extents["quotes"], tuple(buckets), dict(options), extents["nbbo"])


def _extent(source: str | os.PathLike[str], kind: Kind, columns: Mapping[str, str] | None) -> Extent:
    if not isinstance(source, str | os.PathLike):
        raise InputError(kind, "a stream reads files: give a path, or use `sign` for tables in memory")
    return extent(tape_files(Path(source)), detected_mapping(source, kind, columns).columns["symbol"])


def _of_bucket(frame: pl.DataFrame, column: str, bucket: Bucket, nameless: bool) -> pl.DataFrame:
    """The rows of a bucket, with those that have no symbol or without."""
    import polars as pl

    symbol = pl.col(column).cast(pl.String)
    bounds = []
    if bucket.after is not None:
        bounds.append(symbol > bucket.after)
    if bucket.last is not None:
        bounds.append(symbol <= bucket.last)
    return frame.filter(pl.all_horizontal(bounds).fill_null(nameless)) if bounds else frame
