"""Signed tapes as folders: what `clean` writes and what `impact` and `calibrate` read."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxexec.storage import FileError, Manifest, read_parquet, read_text

if TYPE_CHECKING:
    import polars as pl

    from jaxexec.tape import SignedTape

SIGNED, CLEANED = "signed-", "cleaned-"
"""File names are these and a date."""


def tape_inputs(*sources: Path | None) -> list[Path]:
    """The files that tape sources stand for.

    Raises:
        ValueError: A source is missing, or a folder without tape files.
    """
    from jaxexec.tape.files import tape_files

    return [file for source in sources if source is not None for file in tape_files(source)]


def signed_inputs(source: Path) -> list[Path]:
    """The files of signed trades in a folder, or the one file that `source` is."""
    if not source.is_dir():
        return [source]
    files = sorted(source.glob(f"{SIGNED}*.parquet"))
    if not files:
        raise FileError(source, f"no file {SIGNED}*.parquet", "Name the folder that `jaxexec clean` wrote.")
    return files


def read_signed(source: Path) -> "SignedTape":
    """A signed tape from the folder that `clean` wrote (its hashes are checked), or from one Parquet file.

    Raises:
        FileError: A file is missing, damaged or changed.
    """
    from jaxexec.tape import SignedTape
    from jaxexec.tape.ledger import Ledger

    trades = _concatenated(signed_inputs(source))
    if not source.is_dir():
        return SignedTape.from_frames(trades)
    Manifest.verify(source)
    facts = _facts(source / "ledger.json")
    cleaned = sorted(source.glob(f"{CLEANED}*.parquet"))
    return SignedTape.from_frames(
        trades,
        _concatenated(cleaned) if cleaned else None,
        ledger=Ledger.from_dict(facts["ledger"]),
        settings=facts["settings"],
        mapping=facts["mapping"],
    )


def signed_parts(source: Path) -> "Iterator[SignedTape]":
    """The signed trades that `read_signed` would give, part by part as `clean` wrote them; no symbol is in two parts.

    Raises:
        FileError: As `read_signed`.
    """
    from jaxexec.tape import SignedTape

    if source.is_dir():
        Manifest.verify(source)
    files = sorted(signed_inputs(source), key=lambda file: (_part_of(file), file.name))
    for _, part in groupby(files, key=_part_of):
        yield SignedTape.from_frames(_concatenated(list(part)))


def signed_files(sources: Sequence[Path]) -> list[Path]:
    """The files of signed trades that several folders and files stand for."""
    return [file for source in sources for file in signed_inputs(source)]


class SignedDays(Sequence["SignedTape"]):
    """The files of several folders as tapes, each read when it is asked for."""

    def __init__(self, sources: Sequence[Path]):
        for source in sources:
            if source.is_dir():
                Manifest.verify(source)
        self._files = signed_files(sources)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> "SignedTape":  # pyright: ignore[reportIncompatibleMethodOverride]
        from jaxexec.tape import SignedTape

        return SignedTape.from_frames(read_parquet(self._files[index]))


def whole_stocks(sources: Sequence[Path]) -> "Iterator[SignedTape]":
    """Signed trades part by part, no symbol in two parts: one folder as `clean` wrote it, several pooled in memory."""
    if len(sources) == 1:
        yield from signed_parts(sources[0])
    else:
        from jaxexec.tape import pool

        yield pool(SignedDays(sources))


def _part_of(file: Path) -> str:
    """The number in "signed-2024-01-02.0003.parquet"; empty where there is none."""
    return file.name.removesuffix(".parquet").partition(".")[2]


def _concatenated(files: list[Path]) -> "pl.DataFrame":
    import polars as pl

    return pl.concat([read_parquet(file) for file in files])


def _facts(path: Path) -> dict[str, Any]:
    """How a tape came about."""
    try:
        return json.loads(read_text(path, max_bytes=16 << 20))
    except ValueError as error:
        raise FileError(path, f"not JSON ({error})", "Run `jaxexec clean` again.") from error
