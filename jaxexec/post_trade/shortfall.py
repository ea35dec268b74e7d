"""Implementation shortfall: what an order cost against the price it was decided at, and where the money went.

The paper portfolio trades X shares at the decision price, free of charge; the real one trades n_i at p_i, pays fees,
and is left with X − E shares worth the end price. The difference is taken apart as Kissell does (2006):

    total        =  X P_d − Σ n_i p_i − (X − E) P_N + Σ f_i                E = Σ n_i
    delay        =  X (P_d − P_0)                                          all shares wait for the market
    spread       =  Σ n_i (m_i − p_i)                                      fills against the mid before them
    price move   =  Σ n_i (P_0 − m_i)                                      the mid, from arrival to the fills
    opportunity  =  (X − E) (P_0 − P_N)                                    shares never traded
    fees         =  Σ f_i

With a market model the price move is own impact, as the model expects it of these fills, and the rest:

    temporary    =  Σ τV L(ρ) − Σ ψ|n|             permanent = ½κE²  (less ½κ Σ n_k² under "almgren-chriss")
    timing       =  price move − temporary − permanent

Costs are positive. Signs of shares take care of purchases. All is computed from differences of prices, so that nothing
cancels.
"""

import functools
import math
import operator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxexec.liquidation import Liquidation, execution_cost, expected_cost, variance
from jaxexec.numerics.arrays import is_concrete, unify
from jaxexec.numerics.status import Status
from jaxexec.post_trade.executions import Fills, ParentOrder, binned, is_on_grid, steps_of
from jaxexec.post_trade.failure import is_positive, slack_of, spoilt
from jaxexec.solvers.verdict import harmless_where


class Attribution(eqx.Module):
    """What a market model says of an execution: own impact, what was to be expected, and how far off it was.

    Attributes:
        temporary_impact: Σ τV L(ρ) − Σ ψ|n| of the trades as they were done, currency.
        permanent_impact: κ's part in the price of the filled shares, currency.
        timing: price move − temporary − permanent: what own impact does not explain, currency.
        expected_spread: Σ ψ|n|, currency.
        expected_cost: E of the trades (`jaxexec.expected_cost`), currency; from arrival to the end, without fees.
        standard_deviation: √Var (`jaxexec.variance`), currency.
        z_score: (spread + price move + opportunity − E)/√Var; NaN where the model knows no risk. With a target, what
            the shares that were to be kept gained or lost counts too, as it does in E and Var.
        trades: (steps,) shares filled in each step of the problem.
        status: OK; that of the shortfall where it failed; INFEASIBLE where a cap is passed or a step without volume
            is traded in; INSUFFICIENT_DATA where shares are kept whose end price is not known; NONFINITE_INPUT where
            a time lies outside the grid, the problem is another order's, or it is not sound.
    """

    temporary_impact: Float[Array, ""]
    permanent_impact: Float[Array, ""]
    timing: Float[Array, ""]
    expected_spread: Float[Array, ""]
    expected_cost: Float[Array, ""]
    standard_deviation: Float[Array, ""]
    z_score: Float[Array, ""]
    trades: Float[Array, " steps"]
    status: Int[Array, ""]


