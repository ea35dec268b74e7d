"""Files: written whole or not at all, read with suspicion, listed in a manifest with their hashes."""

from jaxexec.storage.atomic import to_json, write_atomic, write_json, write_parquet, write_text
from jaxexec.storage.errors import FileError
from jaxexec.storage.lock import output_folder
from jaxexec.storage.manifest import Manifest, versions
from jaxexec.storage.names import safe_name
from jaxexec.storage.reading import open_regular, read_bytes, read_csv, read_parquet, read_text, sha256_file
from jaxexec.storage.system import Backend, backend

__all__ = [
    "Backend",
    "FileError",
    "Manifest",
    "backend",
    "open_regular",
    "output_folder",
    "read_bytes",
    "read_csv",
    "read_parquet",
    "read_text",
    "safe_name",
    "sha256_file",
    "to_json",
    "versions",
    "write_atomic",
    "write_json",
    "write_parquet",
    "write_text",
]
