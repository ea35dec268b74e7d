"""Options that every command shares."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Options that every command shares.

    Attributes:
        out: Folder for the results; jaxexec-COMMAND where none is given.
        json: Print one JSON object instead of tables.
        quiet: Print nothing but errors, and JSON where it is asked for.
        dry_run: Say what would be done, and do nothing.
        precision: Numbers of 64 or 32 bits.
        config: TOML file of settings; options on the command line win.
    """

    out: Path | None = None
    json: Flag = False
    quiet: Flag = False
    dry_run: Flag = False
    precision: Literal["float64", "float32"] = "float64"
    config: Path | None = None


DEFAULT = Common()
"""No option given."""
