"""Orders of the command line as one batch of problems, solved by `solve_many`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_NO_LIMIT = 1e6  # own volume over the others': more than any order takes


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
    rho_max: np.ndarray  # infinite without a limit


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

    import jaxexec as jx

    limited = bool(np.isfinite(orders.rho_max).any())

    def problem(order: Arrays) -> jx.Liquidation:
        grid = jx.TimeGrid.uniform(order.horizon, order.volatility.shape[0])
        market = jx.Market(grid, order.volatility, order.volume, order.permanent_impact)
        cost = jx.PowerLawCost(order.eta, order.phi, order.psi)
        capped = jx.ParticipationCap(cost, order.rho_max) if limited else cost
        return jx.Liquidation(order.shares, market, capped, order.risk_aversion)

    narrow = orders._replace(rho_max=np.minimum(orders.rho_max, _NO_LIMIT))
    batch = jax.jit(jax.vmap(problem))(Arrays(*(np.asarray(array, dtype=precision) for array in narrow)))
    told = 0

    def progress(done: int, _: int) -> None:
        nonlocal told
        advance(done - told)
        told = done

    return vars(jx.solve_many(batch, progress=progress))
