"""One stock's simulated day: order flow, prices that answer to it, times, and quotes around the trades.

The price obeys Sadka's equation (2006, Journal of Financial Economics 80, eq. 9), with D the sign and DV the
signed size of a trade, C and λ the fixed and variable permanent impact, ζ and ℓ the transitory ones:

    Δp_t = C (D_t − E[D_t]) + λ (DV_t − E[DV_t]) + ζ ΔD_t + ℓ ΔDV_t + u_t,    u_t ~ N(0, σ_u²)

E[DV_t] is the least-squares projection of DV on a constant and five lags, E[D_t] = erf(E[DV_t]/(s √2)) with s
the residual deviation of that projection (divisor n − 5 − 6): the expectations that the estimator forms, so
that its regression is correctly specified in every sample and its errors are those of u alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf
from typing import NamedTuple

import numpy as np

from jaxexec.tape.clock import SECOND
from jaxexec.tape.schema import TICKS_PER_UNIT

LAGS = 5

_OPEN, _CLOSE = 34_200 * SECOND, 57_600 * SECOND
_CENT = 100
_LOWEST_PRICE = 5.0


@dataclass(frozen=True)
class Truth:
    """True parameters of one stock.

    Attributes:
        trades: number of trades.
        permanent_fixed: C, currency per share.
        permanent_variable: λ, currency per share per share.
        transitory_fixed: ζ, currency per share.
        transitory_variable: ℓ, currency per share per share.
        noise: σ_u, currency per share a trade.
        autoregression: of the latent signed size at lags 1..5; empty in the realistic model.
        sign_persistence: probability that a sign repeats one of the last five; None in the exact model.
        size_scale: shares.
        midpoint_probability: share of trades at the midpoint.
        intraday_curvature: b in the density of trading times, ∝ 1 + b (2u − 1)², u the elapsed part of the
            session.
        opening_price: currency.
    """

    trades: int
    permanent_fixed: float
    permanent_variable: float
    transitory_fixed: float
    transitory_variable: float
    noise: float
    autoregression: tuple[float, ...]
    sign_persistence: float | None
    size_scale: float
    midpoint_probability: float
    intraday_curvature: float
    opening_price: float


class Day(NamedTuple):
    """Arrays of one day; prices in ticks of 1e-4 currency, times in nanoseconds since midnight."""

    time: np.ndarray
    ticks: np.ndarray
    size: np.ndarray
    sign: np.ndarray
    volatility: float
    quote_time: np.ndarray
    bid: np.ndarray
    ask: np.ndarray


def draw_truth(trades: float, tail: float, exact: bool, rng: np.random.Generator) -> Truth:
    """Parameters of the size found on liquid stocks; the number of trades is lognormal with σ = `tail`."""
    z = rng.standard_normal(8)
    u = rng.random(4)
    count = max(50, round(trades * np.exp(tail * z[0] - tail**2 / 2))) if tail else int(trades)
    latent = (0.6 + 0.6 * u[0]) * np.array([0.25, 0.10, 0.05, 0.03, 0.02])
    return Truth(
        trades=count,
        permanent_fixed=float(3e-3 * np.exp(0.4 * z[1])),
        permanent_variable=float(5e-6 * np.exp(0.4 * z[2])),
        transitory_fixed=float(6e-3 * np.exp(0.3 * z[3])),
        transitory_variable=float(2e-6 * np.exp(0.4 * z[4])),
        noise=float(1e-2 * np.exp(0.3 * z[5])),
        autoregression=tuple(latent.tolist()) if exact else (),
        sign_persistence=None if exact else float(0.2 + 0.5 * u[0]),
        size_scale=float(300.0 * np.exp(0.4 * z[6])) if exact else float(90.0 * np.exp(0.3 * z[6])),
        midpoint_probability=float(0.02 + 0.10 * u[1]),
        intraday_curvature=float(1.0 + 3.0 * u[2]),
        opening_price=float(np.round(np.exp(3.9 + 0.5 * z[7]), 2)),
    )


def simulate(truth: Truth, exact: bool, rng: np.random.Generator, flickers: int = 1) -> Day:
    """A day of trades and quotes; see the module for the price equation.

    Exact: prices are rounded to 1e-4 only; a midpoint trade has D = DV = 0. Realistic: prices lie on cents, a
    midpoint trade keeps its true side and size in the price equation, quotes flicker.
    """
    at_midpoint = rng.random(truth.trades) < truth.midpoint_probability
    if exact:
        sign, flow, size = autoregressive_flow(truth, at_midpoint, rng)
    else:
        sign, size = repeating_signs(truth, rng), mixed_sizes(truth, rng)
        flow = (sign * size).astype(np.float64)
    path, volatility = _prices(truth, sign.astype(np.float64), flow, rng)
    time = trading_times(truth, not exact, rng)
    if exact:
        return Day(time, path, size, sign, volatility, *_exact_quotes(time, path, sign, rng))
    ticks, bid, ask = _on_cents(path, sign, at_midpoint, rng)
    return Day(time, ticks, size, sign, volatility, *_flickering_quotes(time, bid, ask, rng, flickers))


def autoregressive_flow(
    truth: Truth, at_midpoint: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs int8, signed sizes float64 and sizes int64 of an autoregression that is gated by midpoint trades.

    Given the past, DV_t is 0 with probability π; else it is x = Σ a_j DV_{t−j} + σ ε rounded to whole shares,
    at least one. So E[DV_t | past] = (1 − π) Σ a_j DV_{t−j}, linear in what is observed.
    """
    a1, a2, a3, a4, a5 = truth.autoregression
    shocks = (truth.size_scale * rng.standard_normal(truth.trades)).tolist()
    size = rng.integers(1, 1 + round(truth.size_scale), truth.trades)
    flow: list[float] = []
    q1 = q2 = q3 = q4 = q5 = 0.0
    # Rounding and the gate make each trade depend on the last, so that there is nothing to vectorise over.
    for shock, gated in zip(shocks, at_midpoint.tolist(), strict=True):
        x = a1 * q1 + a2 * q2 + a3 * q3 + a4 * q4 + a5 * q5 + shock
        whole = 0.0 if gated else max(1.0, float(round(abs(x)))) * (1.0 if x >= 0 else -1.0)
        q5, q4, q3, q2, q1 = q4, q3, q2, q1, whole
        flow.append(whole)
    signed = np.array(flow)
    return (
        np.sign(signed).astype(np.int8),
        signed,
        np.where(signed == 0, size, np.abs(signed)).astype(np.int64),
    )


