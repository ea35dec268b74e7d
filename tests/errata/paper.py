"""The case of Almgren and Chriss's paper that the errata are shown on, and its shortfall shock by shock."""

import numpy as np

import jaxexec as jx

SHARES, DAYS, STEPS = 1e6, 5.0, 5
SIGMA, ETA, KAPPA, PSI, LAMBDA = 0.95, 2.5e-6, 2.5e-7, 0.0625, 2e-6
VOLUME = 5e6  # any will do: their impact knows no volume


def order(steps=STEPS, *, psi=PSI, weight=LAMBDA, permanent=KAPPA, convention="almgren-chriss"):
    """One million shares over five days; their η is η/V here, their λ is γ/2."""
    market = jx.Market(jx.TimeGrid.uniform(DAYS, steps), SIGMA, VOLUME, permanent_impact=permanent)
    return jx.Liquidation(SHARES, market, jx.QuadraticCost(ETA * VOLUME, psi), 2 * weight, convention=convention)


def inventory_of(trades):
    """x_0, …, x_N."""
    return SHARES - np.r_[0.0, np.cumsum(np.asarray(trades))]


def trades_of(inner):
    """Trades of the inventories between the first and the last."""
    return -np.diff(np.r_[SHARES, inner, 0.0])


def shortfall(trades, shocks, *, spoken_for=None, scale=None, start=50.0):
    """X S_0 − Σ n_k S̃_k of one path of prices, sold at S̃_k = S_{k−1} − ε − ηn_k/τ.

    `spoken_for` is the time that the permanent impact g divides by, τ unless given; `scale` is the size of a shock,
    σ√τ unless given.
    """
    trades = np.asarray(trades)
    tau = DAYS / trades.size
    price, cash = start, 0.0
    for sold, shock in zip(trades, shocks, strict=True):
        cash += sold * (price - PSI - ETA * sold / tau)
        price += (SIGMA * tau**0.5 if scale is None else scale) * shock
        price -= tau * KAPPA * sold / (tau if spoken_for is None else spoken_for)
    return SHARES * start - cash


def law(trades, **changes):
    """Mean and variance of `shortfall`, exactly: it is linear in independent shocks of mean 0 and variance 1."""
    size = np.asarray(trades).size
    mean = shortfall(trades, np.zeros(size), **changes)
    slopes = np.array([shortfall(trades, one, **changes) - mean for one in np.eye(size)])
    return mean, np.sum(slopes**2)
