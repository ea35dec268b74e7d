"""Orders that were executed, as arrays of one shape: exact sums beside them, and days that go as a model says."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np

import jaxexec as jx

FILLS = 8  # every test pads to this length, so that one programme serves all


def padded(prices, sizes, fees=0.0, mids=None, times=None, length=FILLS) -> jx.Fills:
    """Fills padded with numbers that must not matter."""
    more = length - len(prices)
    fees = np.broadcast_to(fees, len(prices))
    mids = np.full(len(prices), np.nan) if mids is None else mids
    times = np.zeros(len(prices)) if times is None else times
    columns = [np.append(x, np.full(more, np.nan)) for x in (prices, sizes, fees, mids, times)]
    return jx.Fills(*columns, mask=np.arange(length) < len(prices))


def exact_total(shares, decision, end, prices, sizes, fees) -> float:
    """Paper less real portfolio in rational arithmetic: X P_d − Σ n p − (X − E) P_N + Σ f."""
    x, d, e = (Fraction(float(v)) for v in (shares, decision, end))
    pairs = [(Fraction(float(p)), Fraction(float(n))) for p, n in zip(prices, sizes, strict=True)]
    real = sum((p * n for p, n in pairs), Fraction(0))
    left = x - sum((n for _, n in pairs), Fraction(0))
    return float(x * d - real - left * e + sum((Fraction(float(f)) for f in fees), Fraction(0)))


def as_expected(problem: jx.Liquidation, trades, arrival: float = 50.0, decision: float = 50.2):
    """The order and fills, one in the middle of each step, of a day without noise: prices are the model's."""
    trades = jnp.asarray(trades)
    market, times = problem.market, problem.grid.times
    before = jnp.cumsum(trades) - trades
    moved = before + (trades / 2 if problem.convention == "continuous" else 0)
    volume = jnp.broadcast_to(market.step_volume, trades.shape)
    cost = volume * problem.cost.value(trades / volume)
    prices = arrival - market.permanent_impact * moved - cost / trades
    end = arrival - market.permanent_impact * jnp.sum(trades)
    order = jx.ParentOrder(problem.shares - problem.target, decision, arrival, end)
    return order, jx.Fills(prices, trades, times=(times[1:] + times[:-1]) / 2)
