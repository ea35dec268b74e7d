"""Trades and quotes: reading, cleaning with a ledger, matching and signing, in exact integer ticks.

    tape = sign("trades.parquet", "quotes.parquet", rule="lee-ready", midpoint="keep")
    print(tape.summary())

`read`, `clean` and `match` are its steps; `synthetic` makes tapes whose truth is known. polars and pyarrow
are loaded when first used.
"""

from jaxexec.tape import synthetic
from jaxexec.tape.cleaning import Cleaned, clean
from jaxexec.tape.errors import InputError
from jaxexec.tape.ledger import Dropped, Ledger
from jaxexec.tape.matching import match
from jaxexec.tape.reading import detected_mapping, read
from jaxexec.tape.schema import TICKS_PER_UNIT, ColumnMapping
from jaxexec.tape.signed_tape import Segments, SignedTape
from jaxexec.tape.signing import sign

__all__ = [
    "TICKS_PER_UNIT",
    "Cleaned",
    "ColumnMapping",
    "Dropped",
    "InputError",
    "Ledger",
    "Segments",
    "SignedTape",
    "clean",
    "detected_mapping",
    "match",
    "read",
    "sign",
    "synthetic",
]
