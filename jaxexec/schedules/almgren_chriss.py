"""Almgren and Chriss's discrete model in closed form, on both sides of zero risk aversion."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.numerics.arrays import check, is_concrete
from jaxexec.numerics.hyperbolic import cosh_root, sinhc
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.schedules.parameters import are_valid, check_steps, scalars

_NONNEGATIVE = ("volatility", "permanent_impact", "half_spread")


class AlmgrenChriss(eqx.Module):
    """Almgren and Chriss's optimal schedule in closed form.

    Attributes:
        times: (nodes,) trading days.
        inventory: (nodes,) x_j, shares.
        trades: (steps,) n_j, shares.
        expected_cost: E, currency.
        variance: Var, currency².
        objective: E + λ Var, currency.
        kappa: κ, per day; of their urgency. Zero for λ ≤ 0.
        time_constant: 1/κ, days (the paper calls it half-life); infinite at κ = 0.
        half_life: ln 2 / κ, days.
        status: OK; NONFINITE_INPUT where a traced parameter is not finite or has the wrong sign; NONCONVEX where η̃ ≤ 0
            or λ is so negative that no minimum exists.
    """

    times: Float[Array, " nodes"]
    inventory: Float[Array, " nodes"]
    trades: Float[Array, " steps"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    objective: Float[Array, ""]
    kappa: Float[Array, ""]
    time_constant: Float[Array, ""]
    half_life: Float[Array, ""]
    status: Int[Array, ""]


def almgren_chriss(
    shares: ArrayLike,
    horizon: ArrayLike,
    steps: int,
    *,
    volatility: ArrayLike,
    temporary_impact: ArrayLike,
    permanent_impact: ArrayLike = 0.0,
    half_spread: ArrayLike = 0.0,
    variance_weight: ArrayLike = 0.0,
    drift: ArrayLike = 0.0,
) -> AlmgrenChriss:
    """Optimal schedule of Almgren and Chriss's discrete model. Traced; finite derivatives at λ = 0 too.

    With τ = horizon/steps, η̃ = η − ½γτ and κ̃² = λσ²/η̃, κ solves 2(cosh κτ − 1)/τ² = κ̃² and

        x_j = X sinh κ(T − t_j)/sinh κT  +  (α/2η̃κ̃²) (1 − [sinh κ(T − t_j) + sinh κt_j]/sinh κT).

    λ < 0 (a preference for risk) turns sinh into sin, as long as |κ|T < π.

    Args:
        shares: X, shares to sell; negative to buy.
        horizon: T > 0, trading days.
        steps: N.
        volatility: σ ≥ 0, currency per share per √day.
        temporary_impact: η > 0, currency per share per (share per day). Guéant's η (`QuadraticCost`) is this times V.
        permanent_impact: γ ≥ 0 of the paper, currency per share per share; κ of `Market`.
        half_spread: ε ≥ 0, currency per share.
        variance_weight: λ, per currency: half of `risk_aversion`.
        drift: α, currency per share per day.

    Raises:
        ValueError: `steps` is not a positive integer, a parameter is not a scalar, or a concrete one is not finite,
            breaks its sign, or makes η̃ ≤ 0.

    Source: Almgren and Chriss, Optimal execution of portfolio transactions, J. Risk 3 (2000), eqs. 16–22 and 27–28.
    """
    p = scalars(
        {
            "shares": shares,
            "horizon": horizon,
            "volatility": volatility,
            "temporary_impact": temporary_impact,
            "permanent_impact": permanent_impact,
            "half_spread": half_spread,
            "variance_weight": variance_weight,
            "drift": drift,
        },
        positive=("horizon", "temporary_impact"),
        nonnegative=_NONNEGATIVE,
    )
    check_steps(steps)
    net_impact = _net_impact(p, steps)
    check("temporary_impact − ½ permanent_impact · τ", net_impact, lambda v: v > 0, "positive")
    drifting = not (is_concrete(drift) and float(np.asarray(drift)) == 0)
    status = _refusal(p, steps)
    failed, everywhere = status != Status.OK, taint(p, status != Status.OK)
    harmless = dict.fromkeys(p, 1.0) | {"permanent_impact": 0.0, "drift": 0.0}
    p = {name: replace_where(failed, x, jnp.full_like(x, harmless[name])) for name, x in p.items()}

    def spoilt(x: Array) -> Array:
        return poison(x + everywhere, failed)

    return AlmgrenChriss(**jax.tree.map(spoilt, _closed_form(p, steps, drifting)), status=status.astype(jnp.int32))


def _net_impact(p: dict[str, Array], steps: int) -> Array:
    """η̃ = η − ½γτ."""
    return p["temporary_impact"] - p["permanent_impact"] * (p["horizon"] / steps) / 2


def _urgency(p: dict[str, Array], steps: int) -> Array:
    """κ̃², of either sign, where η̃ > 0."""
    net_impact = _net_impact(p, steps)
    return p["variance_weight"] * p["volatility"] ** 2 / jnp.where(net_impact > 0, net_impact, 1)


def _refusal(p: dict[str, Array], steps: int) -> Array:
    """The status, found from the parameters alone."""
    # |κ|T < π in terms of κ̃²τ² = −4 sin²(|κ|τ/2).
    bounded = _urgency(p, steps) * (p["horizon"] / steps) ** 2 > -4 * math.sin(math.pi / (2 * steps)) ** 2 * (1 - 1e-12)
    convex = (_net_impact(p, steps) > 0) & bounded
    valid = are_valid(p, positive=("horizon",), nonnegative=_NONNEGATIVE)
    return jnp.where(valid, jnp.where(convex, Status.OK, Status.NONCONVEX), Status.NONFINITE_INPUT)


def _closed_form(p: dict[str, Array], steps: int, drifting: bool) -> dict[str, Array]:
    """All fields but the status; a drift that is known to be zero is left out."""
    impact, tau = _net_impact(p, steps), p["horizon"] / steps
    urgency = _urgency(p, steps)
    ratio = _kappa_ratio(urgency * tau**2)
    rate = urgency * ratio
    remaining, sold = _paths(urgency, ratio, tau, steps)
    inventory, trades = p["shares"] * remaining, p["shares"] * sold
    if drifting:
        bump, unwound = _bump(urgency, ratio, tau, steps)
        gain = p["drift"] / (2 * impact)
        inventory, trades = inventory + gain * bump, trades + gain * unwound
    later = np.arange(steps + 1) > 0  # by comparing, which XLA vectorises, where a slice would not be
    expected = (
        p["permanent_impact"] / 2 * p["shares"] ** 2
        + p["half_spread"] * jnp.sum(jnp.abs(trades))
        + impact / tau * jnp.sum(trades**2)
        - p["drift"] * tau * jnp.sum(jnp.where(later, inventory, 0))
    )
    variance = p["volatility"] ** 2 * tau * jnp.sum(jnp.where(later, inventory**2, 0))
    moving = rate > 0
    kappa = jnp.where(moving, jnp.sqrt(jnp.where(moving, rate, 1)), 0)
    constant = jnp.where(moving, 1 / jnp.where(moving, kappa, 1), jnp.inf)
    return {
        "times": tau * jnp.arange(steps + 1, dtype=tau.dtype),
        "inventory": inventory,
        "trades": trades,
        "expected_cost": expected,
        "variance": variance,
        "objective": expected + p["variance_weight"] * variance,
        "kappa": kappa,
        "time_constant": constant,
        "half_life": jnp.log(2) * constant,
    }


# All below are smooth functions of c = κ², whatever its sign: series near zero keep value and derivatives exact
# where √c has none.
_SMALL = 0.2


def _kappa_ratio(u: Array) -> Array:
    """κ²/κ̃² from u = (κ̃τ)²: arccosh²(1 + u/2)/u, continued to u < 0 as −arccos²/u."""
    small = jnp.abs(u) < _SMALL
    series = jnp.ones_like(u)
    for n in range(13, 1, -1):  # arccosh²(1 + u/2) = Σ 2(−1)^{n−1} ((n−1)!)² uⁿ / (2n)!
        series = 1 - series * u * ((n - 1) ** 2 / ((2 * n) * (2 * n - 1)))
    up = jnp.where(u >= _SMALL, u, 1)
    down = jnp.where(small | (u > 0), 1, jnp.clip(-u, 0, 4 * (1 - 1e-15)))
    far = jnp.where(
        u > 0, (2 * jnp.arcsinh(jnp.sqrt(up) / 2)) ** 2 / up, (2 * jnp.arcsin(jnp.sqrt(down) / 2)) ** 2 / down
    )
    return jnp.where(small, series, far)


# Every value is an elementwise function of its own times: no neighbours are joined or subtracted, which would cost
# digits in the tails, and XLA its vector instructions.


def _paths(urgency: Array, ratio: Array, tau: Array, steps: int) -> tuple[Array, Array]:
    """sinh κ(T − t)/sinh κT at the nodes, and by how much it falls in each step: 2 sinh(κτ/2) cosh κm / sinh κT.

    m is the time from the middle of the step to T.
    """
    c, count, horizon = urgency * ratio, np.arange(steps + 1), steps * tau
    times, left = (_times(tau, n) for n in (count, steps - count))
    start, middle = _times(tau, count[:-1]), _times(tau, steps - count[:-1] - 0.5)
    series = c * horizon**2 < _SMALL
    whole = horizon * sinhc(c * horizon**2)
    near = left * sinhc(c * left**2) / whole, tau * sinhc(c * tau**2 / 4) * cosh_root(c * middle**2) / whole
    kappa = jnp.sqrt(jnp.where(series, 1, c))
    all_, one = (-jnp.expm1(-kappa * x) for x in (2 * horizon, tau))
    held = jnp.exp(-kappa * times) * -jnp.expm1(-2 * kappa * left) / all_
    sold = jnp.exp(-kappa * start) * (1 + jnp.exp(-2 * kappa * middle)) * (one / all_)
    held, sold = jnp.where(series, near[0], held), jnp.where(series, near[1], sold)
    # Both ends are given, not computed.
    return jnp.where(count == 0, 1, jnp.where(count == steps, 0, held)), sold


def _bump(urgency: Array, ratio: Array, tau: Array, steps: int) -> tuple[Array, Array]:
    """(1 − [sinh κ(T − t) + sinh κt]/sinh κT)/κ̃² at the nodes, and by how much it falls in each step.

    They are 2 sinh(κ(T − t)/2) sinh(κt/2) / (κ̃² cosh(κT/2)) and 2 sinh(κτ/2) sinh κd / (κ̃² cosh(κT/2)), with d the
    time from T/2 to the middle of the step.
    """
    c, count, horizon = urgency * ratio, np.arange(steps + 1), steps * tau
    times, left = (_times(tau, n) for n in (count, steps - count))
    apart = _times(tau, count[:-1] + 0.5 - steps / 2)
    series = c * horizon**2 < _SMALL
    middle = cosh_root(c * horizon**2 / 4)
    gone, to_go = (t / 2 * sinhc(c * t**2 / 4) for t in (times, left))
    turned = tau * sinhc(c * tau**2 / 4) * apart * sinhc(c * apart**2)
    near = 2 * ratio * gone * to_go / middle, ratio * turned / middle
    kappa, risk = jnp.sqrt(jnp.where(series, 1, c)), jnp.where(series, 1, urgency)
    whole = (1 + jnp.exp(-kappa * horizon)) * risk
    high = jnp.expm1(-kappa * times) * jnp.expm1(-kappa * left) / whole
    size = jnp.abs(apart)
    fall = -jnp.expm1(-kappa * tau) * -jnp.expm1(-2 * kappa * size) * jnp.exp(kappa * (size + (tau - horizon) / 2))
    return jnp.where(series, near[0], high), jnp.where(series, near[1], jnp.sign(apart) * fall / whole)


def _times(tau: Array, count: np.ndarray) -> Array:
    return tau * jnp.asarray(count, tau.dtype)
