"""What equal trades cost against the time that they take, and against their number, in closed form.

Impact falls with the time taken and risk grows with it, so that there is a best horizon. At a fixed horizon there is
nothing to gain from fewer trades, or from more, but the last bit of risk that a step's convention leaves: the number
of trades has a best value only where each costs a fee, or takes its own time.

The parameters are those of Almgren and Chriss: λ is half of `risk_aversion`, η_AC is Guéant's η over V^φ.
"""

import functools
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import CONVENTIONS, Convention
from jaxexec.numerics.arrays import as_float, check
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.schedules.parameters import are_valid, scalars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NONNEGATIVE = ("volatility", "permanent_impact", "half_spread", "variance_weight")


class TwapHorizons(eqx.Module):
    """What an order costs at a constant rate, over each horizon, and the best of them.

    Attributes:
        horizons: (points,) T, days.
        expected_cost: (points,) E, currency.
        variance: (points,) Var, currency².
        objective: (points,) E + λ Var + cT, currency.
        best_horizon: T*, days.
        best_objective: the objective there, currency.
        status: OK; NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign; UNBOUNDED where
            neither risk nor a cost of time limits the horizon.
    """

    horizons: Float[Array, " points"]
    expected_cost: Float[Array, " points"]
    variance: Float[Array, " points"]
    objective: Float[Array, " points"]
    best_horizon: Float[Array, ""]
    best_objective: Float[Array, ""]
    status: Int[Array, ""]

    def plot(self) -> "Figure":
        """Cost, risk and time, and their sum, against the horizon; a matplotlib Figure."""
        title = f"Equal trades cost least over {float(self.best_horizon):.4g} days"
        xlabel = "horizon (trading days)"
        return _cost_figure(self.horizons, self.expected_cost, self.objective, title, xlabel, "risk and time")


