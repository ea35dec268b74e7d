"""Many orders at once: `solve_many` for lists, frames and batches of mixed grids, on all devices of the host.

    problems ──► groups of one kind (costs, conventions) ──► a few sizes of grid ──► calls of one shape ──► in order
                                                             (padded with steps without volume, which change nothing)

Within a call `solve` puts the lanes in order of difficulty and works in chunks that stay in cache. Peak memory is about

    48 · (bytes of a number) · lanes · steps        a device, for the lanes of one call,

on top of the problems and the answers themselves; `memory` bounds it.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxexec.costs import PowerLawCost
from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.market import Market, TimeGrid
from jaxexec.numerics.records import remade
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.solve import solve
from jaxexec.solvers.verdict import raise_on_failure

Progress = Callable[[int, int], None]

_ARRAYS_A_LANE = 48
_LANES_ON_CPU = 1024  # what is done outside the iterations then stays in the last cache, too
_SIZES = (8, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
_STEP_CURVES = ("volatility", "volume", "drift", "gap_variance")


def solve_many(
    problems: Sequence[Liquidation] | Liquidation | Any,
    solver: ScheduleSolver | None = None,
    *,
    devices: Sequence[Any] | None = None,
    memory: float = 1e9,
    progress: Progress | None = None,
    throw: bool = False,
) -> Any:
    """Solve many orders, of mixed grids and kinds, and return the schedules in their order.

    Args:
        problems: a sequence of orders; or one `Liquidation` whose leaves have a leading axis of orders; or a frame
            (polars, pandas, or a mapping of columns) with a row an order, see `orders_from`.
        solver: the method; None means `LadderNewton()`.
        devices: devices to share the orders out to; None means all of the default backend. No data pass between them.
        memory: bytes that one call may use on a device, about; decides how many orders a call takes.
        progress: called with (orders done, orders in all) after every call.
        throw: raise on the first failed order instead of returning its status.

    Returns:
        A list of schedules of NumPy arrays; for a batch, one schedule with a leading axis of orders.

    Raises:
        ValueError: an element is not a `Liquidation`; the message names its index. Frames: see `orders_from`.
        RuntimeError: `throw` and a failed status.
    """
    devices = list(jax.devices() if devices is None else devices)
    if isinstance(problems, Liquidation):
        if np.ndim(problems.shares) != 1:
            raise ValueError("a batch of orders needs one leading axis on every leaf; put a single order in a list")
        answer = _solve_batch(problems, solver, devices, memory, _Counter(progress, problems.shares.shape[0]))
        if throw:
            raise_on_failure(answer)
        return answer
    orders = list(problems) if _is_sequence(problems) else orders_from(problems)
    for i, order in enumerate(orders):
        if not isinstance(order, Liquidation):
            raise ValueError(f"problems[{i}] must be a jaxexec.Liquidation, got {type(order).__name__}")
    counter = _Counter(progress, len(orders))
    answers: list[Schedule | None] = [None] * len(orders)
    for size, members in _groups(orders):
        batch = _stack([_padded(orders[i], size) for i in members])
        solved = _solve_batch(batch, solver, devices, memory, counter)
        for row, i in enumerate(members):
            answers[i] = _cut(solved, row, orders[i].grid.steps)
    found = [answer for answer in answers if answer is not None]
    if throw:
        for answer in found:
            raise_on_failure(answer)
    return found


def orders_from(frame: Any) -> list[Liquidation]:
    """Orders from the rows of a frame.

    Columns `shares`, `horizon`, `steps`, `volatility`, `volume`, `eta`, `phi`, `risk_aversion` are needed; `psi`,
    `target`, `permanent_impact`, `drift` and `gap_variance` may be there. Curves are numbers or lists of `steps`
    numbers. Costs are power laws; for other costs make the list of problems yourself.

    Raises:
        ValueError: a column is missing or not known, or a row's value is refused; field and row named.
    """
    columns = _columns(frame)
    needed = ("shares", "horizon", "steps", "volatility", "volume", "eta", "phi", "risk_aversion")
    optional = ("psi", "target", "permanent_impact", "drift", "gap_variance")
    missing = [name for name in needed if name not in columns]
    unknown = [name for name in columns if name not in needed + optional]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown columns {', '.join(unknown)}"
        raise ValueError(f"the frame of orders {problem}; it takes {', '.join(needed)} and {', '.join(optional)}")
    rows = len(columns["shares"])
    orders = []
    for i in range(rows):
        row = {name: values[i] for name, values in columns.items()}
        try:
            orders.append(_order(row))
        except (ValueError, TypeError) as error:
            raise ValueError(f"row {i}: {error}") from error
    return orders


def _order(row: dict[str, Any]) -> Liquidation:
    steps = row["steps"]
    if not float(steps).is_integer():
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
    given = {name: _number(row[name]) for name in (*_STEP_CURVES, "permanent_impact") if name in row}
    market = Market(TimeGrid.uniform(float(row["horizon"]), int(steps)), **given)
    cost = PowerLawCost(_number(row["eta"]), _number(row["phi"]), _number(row.get("psi", 0.0)))
    return Liquidation(
        float(row["shares"]), market, cost, float(row["risk_aversion"]), target=float(row.get("target", 0.0))
    )


def _number(value: Any) -> Any:
    if value is None:
        raise ValueError("a value is missing")
    return np.asarray(value, dtype=jnp.result_type(float)) if np.ndim(value) else float(value)


def _columns(frame: Any) -> dict[str, list]:
    if hasattr(frame, "to_dict") and hasattr(frame, "get_column"):  # polars
        return frame.to_dict(as_series=False)
    if hasattr(frame, "to_dict") and hasattr(frame, "iloc"):  # pandas
        return frame.to_dict("list")
    if isinstance(frame, dict):
        return {name: list(values) for name, values in frame.items()}
    raise ValueError(
        f"problems must be a sequence of Liquidation, a batch or a frame of orders, got {type(frame).__name__}"
    )


def _is_sequence(problems: Any) -> bool:
    return isinstance(problems, list | tuple) or (
        isinstance(problems, Iterable) and not hasattr(problems, "to_dict") and not isinstance(problems, dict)
    )


class _Counter:
    """Counts orders done, and tells."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def add(self, orders: int) -> None:
        self.done += orders
        if self.progress is not None:
            self.progress(self.done, self.total)


