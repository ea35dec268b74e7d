"""The audit trail of an output folder: what made it, from what, with which versions, and every hash."""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self

from jaxexec.storage.atomic import to_json, write_json
from jaxexec.storage.errors import FileError
from jaxexec.storage.reading import read_text, sha256_file

MANIFEST_NAME = "manifest.json"
_FORMAT = 1
_PACKAGES = ("jaxexec", "jax", "jaxlib", "numpy", "equinox", "polars", "pyarrow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is known about a folder of results. It is written last, so a folder that has one is complete.

    Attributes:
        command: The command line, word by word.
        settings: Every setting that the run used, defaults included.
        inputs: Path of each input as given, to the SHA-256 of its bytes.
        outputs: Name of each output in the folder, to the SHA-256 of its bytes.
        versions: Versions of Python and of the packages.
        device: The device as JAX names it; empty where none was used.
        precision: `float64` or `float32`; empty where nothing was computed.
        created: Time of writing, ISO 8601 in UTC.
    """

    command: tuple[str, ...]
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    versions: Mapping[str, str]
    device: str
    precision: str
    created: str

    @classmethod
    def of(
        cls,
        folder: str | Path,
        outputs: Iterable[str],
        *,
        command: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        inputs: Iterable[str | Path] = (),
        device: str = "",
        precision: str = "",
    ) -> Self:
        """The manifest of the files named `outputs` in `folder`, made from the files `inputs`.

        Raises:
            FileError: A file cannot be read, or an output's name leads out of the folder.
        """
        folder = Path(folder)
        now = datetime.datetime.now(datetime.UTC)
        return cls(
            command=tuple(command),
            settings=json.loads(to_json(settings or {})),
            inputs={str(path): sha256_file(path) for path in inputs},
            outputs={name: sha256_file(_inside(folder, name)) for name in sorted(outputs)},
            versions=versions(),
            device=device,
            precision=precision,
            created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )

    def write(self, folder: str | Path) -> Path:
        """Write `manifest.json` in a folder, whole or not at all.

        Raises:
            FileError: It cannot be written.
        """
        return write_json(Path(folder) / MANIFEST_NAME, {"format": _FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """The manifest of a folder.

        Raises:
            FileError: There is none, it is damaged, or a later version wrote it.
        """
        path = Path(folder) / MANIFEST_NAME
        text = read_text(path, max_bytes=64 << 20)
        try:
            document = json.loads(text)
            known = document.pop("format")
            manifest = cls(**{**document, "command": tuple(document["command"])})
            _check_types(manifest)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FileError(path, "not a manifest of jaxexec", "Run the command again.") from error
        if known != _FORMAT:
            raise FileError(path, f"manifest format {known!r} is not known here", "Use the version that wrote it.")
        return manifest

    @classmethod
    def verify(cls, folder: str | Path) -> Self:
        """Read a folder's manifest, and hash every file that it names again.

        Raises:
            FileError: As `read`, or a file is missing or its bytes have changed since.
        """
        manifest = cls.read(folder)
        for name, expected in manifest.outputs.items():
            path = _inside(Path(folder), name)
            if sha256_file(path) != expected:
                reason = "changed since it was written (its SHA-256 is not the manifest's)"
                raise FileError(path, reason, "Run the command again.")
        return manifest


def _check_types(manifest: Manifest) -> None:
    """A `TypeError` where a document from outside holds something else than text where text belongs."""
    tables = (manifest.inputs, manifest.outputs, manifest.versions)
    words = (*manifest.command, manifest.device, manifest.precision, manifest.created)
    pairs = (word for table in tables for pair in table.items() for word in pair)
    if not isinstance(manifest.settings, dict) or not all(isinstance(word, str) for word in (*words, *pairs)):
        raise TypeError("a manifest holds text")


def _inside(folder: Path, name: str) -> Path:
    """The path of an output, which must stay in its folder."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or "\0" in name:
        raise FileError(folder / MANIFEST_NAME, f"the output {name!r} is not in the folder", "Run again.")
    return folder / parts