class Shortfall(eqx.Module):
    """The implementation shortfall of one order and its parts; costs are positive.

    `delay + spread + price_move + opportunity + fees` is `total`, and `price_move` is the sum of `temporary_impact`,
    `permanent_impact` and `timing` of the `attribution`.

    Attributes:
        total: paper portfolio less real portfolio, currency.
        delay: from decision to arrival, on all shares ordered, currency.
        spread: fills against their mids, currency. Where a mid is not known: ψ|n| with a model, else 0.
        price_move: the rest of the cost of the filled shares, from arrival to fill, currency.
        opportunity: the unfilled shares from arrival to the end, currency.
        fees: currency.
        executed: E, shares; a purchase is negative.
        filled: E/X.
        average_price: Σ n p/E, currency per share; NaN where nothing was filled.
        measured_spread: share of E whose mid is known; NaN where nothing was filled.
        decision_value: |X| P_d, currency.
        arrival_value: |X| P_0, currency.
        attribution: what the model says; None without one.
        status: OK; INSUFFICIENT_DATA where shares are left and the end price is not known; NONFINITE_INPUT where a
            traced value is not finite, a price or size has the wrong sign, or more is filled than was ordered.
    """

    total: Float[Array, ""]
    delay: Float[Array, ""]
    spread: Float[Array, ""]
    price_move: Float[Array, ""]
    opportunity: Float[Array, ""]
    fees: Float[Array, ""]
    executed: Float[Array, ""]
    filled: Float[Array, ""]
    average_price: Float[Array, ""]
    measured_spread: Float[Array, ""]
    decision_value: Float[Array, ""]
    arrival_value: Float[Array, ""]
    attribution: Attribution | None
    status: Int[Array, ""]

    @property
    def execution(self) -> Float[Array, ""]:
        """Σ n (P_0 − p): what the filled shares cost against arrival, currency."""
        return self.spread + self.price_move

    @property
    def parts(self) -> dict[str, Float[Array, ""]]:
        """The parts of the total by name, in the order in which they arise, currency; with a model, own impact apart.

        Where the model failed its parts are NaN, and `price_move` tells their sum.
        """
        move = {"price_move": self.price_move}
        if self.attribution is not None:
            names = ("temporary_impact", "permanent_impact", "timing")
            move = {name: getattr(self.attribution, name) for name in names}
        ends = {"opportunity": self.opportunity, "fees": self.fees}
        return {"delay": self.delay, "spread": self.spread, **move, **ends}

    def in_bps(self, of: str = "decision") -> dict[str, Float[Array, ""]]:
        """The parts and the total in basis points of the order's value at "decision" or at "arrival".

        Raises:
            ValueError: `of` is neither.
        """
        if of not in ("decision", "arrival"):
            raise ValueError(f"of must be 'decision' or 'arrival', got {of!r}")
        value = self.decision_value if of == "decision" else self.arrival_value
        return {name: 1e4 * amount / value for name, amount in {**self.parts, "total": self.total}.items()}

    def table(self):
        """One row a part, as a `presentation.Table`: currency, and basis points of both values."""
        from jaxexec.presentation import Table

        host = self._host("table")
        money = {**host.parts, "total": host.total}
        bps = [host.in_bps(of) for of in ("decision", "arrival")]
        rows = [(label_of(name), float(money[name]), *(float(b[name]) for b in bps)) for name in money]
        footer = f"{Status(int(host.status)).name}; {100 * float(host.filled):.4g} % filled. Costs are positive."
        model = host.attribution
        if model is not None:
            footer += (
                f" The model ({Status(int(model.status)).name}) expects {float(model.expected_cost):,.6g} ± "
                f"{float(model.standard_deviation):,.6g}: z = {float(model.z_score):.2f}."
            )
        columns = ("part", "currency", "bp of decision value", "bp of arrival value")
        return Table("Implementation shortfall", columns, rows, footer)

    def summary(self) -> str:
        """The table as text."""
        return self.table().text()

    def plot(self):
        """The parts as a waterfall, a matplotlib Figure."""
        from jaxexec.presentation import figures

        host = self._host("plot")
        parts = {label_of(name): float(amount) for name, amount in host.parts.items()}
        return figures.waterfall(parts, title="Where the shortfall went", ylabel="cost (currency)")

    def to_polars(self):
        """One row an order: every number by its name, those of the model too (polars DataFrame)."""
        import polars

        if not is_concrete(self.total) or np.ndim(self.total) > 1:
            raise ValueError("to_polars needs one concrete shortfall or one batch of them")
        return polars.DataFrame({name: np.atleast_1d(np.asarray(x)) for name, x in columns_of(self).items()})

    def to_pandas(self):
        """`to_polars()` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.to_polars().to_dict(as_series=False))

    def _host(self, what: str) -> Any:
        if not is_concrete(self.total) or np.ndim(self.total):
            raise ValueError(
                f"{what} needs one concrete shortfall; pick one of a batch with jax.tree.map(lambda x: x[i], shortfall)"
            )
        return jax.tree.map(np.asarray, self)


def label_of(name: str) -> str:
    """A part's name as tables and figures show it."""
    return name.replace("_", " ")


def columns_of(shortfall: Shortfall) -> dict[str, Array]:
    """Every number of a shortfall by its name; the trades, which have an axis of their own, left out."""
    own = {name: value for name, value in vars(shortfall).items() if name != "attribution"}
    if shortfall.attribution is None:
        return own
    model = {name: value for name, value in vars(shortfall.attribution).items() if name != "trades"}
    return {**own, **model, "status": own["status"], "model_status": model["status"]}


