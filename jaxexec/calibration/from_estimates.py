"""From impact estimates to a market and a cost: what was estimated, what was derived, and what had to be assumed.

For child orders of c shares, Glosten–Harris coefficients give

    half-spread ψ = transitory_fixed + transitory_variable · c
    permanent impact κ = permanent_variable + permanent_fixed / c

and say nothing about speed: the temporary impact η ρ^φ comes from a source that is named.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxexec.calibration.market_record import Calibration, Origin, Provenance
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.costs import ExecutionCost, PowerLawCost, QuadraticCost
from jaxexec.market import Market, TimeGrid
from jaxexec.numerics.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxexec.impact import Activity, Panel
    from jaxexec.tape import SignedTape

# Almgren, Thum, Hauptmann and Li (2005): temporary impact 0.142 σ (participation)^0.6, standard errors 0.0062, 0.038.
_PRIOR_ETA, _PRIOR_ETA_ERROR = 0.142, 0.0062
_PRIOR_PHI, _PRIOR_PHI_ERROR = 0.600, 0.038
_PRIOR = "Almgren, Thum, Hauptmann and Li (2005), large US stocks, in units of daily volatility"


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
    sizes = _child_size(activity, row, child_size)
    volume, volatility, curves = _curves(activity, row, steps_per_bin)
    if executions is not None:
        _check_executions(executions, eta, phi, eta_from)
    fitted_spread = executions is not None and "psi" in executions.names and half_spread is None
    if executions is not None and fitted_spread:
        psi, spread = _fitted_spread(executions)
    else:
        psi, spread = _half_spread(estimates, activity, row, sizes, half_spread)
    kappa, permanent = _permanent_impact(estimates, sizes, permanent_impact)
    if executions is not None:
        cost, temporary = _fitted_cost(executions, psi)
    else:
        cost, temporary = _temporary(estimates, curves, len(volume), psi, eta, phi, eta_from)
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


def _child_size(activity: Activity, row: int, given: float | None) -> Provenance:
    if given is not None:
        return Provenance("child size", given, math.nan, "shares", "given", "by the caller")
    mean, error = float(activity.mean_trade_size[row]), _error(activity, "mean_trade_size", row)
    return Provenance("child size", mean, error, "shares", "measured", "mean trade of the tape")


def _error(activity: Activity, name: str, row: int) -> float:
    """Standard error of a stock's number; NaN where it is not known."""
    return math.nan if activity.errors is None else float(getattr(activity.errors, name)[row])


def _days(activity: Activity, row: int) -> str:
    """What an error of an average is one of."""
    days = int(activity.days[row])
    return f"error between {days:,} days" if days > 1 else "error of the one day, not of other days"


def _carried(error: float, slope: float, source: Provenance) -> float:
    """An error, and that of a number which it depends on, where that one is known."""
    return math.hypot(error, slope * source.std_error) if math.isfinite(source.std_error) else error


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
    # Bins that were filled take the relative error of the whole.
    error = _error(activity, "daily_volatility", row) * daily / max(float(activity.daily_volatility[row]), 1e-300)
    day_volume, between = _error(activity, "average_daily_volume", row), _days(activity, row)
    rows = [
        Provenance(
            "volume", float(volume.mean()), day_volume, "shares per day", "measured", f"all cleaned trades; {between}"
        ),
        Provenance(
            "volatility", daily, error, "currency per share per √day", origin, f"{note} {between.capitalize()}."
        ),
    ]
    return np.repeat(volume, steps_per_bin), np.repeat(volatility, steps_per_bin), rows


