"""The ledger: every row that was read is either used or dropped for exactly one named reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


class Dropped(NamedTuple):
    """Rows of one table dropped at one stage for one reason."""

    stage: str
    table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Ledger:
    """Rows read, used and dropped, for each table ("trades", "quotes").

    `used` is counted on the frames that come out, not derived from `dropped`, so that `balanced` is a check.
    A row with several faults is counted under the first rule that it breaks, in the order in which the rules
    are listed.

    Attributes:
        read: table -> rows read.
        used: table -> rows left.
        dropped: what was dropped, in the order of the rules; zero counts are left out.
        notes: remarks that are no counts, such as the session that was inferred.
    """

    read: Mapping[str, int]
    used: Mapping[str, int]
    dropped: tuple[Dropped, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """True where, for every table, rows read = rows used + the sum of rows dropped."""
        return self.read.keys() == self.used.keys() and all(
            rows == self.used[table] + self.total_dropped(table) for table, rows in self.read.items()
        )

    def total_dropped(self, table: str) -> int:
        """Rows of `table` dropped, over all reasons."""
        return sum(entry.rows for entry in self.dropped if entry.table == table)

    def rows(self, table: str, reason: str) -> int:
        """Rows of `table` dropped for `reason`, over all stages."""
        return sum(entry.rows for entry in self.dropped if (entry.table, entry.reason) == (table, reason))

    def drop(self, stage: str, table: str, counts: Mapping[str, int], used: int) -> Ledger:
        """The ledger after one more stage.

        Args:
            stage: name of the stage, such as "sign".
            table: "trades" or "quotes".
            counts: reason -> rows dropped.
            used: rows left after the stage.
        """
        new = tuple(Dropped(stage, table, reason, rows) for reason, rows in counts.items() if rows)
        return replace(self, dropped=self.dropped + new, used={**self.used, table: used})

    def merge(self, other: Ledger) -> Ledger:
        """The ledger of two parts of a tape taken together; counts add, notes of `self` win."""
        counts: dict[tuple[str, str, str], int] = {}
        for stage, table, reason, rows in self.dropped + other.dropped:
            counts[stage, table, reason] = counts.get((stage, table, reason), 0) + rows
        return Ledger(
            _add(self.read, other.read),
            _add(self.used, other.used),
            tuple(Dropped(*key, rows) for key, rows in counts.items()),
            {**other.notes, **self.notes},
        )

    def table(self) -> list[dict[str, Any]]:
        """Rows `stage, table, reason, rows` for a terminal or HTML table: read, each drop, used."""
        out: list[dict[str, Any]] = []
        for table in self.read:
            out.append({"stage": "read", "table": table, "reason": "rows read", "rows": self.read[table]})
            out += [entry._asdict() for entry in self.dropped if entry.table == table]
            out.append({"stage": "end", "table": table, "reason": "rows used", "rows": self.used[table]})
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; `from_dict` reads it back."""
        return {
            "read": dict(self.read),
            "used": dict(self.used),
            "dropped": [entry._asdict() for entry in self.dropped],
            "notes": dict(self.notes),
            "balanced": self.balanced,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Ledger:
        """The ledger that `to_dict` wrote."""
        dropped: Iterable[Mapping[str, Any]] = record["dropped"]
        return cls(
            dict(record["read"]),
            dict(record["used"]),
            tuple(Dropped(str(d["stage"]), str(d["table"]), str(d["reason"]), int(d["rows"])) for d in dropped),
            dict(record.get("notes", {})),
        )


def _add(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}
