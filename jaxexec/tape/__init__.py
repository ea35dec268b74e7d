"""Trades and quotes: reading, cleaning with a ledger, matching and signing, in exact integer ticks.

    tape = sign("trades.parquet", "quotes.parquet", rule="lee-ready", midpoint="keep")
    print(tape.summary())

`read`, `clean` and `match` are its steps; `compare_rules` says how often each sign rule is right where the true side is
known; `pool` joins days that were signed apart; `bulk_volume` shares out the volume of bars; `synthetic` makes tapes
whose truth is known. polars and pyarrow are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxexec.tape import synthetic
    from jaxexec.tape.accuracy import AccuracyReport, RuleAccuracy, compare_rules
    from jaxexec.tape.array_signs import sign_arrays
    from jaxexec.tape.bulk_classification import bulk_volume
    from jaxexec.tape.cleaning import Cleaned, clean
    from jaxexec.tape.errors import InputError, TapeWarning
    from jaxexec.tape.ledger import Dropped, Ledger
    from jaxexec.tape.matching import match
    from jaxexec.tape.national_quotes import complete_nbbo
    from jaxexec.tape.pooling import pool
    from jaxexec.tape.reading import detected_mapping, read
    from jaxexec.tape.schema import TICKS_PER_UNIT, ColumnMapping
    from jaxexec.tape.signed_tape import Segments, SignedTape
    from jaxexec.tape.signing import sign
    from jaxexec.tape.streaming import TapeStream, stream

_HOMES = {
    "accuracy": ("AccuracyReport", "RuleAccuracy", "compare_rules"),
    "array_signs": ("sign_arrays",),
    "bulk_classification": ("bulk_volume",),
    "cleaning": ("Cleaned", "clean"),
    "errors": ("InputError", "TapeWarning"),
    "ledger": ("Dropped", "Ledger"),
    "matching": ("match",),
    "national_quotes": ("complete_nbbo",),
    "pooling": ("pool",),
    "reading": ("detected_mapping", "read"),
    "schema": ("TICKS_PER_UNIT", "ColumnMapping"),
    "signed_tape": ("Segments", "SignedTape"),
    "signing": ("sign",),
    "streaming": ("TapeStream", "stream"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "TICKS_PER_UNIT",
    "AccuracyReport",
    "Cleaned",
    "ColumnMapping",
    "Dropped",
    "InputError",
    "Ledger",
    "RuleAccuracy",
    "Segments",
    "SignedTape",
    "TapeStream",
    "TapeWarning",
    "bulk_volume",
    "clean",
    "compare_rules",
    "complete_nbbo",
    "detected_mapping",
    "match",
    "pool",
    "read",
    "sign",
    "sign_arrays",
    "stream",
    "synthetic",
]


def __getattr__(name: str) -> Any:
    if name == "synthetic":
        return importlib.import_module("jaxexec.tape.synthetic")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'jaxexec.tape' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"jaxexec.tape.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