def twap_horizons(
    shares: ArrayLike,
    horizons: ArrayLike,
    *,
    volatility: ArrayLike,
    temporary_impact: ArrayLike,
    variance_weight: ArrayLike,
    exponent: ArrayLike = 1.0,
    permanent_impact: ArrayLike = 0.0,
    half_spread: ArrayLike = 0.0,
    cost_per_day: ArrayLike = 0.0,
) -> TwapHorizons:
    """Cost of selling at a constant rate against the horizon, and the best horizon, in closed form. Traced.

        ½γX² + εX + ηX (X/T)^φ + (λσ²X²/3 + c) T,        T* = X (φη/(λσ²X²/3 + c))^{1/(1+φ)}

    With φ = 1 and c = 0 the best horizon is √(3η/λσ²), whatever the size of the order.

    Args:
        shares: X, not zero; negative to buy.
        horizons: (points,) T > 0, trading days.
        volatility: σ ≥ 0, currency per share per √day.
        temporary_impact: η > 0 of ηv^φ, currency per share at one share per day. `PowerLawCost`'s η is this times V^φ.
        variance_weight: λ ≥ 0, per currency: half of `risk_aversion`.
        exponent: φ > 0.
        permanent_impact: γ of Almgren and Chriss ≥ 0, currency per share per share; κ of `Market`.
        half_spread: ε ≥ 0, currency per share.
        cost_per_day: c ≥ 0, currency per day in the market.

    Raises:
        ValueError: a parameter is not a scalar, `horizons` is not one-dimensional, or a concrete number is not finite
            or of the wrong sign.

    Source: Almgren and Chriss, Optimal execution of portfolio transactions, J. Risk 3 (2000), eqs. 9–12, as the number
    of trades grows.
    """
    positive, nonnegative = ("temporary_impact", "exponent"), (*_NONNEGATIVE, "cost_per_day")
    given = {
        "shares": shares,
        "volatility": volatility,
        "temporary_impact": temporary_impact,
        "variance_weight": variance_weight,
        "exponent": exponent,
        "permanent_impact": permanent_impact,
        "half_spread": half_spread,
        "cost_per_day": cost_per_day,
    }
    p = scalars(given, positive=positive, nonnegative=nonnegative)
    check("shares", p["shares"], lambda v: v != 0, "other than 0")
    at = _points("horizons", horizons, p["shares"].dtype)
    check("horizons", at, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
    return _of_horizons(p, at)


@jax.jit
def _of_horizons(p: dict[str, Array], at: Array) -> TwapHorizons:
    positive, nonnegative = ("temporary_impact", "exponent"), (*_NONNEGATIVE, "cost_per_day")
    valid = are_valid(p, positive=positive, nonnegative=nonnegative) & (p["shares"] != 0)
    valid = valid & jnp.all(jnp.isfinite(at) & (at > 0))
    inputs = (p, at)
    p, at = {name: jnp.where(valid, x, 1) for name, x in p.items()}, jnp.where(valid, at, 1)
    size = jnp.abs(p["shares"])
    fixed = p["permanent_impact"] / 2 * size**2 + p["half_spread"] * size

    def costs(horizon: Array) -> tuple[Array, Array, Array]:
        expected = fixed + p["temporary_impact"] * size * (size / horizon) ** p["exponent"]
        variance = p["volatility"] ** 2 * size**2 / 3 * horizon
        return expected, variance, expected + p["variance_weight"] * variance + p["cost_per_day"] * horizon

    waiting = p["variance_weight"] * p["volatility"] ** 2 * size**2 / 3 + p["cost_per_day"]
    endless = waiting == 0
    failed = ~valid | endless
    pressure = p["exponent"] * p["temporary_impact"] / jnp.where(endless, 1, waiting)
    best = size * pressure ** (1 / (1 + p["exponent"]))
    status = jnp.where(endless, Status.UNBOUNDED, Status.OK)

    def spoilt(x: Array, failed: Array = ~valid) -> Array:
        return poison(x + taint(inputs, failed), failed)

    expected, variance, objective = costs(at)
    return TwapHorizons(
        horizons=spoilt(at),
        expected_cost=spoilt(expected),
        variance=spoilt(variance),
        objective=spoilt(objective),
        best_horizon=spoilt(best, failed),
        best_objective=spoilt(costs(best)[2], failed),
        status=jnp.where(valid, status, Status.NONFINITE_INPUT).astype(jnp.int32),
    )


class SlicesCurve(eqx.Module):
    """What an order costs in N equal trades, for each N, and the best number.

    Attributes:
        slices: (points,) N.
        expected_cost: (points,) E + fees, currency.
        variance: (points,) Var, currency².
        objective: (points,) E + λ Var + fees, currency.
        optimum: the real number N ≥ 1 at which the objective is least; infinite where it falls for ever.
        best: the integer nearest to it in cost; infinite likewise. A number without a derivative.
        status: OK, or NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign.
    """

    slices: Float[Array, " points"]
    expected_cost: Float[Array, " points"]
    variance: Float[Array, " points"]
    objective: Float[Array, " points"]
    optimum: Float[Array, ""]
    best: Float[Array, ""]
    status: Int[Array, ""]

    def plot(self) -> "Figure":
        """Cost and risk, and their sum, against the number of trades; a matplotlib Figure."""
        best = float(self.best)
        title = f"Cost is least at {best:.0f} trades" if np.isfinite(best) else "The more trades, the cheaper"
        return _cost_figure(self.slices, self.expected_cost, self.objective, title, "number of trades", "risk")


def slices_curve(
    shares: ArrayLike,
    slices: ArrayLike,
    *,
    spacing: ArrayLike | None = None,
    horizon: ArrayLike | None = None,
    volatility: ArrayLike,
    temporary_impact: ArrayLike,
    variance_weight: ArrayLike,
    permanent_impact: ArrayLike = 0.0,
    half_spread: ArrayLike = 0.0,
    fee: ArrayLike = 0.0,
    convention: Convention = "almgren-chriss",
) -> SlicesCurve:
    """Cost of N equal trades against their number, at a fixed spacing or over a fixed horizon. Traced.

    With f the fee and Δt the spacing, of the objective in either convention (η̃ = η − ½γΔt in the discrete one, else η)

        fixed spacing Δt    N* = X √((3η̃/Δt + ½λσ²Δt)/(λσ²X²Δt + 3f)),    √(3η̃/(λσ²Δt²) + ½) without a fee
        fixed horizon T     N* = (λσ²X²T/3f)^{1/3}    "continuous";    1    "almgren-chriss"

    At a fixed horizon and without a fee there is no best number between one and infinity: impact depends on the rate
    X/T alone. The discrete convention measures risk after each trade, so that fewer trades bear less; the continuous
    one approaches the limit from above.

    Args:
        shares: X, not zero; negative to buy.
        slices: (points,) N ≥ 1.
        spacing: Δt > 0, trading days a trade.
        horizon: T > 0, trading days for all of them. Give this or `spacing`.
        volatility: σ ≥ 0, currency per share per √day.
        temporary_impact: η > 0, currency per share per (share per day).
        variance_weight: λ ≥ 0, per currency: half of `risk_aversion`.
        permanent_impact: γ of Almgren and Chriss ≥ 0, currency per share per share; κ of `Market`.
        half_spread: ε ≥ 0, currency per share.
        fee: f ≥ 0, currency per trade.
        convention: "almgren-chriss" or "continuous", as in `Liquidation`.

    Raises:
        ValueError: neither or both of `spacing` and `horizon`, another convention, a parameter that is not a scalar,
            `slices` that are not one-dimensional, or a concrete number that is not finite or of the wrong sign.

    Source: Almgren and Chriss, Optimal execution of portfolio transactions, J. Risk 3 (2000), eqs. 9–12, for the costs.
    """
    if (spacing is None) == (horizon is None):
        raise ValueError("give one of spacing and horizon")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {CONVENTIONS}, got {convention!r}")
    time = "spacing" if horizon is None else "horizon"
    positive, nonnegative = (time, "temporary_impact"), (*_NONNEGATIVE, "fee")
    given = {
        "shares": shares,
        time: spacing if horizon is None else horizon,
        "volatility": volatility,
        "temporary_impact": temporary_impact,
        "variance_weight": variance_weight,
        "permanent_impact": permanent_impact,
        "half_spread": half_spread,
        "fee": fee,
    }
    p = scalars(given, positive=positive, nonnegative=nonnegative)  # pyright: ignore[reportArgumentType]
    check("shares", p["shares"], lambda v: v != 0, "other than 0")
    at = _points("slices", slices, p["shares"].dtype)
    check("slices", at, lambda v: np.isfinite(v) & (v >= 1), "at least 1 and finite")
    return _priced(p, at, convention == "almgren-chriss")


@functools.partial(jax.jit, static_argnums=2)
def _priced(p: dict[str, Array], at: Array, discrete: bool) -> SlicesCurve:
    fixed = "horizon" in p
    positive, nonnegative = ("horizon" if fixed else "spacing", "temporary_impact"), (*_NONNEGATIVE, "fee")
    valid = are_valid(p, positive=positive, nonnegative=nonnegative) & (p["shares"] != 0)
    valid = valid & jnp.all(jnp.isfinite(at) & (at >= 1))
    failed, everywhere = ~valid, taint((p, at), ~valid)
    p, at = {name: jnp.where(valid, x, 1) for name, x in p.items()}, jnp.where(valid, at, 1)
    optimum = jnp.maximum(_best_at_horizon(p, discrete) if fixed else _best_at_spacing(p, discrete), 1)
    endless = jnp.isinf(optimum)
    down = jnp.floor(jnp.where(endless, 1, optimum))
    fewer_is_dearer = _of_slices(p, down + 1, discrete)[2] < _of_slices(p, down, discrete)[2]
    best = jnp.where(endless, jnp.inf, jnp.where(fewer_is_dearer, down + 1, down))

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    expected, variance, objective = map(spoilt, _of_slices(p, at, discrete))
    status = jnp.where(valid, Status.OK, Status.NONFINITE_INPUT).astype(jnp.int32)
    return SlicesCurve(spoilt(at), expected, variance, objective, spoilt(optimum), spoilt(best), status)


def _of_slices(p: dict[str, Array], slices: Array, discrete: bool) -> tuple[Array, Array, Array]:
    """E with fees, Var and the objective of N equal trades."""
    size, fixed = jnp.abs(p["shares"]), "horizon" in p
    whole = p["horizon"] * jnp.ones_like(slices) if fixed else p["spacing"] * slices
    impact = p["temporary_impact"] - (p["permanent_impact"] * whole / slices / 2 if discrete else 0)
    expected = p["permanent_impact"] / 2 * size**2 + p["half_spread"] * size
    expected = expected + impact * size * (size / whole) + p["fee"] * slices
    # Σ x_k²/X² over N: the sum over the ends of the steps, and over both ends halved.
    part = (1 - 1 / slices) * (2 - 1 / slices) / 6 if discrete else 1 / 3 + 1 / (6 * slices**2)
    variance = p["volatility"] ** 2 * size**2 * whole * part
    return expected, variance, expected + p["variance_weight"] * variance


def _best_at_spacing(p: dict[str, Array], discrete: bool) -> Array:
    """At which −a/N + bN/3 has no slope left; not positive where permanent impact exceeds the temporary one."""
    net = p["temporary_impact"] - (p["permanent_impact"] * p["spacing"] / 2 if discrete else 0)
    risk = p["variance_weight"] * p["volatility"] ** 2 * p["spacing"]
    over = p["fee"] / p["shares"] ** 2
    gain, price = 3 * net / p["spacing"] + risk / 2, risk + 3 * over
    moving = (gain > 0) & (price > 0)
    ratio = jnp.sqrt(jnp.where(moving, gain, 1) / jnp.where(moving, price, 1))
    return jnp.where(moving, ratio, jnp.where(gain > 0, jnp.inf, 1))


def _best_at_horizon(p: dict[str, Array], discrete: bool) -> Array:
    if discrete:
        return jnp.ones_like(p["fee"])
    risk = p["variance_weight"] * p["volatility"] ** 2 * p["shares"] ** 2 * p["horizon"]
    moving = (risk > 0) & (p["fee"] > 0)
    root = jnp.cbrt(jnp.where(moving, risk, 1) / jnp.where(moving, 3 * p["fee"], 1))
    return jnp.where(moving, root, jnp.where(risk > 0, jnp.inf, 1))


def _points(name: str, values: ArrayLike, dtype) -> Array:
    array = as_float(name, values)
    if array.ndim != 1 or not array.shape[0]:
        raise ValueError(f"{name} must have shape (points,) with at least 1 point, got {array.shape}")
    return array.astype(dtype)


def _cost_figure(x: Array, expected: Array, objective: Array, title: str, xlabel: str, rest: str) -> "Figure":
    from jaxexec.presentation import figures

    lines = {"objective": objective, "expected cost": expected, rest: objective - expected}
    return figures.curves(x, {k: np.asarray(v) for k, v in lines.items()}, title, xlabel, "currency")