def _groups(orders: list[Liquidation]) -> list[tuple[int, list[int]]]:
    """Indices of orders that one compiled programme can solve, with the number of steps to pad them to."""
    kinds: dict[Any, list[int]] = {}
    for i, order in enumerate(orders):
        leaves, structure = jax.tree.flatten(order.cost)
        rest = (order.benchmark is None, order.terminal_penalty is None, order.convention, str(order.shares.dtype))
        kinds.setdefault((structure, tuple(np.ndim(x) for x in leaves), rest), []).append(i)
    found = []
    for members in kinds.values():
        lengths = {orders[i].grid.steps for i in members}
        sizes: dict[int, list[int]] = {}
        for i in members:
            size = orders[i].grid.steps if len(lengths) <= 2 else _size(orders[i].grid.steps)
            sizes.setdefault(size, []).append(i)
        found += sizes.items()
    return found


def _size(steps: int) -> int:
    return next((size for size in _SIZES if size >= steps), 1 << math.ceil(math.log2(steps)))


def _padded(order: Liquidation, size: int) -> Liquidation:
    """The order with steps added at the end in which nothing happens, its curves one value a step, on the host."""
    steps, more = order.grid.steps, size - order.grid.steps
    host = jax.tree.map(np.asarray, order)
    market = host.market

    def longer(x: np.ndarray, fill: Any) -> np.ndarray:
        return np.concatenate([x, np.full(more, fill, x.dtype)]) if more else x

    times = market.grid.times
    beyond = times[-1] + (times[-1] - times[0]) * np.arange(1, more + 1) / max(more, 1)
    grid = remade(market.grid, times=np.concatenate([times, beyond.astype(times.dtype)]))
    curves = {name: longer(np.broadcast_to(getattr(market, name), (steps,)), 0) for name in _STEP_CURVES}
    cost = jax.tree.map(lambda x: longer(x, x[-1]) if np.shape(x) == (steps,) else x, host.cost)
    benchmark = None if host.benchmark is None else longer(host.benchmark, host.benchmark[-1])
    return remade(host, market=remade(market, grid=grid, **curves), cost=cost, benchmark=benchmark)


def _stack(orders: list[Liquidation]) -> Liquidation:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *orders)


def _cut(batch: Schedule, row: int, steps: int) -> Schedule:
    one = jax.tree.map(lambda x: x[row], batch)
    nodes = {name: getattr(one, name)[: steps + 1] for name in ("times", "inventory")}
    return remade(one, **nodes, trades=one.trades[:steps], costate=one.costate[:steps])


def _solve_batch(
    batch: Liquidation, solver: ScheduleSolver | None, devices: list, memory: float, counter: _Counter
) -> Schedule:
    """A batch in calls of one shape, on the host in and out; the last call is filled up with its last order."""
    orders, steps = batch.shares.shape[0], batch.market.grid.times.shape[1] - 1
    if not orders:
        return _empty(batch, solver)
    width = _lanes_a_call(orders, steps, np.dtype(batch.shares.dtype).itemsize, len(devices), memory)
    call = _sharded(solver, tuple(devices))
    parts = []
    for start in range(0, orders, width):
        rows = np.minimum(np.arange(start, start + width), orders - 1)
        solved = call(jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], batch))
        taken = min(width, orders - start)
        parts.append(jax.tree.map(lambda x, taken=taken: np.asarray(x)[:taken], solved))
        counter.add(taken)
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def _lanes_a_call(orders: int, steps: int, word: int, devices: int, memory: float) -> int:
    """A power of two a device: few shapes are compiled, whatever the number of orders."""
    most = max(1, int(memory / (_ARRAYS_A_LANE * word * steps)))
    if jax.default_backend() == "cpu":
        most = min(most, _LANES_ON_CPU)
    wanted = max(1, math.ceil(orders / devices))
    lanes = 1 << math.ceil(math.log2(wanted)) if wanted <= 1024 else math.ceil(wanted / 1024) * 1024
    return devices * min(lanes, 1 << int(math.log2(most)))


@functools.lru_cache(maxsize=64)
def _sharded(solver: ScheduleSolver | None, devices: tuple) -> Callable[[Liquidation], Schedule]:
    solve_all = jax.vmap(functools.partial(solve, solver=solver))
    if len(devices) == 1:
        alone = jax.jit(solve_all)
        return lambda batch: alone(jax.device_put(batch, devices[0]))
    mesh = Mesh(np.asarray(devices), ("orders",))
    spread = PartitionSpec("orders")
    return jax.jit(jax.shard_map(solve_all, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False))


def _empty(batch: Liquidation, solver: ScheduleSolver | None) -> Schedule:
    shape = jax.eval_shape(jax.vmap(functools.partial(solve, solver=solver)), batch)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shape)
