"""Orders of the command line as one batch of problems, solved by `solve_many`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jax import Array

    from jaxexec import Liquidation, Market

Benchmark = Literal["arrival", "twap", "vwap", "close"]

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
    orders: Arrays,
    precision: str,
    advance: Callable[[int], None] = lambda done: None,
    benchmark: Benchmark = "arrival",
) -> dict[str, np.ndarray]:
    """The schedules of many orders.

    Args:
        orders: The orders, at least one.
        precision: `float64` or `float32`.
        advance: Told how many orders more are done.
        benchmark: What risk is measured from: the arrival price, the order traded evenly in time or in volume, or all
            of it at the close.

    Returns:
        The fields of `jaxexec.Schedule` by name, each with a leading axis of orders, on the host.
    """
    import jax

    import jaxexec as jx

    limited = bool(np.isfinite(orders.rho_max).any())
    batch = jax.jit(jax.vmap(lambda order: problem(order, benchmark, limited)))(narrowed(orders, precision))
    told = 0

    def progress(done: int, _: int) -> None:
        nonlocal told
        advance(done - told)
        told = done

    return vars(jx.solve_many(batch, progress=progress))


def narrowed(orders: Arrays, precision: str) -> Arrays:
    """The orders in that precision, with a finite limit where there is none."""
    finite = orders._replace(rho_max=np.minimum(orders.rho_max, _NO_LIMIT))
    return Arrays(*(np.asarray(array, dtype=precision) for array in finite))


def problem(order: Arrays, benchmark: Benchmark, limited: bool) -> "Liquidation":
    """One order as `jaxexec` knows it. Traced.

    Args:
        order: without the leading axis.
        benchmark: What risk is measured from.
        limited: Whether its limit is one.
    """
    import jaxexec as jx

    grid = jx.TimeGrid.uniform(order.horizon, order.volatility.shape[0])
    market = jx.Market(grid, order.volatility, order.volume, order.permanent_impact)
    cost = jx.PowerLawCost(order.eta, order.phi, order.psi)
    capped = jx.ParticipationCap(cost, order.rho_max) if limited else cost
    path = _benchmark(benchmark, order.shares, market)
    return jx.Liquidation(order.shares, market, capped, order.risk_aversion, benchmark=path)


def _benchmark(name: Benchmark, shares: Any, market: "Market") -> "Array | None":
    """Inventories of the benchmark at the nodes; none for the arrival price."""
    import jax.numpy as jnp

    if name == "arrival":
        return None
    if name == "close":
        return jnp.broadcast_to(shares, market.grid.times.shape)
    each = market.grid.durations if name == "twap" else market.step_volume
    total = jnp.sum(each)
    left = 1 - jnp.cumsum(each) / jnp.where(total > 0, total, 1)
    return shares * jnp.concatenate([jnp.ones_like(left[:1]), left[:-1], jnp.zeros_like(left[:1])])