def _half_spread(
    estimates: _Estimates, activity: Activity, row: int, child: Provenance, given: float | None
) -> tuple[float, Provenance]:
    unit = "currency per share"
    if given is not None:
        if not (math.isfinite(given) and given >= 0):
            raise ValueError(f"half_spread must be finite and at least 0, got {given}")
        return given, Provenance("psi", given, math.nan, unit, "given", "by the caller")
    quoted = float(activity.half_spread[row])
    estimate, error = math.nan, math.nan
    if estimates.usable:
        estimate, error = estimates.combine((0.0, 0.0, 1.0, child.value))
        error = _carried(error, float(estimates.values[3]), child)
    if estimates.usable and estimate >= 0:
        note = "transitory_fixed + transitory_variable · child size"
        return estimate, Provenance("psi", estimate, error, unit, "derived", note)
    why = f"estimate {estimate:.3g} ± {error:.2g} is negative" if estimates.usable else f"estimates {estimates.status}"
    if math.isfinite(quoted) and quoted >= 0:
        note = f"mean quoted half-spread, because the {why}"
        return quoted, Provenance("psi", quoted, _error(activity, "half_spread", row), unit, "measured", note)
    origin: Origin = "shrunk" if estimates.usable else "assumed"
    return 0.0, Provenance("psi", 0.0, error, unit, origin, f"set to zero: the {why}, and the tape has no quotes")


def _permanent_impact(estimates: _Estimates, child: Provenance, given: float | None) -> tuple[float, Provenance]:
    unit = "currency per share²"
    name = "permanent_impact"
    if given is not None:
        if not (math.isfinite(given) and given >= 0):
            raise ValueError(f"permanent_impact must be finite and at least 0, got {given}")
        return given, Provenance(name, given, math.nan, unit, "given", "by the caller")
    if not estimates.usable:
        return 0.0, Provenance(name, 0.0, math.nan, unit, "assumed", f"zero: estimates {estimates.status}")
    estimate, error = estimates.combine((1.0 / child.value, 1.0, 0.0, 0.0))
    error = _carried(error, float(estimates.values[0]) / child.value**2, child)
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
    curves: Sequence[Provenance],
    steps: int,
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
        value, entry = _eta_of_children(estimates, curves[0], steps, phi)
        linear = Provenance("phi", 1.0, math.nan, "1", "derived", "cost linear in the size of a child order")
        return QuadraticCost(value, psi), [entry, linear]
    if eta_from != "prior":
        raise ValueError(f"eta_from must be 'prior' or 'children', got {eta_from!r}")
    exponent, source = _exponent(phi)
    daily = curves[1]
    value, error = _PRIOR_ETA * daily.value, _carried(_PRIOR_ETA_ERROR * daily.value, _PRIOR_ETA, daily)
    prior = Provenance("eta", value, error, unit, "assumed", f"{_PRIOR_ETA} × daily volatility: {_PRIOR}")
    return PowerLawCost(value, exponent, psi), [prior, source]


def _exponent(phi: float | None) -> tuple[float, Provenance]:
    if phi is not None:
        return phi, Provenance("phi", phi, math.nan, "1", "given", "by the caller")
    return _PRIOR_PHI, Provenance("phi", _PRIOR_PHI, _PRIOR_PHI_ERROR, "1", "assumed", _PRIOR)


def _eta_of_children(
    estimates: _Estimates, volume: Provenance, steps: int, phi: float | None
) -> tuple[float, Provenance]:
    if phi not in (None, 1):
        raise ValueError(f"phi must be 1 with eta_from='children' (its cost is linear in size), got {phi}")
    slope, error = estimates.combine((0.0, 0.0, 0.0, 1.0)) if estimates.usable else (math.nan, math.nan)
    if not slope > 0:
        raise ValueError(
            f"eta_from='children' needs a positive transitory_variable, and the estimate is {slope:.3g} ± {error:.2g}: "
            "the cost would not be convex. Use eta_from='prior', or give eta"
        )
    note = "transitory_variable · volume of a step: one child order a step"
    value = slope * volume.value / steps
    whole = _carried(error * volume.value / steps, slope / steps, volume)
    return value, Provenance("eta", value, whole, "currency per share", "derived", note)
