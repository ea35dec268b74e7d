"""Textbook regressions in dense NumPy, written for being read: what the fast ones are compared with."""

from typing import NamedTuple

import numpy as np


class Data(NamedTuple):
    """Rows of one stock, oldest first; `day` says which stretch each belongs to."""

    y: np.ndarray
    z: np.ndarray
    day: np.ndarray


def correlated(rows: int, seed: int, days: int = 1) -> Data:
    """An intercept and two regressors with serial correlation, errors with both diseases; regressors in odd units."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 2))
    for t in range(1, rows):
        x[t] += 0.5 * x[t - 1]
    e = rng.standard_normal(rows) * (0.5 + np.abs(x[:, 0]))
    for t in range(1, rows):
        e[t] += 0.45 * e[t - 1]
    x = x @ np.array([[1.0, 0.3], [0.0, 40.0]]) + [3.0, 0.0]
    return Data(1.0 + x @ [0.5, -0.02] + e, np.column_stack([np.ones(rows), x]), np.arange(rows) * days // rows)


def ordinary(d: Data) -> np.ndarray:
    return np.linalg.lstsq(d.z, d.y)[0]


def scores(d: Data) -> np.ndarray:
    return d.z * (d.y - d.z @ ordinary(d))[:, None]


def apart(d: Data) -> np.ndarray:
    """How many rows lie between two, infinite across days."""
    step = np.abs(np.subtract.outer(np.arange(len(d.y)), np.arange(len(d.y)))).astype(float)
    return np.where(np.equal.outer(d.day, d.day), step, np.inf)


def autocovariance(h: np.ndarray, distance: np.ndarray, lag: int) -> float:
    """Σ_t h_t h_{t−lag} within days; twice that is what both sides of the matrix hold."""
    return float(h @ (distance == lag) @ h) / (1 if lag == 0 else 2)


def seen(h: np.ndarray, convention: str) -> np.ndarray:
    return h if convention == "sandwich" else h / np.sqrt((h**2).sum(0))


def newey_west_1994(h: np.ndarray, distance: np.ndarray, rows: int, first: int, convention: str) -> int:
    hw = seen(h, convention)[:, 1:].sum(1)
    sigma = [autocovariance(hw, distance, j) for j in range(int(first * (rows / 100) ** (2 / 9)) + 1)]
    s0 = sigma[0] + 2 * sum(sigma[1:])
    s1 = 2 * sum(j * s for j, s in enumerate(sigma))
    return int(1.1447 * ((s1 / s0) ** 2) ** (1 / 3) * rows ** (1 / 3))


def andrews(h: np.ndarray, distance: np.ndarray, convention: str) -> float:
    now, before = np.nonzero(np.tril(distance == 1))
    above = below = 0.0
    for column in seen(h, convention)[:, 1:].T:
        x = np.column_stack([np.ones(len(now)), column[before]])
        b, rss = np.linalg.lstsq(x, column[now])[:2]
        above += 4 * b[1] ** 2 * rss[0] ** 2 / ((1 - b[1]) ** 6 * (1 + b[1]) ** 2)
        below += rss[0] ** 2 / (1 - b[1]) ** 4
    return 1.1447 * (above / below * len(h)) ** (1 / 3)


def hac(d: Data, rule: str | int, prewhiten: bool, convention: str) -> tuple[np.ndarray, float]:
    """Covariance of the coefficients and S."""
    h, distance, rows = scores(d), apart(d), len(d.y)
    recolour = np.eye(d.z.shape[1])
    if prewhiten:
        now, before = np.nonzero(np.tril(distance == 1))
        a = np.linalg.lstsq(h[before], h[now])[0].T
        h, distance = h[now] - h[before] @ a.T, distance[np.ix_(now, now)]
        recolour = np.linalg.inv(np.eye(len(a)) - a)
    if rule == "andrews":
        width = andrews(h, distance, convention)
    elif rule == "newey-west-1994":
        width = newey_west_1994(h, distance, rows, 3 if prewhiten else 4, convention) + 1
    else:
        width = (int(4 * (rows / 100) ** (2 / 9)) if isinstance(rule, str) else rule) + 1
    meat = h.T @ np.maximum(1 - distance / width, 0) @ h
    bread = np.linalg.inv(d.z.T @ d.z)
    corrected = convention == "stata" or (convention == "sandwich" and rule == "andrews")
    factor = rows / (rows - d.z.shape[1]) if corrected else 1
    return factor * bread @ recolour @ meat @ recolour.T @ bread, width


def whitened(d: Data, rho: float, kind: str) -> Data:
    """z_t − ρ z_{t−1}; the first of each day times √(1 − ρ²), or not at all."""
    first = np.r_[True, np.diff(d.day) != 0]
    old = np.maximum(np.arange(len(d.y)) - 1, 0)
    edge = np.sqrt(1 - rho**2)
    y = np.where(first, edge * d.y, d.y - rho * d.y[old])
    z = np.where(first[:, None], edge * d.z, d.z - rho * d.z[old])
    keep = np.ones(len(y), bool) if kind == "prais-winsten" else ~first
    return Data(y[keep], z[keep], d.day[keep])


def autocorrelation(u: np.ndarray, day: np.ndarray, kind: str) -> float:
    pair = np.r_[False, np.diff(day) == 0]
    if kind == "yule-walker":
        u = u - u.mean()
        return float((u[pair] @ u[np.roll(pair, -1)] / pair.sum()) / (u @ u / len(u)))
    lagged = u[np.roll(pair, -1)]
    return float(u[pair] @ lagged / (lagged @ lagged if kind == "regression" else u @ u))


def feasible(d: Data, kind: str, how: str) -> tuple[float, Data]:
    """ρ and the transformed rows at the fixed point."""
    rho = 0.0
    b = ordinary(d)
    for _ in range(500):
        rho = autocorrelation(d.y - d.z @ b, d.day, how)
        b = ordinary(whitened(d, rho, kind))
    return rho, whitened(d, rho, kind)
