"""Many orders at once: padded to chunks of one size, so that one compiled program schedules them all."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

CHUNK = 1000
"""Orders a chunk."""


class Arrays(NamedTuple):
    """Orders as arrays with a leading axis of orders; curves have shape (orders, steps)."""

    horizon: np.ndarray
    shares: np.ndarray
    volatility: np.ndarray
    volume: np.ndarray
    permanent_impact: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    psi: np.ndarray
    risk_aversion: np.ndarray


def stack(rows: Sequence[Arrays]) -> Arrays:
    """One order after another."""
    return Arrays(*(np.stack(parts) for parts in zip(*rows, strict=True)))


def schedule(
    orders: Arrays, precision: str, advance: Callable[[int], None] = lambda done: None
) -> dict[str, np.ndarray]:
    """The schedules of many orders.

    Args:
        orders: The orders, at least one.
        precision: `float64` or `float32`.
        advance: Told how many orders more are done.

    Returns:
        The fields of `jaxexec.Schedule` by name, each with a leading axis of orders, on the host.
    """
    import jax

    count = len(orders.shares)
    solve_chunk = _compiled()
    parts = []
    for first in range(0, count, CHUNK):
        index = np.minimum(np.arange(first, first + min(CHUNK, _padded(count))), count - 1)
        chunk = Arrays(*(np.asarray(array[index], dtype=precision) for array in orders))
        used = min(CHUNK, count - first)
        parts.append({name: x[:used] for name, x in jax.device_get(vars(solve_chunk(chunk))).items()})
        advance(used)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _padded(count: int) -> int:
    """A few sizes stand for all, so that little is compiled: powers of ten."""
    return 10 ** len(str(max(count - 1, 1)))


@functools.cache
def _compiled():
    """The one program: a batch of orders to their schedules."""
    import jax

    import jaxexec as jx

    def one(order: Arrays):
        grid = jx.TimeGrid.uniform(order.horizon, order.volatility.shape[0])
        market = jx.Market(grid, order.volatility, order.volume, order.permanent_impact)
        cost = jx.PowerLawCost(order.eta, order.phi, order.psi)
        return jx.solve(jx.Liquidation(order.shares, market, cost, order.risk_aversion))

    return jax.jit(jax.vmap(one))
