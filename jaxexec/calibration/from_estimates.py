"""From impact estimates to a market and a cost: what was estimated, what was derived, and what had to be assumed.

For child orders of c shares, Glosten–Harris coefficients give

    half-spread ψ = transitory_fixed + transitory_variable · c
    permanent impact κ = permanent_variable + permanent_fixed / c

and say nothing about speed: the temporary impact η ρ^φ comes from a source that is named.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.costs import ExecutionCost, PowerLawCost, QuadraticCost
from jaxexec.market import Market, TimeGrid
from jaxexec.numerics.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxexec.impact import Activity, Panel
    from jaxexec.presentation import Table
    from jaxexec.tape import SignedTape

Origin = Literal["estimated", "measured", "derived", "shrunk", "assumed", "given"]

# Almgren, Thum, Hauptmann and Li (2005): temporary impact 0.142 σ (participation)^0.6, standard errors 0.0062, 0.038.
_PRIOR_ETA, _PRIOR_ETA_ERROR = 0.142, 0.0062
_PRIOR_PHI, _PRIOR_PHI_ERROR = 0.600, 0.038
_PRIOR = "Almgren, Thum, Hauptmann and Li (2005), large US stocks, in units of daily volatility"
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
    """

    symbol: str
    market: Market
    cost: ExecutionCost
    provenance: tuple[Provenance, ...]
    session: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was shrunk or assumed, one sentence each."""
        return tuple(f"{p.name}: {p.note}" for p in self.provenance if p.origin in ("shrunk", "assumed"))

    def table(self) -> Table:
        """One row a number: value, standard error, unit, origin and note."""
        from jaxexec.presentation import Table

        rows = [(p.name, p.value, p.std_error, p.unit, p.origin, p.note) for p in self.provenance]
        columns = ("number", "value", "std. error", "unit", "origin", "how")
        return Table(f"Market of {self.symbol}", columns, rows, "Curves are shown by their mean through the day.")

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def to_toml(self) -> str:
        """The calibration as a TOML document; `from_toml` reads it back to the last bit."""
        market, grid = self.market, self.market.grid
        names = ("volatility", "volume", "permanent_impact", "drift", "gap_variance")
        sections = {
            "grid": {"times": grid.times},
            "market": {name: getattr(market, name) for name in names},
            "cost": {"kind": _KINDS[type(self.cost)], **_parameters(self.cost)},
        }
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
        _check_keys("the market file", document, required=known, optional={"provenance", "session"})
        if document["schema"] != _SCHEMA:
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
        fields = {f.name for f in dataclasses.fields(Provenance)}
        for index, entry in enumerate(document.get("provenance", ())):
            _check_keys(f"provenance[{index}]", entry, required=fields)
        provenance = tuple(Provenance(**entry) for entry in document.get("provenance", ()))
        return cls(document["symbol"], market, _cost(document["cost"]), provenance, document.get("session", ""))


def calibrate(
    panel: Panel | SignedTape,
    activity: Activity | None = None,
    symbol: str | None = None,
    *,
    child_size: float | None = None,
    eta: float | None = None,
    phi: float | None = None,
    eta_from: Literal["prior", "children"] = "prior",
    executions: ParameterFit | None = None,
    half_spread: float | None = None,
    permanent_impact: float | None = None,
    steps_per_bin: int = 1,
) -> Calibration:
    """A market and a cost for one stock, from its impact estimates and its activity through the day.

    An estimate that no market can have (a negative half-spread, a negative permanent impact, a child-order cost that
    falls with its size) is never handed on: it is shrunk to the nearest possible value, or replaced by a measured or
    an assumed one, and the provenance says so.

    Args:
        panel: Glosten–Harris estimates; or a signed tape, from files or from tables in memory, which is then estimated
            for the one stock with the options that are default.
        activity: volume, volatility and spread through the day; None takes them from the tape.
        symbol: the stock; may be left out where the panel has just one.
        child_size: c, shares of a child order; None means the stock's mean trade.
        eta: η of L(ρ) = ηρ^{1+φ}, currency per share; None means `eta_from`.
        phi: φ; None means 0.6 with the prior, 1 with `eta_from="children"`.
        eta_from: where η comes from. "prior": Almgren et al. (2005), *assumed*. "children": one child order a step
            pays transitory_variable for each of its shares, so that η = transitory_variable · τV and φ = 1; refused
            where transitory_variable is not positive.
        executions: a fit of one stock by `execution_cost`, in currency per share, that η, φ and ψ are taken from.
        half_spread: ψ, currency per share; None means from the executions where given, else from the estimates.
        permanent_impact: κ, currency per share per share; None means from the estimates.
        steps_per_bin: grid steps in each bin of `activity`.

    Returns:
        The calibration; its day is one trading day long.

    Raises:
        ValueError: an unknown symbol, a panel without activity, no volume or volatility at all, a parameter that is not
            positive and finite, or `eta_from="children"` with an estimate that is not positive.
    """
    symbol = _the_symbol(panel.symbols, symbol)
    panel, activity = _measured(panel, activity, symbol)
    if symbol not in activity.symbols:
        raise ValueError(f"symbol {symbol!r} has impact estimates but no activity: were both made from the same tape?")
    row = activity.symbols.index(symbol)
    _check_positive(child_size=child_size, eta=eta, phi=phi)
    if steps_per_bin < 1:
        raise ValueError(f"steps_per_bin must be at least 1, got {steps_per_bin}")
    estimates = _Estimates.of(panel, symbol)
    child, sizes = _child_size(activity, row, child_size)
    volume, volatility, curves = _curves(activity, row, steps_per_bin)
    if executions is not None:
        _check_executions(executions, eta, phi, eta_from)
    fitted_spread = executions is not None and "psi" in executions.names and half_spread is None
    if executions is not None and fitted_spread:
        psi, spread = _fitted_spread(executions)
    else:
        psi, spread = _half_spread(estimates, activity, row, child, half_spread)
    kappa, permanent = _permanent_impact(estimates, child, permanent_impact)
    daily = float(np.sqrt(np.mean(volatility**2)))
    step_volume = float(np.mean(volume)) / len(volume)
    if executions is not None:
        cost, temporary = _fitted_cost(executions, psi)
    else:
        cost, temporary = _temporary(estimates, daily, step_volume, psi, eta, phi, eta_from)
    market = Market(TimeGrid.uniform(1.0, len(volume)), volatility, volume, permanent_impact=kappa)
    provenance = (*curves, sizes, spread, permanent, *temporary)
    return Calibration(symbol, market, cost, provenance, _session(activity.bin_edges))


def _session(bin_edges: np.ndarray) -> str:
    """First and last edge as clock times."""
    ends = (int(edge) // 1_000_000_000 for edge in (bin_edges[0], bin_edges[-1]))
    return "-".join(f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in ends)


@dataclasses.dataclass(frozen=True)
class _Estimates:
    """One stock's four coefficients with their covariance, or none of them."""

    status: str
    values: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, panel: Panel, symbol: str) -> _Estimates:
        from jaxexec.impact.estimates import COEFFICIENTS

        row = panel.symbols.index(symbol)
        e = panel.estimates
        status = Status(int(np.asarray(e.status)[row]))
        # A term that was left out of the equation is zero there, and known to be.
        at = [COEFFICIENTS.index(term) for term in e.terms]
        values, covariance = np.zeros(len(COEFFICIENTS)), np.zeros((len(COEFFICIENTS),) * 2)
        values[at] = np.asarray(e.coefficients)[row]
        covariance[np.ix_(at, at)] = np.asarray(e.covariance)[row]
        return cls(status.name, values, covariance)

    @property
    def usable(self) -> bool:
        return bool(np.all(np.isfinite(self.values)))

    def combine(self, weights: tuple[float, ...]) -> tuple[float, float]:
        """A linear combination of the coefficients and its standard error."""
        w = np.asarray(weights)
        return float(w @ self.values), float(np.sqrt(max(w @ self.covariance @ w, 0.0)))