def implementation_shortfall(order: ParentOrder, fills: Fills, problem: Liquidation | None = None) -> Shortfall:
    """What an order cost against its decision price, taken apart. Traced and differentiable.

    Args:
        order: what was ordered, with the prices to measure from.
        fills: what was done.
        problem: the order as it is planned with `solve`, for the parts that a model explains: `shares` − `target` is
            what was ordered, its grid begins at arrival, ends where `end_price` is taken, and has the clock of
            `fills.times`. It must have neither a benchmark nor a terminal penalty.

    Raises:
        ValueError: an argument of another type; a benchmark or terminal penalty; concrete fills on the wrong side or
            of more than was ordered, a concrete order without an end price that is not filled.

    Source: Perold, The implementation shortfall: paper versus reality, J. Portfolio Management 14 (1988); Wagner and
    Edwards, Best execution, Financial Analysts J. 49 (1993); the parts after Kissell, The expanded implementation
    shortfall, J. Trading 1 (2006).
    """
    for name, value, kind in (("order", order, ParentOrder), ("fills", fills, Fills)):
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be a jaxexec.{kind.__name__}, got {type(value).__name__}")
    given = {"order": order, "fills": fills}
    if problem is not None:
        if not isinstance(problem, Liquidation):
            raise ValueError(f"problem must be a jaxexec.Liquidation, got {type(problem).__name__}")
        for name in ("benchmark", "terminal_penalty"):
            if getattr(problem, name) is not None:
                raise ValueError(f"problem must have no {name}: fills do not tell what it gained or lost")
        given["problem"] = problem
    joined = unify(given, final=True)
    _check_filled(joined["order"], joined["fills"])
    return _shortfall(joined["order"], joined["fills"], joined.get("problem"))


@jax.jit
def _shortfall(order: ParentOrder, fills: Fills, problem: Liquidation | None) -> Shortfall:
    inputs = (order, [fills.prices, fills.sizes, fills.fees, fills.mids, fills.times])
    status = _verdict(order, fills)
    failed = status != Status.OK
    safe = jax.tree.map(lambda x: jnp.where(failed, 1, x), order)
    done = _done(fills, safe.arrival_price, failed)
    if problem is None:
        amounts, model = _measured(safe, done, jnp.zeros_like(done.sizes)), None
    else:
        refusal = jnp.where(failed, status, _refusal(order, fills, problem))
        refused = refusal != Status.OK
        inside = harmless_where(refused, problem)
        half_spread = _half_spread(inside)[steps_of(done.times, inside.grid.times)]
        amounts = _measured(safe, done, jnp.where(refused, 0, half_spread))
        model = _attribution(amounts, safe, done, inside, refusal, (inputs, problem))
    return Shortfall(**spoilt(amounts, failed, inputs), attribution=model, status=status.astype(jnp.int32))


class _Done(NamedTuple):
    """Fills with harmless numbers where there are none: nothing done at the arrival price."""

    sizes: Float[Array, " fills"]
    move: Float[Array, " fills"]  # P_0 − p
    apart: Float[Array, " fills"]  # m − p, zero where m is not known
    known: Bool[Array, " fills"]
    fees: Float[Array, " fills"]
    times: Float[Array, " fills"]


def _done(fills: Fills, arrival: Array, failed: Array) -> _Done:
    live = fills.mask & ~failed
    prices = jnp.where(live, fills.prices, arrival)
    known = live & jnp.isfinite(fills.mids)
    mids = jnp.where(known, fills.mids, prices)
    times = jnp.where(live & jnp.isfinite(fills.times), fills.times, 0)
    sizes, fees = (jnp.where(live, x, 0) for x in (fills.sizes, fills.fees))
    return _Done(sizes, arrival - prices, mids - prices, known, fees, times)


def _measured(order: ParentOrder, done: _Done, half_spread: Array) -> dict[str, Array]:
    """All numbers of a shortfall that do not need a model, by name."""
    arrival, size = order.arrival_price, jnp.abs(order.shares)
    executed = jnp.sum(done.sizes)
    left = order.shares - executed
    apart = jnp.where(done.known, done.sizes * done.apart, jnp.abs(done.sizes) * half_spread)
    moved = jnp.where(done.known, done.sizes * (done.move - done.apart), done.sizes * done.move - apart)
    end = jnp.where(jnp.isnan(order.end_price), arrival, order.end_price)  # not known: then nothing is left
    some = executed != 0
    part = 1 / jnp.where(some, executed, 1)
    parts = {
        "delay": order.shares * (order.decision_price - arrival),
        "spread": jnp.sum(apart),
        "price_move": jnp.sum(moved),
        "opportunity": left * (arrival - end),
        "fees": jnp.sum(done.fees),
    }
    return parts | {
        "total": functools.reduce(operator.add, parts.values()),
        "executed": executed,
        "filled": executed / order.shares,
        "average_price": jnp.where(some, arrival - jnp.sum(done.sizes * done.move) * part, jnp.nan),
        "measured_spread": jnp.where(some, jnp.sum(jnp.where(done.known, done.sizes, 0)) * part, jnp.nan),
        "decision_value": size * order.decision_price,
        "arrival_value": size * arrival,
    }


