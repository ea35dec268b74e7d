"""Records made without their checks, where whoever makes them has checked."""

from typing import Any, TypeVar

Record = TypeVar("Record")


def record(kind: type[Record], /, **fields: Any) -> Record:
    """A frozen record of `kind` with these fields, its constructor not called."""
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def remade(original: Record, /, **changes: Any) -> Record:
    """A copy of `original` with other fields, its constructor not called."""
    return record(type(original), **(vars(original) | changes))