def _the_symbol(symbols: Sequence[str], symbol: str | None) -> str:
    if symbol is None:
        if len(symbols) != 1:
            raise ValueError(f"symbol must be named: the panel has {len(symbols)} stocks")
        return symbols[0]
    if symbol not in symbols:
        some = ", ".join(repr(s) for s in symbols[:5])
        raise ValueError(f"symbol {symbol!r} is not in the panel, which has {len(symbols)} stocks: {some}, …")
    return symbol


def _measured(panel: Panel | SignedTape, activity: Activity | None, symbol: str) -> tuple[Panel, Activity]:
    """Estimates and activity, made from the tape where one is given."""
    from jaxexec import impact

    if isinstance(panel, impact.Panel):
        if activity is None:
            raise ValueError("activity must be given beside a panel: jx.impact.activity(tape); or give the tape itself")
        return panel, activity
    tape = panel.only(symbol)
    return impact.glosten_harris(tape), impact.activity(tape) if activity is None else activity


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _child_size(activity: Activity, row: int, given: float | None) -> tuple[float, Provenance]:
    if given is not None:
        return given, Provenance("child size", given, math.nan, "shares", "given", "by the caller")
    mean = float(activity.mean_trade_size[row])
    return mean, Provenance("child size", mean, math.nan, "shares", "measured", "mean trade of the tape")