def _attribution(
    amounts: dict[str, Array], order: ParentOrder, done: _Done, problem: Liquidation, refusal: Array, inputs: Any
) -> Attribution:
    refused = refusal != Status.OK
    trades = binned(jnp.where(refused, 0, done.sizes), done.times, problem.grid.times)
    trading, spread = execution_cost(problem, trades), jnp.sum(_half_spread(problem) * jnp.abs(trades))
    squares = jnp.sum(trades) ** 2
    if problem.convention == "almgren-chriss":
        squares = squares - jnp.sum(trades**2)
    permanent = problem.market.permanent_impact / 2 * squares
    expected, var = expected_cost(problem, trades), variance(problem, trades)
    risky = var > 0
    deviation = jnp.where(risky, jnp.sqrt(jnp.where(risky, var, 1)), 0)
    end = jnp.where(jnp.isnan(order.end_price), order.arrival_price, order.end_price)
    kept = jnp.where(refused, 0, problem.target) * (order.arrival_price - end)
    surprise = amounts["spread"] + amounts["price_move"] + amounts["opportunity"] + kept - expected
    status = jnp.where(refused | jnp.isfinite(expected), refusal, Status.INFEASIBLE)
    failed = status != Status.OK
    numbers = {
        "temporary_impact": trading - spread,
        "permanent_impact": permanent,
        "timing": amounts["price_move"] - (trading - spread) - permanent,
        "expected_spread": spread,
        "expected_cost": expected,
        "standard_deviation": deviation,
        "z_score": jnp.where(risky, surprise / jnp.where(risky, deviation, 1), jnp.nan),
    }
    poisoned = spoilt({**numbers, "trades": trades}, failed, inputs)
    return Attribution(**poisoned, status=status.astype(jnp.int32))


def _verdict(order: ParentOrder, fills: Fills) -> Int[Array, ""]:
    """The status that the inputs alone earn."""
    live, sign, size = fills.mask, jnp.sign(order.shares), jnp.abs(order.shares)
    right = (fills.sizes * sign > 0) & jnp.isfinite(fills.sizes) & is_positive(fills.prices)
    right = right & jnp.isfinite(fills.fees) & (jnp.isnan(fills.mids) | is_positive(fills.mids))
    prices = is_positive(order.decision_price) & is_positive(order.arrival_price)
    unknown = jnp.isnan(order.end_price)
    prices = prices & (unknown | is_positive(order.end_price))
    filled = jnp.sum(jnp.where(live & right, fills.sizes * sign, 0))
    slack = slack_of(size.dtype) * size
    sound = prices & (size > 0) & jnp.isfinite(size) & jnp.all(right | ~live) & (filled <= size + slack)
    status = jnp.where(unknown & (size - filled > slack), Status.INSUFFICIENT_DATA, Status.OK)
    return jnp.where(sound, status, Status.NONFINITE_INPUT)


def _refusal(order: ParentOrder, fills: Fills, problem: Liquidation) -> Int[Array, ""]:
    """The status of a comparison with a problem, from the inputs alone; the order and its fills are sound."""
    market = problem.market
    sound = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(problem)]
    sound += [jnp.all(x >= 0) for x in (market.volume, market.gap_variance, market.permanent_impact)]
    sound += [jnp.all(problem.grid.durations > 0), jnp.all(is_on_grid(fills, problem.grid.times) | ~fills.mask)]
    size = jnp.abs(order.shares)
    slack = slack_of(size.dtype) * size
    sound += [jnp.abs(problem.shares - problem.target - order.shares) <= slack]
    kept = jnp.isnan(order.end_price) & (jnp.abs(problem.target) > slack)
    status = jnp.where(kept, Status.INSUFFICIENT_DATA, Status.OK)
    return jnp.where(functools.reduce(jnp.logical_and, sound), status, Status.NONFINITE_INPUT)


def _half_spread(problem: Liquidation) -> Float[Array, " steps"]:
    return jnp.broadcast_to(problem.cost.half_spread(), (problem.grid.steps,))


def _check_filled(order: ParentOrder, fills: Fills) -> None:
    """Refuse concrete fills on the wrong side, more of them than was ordered, and shares left without an end price."""
    if not all(map(is_concrete, (order.shares, order.end_price, fills.sizes, fills.mask))):
        return
    ordered = float(order.shares)
    sizes = np.where(np.asarray(fills.mask), np.asarray(fills.sizes), 0) * np.sign(ordered)
    if np.any(sizes < 0):
        i = int(np.argmax(sizes < 0))
        raise ValueError(f"fills.sizes[{i}] must have the sign of order.shares, {ordered:g}, got {fills.sizes[i]}")
    left = abs(ordered) - float(np.sum(sizes))
    slack = slack_of(order.shares.dtype) * abs(ordered)
    if left < -slack:
        raise ValueError(f"fills.sizes sum to {np.sum(sizes):,.10g} shares, more than the {abs(ordered):,.10g} ordered")
    if left > slack and math.isnan(float(order.end_price)):
        raise ValueError(f"order.end_price is needed: {left:,.10g} shares are left, and it says what they are worth")
