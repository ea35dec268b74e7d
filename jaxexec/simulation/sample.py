"""Shortfalls and whole paths that are kept: for pictures, for checks, and for risk measures of a sample."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.simulation.path import Course, path, shape
from jaxexec.simulation.process import PriceProcess, settled, trades_of
from jaxexec.simulation.refusal import guarded
from jaxexec.simulation.shocks import Shocks, block_size, draw, key_of, mirrored


class PricePaths(eqx.Module):
    """Simulated paths.

    Attributes:
        times: (nodes,) trading days.
        trades: (steps,) n, the same on all paths.
        price_change: (paths, nodes) S − S_0, currency per share.
        execution_price_change: (paths, steps) S̃ − S_0, currency per share; where nothing is traded the price's.
        execution_cost: (paths, steps) n h, spread and temporary impact, currency.
        shortfall: (paths,) currency.
        status: OK; NONFINITE_INPUT; INFEASIBLE for trades without volume or beyond a cap.
    """

    times: Float[Array, " nodes"]
    trades: Float[Array, " steps"]
    price_change: Float[Array, "paths nodes"]
    execution_price_change: Float[Array, "paths steps"]
    execution_cost: Float[Array, "paths steps"]
    shortfall: Float[Array, " paths"]
    status: Int[Array, ""]

    def plot(self):
        """The paths of the price, a matplotlib Figure."""
        from jaxexec.presentation import figures

        moves, times = np.asarray(self.price_change), np.asarray(self.times)
        return figures.fan(times, moves, "Simulated prices", "time (trading days)", "price change (currency per share)")


def price_paths(
    problem: Liquidation,
    trades: Schedule | ArrayLike,
    process: PriceProcess | None = None,
    *,
    paths: int = 256,
    seed: int | Array = 0,
) -> PricePaths:
    """Paths of the price and what was earned along them, every step kept. Traced and differentiable.

    Args:
        problem: the order.
        trades: a schedule, or (steps,) shares sold in each step.
        process: the price process; None is the order's own model.
        paths: how many; memory grows with them.
        seed: an integer, or a JAX key.

    Raises:
        ValueError: `paths` is not a positive integer, or `trades` has another shape.
    """
    _check_paths(paths)
    arrays = (problem, trades_of(problem, trades), settled(problem, process))
    return _price_paths(*arrays, key_of(seed), int(paths))


def shortfalls(
    problem: Liquidation,
    trades: Schedule | ArrayLike,
    process: PriceProcess | None = None,
    *,
    paths: int = 16_384,
    seed: int | Array = 0,
    antithetic: bool = True,
) -> Float[Array, " paths"]:
    """A sample of the implementation shortfall, currency; a positive one is a cost. Traced and differentiable.

    The same seed gives the same shocks: as a function of the trades the sample is as smooth as the model.

    Args:
        problem: the order.
        trades: a schedule, or (steps,) shares sold in each step.
        process: the price process; None is the order's own model.
        paths: how many, rounded up to an even number; whole paths are not kept, not for derivatives either.
        seed: an integer, or a JAX key.
        antithetic: each path comes with its mirror image.

    Returns:
        (paths,), NaN for inputs that `simulate` refuses.

    Raises:
        ValueError: `paths` is not a positive integer, or `trades` has another shape.
    """
    _check_paths(paths)
    arrays = (problem, trades_of(problem, trades), settled(problem, process))
    return _shortfalls(*arrays, key_of(seed), int(paths), antithetic)


@functools.partial(jax.jit, static_argnums=4)
def _price_paths(problem: Liquidation, trades: Array, process: PriceProcess, key: Array, paths: int) -> PricePaths:
    safe = guarded(problem, trades, process)
    drawn = draw(key, shape(safe.problem, safe.process), paths)
    found = jax.vmap(lambda shocks: path(safe.problem, safe.course, safe.process, shocks), in_axes=-1)(drawn)
    costs = jnp.broadcast_to(found.costs, found.levels.shape)
    trades = jnp.broadcast_to(safe.trades, costs.shape)
    traded = trades != 0
    own = jnp.where(traded, costs / jnp.where(traded, trades, 1), 0)
    return PricePaths(
        times=safe.spoilt(safe.problem.grid.times),
        trades=safe.spoilt(safe.trades),
        price_change=safe.spoilt(found.moves),
        execution_price_change=safe.spoilt(found.levels - own),
        execution_cost=safe.spoilt(costs),
        shortfall=safe.spoilt(found.shortfall),
        status=safe.status,
    )


@functools.partial(jax.jit, static_argnums=(4, 5))
def _shortfalls(
    problem: Liquidation, trades: Array, process: PriceProcess, key: Array, paths: int, antithetic: bool
) -> Array:
    safe = guarded(problem, trades, process)
    drawn = math.ceil(paths / 2) if antithetic else paths
    block = block_size(drawn)
    blocks = math.ceil(drawn / block)

    # Drawn anew on the way back: what is kept for a derivative is a number a path, not a number a step.
    @jax.checkpoint
    def sample(common: Course, problem: Liquidation, process: PriceProcess, number: Array) -> Array:
        shocks = draw(jax.random.fold_in(key, number), shape(problem, process), block)

        def losses(some: Shocks) -> Array:
            return jax.vmap(lambda one: path(problem, common, process, one).shortfall, in_axes=-1)(some)

        return jnp.stack([losses(shocks), losses(mirrored(shocks))]) if antithetic else losses(shocks)[None]

    def step(_: None, number: Array) -> tuple[None, Array]:
        return None, sample(safe.course, safe.problem, safe.process, number)

    _, found = lax.scan(step, None, jnp.arange(blocks, dtype=jnp.int32))
    together = jnp.moveaxis(found, 1, 0).reshape(found.shape[1], -1)[:, :drawn]
    return safe.spoilt(together.reshape(-1))


def _check_paths(paths: int) -> None:
    if isinstance(paths, bool) or not isinstance(paths, int | np.integer) or paths < 1:
        raise ValueError(f"paths must be a positive integer, got {paths!r}")


__all__ = ["PricePaths", "price_paths", "shortfalls"]