def _curves(activity: Activity, row: int, steps_per_bin: int) -> tuple[np.ndarray, np.ndarray, list[Provenance]]:
    volume, volatility = activity.volume_rate[row], activity.volatility[row]
    if not np.any(volume > 0):
        raise ValueError(f"symbol {activity.symbols[row]!r} has no volume in the session")
    missing = ~(np.isfinite(volatility) & (volatility > 0))
    known = ~missing
    if not known.any():
        raise ValueError(f"symbol {activity.symbols[row]!r} has no price change in the session to see volatility by")
    filler = float(np.sqrt(np.mean(volatility[known] ** 2)))
    volatility = np.where(missing, filler, volatility)
    note = activity.convention
    if missing.any():
        note += f" {int(missing.sum())} of {len(missing)} bins without a price change took the mean of the others."
    daily = float(np.sqrt(np.mean(volatility**2)))
    origin: Origin = "assumed" if missing.any() else "measured"
    rows = [
        Provenance("volume", float(volume.mean()), math.nan, "shares per day", "measured", "all cleaned trades"),
        Provenance("volatility", daily, math.nan, "currency per share per √day", origin, note),
    ]
    return np.repeat(volume, steps_per_bin), np.repeat(volatility, steps_per_bin), rows


def _half_spread(
    estimates: _Estimates, activity: Activity, row: int, child: float, given: float | None
) -> tuple[float, Provenance]:
    unit = "currency per share"
    if given is not None:
        if not (math.isfinite(given) and given >= 0):
            raise ValueError(f"half_spread must be finite and at least 0, got {given}")
        return given, Provenance("psi", given, math.nan, unit, "given", "by the caller")
    quoted = float(activity.half_spread[row])
    estimate, error = estimates.combine((0.0, 0.0, 1.0, child)) if estimates.usable else (math.nan, math.nan)
    if estimates.usable and estimate >= 0:
        note = "transitory_fixed + transitory_variable · child size"
        return estimate, Provenance("psi", estimate, error, unit, "derived", note)
    why = f"estimate {estimate:.3g} ± {error:.2g} is negative" if estimates.usable else f"estimates {estimates.status}"
    if math.isfinite(quoted) and quoted >= 0:
        note = f"mean quoted half-spread, because the {why}"
        return quoted, Provenance("psi", quoted, math.nan, unit, "measured", note)
    origin: Origin = "shrunk" if estimates.usable else "assumed"
    return 0.0, Provenance("psi", 0.0, error, unit, origin, f"set to zero: the {why}, and the tape has no quotes")


def _permanent_impact(estimates: _Estimates, child: float, given: float | None) -> tuple[float, Provenance]:
    unit = "currency per share²"
    name = "permanent_impact"
    if given is not None:
        if not (math.isfinite(given) and given >= 0):
            raise ValueError(f"permanent_impact must be finite and at least 0, got {given}")
        return given, Provenance(name, given, math.nan, unit, "given", "by the caller")
    if not estimates.usable:
        return 0.0, Provenance(name, 0.0, math.nan, unit, "assumed", f"zero: estimates {estimates.status}")
    estimate, error = estimates.combine((1.0 / child, 1.0, 0.0, 0.0))
    if estimate >= 0:
        note = "permanent_variable + permanent_fixed / child size; a trade's impact carried over to a parent order"
        return estimate, Provenance(name, estimate, error, unit, "derived", note)
    note = f"estimate {estimate:.3g} ± {error:.2g} is negative, which would pay for trading: set to zero"
    return 0.0, Provenance(name, 0.0, error, unit, "shrunk", note)


def _check_executions(fit: ParameterFit, eta: float | None, phi: float | None, eta_from: str) -> None:
    if eta is not None or phi is not None or eta_from != "prior":
        raise ValueError("eta, phi and eta_from cannot be given beside executions, which tell them")
    if np.ndim(fit.status):
        raise ValueError("executions must be the fit of one stock: jax.tree.map(lambda x: x[i], fits) takes one")
    for name in ("eta", "phi"):
        if name not in fit.names:
            raise ValueError(f"executions lacks {name}, which was fixed: give eta and phi themselves instead")
        if not float(fit[name]) > 0:
            status = Status(int(fit.status)).name
            raise ValueError(f"executions has {name} = {float(fit[name]):.3g} (status {status}): no cost has that")


