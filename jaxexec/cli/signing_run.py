"""Signing into a folder: in one piece, or part by part with what was done before taken up again."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxexec import storage
from jaxexec.cli.run import Run, progress
from jaxexec.cli.tapes import CLEANED, SIGNED
from jaxexec.presentation import table_of

if TYPE_CHECKING:
    from jaxexec.tape import Ledger, SignedTape, TapeStream


@dataclasses.dataclass(frozen=True)
class Signed:
    """What is to be said of signed trades, in one piece or of one part.

    Attributes:
        ledger: Rows read, used and dropped.
        settings: Options of `sign` that were used.
        mapping: Columns that were recognised.
        trades: Signed trades.
        symbols: Symbols that have some.
        files: Names of the files that hold them.
    """

    ledger: "Ledger"
    settings: Mapping[str, Any]
    mapping: Mapping[str, Any]
    trades: int
    symbols: int
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {**vars(self), "ledger": self.ledger.to_dict(), "files": list(self.files)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Signed":
        """What `to_dict` wrote."""
        from jaxexec.tape import Ledger

        given = {field.name: record[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**given, "ledger": Ledger.from_dict(record["ledger"]), "files": tuple(record["files"])})

    def with_part(self, other: "Signed") -> "Signed":
        """Both together."""
        return dataclasses.replace(
            self,
            ledger=self.ledger.merge(other.ledger),
            trades=self.trades + other.trades,
            symbols=self.symbols + other.symbols,
            files=self.files + other.files,
        )


def write_tape(run: Run, signed: "SignedTape") -> None:
    """Write a signed tape, a file a day, and show its ledger."""
    _conclude(run, _write(run, signed, ""))


def write_parts(run: Run, parts: "TapeStream", resume: bool) -> None:
    """Sign and write part by part, a file a part and day; with `resume` parts that are written are left as they are."""
    mark = _fingerprint(run, parts)
    names = [f"part-{number:04}.json" for number in range(len(parts))]
    before = [_written(run, name, mark) if resume else None for name in names]
    missing = parts.signed([number for number, done in enumerate(before) if done is None])
    together: Signed | None = None
    with progress(run.common, "signing", len(parts)) as advance, contextlib.closing(missing):
        for number, (name, done) in enumerate(zip(names, before, strict=True)):
            # The next parts are being signed while this one is written.
            done = _write(run, next(missing), f".{number:04}") if done is None else done
            facts = {"fingerprint": mark, **done.to_dict()}
            run.write(name, lambda path, facts=facts: storage.write_json(path, facts))
            together = done if together is None else together.with_part(done)
            advance(1)
    taken = sum(done is not None for done in before)
    assert together is not None
    if taken:
        run.note(f"{taken} of {len(parts)} parts had been written before")
    _conclude(run, together)
    run.result |= {"parts": len(parts), "resumed": taken}


def _write(run: Run, signed: "SignedTape", part: str) -> Signed:
    files = []
    for prefix, frame in ((SIGNED, signed.trades), (CLEANED, signed.cleaned)):
        for day, rows in sorted(frame.partition_by("date", as_dict=True, maintain_order=True).items()):
            files.append(f"{prefix}{day[0].isoformat()}{part}.parquet")  # pyright: ignore[reportAttributeAccessIssue]
            run.write_parquet(files[-1], rows)
    return Signed(
        signed.ledger, signed.settings, signed.mapping, signed.trades.height, len(signed.symbols), tuple(files)
    )


def _written(run: Run, name: str, mark: str) -> Signed | None:
    """What a former run said of a part, where it is the same part of the same files and its files are there."""
    path = run.folder / name
    if not path.exists():
        return None
    try:
        record = json.loads(storage.read_text(path, max_bytes=16 << 20))
        done = Signed.from_dict(record)
    except (ValueError, KeyError, TypeError):
        return None
    if record.get("fingerprint") != mark or not all((run.folder / file).exists() for file in done.files):
        return None
    for file in done.files:
        run.write(file, lambda path: None)
    return done


def _fingerprint(run: Run, parts: "TapeStream") -> str:
    """Of all that a part depends on: inputs as they lie on disk, options, buckets, version."""
    states = [(str(path), (state := path.stat()).st_size, state.st_mtime_ns) for path in run.inputs]
    versions = storage.versions()
    said = [states, run.settings, [list(bucket) for bucket in parts.buckets], versions.get("jaxexec")]
    return hashlib.sha256(storage.to_json({"of": said}).encode()).hexdigest()


def _conclude(run: Run, signed: Signed) -> None:
    """Write and show the ledger."""
    facts = {"ledger": signed.ledger.to_dict(), "settings": signed.settings, "mapping": signed.mapping}
    run.write("ledger.json", lambda path: storage.write_json(path, facts))
    notes = [f"{name}: {text}" for name, text in signed.ledger.notes.items()]
    balance = "Rows read = rows used + rows dropped." if signed.ledger.balanced else "The ledger does not balance."
    run.show(table_of(signed.ledger.table(), "Ledger", " ".join([balance, *notes])))
    for name, columns in signed.mapping.items():
        run.note(f"{name}: " + ", ".join(f"{ours} = {theirs}" for ours, theirs in columns.items()))
    run.result |= {"trades": signed.trades, "symbols": signed.symbols, "balanced": signed.ledger.balanced}
