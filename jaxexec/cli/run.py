"""One run of a command: what it says, what it writes, and the manifest that closes it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from jaxexec import storage
from jaxexec.cli.options import Common
from jaxexec.presentation import Table, visible
from jaxexec.presentation.cells import scalar

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from jaxexec.cli.runtime import Runtime

PRESENTATION_NAME = "presentation.json"


class Run:
    """A run of a command that writes a folder; `open_run` makes it and closes it.

    Attributes:
        folder: Where the results go.
        result: What `--json` prints: plain objects by name.
        runtime: The device and precision, where JAX is used.
    """

    def __init__(self, command: str, common: Common, settings: Mapping[str, Any], inputs: Iterable[Path]):
        self.command = command
        self.common = common
        self.settings = dict(settings)
        self.inputs = tuple(inputs)
        self.folder = output_path(command, common)
        self.result: dict[str, Any] = {}
        self.runtime: Runtime | None = None
        self._outputs: list[str] = []
        self._tables: list[Table] = []
        self._pictures: list[dict[str, str]] = []

    def start_jax(self) -> Self:
        """Set JAX up with the precision that was asked for."""
        from jaxexec.cli import runtime

        self.runtime = runtime.start(self.common.precision)
        return self

    def note(self, message: str) -> None:
        """A remark on stderr."""
        if not self.common.quiet:
            print(visible(message), file=sys.stderr)

    def show(self, table: Table) -> None:
        """Print a table, and keep it for the report."""
        self._tables.append(table)
        print_tables([table], self.common)

    def write(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Write one output by a function of its path."""
        path = self.folder / name
        write(path)
        self._outputs.append(name)
        return path

    def write_parquet(self, name: str, frame: "pl.DataFrame") -> Path:
        """Write a frame."""
        return self.write(name, lambda path: storage.write_parquet(path, frame))

    def write_text(self, name: str, text: str) -> Path:
        """Write text."""
        return self.write(name, lambda path: storage.write_text(path, text))

    def write_picture(self, name: str, figure: "Figure", caption: str) -> Path:
        """Write a figure as SVG, and keep it for the report."""
        from jaxexec.presentation import to_svg

        self._pictures.append({"file": name, "caption": caption})
        return self.write(name, lambda path: storage.write_atomic(path, to_svg(figure)))

    def provenance(self, outputs: Iterable[str] = ()) -> storage.Manifest:
        """What made the results, with the hashes of the inputs and of some outputs."""
        return storage.Manifest.of(
            self.folder,
            outputs,
            command=["jaxexec", *sys.argv[1:]],
            settings=self.settings,
            inputs=self.inputs,
            device=self.runtime.device if self.runtime else "",
            precision=self.runtime.precision if self.runtime else "",
        )

    def close(self) -> None:
        """Write what a report needs, and the manifest, which comes last; then say where all this lies."""
        tables = [_plain(table) for table in self._tables]
        document = {"command": self.command, "tables": tables, "pictures": self._pictures}
        self.write(PRESENTATION_NAME, lambda path: storage.write_json(path, document))
        self.provenance(self._outputs).write(self.folder)
        seconds = self.runtime.compile_seconds if self.runtime else 0.0
        if seconds >= 0.5:
            self.note(f"compiling took {seconds:.1f} s")
        facts = {"command": self.command, "out": str(self.folder), "files": self._outputs}
        print_result({**facts, **self.result}, self.common)
        if not self.common.json:
            self.note(f"{len(self._outputs)} files and a manifest in {self.folder}")


def _plain(table: Table) -> dict[str, Any]:
    """A table as JSON knows it."""
    rows = [[scalar(cell) for cell in row] for row in table.rows]
    return {"title": table.title, "columns": list(table.columns), "rows": rows, "footer": table.footer}


@contextlib.contextmanager
def open_run(command: str, common: Common, settings: Mapping[str, Any], inputs: Iterable[Path] = ()) -> Iterator[Run]:
    """A run that holds its folder, and that is closed with a manifest unless it fails.

    Raises:
        FileError: The folder cannot be made, or another run holds it.
    """
    run = Run(command, common, settings, inputs)
    with storage.output_folder(run.folder):
        yield run
        run.close()


def output_path(command: str, common: Common) -> Path:
    """The folder of the results."""
    return common.out if common.out is not None else Path(f"jaxexec-{command}")


def plan(command: str, common: Common, facts: Mapping[str, Any]) -> int:
    """Say what a run would do (`--dry-run`); the exit code is that of success."""
    facts = {**facts, "writes to": str(output_path(command, common))}
    print_tables([Table(f"{command}: what would be done", ["", "value"], list(facts.items()))], common)
    print_result({"command": command, "dry_run": True, **facts}, common)
    return 0


def print_tables(tables: Iterable[Table], common: Common) -> None:
    """Tables on stdout, unless JSON or silence is asked for."""
    if not (common.json or common.quiet):
        for table in tables:
            print(table.text(), flush=True)


def print_result(result: Mapping[str, Any], common: Common) -> None:
    """The one JSON object of a run, where it is asked for."""
    if common.json:
        print(storage.to_json(result), flush=True)


@contextlib.contextmanager
def progress(common: Common, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for work that takes more than a second; silent when quiet, and when nobody watches.

    Yields:
        A function that is told how much more has been done.
    """
    if common.quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    started = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(visible(what), total=total, visible=False)

        def advance(done: int) -> None:
            bar.update(task, advance=done, visible=time.monotonic() - started > 1)

        yield advance
