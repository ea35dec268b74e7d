"""Fits put into a market: a copy of it in which what was fitted has replaced what was there, and says so.

| fit | changes |
|---|---|
| `execution_cost` | η, φ, ψ |
| `meta_order_impact` | η, φ and the permanent impact |
| `propagator` | the kernel, its part that stays as the permanent impact, and on demand η of the limit of fast decay |
| `observed_preferences` | the risk aversion, and those of η, φ, ψ that were fitted |
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxexec.calibration.market_record import Calibration, Origin, Provenance
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.calibration.propagator_kernels import PropagatorFit
from jaxexec.costs import PowerLawCost, QuadraticCost
from jaxexec.market import Market, TimeGrid
from jaxexec.numerics.status import Status

_UNITS = {
    "volatility": "currency per share per √day",
    "volume": "shares per day",
    "permanent_impact": "currency per share²",
    "eta": "currency per share",
    "phi": "1",
    "psi": "currency per share",
    "risk_aversion": "per currency",
    "kernel.impact": "currency per share²",
    "kernel.decay": "per day",
    "kernel.permanent": "currency per share²",
    "kernel.exponent": "1",
    "kernel.scale": "days",
}


def stated_market(
    volatility: float,
    volume: float,
    *,
    eta: float | None = None,
    phi: float = 0.6,
    psi: float = 0.0,
    permanent_impact: float = 0.0,
    symbol: str = "",
) -> Calibration:
    """A market that is the same all day, of numbers that somebody says: something for a fit to be put into.

    Args:
        volatility: σ, currency per share per √day, at least 0.
        volume: V, shares per day, positive.
        eta: η of L(ρ) = ηρ^{1+φ} + ψρ, currency per share; NaN until a fit tells it where None.
        phi: φ, 1.
        psi: ψ, currency per share.
        permanent_impact: κ, currency per share per share.
        symbol: The stock.

    Raises:
        ValueError: a number that no market or cost can have; it is named.
    """
    given = {
        "volatility": float(volatility),
        "volume": float(volume),
        "psi": float(psi),
        "permanent_impact": float(permanent_impact),
        "eta": math.nan if eta is None else float(eta),
        "phi": float(phi),
    }
    for name, value in given.items():
        positive = name in ("volume", "eta", "phi")
        unknown = name == "eta" and eta is None
        if not unknown and not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
            raise ValueError(f"{name} must be finite and {'positive' if positive else 'at least 0'}, got {value}")
    market = Market(TimeGrid.uniform(1.0, 1), given["volatility"], given["volume"], given["permanent_impact"])
    cost = _power_law(given["eta"], given["phi"], given["psi"])
    note = {"eta": "not known: no fit has told it"} if eta is None else {}
    entries = [
        Provenance(name, value, math.nan, _UNITS[name], "given", note.get(name, "by the caller"))
        for name, value in given.items()
    ]
    return Calibration(symbol, market, cost, tuple(entries))


def with_execution_cost(
    market: Calibration, fit: ParameterFit, *, fixed: Mapping[str, float] | None = None, pooled: bool = False
) -> Calibration:
    """A copy of a market with the η, φ and ψ of one stock's `execution_cost`; ψ below zero is set to zero.

    Args:
        market: The market.
        fit: One fit, in currency per share; of one with a state, the cost where that state is zero.
        fixed: What the fit held fixed, as it was told: an η found at φ = ½ belongs beside φ = ½. What is named in
            neither stays as the market has it.
        pooled: Whether `shrink` drew it towards the fits of other stocks, which the provenance then says.

    Raises:
        ValueError: a batch of fits, a fit that failed (its status and remedy are said), or one of something else.
    """
    _check_fit(fit, ("eta", "phi", "psi", "delta"))
    known = _checked_fixed(fit, fixed, ("eta", "phi", "psi", "delta"))
    entries = [
        Provenance(name, value, math.nan, _UNITS[name], "given", "held fixed in the fit to executions")
        for name, value in known.items()
        if name != "delta"
    ]
    values = _cost_of(market) | {entry.name: entry.value for entry in entries}
    market = market.replaced(entries, cost=_power_law(**values)) if entries else market
    return _with_cost(market, fit, f"from {int(fit.n):,} executions" + (", drawn towards other stocks" * pooled))


def with_meta_order_impact(
    market: Calibration,
    fit: ParameterFit,
    *,
    turnover: float,
    horizon: float,
    inverse_turnover: float,
    fixed: Mapping[str, float] | None = None,
) -> Calibration:
    """A copy of a market with the temporary and permanent impact of a `meta_order_impact` fit.

    Temporary impact is η_c = ησ, φ = β, with σ the market's daily volatility. Permanent impact is the line through the
    move that the fit gives an order of typical size, I = σγT|X/VT|^α(Θ/V)^δ: κ = I/X. With α = 1 that is the fit
    itself, Huberman and Stanzl's condition for no manipulation; else it is a chord, which the note says.
    Errors are those of the fit by the delta method; the market's own volatility and volume are taken as known.

    Args:
        market: The market, whose spread stays.
        fit: One fit, which must have fitted γ, η and β at least.
        turnover: X/V of a typical order, > 0.
        horizon: T of it, days, > 0.
        inverse_turnover: Θ/V of it, > 0.
        fixed: What the fit held fixed, as it was told: α and δ, where it did not fit them.

    Raises:
        ValueError: as `with_execution_cost`; an α or δ neither fitted nor in `fixed`, or a typical order that is none.

    Source: Almgren, Thum, Hauptmann and Li (2005); Huberman and Stanzl, Econometrica 72 (2004), for linearity.
    """
    _check_fit(fit, ("gamma", "alpha", "delta", "eta", "beta"), needed=("gamma", "eta", "beta"))
    for name, value in (("turnover", turnover), ("horizon", horizon), ("inverse_turnover", inverse_turnover)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    known = _checked_fixed(fit, fixed, ("alpha", "delta"))
    for name in ("alpha", "delta"):
        if name not in fit.names and name not in known:
            raise ValueError(f"fit lacks {name}, which it held fixed: say at what by fixed={{{name!r}: …}}")
    sigma, volume = _daily(market)

    def permanent(fitted: Mapping[str, Any]) -> Any:
        p = {**known, **fitted}
        move = sigma * p["gamma"] * horizon * (turnover / horizon) ** p["alpha"] * inverse_turnover ** p["delta"]
        return move / (turnover * volume)

    orders = f"from {int(fit.n) // 2:,} meta-orders"
    kappa, kappa_error = _carried(fit, permanent)
    note = f"{orders}: the line through the move of an order of {turnover:.3g} of a day's volume in {horizon:.3g} days"
    entries = [
        Provenance("eta", float(fit["eta"]) * sigma, float(fit.std_error("eta")) * sigma, _UNITS["eta"], "derived", ""),
        Provenance("phi", float(fit["beta"]), float(fit.std_error("beta")), "1", "estimated", orders),
        Provenance("permanent_impact", kappa, kappa_error, _UNITS["permanent_impact"], "derived", note),
    ]
    entries[0] = dataclasses.replace(entries[0], note=f"{float(fit['eta']):.4g} × daily volatility, {orders}")
    cost = _power_law(entries[0].value, entries[1].value, _spread(market))
    return market.replaced(entries, cost=cost, market=_with_permanent_impact(market.market, kappa))


def with_propagator(market: Calibration, fit: PropagatorFit, *, as_cost: bool = False) -> Calibration:
    """A copy of a market with a fitted decay kernel; the part of impact that stays is its permanent impact too.

    Args:
        market: The market.
        fit: The fit of one stock.
        as_cost: Also take the temporary impact from the kernel, in the limit where impact decays much faster than the
            order trades: at v shares a day an exponential kernel κe^{−ρt} keeps the price κv/ρ away, so that
            η = κV/ρ and φ = 1. Exponential kernels only.

    Raises:
        ValueError: as `with_execution_cost`; or `as_cost` with a power law, which has no such limit.
    """
    found = fit.parameters
    _check_fit(found, ("impact", "decay", "permanent", "exponent", "scale"))
    note = f"from {int(found.n):,} steps of order flow"
    entries = [
        Provenance(
            f"kernel.{name}",
            float(found[name]),
            float(found.std_error(name)),
            _UNITS[f"kernel.{name}"],
            "estimated",
            note,
        )
        for name in found.names
    ]
    fields: dict[str, Any] = {"kernel": fit.kernel}
    if "permanent" in found.names:
        kappa, error = float(found["permanent"]), float(found.std_error("permanent"))
        text = f"what stays of the kernel, {note}"
        entries.append(Provenance("permanent_impact", kappa, error, _UNITS["permanent_impact"], "estimated", text))
        fields["market"] = _with_permanent_impact(market.market, kappa)
    if as_cost:
        if not {"impact", "decay"} <= set(found.names):
            raise ValueError("as_cost needs an exponential kernel whose impact and decay were fitted")
        volume = _daily(market)[1]
        eta, error = _carried(found, lambda p: p["impact"] * volume / p["decay"])
        text = "kernel.impact · volume / kernel.decay, the limit of fast decay; " + note
        entries += [
            Provenance("eta", eta, error, _UNITS["eta"], "derived", text),
            Provenance("phi", 1.0, math.nan, "1", "derived", "impact linear in the rate, as the kernel is"),
        ]
        fields["cost"] = _power_law(eta, 1.0, _spread(market))
    return market.replaced(entries, **fields)


def with_preferences(market: Calibration, fit: ParameterFit, *, orders: int | None = None) -> Calibration:
    """A copy of a market with the risk aversion, and parameters of the cost, that a desk's schedules reveal.

    Args:
        market: The market that the schedules were fitted in.
        fit: One fit by `observed_preferences`.
        orders: How many orders the errors are taken between, where they are; for the provenance.

    Raises:
        ValueError: as `with_execution_cost`.
    """
    _check_fit(fit, ("risk_aversion", "eta", "phi", "psi"))
    note = f"from {int(fit.n):,} inventories of observed schedules"
    if orders is not None:
        note = f"from the schedules of {orders:,} orders; error between orders"
    copy = market
    if set(fit.names) - {"risk_aversion"}:
        copy = _with_cost(market, fit, note)
    if "risk_aversion" not in fit.names:
        return copy
    value, error = float(fit["risk_aversion"]), float(fit.std_error("risk_aversion"))
    entry = Provenance("risk_aversion", value, error, _UNITS["risk_aversion"], "estimated", note)
    return copy.replaced([entry], risk_aversion=value)


def _with_cost(market: Calibration, fit: ParameterFit, note: str) -> Calibration:
    """Those of η, φ, ψ that were fitted."""
    values = _cost_of(market)
    entries = []
    for name in (name for name in values if name in fit.names):
        value, error, text = float(fit[name]), float(fit.std_error(name)), note
        source: Origin = "estimated"
        if name == "psi" and value < 0:
            text, value, source = f"{note}: estimate {value:.3g} ± {error:.2g} is negative, set to zero", 0.0, "shrunk"
        values[name] = value
        entries.append(Provenance(name, value, error, _UNITS[name], source, text))
    return market.replaced(entries, cost=_power_law(**values))


def _check_fit(fit: ParameterFit, known: tuple[str, ...], needed: tuple[str, ...] = ()) -> None:
    if np.ndim(fit.status):
        raise ValueError("fit must be that of one stock: jax.tree.map(lambda x: x[i], fit) takes one of a batch")
    unknown = [name for name in fit.names if name not in known]
    if unknown:
        raise ValueError(f"fit has the parameter {unknown[0]!r}, which is none of {', '.join(known)}")
    missing = [name for name in needed if name not in fit.names]
    if missing:
        raise ValueError(f"fit lacks {missing[0]}, which it held fixed")
    status = Status(int(fit.status))
    if status > Status.LOCAL:
        free = "; ".join(fit.null_directions())
        text = f" The data cannot tell {free}." if free else f" {status.remedy}"
        raise ValueError(f"fit has the status {status.name}, and no numbers for a market.{text}")


def _checked_fixed(fit: ParameterFit, fixed: Mapping[str, float] | None, names: tuple[str, ...]) -> dict[str, float]:
    """What a fit held fixed, as numbers.

    Raises:
        ValueError: a name that is none, or that was fitted, or a value that is not finite.
    """
    found = {name: float(value) for name, value in (fixed or {}).items()}
    for name, value in found.items():
        if name not in names:
            raise ValueError(f"fixed names {name!r}, which is none of {', '.join(names)}")
        if name in fit.names:
            raise ValueError(f"fixed names {name!r}, which was fitted")
        if not math.isfinite(value):
            raise ValueError(f"fixed[{name!r}] must be finite, got {value}")
    return found


def _carried(fit: ParameterFit, function: Callable[[Mapping[str, Any]], Any]) -> tuple[float, float]:
    """A function of the parameters and its standard error by the delta method."""
    values = jnp.asarray(fit.values)

    def of(theta: jax.Array) -> jax.Array:
        return function({name: theta[i] for i, name in enumerate(fit.names)})

    value, slope = jax.value_and_grad(of)(values)
    slope = np.asarray(slope, np.float64)
    square = slope @ np.asarray(fit.covariance, np.float64) @ slope
    return float(value), math.sqrt(max(float(square), 0.0))


def _daily(market: Calibration) -> tuple[float, float]:
    """Volatility and volume of the whole day."""
    times = np.asarray(market.market.grid.times, np.float64)
    share = np.diff(times) / (times[-1] - times[0])
    variance, volume = np.asarray(market.market.volatility, np.float64) ** 2, np.asarray(market.market.volume)
    return float(np.sqrt(np.sum(share * variance))), float(np.sum(share * volume))


def _cost_of(market: Calibration) -> dict[str, float]:
    return {"eta": float(market.cost.eta), "phi": _exponent(market), "psi": _spread(market)}  # pyright: ignore


def _spread(market: Calibration) -> float:
    return float(market.cost.psi)  # pyright: ignore[reportAttributeAccessIssue]


def _exponent(market: Calibration) -> float:
    return 1.0 if isinstance(market.cost, QuadraticCost) else float(market.cost.phi)  # pyright: ignore


def _power_law(eta: float, phi: float, psi: float) -> PowerLawCost:
    """The cost; one whose η is not known yet is not checked."""
    if math.isnan(eta):
        return eqx.tree_at(lambda c: c.eta, PowerLawCost(1.0, phi, psi), jnp.asarray(math.nan))
    return PowerLawCost(eta, phi, psi)


def _with_permanent_impact(market: Market, kappa: float) -> Market:
    like = market.permanent_impact
    return eqx.tree_at(lambda m: m.permanent_impact, market, jnp.full_like(like, kappa))
