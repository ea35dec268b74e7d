"""A calibrated market as a record and as a file: every number with its standard error and its origin."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tomllib
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from jaxexec.costs import ExecutionCost, PowerLawCost, QuadraticCost
from jaxexec.market import Market, TimeGrid
from jaxexec.transient import ExponentialKernel, ImpactKernel, PowerLawKernel, SumKernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxexec.presentation import Table

Origin = Literal["estimated", "measured", "derived", "shrunk", "assumed", "given"]
_SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where one number of a calibrated market comes from.

    Attributes:
        name: the number's name in `Market` or the cost.
        value: what is used; the mean of a curve.
        std_error: its standard error in the same unit; NaN where there is none.
        unit: its unit.
        origin: "estimated" (a regression), "measured" (an average), "derived" (from estimates), "shrunk" (an estimate
            that no market can have, moved to the nearest that one can), "assumed" (a prior) or "given" (by the user).
        note: how, in one sentence.
    """

    name: str
    value: float
    std_error: float
    unit: str
    origin: Origin
    note: str


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A market and a cost for one stock, over one trading day, with the origin of every number.

    Attributes:
        symbol: the stock, verbatim.
        market: curves through the day; the session has length 1.
        cost: the execution cost.
        provenance: one entry a number.
        session: local hours that the market's day stands for, such as "09:30:00-16:00:00"; empty where not known.
        kernel: how impact decays, where that was fitted.
        risk_aversion: γ in cost + (γ/2) variance, per currency, where it was inferred from a desk's schedules.
    """

    symbol: str
    market: Market
    cost: ExecutionCost
    provenance: tuple[Provenance, ...]
    session: str = ""
    kernel: ImpactKernel | None = None
    risk_aversion: float | None = None

    def of(self, name: str) -> Provenance:
        """The entry of one number.

        Raises:
            KeyError: no number has that name.
        """
        for entry in self.provenance:
            if entry.name == name:
                return entry
        raise KeyError(f"{name!r} is none of the numbers {', '.join(p.name for p in self.provenance)}")

    def replaced(self, entries: Sequence[Provenance], **fields: Any) -> Calibration:
        """A copy with other fields, whose provenance has `entries` in place of those of the same names."""
        new = {entry.name: entry for entry in entries}
        kept = tuple(new.pop(entry.name, entry) for entry in self.provenance)
        return dataclasses.replace(self, provenance=(*kept, *new.values()), **fields)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was shrunk or assumed, one sentence each."""
        return tuple(f"{p.name}: {p.note}" for p in self.provenance if p.origin in ("shrunk", "assumed"))

    def table(self) -> Table:
        """One row a number: value, standard error, unit, origin and note."""
        from jaxexec.presentation import Table

        rows = [(p.name, p.value, p.std_error, p.unit, p.origin, p.note) for p in self.provenance]
        columns = ("number", "value", "std. error", "unit", "origin", "how")
        title = f"Market of {self.symbol}" if self.symbol else "Market"
        return Table(title, columns, rows, "Curves are shown by their mean through the day.")

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def to_toml(self) -> str:
        """The calibration as a TOML document; `from_toml` reads it back to the last bit."""
        market, grid = self.market, self.market.grid
        names = ("volatility", "volume", "permanent_impact", "drift", "gap_variance")
        sections: dict[str, dict[str, Any]] = {
            "grid": {"times": grid.times},
            "market": {name: getattr(market, name) for name in names},
            "cost": {"kind": _KINDS[type(self.cost)], **_parameters(self.cost)},
        }
        if self.kernel is not None:
            sections["kernel"] = _kernel_entries(self.kernel)
        if self.risk_aversion is not None:
            sections["preferences"] = {"risk_aversion": self.risk_aversion}
        lines = [f"schema = {_SCHEMA}", f"symbol = {_toml(self.symbol)}", f"session = {_toml(self.session)}"]
        for title, entries in sections.items():
            lines += ["", f"[{title}]", *(f"{name} = {_toml(value)}" for name, value in entries.items())]
        for entry in self.provenance:
            lines += ["", "[[provenance]]", *(f"{k} = {_toml(v)}" for k, v in dataclasses.asdict(entry).items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Calibration:
        """Read what `to_toml` wrote, or what a user wrote in the same form.

        Raises:
            ValueError: not TOML, a key that is missing or unknown, or a value that no market can have; the key is
                named.
        """
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ValueError(f"not a market file: {error}") from error
        known = {"schema", "symbol", "grid", "market", "cost"}
        _check_keys("the market file", document, required=known, optional=_OPTIONAL)
        if isinstance(document["schema"], bool) or document["schema"] != _SCHEMA:
            raise ValueError(f"schema must be {_SCHEMA}, got {document['schema']!r}: written by another version?")
        for name in ("symbol", "session"):
            if not isinstance(document.get(name, ""), str):
                raise ValueError(f"{name} must be text, got {document[name]!r}")
        _check_keys("[grid]", document["grid"], required={"times"})
        times = _numbers("grid.times", document["grid"]["times"])
        entries = document["market"]
        curves = {"permanent_impact", "drift", "gap_variance"}
        _check_keys("[market]", entries, required={"volatility", "volume"}, optional=curves)
        market = Market(TimeGrid(times), **{k: _numbers(f"market.{k}", v) for k, v in entries.items()})
        provenance = _provenance(document.get("provenance", []))
        cost, session = _cost(document["cost"]), document.get("session", "")
        kernel = _kernel(document["kernel"]) if "kernel" in document else None
        return cls(document["symbol"], market, cost, provenance, session, kernel, _risk_aversion(document))


_OPTIONAL = {"provenance", "session", "kernel", "preferences"}
_KERNELS: dict[type, str] = {ExponentialKernel: "exponential", PowerLawKernel: "power-law"}
_PERMANENT = "permanent"  # of an exponential kernel: the part that stays
_KINDS: dict[type, str] = {QuadraticCost: "quadratic", PowerLawCost: "power-law"}


def _parameters(cost: ExecutionCost) -> dict[str, Any]:
    return {field.name: getattr(cost, field.name) for field in dataclasses.fields(cost)}


def _cost(entries: Any) -> ExecutionCost:
    classes = {kind: cls for cls, kind in _KINDS.items()}
    if not isinstance(entries, dict) or entries.get("kind") not in list(classes):
        raise ValueError(f"cost.kind must be one of {sorted(classes)}, got {entries!r}")
    cls = classes[entries["kind"]]
    names = {field.name for field in dataclasses.fields(cls)}
    _check_keys("[cost]", entries, required={"kind"} | (names - {"psi"}), optional={"psi"})
    return cls(**{k: _numbers(f"cost.{k}", v) for k, v in entries.items() if k != "kind"})


def _kernel_entries(kernel: ImpactKernel) -> dict[str, Any]:
    """A kernel's kind and parameters; that of an exponential with a part that stays has one parameter more."""
    match kernel:
        case SumKernel(kernels=(ExponentialKernel() as first, ExponentialKernel() as lasting)) if lasting.decay == 0:
            return {**_kernel_entries(first), _PERMANENT: lasting.impact}
    if type(kernel) not in _KERNELS:
        kinds = sorted(_KERNELS.values())
        raise ValueError(f"kernel {type(kernel).__name__} has no place in a market file: {kinds} do")
    return {"kind": _KERNELS[type(kernel)]} | {f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel)}


def _kernel(entries: Any) -> ImpactKernel:
    classes = {kind: cls for cls, kind in _KERNELS.items()}
    if not isinstance(entries, dict) or entries.get("kind") not in list(classes):
        raise ValueError(f"kernel.kind must be one of {sorted(classes)}, got {entries!r}")
    cls = classes[entries["kind"]]
    names = {field.name for field in dataclasses.fields(cls)}
    lasting = {_PERMANENT} if cls is ExponentialKernel else set()
    _check_keys("[kernel]", entries, required={"kind"} | names, optional=lasting)
    numbers = {name: _numbers(f"kernel.{name}", entries[name]) for name in entries if name != "kind"}
    permanent = numbers.pop(_PERMANENT, None)
    kernel = cls(**numbers)
    return kernel if permanent is None else SumKernel((kernel, ExponentialKernel(permanent, 0.0)))


def _provenance(entries: Any) -> tuple[Provenance, ...]:
    """Where the numbers of a file come from, every field of its type."""
    if not isinstance(entries, list):
        raise ValueError(f"provenance must be a list of tables, got {entries!r}")
    fields = {f.name for f in dataclasses.fields(Provenance)}
    for index, entry in enumerate(entries):
        where = f"provenance[{index}]"
        _check_keys(where, entry, required=fields)
        for name in ("name", "unit", "note"):
            if not isinstance(entry[name], str):
                raise ValueError(f"{where}.{name} must be text, got {entry[name]!r}")
        for name in ("value", "std_error"):
            if isinstance(entry[name], list):
                raise ValueError(f"{where}.{name} must be a number, got {entry[name]!r}")
            _numbers(f"{where}.{name}", entry[name])
        if entry["origin"] not in get_args(Origin):
            raise ValueError(f"{where}.origin must be one of {get_args(Origin)}, got {entry['origin']!r}")
    return tuple(Provenance(**entry) for entry in entries)


def _risk_aversion(document: dict[str, Any]) -> float | None:
    if "preferences" not in document:
        return None
    _check_keys("[preferences]", document["preferences"], required={"risk_aversion"})
    value = document["preferences"]["risk_aversion"]
    number = _numbers("preferences.risk_aversion", value)
    if isinstance(value, list) or not (math.isfinite(float(number)) and float(number) >= 0):
        raise ValueError(f"preferences.risk_aversion must be a number, finite and at least 0, got {value!r}")
    return float(number)


def _check_keys(where: str, table: Any, required: set[str], optional: set[str] = frozenset()) -> None:  # pyright: ignore
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table, got {table!r}")
    for name in sorted(required - table.keys()):
        raise ValueError(f"{where} lacks {name}")
    for name in sorted(table.keys() - required - optional):
        raise ValueError(f"{where} has an unknown key {name!r}: known are {sorted(required | optional)}")


def _numbers(name: str, value: Any) -> float | np.ndarray:
    items = value if isinstance(value, list) else [value]
    for index, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise ValueError(f"{name}[{index}] must be a number, got {item!r}")
        if isinstance(item, int) and abs(item) > sys.float_info.max:
            raise ValueError(f"{name}[{index}] must be a number of 64 bits, got one of {item.bit_length():,} bits")
    return np.asarray(items, np.float64) if isinstance(value, list) else float(value)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    array = np.asarray(value, np.float64)
    if array.ndim:
        return "[" + ", ".join(repr(float(v)) for v in array) + "]"
    return repr(float(array))
