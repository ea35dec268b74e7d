"""The liquidator whose intention a market maker infers: what impact is, when it is an inference.

`jaxexec.kyle` gives the market maker's rule: an order flow y_t moves the estimate by λ_t y_t and trades δ_t y_t beyond
it. To sell n_t = x_{t−1} − x_t shares a period against this rule costs, on average over noise and relative to p_0,

    E = Σ λ_t n_t x_t + (λ_t + δ_t) n_t²,        Var = Σ s_t (λ_t x_t + (λ_t + δ_t) n_t)²,

for whatever reason one sells. What differs is why, and what one knows:

- *exogenous*: impact is a number. It is the mean of the λ_t, and the schedule is Almgren and Chriss's.
- *informed*: one knows v. The schedule is the equilibrium's, x_t = β_t (v − p̂_{t−1}); what it costs is the price of
  what it tells, and v is lower still.
- *mistaken*: one knows nothing, but the market maker cannot know that. The schedule is the best against the rule.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.kyle import Equilibrium
from jaxexec.kyle.soundness import harmless, sound, spoilt
from jaxexec.numerics.arrays import as_float, check, is_concrete
from jaxexec.numerics.status import Status
from jaxexec.schedules import almgren_chriss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxexec.presentation import Table


class InferredSchedule(eqx.Module):
    """One liquidation against a market maker's rule. Period t is that of the equilibrium.

    Attributes:
        inventory: (periods + 1,) shares left after each period, expected; the first is the order.
        trades: (periods,) n_t expected, shares; a sale is positive.
        cost: (periods + 1,) expected shortfall against p_0 so far, currency; the last is the cost.
        belief: (periods + 1,) how far the market maker's estimate has moved on average, currency; negative in a sale.
        leakage: (periods + 1,) belief relative to the v − p_0 of an informed trader who sells as much: 1 where the
            market maker believes all that this one knows.
        expected_cost: currency.
        variance: of the cost if the trades are made as expected whatever the price does, currency².
        status: that of the equilibrium where it failed, all fields being NaN then; UNBOUNDED (`mistaken`);
            NONFINITE_INPUT where a traced input is out of range; NONFINITE_INTERNAL where numbers overflowed.
    """

    inventory: Float[Array, " nodes"]
    trades: Float[Array, " periods"]
    cost: Float[Array, " nodes"]
    belief: Float[Array, " nodes"]
    leakage: Float[Array, " nodes"]
    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    status: Int[Array, ""]


def _is_one(equilibrium: Equilibrium) -> None:
    if equilibrium.price_impact.ndim != 1:
        raise ValueError(f"equilibrium must be one, got a batch {equilibrium.price_impact.shape[:-1]}; use jax.vmap")
    if is_concrete(equilibrium.insiders) and float(np.asarray(equilibrium.insiders)) != 1:
        raise ValueError(f"equilibrium must have one insider, got {float(np.asarray(equilibrium.insiders)):g}")


def _shares(equilibrium: Equilibrium, shares: ArrayLike) -> Float[Array, ""]:
    _is_one(equilibrium)
    given = as_float("shares", shares)
    if given.ndim:
        raise ValueError(f"shares must be a scalar, got shape {given.shape}; use jax.vmap for a batch")
    check("shares", given, np.isfinite, "finite")
    return given.astype(equilibrium.price_impact.dtype)


def signal(equilibrium: Equilibrium, shares: ArrayLike) -> Float[Array, ""]:
    """The v − p_0 with which an informed trader is expected to sell `shares` in equilibrium, currency. Traced.

    −X / Σ β_t Σ_{t−1}/Σ_0: what is expected to be left unknown falls as the posterior variance does.

    Args:
        equilibrium: with one insider.
        shares: X, shares to sell; negative to buy.

    Raises:
        ValueError: a batch, several insiders, or `shares` is not a finite scalar.
    """
    given = _shares(equilibrium, shares)
    e, failed = sound(equilibrium)
    known = -given / jnp.sum(e.intensity * e.variance_before / e.prior_variance)
    return spoilt(known, failed, (equilibrium, given))


def against_rule(equilibrium: Equilibrium, trades: ArrayLike) -> InferredSchedule:
    """Any trades against the market maker's rule: cost, risk, and what the market maker is led to believe. Traced.

    Args:
        equilibrium: with one insider, for whom the liquidator is taken.
        trades: (periods,) n_t, shares; a sale is positive.

    Raises:
        ValueError: a batch, several insiders, or another shape.
    """
    _is_one(equilibrium)
    given = as_float("trades", trades)
    if given.shape != equilibrium.price_impact.shape:
        raise ValueError(f"trades must have shape {equilibrium.price_impact.shape}, got {given.shape}")
    check("trades", given, np.isfinite, "finite")
    given = given.astype(equilibrium.price_impact.dtype)
    return _measured(equilibrium, given, signal(equilibrium, jnp.sum(given)))


@jax.jit
def _measured(
    equilibrium: Equilibrium, trades: Array, known: Array, cause: ArrayLike = Status.OK, also: Any = ()
) -> InferredSchedule:
    """The schedule of `trades`; NaN where the equilibrium failed, or there is a `cause`.

    Args:
        cause: a `Status` of its own; OK for none.
        also: further inputs, that NaN derivatives must find.
    """
    refused = ~jnp.all(jnp.isfinite(trades)) & (cause == Status.OK)
    cause = jnp.where(refused, Status.NONFINITE_INPUT, cause)
    status = jnp.where(equilibrium.status > Status.LOCAL, equilibrium.status, jnp.maximum(equilibrium.status, cause))
    e, sold, signalled = harmless((equilibrium, trades, known), status > Status.LOCAL)
    fields = _fields(e, sold, signalled)
    finite = jnp.isfinite(fields["expected_cost"]) & jnp.isfinite(fields["variance"])
    status = jnp.where(finite | (status > Status.LOCAL), status, Status.NONFINITE_INTERNAL)
    fields = spoilt(fields, status > Status.LOCAL, (equilibrium, trades, known, also))
    return InferredSchedule(**fields, status=status.astype(jnp.int32))


def _fields(e: Equilibrium, trades: Array, known: Array) -> dict[str, Array]:
    left = jnp.cumsum(trades[::-1])[::-1]
    whole = e.price_impact + e.transitory_impact
    belief = _from_zero(-jnp.cumsum(e.price_impact * trades))
    cost = _from_zero(jnp.cumsum(trades * (whole * trades - belief[:-1])))
    nodes = jnp.concatenate([left, jnp.zeros_like(left[:1])])
    exposed = e.price_impact * nodes[1:] + whole * trades
    return {
        "inventory": nodes,
        "trades": trades,
        "cost": cost,
        "belief": belief,
        "leakage": jnp.where(known == 0, 0, belief / jnp.where(known == 0, 1, known)),
        "expected_cost": cost[-1],
        "variance": jnp.sum(e.noise_variance * exposed**2),
    }


def _from_zero(running: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(running[:1]), running])


def informed(equilibrium: Equilibrium, shares: ArrayLike) -> InferredSchedule:
    """The expected trades of one who knows v, such that `shares` are expected to be sold. Traced.

    Its cost is no loss: v lies below p_0 by `signal`. Beside it the insider earns `noise_gain`, whatever the order, by
    reacting to what noise does to the price.

    Args:
        equilibrium: with one insider.
        shares: X, shares expected to be sold; negative to buy.

    Raises:
        ValueError: as `signal`.
    """
    known = signal(equilibrium, shares)
    e, failed = sound(equilibrium)
    gap = harmless(known, failed) * e.variance_before / e.prior_variance
    return _measured(equilibrium, -e.intensity * gap, known)


def noise_gain(equilibrium: Equilibrium) -> Float[Array, ""]:
    """What an insider is expected to earn by reacting to noise, Σ β_t (1 − Λ_t β_t) Var(g_t | v), currency. Traced.

    The expected profit at v is this plus (v − p_0)² Σ β_t (1 − Λ_t β_t)(Σ_{t−1}/Σ_0)².

    Args:
        equilibrium: with one insider.

    Raises:
        ValueError: a batch, or several insiders.
    """
    _is_one(equilibrium)
    return _noise_gain(equilibrium)


@jax.jit
def _noise_gain(equilibrium: Equilibrium) -> Array:
    e, failed = sound(equilibrium)

    def spread(unsure: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
        beta, impact, s = row
        return (1 - impact * beta) ** 2 * unsure + impact**2 * s, unsure

    start = jnp.zeros_like(e.prior_variance)
    _, unsure = lax.scan(spread, start, (e.intensity, e.price_impact, e.noise_variance))
    whole = e.price_impact + e.transitory_impact
    return spoilt(jnp.sum(e.intensity * (1 - whole * e.intensity) * unsure), failed, equilibrium)


def mistaken(equilibrium: Equilibrium, shares: ArrayLike, risk_aversion: ArrayLike = 0.0) -> InferredSchedule:
    """The best liquidation of one who knows nothing and is taken for informed. Traced and differentiable.

    Least E + (γ/2) Var over the trades, by dynamic programming: each period sells the fraction

        f_t = (c_{t+1} − λ_t(1 + γsδ))/(c_{t+1} + δ_t(2 + γsδ)) of what is left, all of it in the last,

    of which the cost is ½c_t x². Where λ_t falls fast, as it does before a CARA insider, the best reply may first trade
    the other way: who moves the price while impact is high, and trades while it is low, manipulates it. One who minds
    risk too little could do so without end; the status is then UNBOUNDED.

    Args:
        equilibrium: with one insider, for whom the liquidator is taken.
        shares: X, shares to sell; negative to buy.
        risk_aversion: γ ≥ 0 of the liquidator in E + (γ/2) Var, per currency; not that of the equilibrium's insider.

    Raises:
        ValueError: as `signal`, or `risk_aversion` is not a scalar or negative.
    """
    given, gamma = _shares(equilibrium, shares), as_float("risk_aversion", risk_aversion)
    if gamma.ndim:
        raise ValueError(f"risk_aversion must be a scalar, got shape {gamma.shape}; use jax.vmap for a batch")
    check("risk_aversion", gamma, lambda v: np.isfinite(v) & (v >= 0), "finite and at least 0")
    gamma = gamma.astype(given.dtype)
    trades, cause = _best_reply(equilibrium, given, gamma)
    return _measured(equilibrium, trades, signal(equilibrium, given), cause, (given, gamma))


@jax.jit
def _best_reply(equilibrium: Equilibrium, shares: Array, gamma: Array) -> tuple[Array, Array]:
    """Trades, and why there are none: OK, UNBOUNDED where there is no minimum, or NONFINITE_INPUT."""
    refused = ~(jnp.isfinite(shares) & jnp.isfinite(gamma) & (gamma >= 0))
    e, shares, gamma = harmless((equilibrium, shares, gamma), refused | (equilibrium.status > Status.LOCAL))

    def back(later: Array, row: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        impact, passing, s, last = row
        risky, whole = gamma * s, impact + passing
        bend = later + passing * (2 + risky * passing)
        convex = last | (bend > 0)
        part = (later - impact * (1 + risky * passing)) / jnp.where(convex, bend, 1)
        part = jnp.where(last, 1, part)
        kept = 1 - part
        exposed = impact * kept + whole * part
        now = impact * part * kept + whole * part**2 + risky / 2 * exposed**2
        return 2 * now + jnp.where(last, 0, later) * kept**2, (part, convex)

    last = jnp.arange(e.periods) == e.periods - 1
    rows = (e.price_impact, e.transitory_impact, e.noise_variance, last)
    _, (parts, convex) = lax.scan(back, jnp.ones_like(shares), rows, reverse=True)

    def sell(left: Array, part: Array) -> tuple[Array, Array]:
        return left * (1 - part), left * part

    cause = jnp.where(refused, Status.NONFINITE_INPUT, jnp.where(jnp.all(convex), Status.OK, Status.UNBOUNDED))
    return lax.scan(sell, shares, parts)[1], cause


class Comparison(eqx.Module):
    """The same liquidation three times.

    Attributes:
        exogenous: impact a number, the schedule Almgren and Chriss's; its belief is where the price has been moved.
        informed: the equilibrium's own.
        mistaken: uninformed and taken for informed, the best reply to the rule.
        naive: the exogenous schedule, carried out against the rule all the same.
        noise_gain: what the informed earns beside by reacting to noise, currency.
    """

    exogenous: InferredSchedule
    informed: InferredSchedule
    mistaken: InferredSchedule
    naive: InferredSchedule
    noise_gain: Float[Array, ""]

    def table(self) -> "Table":
        """A row each, as a `presentation.Table`."""
        from jaxexec.presentation import Table

        rows = []
        for name, s in self._named().items():
            half = _half_life(np.asarray(s.inventory))
            leak = float(np.interp(0.5, np.linspace(0, 1, len(s.leakage)), np.asarray(s.leakage)))
            rows.append((name, float(s.expected_cost), float(np.sqrt(s.variance)), half, leak, float(s.leakage[-1])))
        columns = ("liquidation", "expected cost", "standard deviation", "half sold by", "leaked halfway", "at the end")
        footer = (
            "Naive: the schedule of exogenous impact, taken for informed. Times and leakage are shares of the whole."
        )
        for name, s in self._named().items():
            if int(s.status) > Status.LOCAL:
                footer += f" {name}: {Status(int(s.status)).name}."
        return Table("One liquidation, for three reasons", columns, rows, footer)

    def plot(self) -> "Figure":
        """Shares left to trade over the periods, a matplotlib Figure."""
        from jaxexec.presentation import figures

        lines = {name: np.asarray(s.inventory) for name, s in self._named().items() if s is not self.naive}
        at = np.arange(self.exogenous.inventory.shape[0])
        return figures.trajectories(at, lines, "Why one sells decides how", "period", "shares left")

    def plot_leakage(self) -> "Figure":
        """What the market maker has been led to believe over the periods, a matplotlib Figure."""
        from jaxexec.presentation import figures

        lines = {name: np.asarray(s.leakage) for name, s in self._named().items()}
        at = np.arange(self.exogenous.inventory.shape[0])
        title = "What the market maker is led to believe"
        return figures.curves(at, lines, title, "period", "belief (1: what the informed knows)")

    def _named(self) -> dict[str, InferredSchedule]:
        names = ("exogenous impact", "informed", "taken for informed", "naive")
        return dict(zip(names, (self.exogenous, self.informed, self.mistaken, self.naive), strict=True))


def _half_life(inventory: np.ndarray) -> float:
    """Share of the time by which half is sold, between nodes linearly."""
    if not inventory[0] or not np.all(np.isfinite(inventory)):
        return np.nan
    left = inventory / inventory[0]
    at = np.flatnonzero(left <= 0.5)[0]
    return float((at - 1 + (left[at - 1] - 0.5) / (left[at - 1] - left[at])) / (len(left) - 1))


def compare(equilibrium: Equilibrium, shares: ArrayLike, risk_aversion: ArrayLike = 0.0) -> Comparison:
    """One liquidation at exogenous impact, as an informed trader, and taken for one. Traced.

    The exogenous impact is the mean λ̄ of the equilibrium's λ_t + δ_t, all permanent, paid by each trade itself too (in
    Almgren and Chriss's terms a temporary impact of λ̄ a period), and prices move by λ̄√s̄ a period.

    Args:
        equilibrium: with one insider.
        shares: X, shares to sell; negative to buy.
        risk_aversion: γ ≥ 0 of the liquidator at exogenous impact and taken for informed; the informed has the
            equilibrium's.

    Raises:
        ValueError: as `mistaken`.
    """
    given = _shares(equilibrium, shares)
    guessed = mistaken(equilibrium, given, risk_aversion)
    gamma = as_float("risk_aversion", risk_aversion).astype(given.dtype)
    flat = _flat(sound(equilibrium)[0])
    usual = almgren_chriss(
        given,
        float(equilibrium.periods),
        equilibrium.periods,
        volatility=flat.impact * jnp.sqrt(flat.noise),
        temporary_impact=flat.impact,
        permanent_impact=flat.impact,
        variance_weight=gamma / 2,
    )
    steady = eqx.tree_at(
        lambda e: (e.price_impact, e.transitory_impact, e.noise_variance),
        equilibrium,
        tuple(jnp.broadcast_to(x, usual.trades.shape) for x in (flat.impact, jnp.zeros_like(flat.impact), flat.noise)),
    )
    known = signal(equilibrium, given)
    return Comparison(
        exogenous=_measured(steady, usual.trades, known),
        informed=informed(equilibrium, given),
        mistaken=guessed,
        naive=_measured(equilibrium, usual.trades, known),
        noise_gain=_noise_gain(equilibrium),
    )


class _Flat(NamedTuple):
    """Mean impact and mean noise variance."""

    impact: Float[Array, ""]
    noise: Float[Array, ""]


def _flat(equilibrium: Equilibrium) -> _Flat:
    whole = equilibrium.price_impact + equilibrium.transitory_impact
    return _Flat(jnp.mean(whole), jnp.mean(equilibrium.noise_variance))


def splitting(equilibrium: Equilibrium, shares: ArrayLike, slices: ArrayLike) -> InferredSchedule:
    """The cost of an order cut into equal slices, one a period from the first on, against the rule.

    Cutting pays ever less: with constant λ the cost of k slices is ½λX²(1 + 1/k), so that endless cutting saves half of
    a single trade's cost and no more; each slice still moves the estimate that all later ones trade at.

    Args:
        equilibrium: with one insider.
        shares: X, shares to sell; negative to buy.
        slices: (counts,) numbers of slices, each between 1 and the number of periods; concrete.

    Returns:
        The schedules, every field with a leading axis (counts,).

    Raises:
        ValueError: as `signal`, or a number of slices is out of range.
    """
    given, counts = _shares(equilibrium, shares), np.asarray(slices)
    if counts.ndim != 1 or counts.dtype.kind not in "iu":
        raise ValueError(f"slices must be whole numbers of shape (counts,), got {counts.dtype} of shape {counts.shape}")
    bad = np.flatnonzero((counts < 1) | (counts > equilibrium.periods))
    if bad.size:
        raise ValueError(f"slices[{bad[0]}] must be between 1 and {equilibrium.periods}, got {counts[bad[0]]}")
    weights = (np.arange(equilibrium.periods)[None] < counts[:, None]) / counts[:, None]
    trades = given * jnp.asarray(weights, given.dtype)
    return jax.vmap(functools.partial(_measured, equilibrium), in_axes=(0, None))(trades, signal(equilibrium, given))


__all__ = [
    "Comparison",
    "InferredSchedule",
    "against_rule",
    "compare",
    "informed",
    "mistaken",
    "noise_gain",
    "signal",
    "splitting",
]
