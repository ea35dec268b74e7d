"""`jaxexec report`: folders of results to one page."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jaxexec.cli.app import OK
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import PRESENTATION_NAME, open_run, plan
from jaxexec.presentation import Table
from jaxexec.storage import FileError, Manifest, read_bytes, read_text

_HEADINGS = {
    "clean": "Signed trades",
    "impact": "Impact estimates",
    "calibrate": "Markets",
    "solve": "Schedules",
    "frontier": "Efficient frontier",
    "simulate": "What the order may cost",
    "equilibrium": "What the market maker infers",
    "analyse": "After the trade",
    "demo": "Demonstration",
}
_MAX_PRESENTATION_BYTES = 64 << 20


def report(
    runs: Annotated[tuple[Path, ...], Parameter(required=True)],
    /,
    *,
    title: str = "Optimal execution",
    common: Common = DEFAULT,
) -> int:
    """Folders of results to one self-contained HTML page.

    Args:
        runs: Folders that other commands wrote; their hashes are checked.
        title: Title of the page.
    """
    if common.dry_run:
        return plan("report", common, {"folders": len(runs)})
    from jaxexec import report as pages

    sections = [_section(folder) for folder in runs]
    inputs = [folder / PRESENTATION_NAME for folder in runs]
    with open_run("report", common, {"title": title}, inputs) as run:
        page = run.folder / "report.html"
        provenance = {str(folder): _provenance(Manifest.read(folder)) for folder in runs}
        run.write(page.name, lambda path: pages.write(path, sections, title, provenance=provenance))
        run.result["report"] = str(page)
        run.note(f"the report is {page.resolve().as_uri()}")
    return OK


def _section(folder: Path) -> Any:
    """What a run showed, from its folder, once every hash has been checked.

    Raises:
        FileError: The folder holds no finished run, or a file has changed.
    """
    from jaxexec.report import Image, Section

    manifest = Manifest.verify(folder)
    path = folder / PRESENTATION_NAME
    if PRESENTATION_NAME not in manifest.outputs:
        raise FileError(path, "not among the files of this run", "Run the command again.")
    try:
        document = json.loads(read_text(path, _MAX_PRESENTATION_BYTES))
        tables = [Table(**table) for table in document["tables"]]
        images = [Image(_listed(folder, manifest, p["file"]), p["caption"]) for p in document["pictures"]]
        heading = _HEADINGS.get(document["command"], "Results")
    except (ValueError, TypeError, KeyError) as error:
        raise FileError(path, f"not what a run wrote ({error})", "Run the command again.") from error
    return Section(heading, f"From {folder}.", [*tables, *images])


def _listed(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of a picture that the manifest lists, and so stays in the folder."""
    if name not in manifest.outputs:
        raise ValueError(f"picture {name!r} is not in the manifest")
    return read_bytes(folder / name)


def _provenance(manifest: Manifest) -> str:
    """One run in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    words = (" ".join(manifest.command), manifest.created, manifest.device, manifest.precision, versions)
    return "; ".join(word for word in words if word)