def _fitted_spread(fit: ParameterFit) -> tuple[float, Provenance]:
    value, error = float(fit["psi"]), float(fit.std_error("psi"))
    unit = "currency per share"
    if value >= 0:
        return value, Provenance("psi", value, error, unit, "estimated", f"from {int(fit.n):,} executions")
    note = f"estimate {value:.3g} ± {error:.2g} from executions is negative: set to zero"
    return 0.0, Provenance("psi", 0.0, error, unit, "shrunk", note)


def _fitted_cost(fit: ParameterFit, psi: float) -> tuple[ExecutionCost, list[Provenance]]:
    note, units = f"from {int(fit.n):,} executions", {"eta": "currency per share", "phi": "1"}
    entries = [
        Provenance(name, float(fit[name]), float(fit.std_error(name)), unit, "estimated", note)
        for name, unit in units.items()
    ]
    return PowerLawCost(float(fit["eta"]), float(fit["phi"]), psi), entries


def _temporary(
    estimates: _Estimates,
    daily: float,
    step_volume: float,
    psi: float,
    eta: float | None,
    phi: float | None,
    eta_from: str,
) -> tuple[ExecutionCost, list[Provenance]]:
    unit = "currency per share"
    if eta is not None:
        exponent, source = _exponent(phi)
        given = Provenance("eta", eta, math.nan, unit, "given", "by the caller")
        return PowerLawCost(eta, exponent, psi), [given, source]
    if eta_from == "children":
        value, entry = _eta_of_children(estimates, step_volume, phi)
        linear = Provenance("phi", 1.0, math.nan, "1", "derived", "cost linear in the size of a child order")
        return QuadraticCost(value, psi), [entry, linear]
    if eta_from != "prior":
        raise ValueError(f"eta_from must be 'prior' or 'children', got {eta_from!r}")
    exponent, source = _exponent(phi)
    value = _PRIOR_ETA * daily
    prior = Provenance(
        "eta", value, _PRIOR_ETA_ERROR * daily, unit, "assumed", f"{_PRIOR_ETA} × daily volatility: {_PRIOR}"
    )
    return PowerLawCost(value, exponent, psi), [prior, source]


def _exponent(phi: float | None) -> tuple[float, Provenance]:
    if phi is not None:
        return phi, Provenance("phi", phi, math.nan, "1", "given", "by the caller")
    return _PRIOR_PHI, Provenance("phi", _PRIOR_PHI, _PRIOR_PHI_ERROR, "1", "assumed", _PRIOR)


def _eta_of_children(estimates: _Estimates, step_volume: float, phi: float | None) -> tuple[float, Provenance]:
    if phi not in (None, 1):
        raise ValueError(f"phi must be 1 with eta_from='children' (its cost is linear in size), got {phi}")
    slope, error = estimates.combine((0.0, 0.0, 0.0, 1.0)) if estimates.usable else (math.nan, math.nan)
    if not slope > 0:
        raise ValueError(
            f"eta_from='children' needs a positive transitory_variable, and the estimate is {slope:.3g} ± {error:.2g}: "
            "the cost would not be convex. Use eta_from='prior', or give eta"
        )
    note = "transitory_variable · volume of a step: one child order a step"
    entry = Provenance("eta", slope * step_volume, error * step_volume, "currency per share", "derived", note)
    return slope * step_volume, entry


_KINDS: dict[type, str] = {QuadraticCost: "quadratic", PowerLawCost: "power-law"}


def _parameters(cost: ExecutionCost) -> dict[str, Any]:
    return {field.name: getattr(cost, field.name) for field in dataclasses.fields(cost)}


def _cost(entries: Any) -> ExecutionCost:
    classes = {kind: cls for cls, kind in _KINDS.items()}
    if not isinstance(entries, dict) or entries.get("kind") not in classes:
        raise ValueError(f"cost.kind must be one of {sorted(classes)}, got {entries!r}")
    cls = classes[entries["kind"]]
    names = {field.name for field in dataclasses.fields(cls)}
    _check_keys("[cost]", entries, required={"kind"} | (names - {"psi"}), optional={"psi"})
    return cls(**{k: _numbers(f"cost.{k}", v) for k, v in entries.items() if k != "kind"})


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
    return np.asarray(items, np.float64) if isinstance(value, list) else float(value)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    array = np.asarray(value, np.float64)
    if array.ndim:
        return "[" + ", ".join(repr(float(v)) for v in array) + "]"
    return repr(float(array))