def repeating_signs(truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """Signs, int8: each repeats one of the last five with the truth's probability, else is fair (a DAR
    process).

    A repeated sign points at its source; pointers are followed by doubling, so that log₂ n steps resolve all.
    """
    n = truth.trades
    sign = np.where(rng.random(n) < 0.5, 1, -1).astype(np.int8)
    back = rng.integers(1, LAGS + 1, n)
    places = np.arange(n)
    repeats = (rng.random(n) < (truth.sign_persistence or 0.0)) & (places >= LAGS)
    source = np.where(repeats, places - back, places)
    while True:
        further = source[source]
        if np.array_equal(further, source):
            return sign[source]
        source = further


def mixed_sizes(truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """Shares, int64: half are single round lots, the rest lognormal, every other one rounded to lots."""
    n = truth.trades
    drawn = np.clip(truth.size_scale * np.exp(1.1 * rng.standard_normal(n)), 1, 500_000)
    lots = 100 * np.maximum(1, np.round(drawn / 100))
    odd = np.where(rng.random(n) < 0.5, lots, np.ceil(drawn))
    return np.where(rng.random(n) < 0.5, 100, odd).astype(np.int64)


def expectations(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[DV_t] and E[D_t] of a day, (trades − 5,), for t = 6..n; see the module."""
    n = len(flow)
    scale = max(1.0, float(np.abs(flow).max()))
    flow = flow / scale
    lagged = np.stack([np.ones(n - LAGS), *(flow[LAGS - j : n - j] for j in range(1, LAGS + 1))])
    # einsum, not BLAS, whose sums may change with the number of threads and with them a rounded price
    gram, moments = np.einsum("it,jt->ij", lagged, lagged), np.einsum("it,t->i", lagged, flow[LAGS:])
    expected = np.einsum("i,it->t", np.linalg.lstsq(gram, moments, rcond=None)[0], lagged)
    residual = flow[LAGS:] - expected
    deviation = np.sqrt(np.sum(residual**2) / max(1, n - LAGS - LAGS - 1))
    scaled = expected / (deviation * np.sqrt(2.0)) if deviation > 0 else np.zeros_like(expected)
    return scale * expected, np.fromiter(map(erf, scaled.tolist()), np.float64, n - LAGS)


def trading_times(truth: Truth, bursts: bool, rng: np.random.Generator) -> np.ndarray:
    """Strictly increasing times, int64 nanoseconds, at least 8 ns apart, with the truth's U-shaped density.

    The distribution function is a cubic in 2u − 1, inverted in closed form by its hyperbolic sine solution.
    """
    n, b = truth.trades, truth.intraday_curvature
    level = rng.random(n)
    if bursts:  # four in ten trades follow another at once
        follows = np.flatnonzero(rng.random(n) < 0.4)
        level[follows] = np.minimum(level[follows - 1] + 1e-6 * rng.random(len(follows)), 1 - 1e-9)
    c = (2.0 * np.sort(level) - 1.0) * (1.0 + b / 3.0)
    elapsed = (1.0 + 2.0 / np.sqrt(b) * np.sinh(np.arcsinh(1.5 * c * np.sqrt(b)) / 3.0)) / 2.0
    room = _CLOSE - _OPEN - SECOND - 8 * n
    return _OPEN + SECOND // 2 + (np.clip(elapsed, 0, 1) * room).astype(np.int64) + 8 * np.arange(n)


def _prices(truth: Truth, sign: np.ndarray, flow: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Prices in ticks, int64 (trades,), and the volatility of their permanent part, currency/share/√day."""
    noise = truth.noise * rng.standard_normal(len(flow))
    permanent = noise.copy()
    if len(flow) > 2 * LAGS + 1:
        expected_flow, expected_sign = expectations(flow)
        permanent[LAGS:] += truth.permanent_fixed * (sign[LAGS:] - expected_sign)
        permanent[LAGS:] += truth.permanent_variable * (flow[LAGS:] - expected_flow)
    path = np.cumsum(permanent) + truth.transitory_fixed * sign + truth.transitory_variable * flow
    # A long walk may reach zero: the level, which no difference sees, is then lifted.
    path += max(truth.opening_price, np.ceil(_LOWEST_PRICE - path.min()))
    volatility = float(np.sqrt(np.sum(permanent**2)))
    return np.round(path * TICKS_PER_UNIT).astype(np.int64), volatility


def _exact_quotes(
    time: np.ndarray, ticks: np.ndarray, sign: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One quote strictly between each trade and the one before: a buy near the ask, a sell near the bid."""
    n = len(time)
    half = 50 * rng.integers(1, 5, n)
    inside = (rng.random(n) < 0.2) * rng.integers(0, 50, n)  # short of the quote, but on its own side of the midpoint
    middle = ticks - sign * (half - inside)
    gap = np.diff(time, prepend=time[:1] - SECOND // 4)
    before = 1 + (rng.random(n) * (gap - 1)).astype(np.int64)
    return time - np.minimum(before, gap - 1), middle - half, middle + half


def _on_cents(
    path: np.ndarray, sign: np.ndarray, at_midpoint: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trade prices, bids and asks: whole cents but for midpoints and price improvement within the spread."""
    n = len(path)
    touched = np.round(path / _CENT).astype(np.int64) * _CENT
    spread = _CENT * rng.integers(1, 4, n)
    ask = np.where(sign > 0, touched, touched + spread)
    bid = ask - spread
    improved = np.where(rng.random(n) < 0.05, 10, 0)
    return np.where(at_midpoint, (bid + ask) // 2, touched - sign * improved), bid, ask


def _flickering_quotes(
    time: np.ndarray, bid: np.ndarray, ask: np.ndarray, rng: np.random.Generator, flickers: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`flickers` + 2 quotes a trade: one at the very time of the trade before (not to be used for it), some that
    flicker between, and the one that prevails.
    """
    n = len(time)
    previous = np.concatenate([time[:1] - SECOND // 4, time[:-1]])
    gap = time - previous
    between = previous + 1 + (np.sort(rng.random((flickers, n)), axis=0) * (gap // 2 - 1)).astype(np.int64)
    prevailing = time - 1 - (rng.random(n) * (gap // 4)).astype(np.int64)
    step = _CENT * rng.integers(-2, 3, (1 + flickers, n))
    wider = np.where(np.arange(1 + flickers) > 0, _CENT, 0)[:, None]
    bids = np.concatenate([bid + step, bid[None]])
    asks = np.concatenate([ask + step + wider, ask[None]])
    return np.concatenate([previous[None], between, prevailing[None]]).T.ravel(), bids.T.ravel(), asks.T.ravel()
