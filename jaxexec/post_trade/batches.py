"""Many orders at once: fills padded to a few lengths, orders to a few batch sizes, so that few programmes compile."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxexec.liquidation import Liquidation
from jaxexec.numerics.records import record, remade
from jaxexec.post_trade.benchmarks import slippage
from jaxexec.post_trade.executions import Fills, ParentOrder
from jaxexec.post_trade.frames import BENCHMARKS, Book, id_of
from jaxexec.post_trade.regret import regret
from jaxexec.post_trade.shortfall import columns_of, implementation_shortfall
from jaxexec.solvers.plan import ScheduleSolver

SLIPPAGES = ("decision", "arrival", *BENCHMARKS)
_CELLS = 1 << 21  # fills, padding included, that one call takes
_LANES = 2048  # orders that one call takes


class Group:
    """Orders whose problems have the same shapes: their rows, and the problems with a leading axis."""

    def __init__(self, rows: np.ndarray, problems: Liquidation):
        self.rows = rows
        self.problems = problems


def groups_of(problems: Mapping[str, Liquidation] | Liquidation | None, ids: Sequence[str]) -> list[Group]:
    """The problems of the orders, by shape.

    Raises:
        ValueError: what is given is no problem, one of no order, or a batch of another length than there are orders.
    """
    if problems is None:
        return []
    if isinstance(problems, Liquidation):
        if np.shape(problems.shares) != (len(ids),):
            raise ValueError(
                f"problems must have one leading axis of {len(ids)} orders, got {np.shape(problems.shares)}"
            )
        return [Group(np.arange(len(ids)), jax.tree.map(np.asarray, problems))]
    if not isinstance(problems, Mapping):
        raise ValueError(f"problems must be a batch of them or a mapping by order_id, got {type(problems).__name__}")
    named = {id_of(name): problem for name, problem in problems.items()}
    known = set(ids)
    unknown = next((name for name in named if name not in known), None)
    if unknown is not None:
        raise ValueError(f"problems[{unknown!r}]: no order has this order_id")
    kinds: dict[Any, list[int]] = {}
    for row, name in enumerate(ids):
        if name not in named:
            continue
        if not isinstance(named[name], Liquidation):
            raise ValueError(f"problems[{name!r}] must be a jaxexec.Liquidation, got {type(named[name]).__name__}")
        leaves, structure = jax.tree.flatten(named[name])
        kinds.setdefault((structure, tuple((np.shape(x), str(x.dtype)) for x in leaves)), []).append(row)
    return [
        Group(np.array(rows), jax.tree.map(lambda *leaves: np.stack(leaves), *(named[ids[i]] for i in rows)))
        for rows in kinds.values()
    ]


def measure(book: Book, groups: Sequence[Group]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Shortfall and slippages of every order, (orders,) by name; and of each group its trades, (members, steps).

    In 64 bits whatever JAX runs in: prices lose the pennies that matter in 32.
    """
    count = len(book.ids)
    columns: dict[str, Any] = {}
    inside = np.concatenate([np.zeros(0, int), *(group.rows for group in groups)])
    with jax.enable_x64(True):
        if not count:
            answer = _measured(*_padded(book, np.zeros(0, int), _rounded(0)))
            return _columns(*jax.tree.map(np.asarray, answer)), []
        _fill(columns, count, book, np.setdiff1d(np.arange(count), inside), None)
        return columns, [_fill(columns, count, book, group.rows, group.problems) for group in groups]


def regrets(group: Group, trades: np.ndarray, solver: ScheduleSolver | None) -> dict[str, np.ndarray]:
    """What the schedules of a group left on the table, (members,) by name; in the precision of its problems."""
    parts = []
    call = _regret(solver)
    dtype = np.dtype(group.problems.shares.dtype)
    with jax.enable_x64(True):
        for taken, rows in _calls(np.arange(len(group.rows)), _LANES):
            some = jax.tree.map(lambda x, rows=rows: x[rows], group.problems)
            answer = call(some, trades[rows].astype(dtype))
            parts.append(jax.tree.map(lambda x, taken=taken: np.asarray(x)[:taken], answer))
    joined = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    return {name: np.asarray(values) for name, values in vars(joined).items()}


def _fill(
    columns: dict[str, np.ndarray], count: int, book: Book, members: np.ndarray, problems: Liquidation | None
) -> np.ndarray:
    """Measure some orders, and write their numbers into (orders,) columns; their trades where there are problems."""
    steps = 0 if problems is None else problems.market.grid.times.shape[1] - 1
    trades = np.full((len(members), steps), math.nan)
    lengths = np.diff(book.offsets)[members]
    for length in sorted({_rounded(n) for n in lengths.tolist()}):
        places = np.flatnonzero([_rounded(n) == length for n in lengths.tolist()])
        for taken, some in _calls(places, max(1, min(_LANES, _CELLS // length))):
            order, fills, prices = _padded(book, members[some], length)
            if problems is None:
                answer = _measured(order, fills, prices)
            else:
                answer = _compared(order, fills, prices, jax.tree.map(lambda x, some=some: x[some], problems))
            host = jax.tree.map(lambda x, taken=taken: np.asarray(x)[:taken], answer)
            for name, values in _columns(*host).items():
                kind = values.dtype.type
                empty = math.nan if issubclass(kind, np.floating) else -1
                columns.setdefault(name, np.full(count, empty, kind))[members[some[:taken]]] = values
            if host[0].attribution is not None:
                trades[some[:taken]] = host[0].attribution.trades
    return trades


def _columns(shortfall: Any, slipped: Any) -> dict[str, Any]:
    costs = {f"{name}_slippage": slipped.cost[:, i] for i, name in enumerate(SLIPPAGES)}
    bps = {f"{name}_slippage_bps": slipped.bps[:, i] for i, name in enumerate(SLIPPAGES)}
    return {**columns_of(shortfall), **costs, **bps}


def _rounded(count: int) -> int:
    """8, 32, 128, …: at most four times what is needed."""
    return 8 * 4 ** max(0, math.ceil(math.log(max(count, 1) / 8, 4)))


def _calls(places: np.ndarray, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """Places in calls of a few sizes, filled up with the last place; how many of each call count."""
    for start in range(0, len(places), most):
        taken = min(most, len(places) - start)
        width = min(_rounded(taken), most)
        yield taken, places[np.minimum(np.arange(start, start + width), len(places) - 1)]


def _padded(book: Book, orders: np.ndarray, length: int) -> tuple[ParentOrder, Fills, np.ndarray]:
    """Orders with a leading axis, their fills in rows of one length, and their benchmark prices (orders, benchmarks).

    The records are made without the checks of their constructors: a fault becomes a status here.
    """
    numbers, offsets = book.numbers, book.offsets
    side = np.sign(numbers["shares"][orders])[:, None]
    place = offsets[orders][:, None] + np.arange(length)
    mask = place < offsets[orders + 1][:, None]
    place = np.minimum(place, max(len(book.owner) - 1, 0))
    taken = {
        name: values[place] if len(values) else np.full(place.shape, math.nan) for name, values in book.fills.items()
    }
    arrival = numbers["arrival_time"][orders][:, None]
    since = np.where(np.isnan(arrival), math.nan, taken["time"] - arrival)
    fields = ("shares", "decision_price", "arrival_price", "end_price")
    order = record(ParentOrder, **{name: numbers[name][orders] for name in fields})
    fills = record(
        Fills,
        prices=taken["price"],
        sizes=taken["size"] * side,
        fees=taken["fee"],
        mids=taken["mid"],
        times=since,
        mask=mask,
    )
    names = ("decision_price", "arrival_price", *BENCHMARKS)
    return order, fills, np.stack([numbers[name][orders] for name in names], axis=1)


@jax.jit
@jax.vmap
def _measured(order: ParentOrder, fills: Fills, prices: Any) -> Any:
    return implementation_shortfall(order, fills), slippage(fills, prices)


@jax.jit
@jax.vmap
def _compared(order: ParentOrder, fills: Fills, prices: Any, problem: Liquidation) -> Any:
    times = fills.times + problem.grid.times[0].astype(fills.times.dtype)
    on_grid = remade(fills, times=times)
    return implementation_shortfall(order, on_grid, problem), slippage(fills, prices)


@functools.lru_cache(maxsize=16)
def _regret(solver: ScheduleSolver | None) -> Callable[[Liquidation, Any], Any]:
    return jax.jit(jax.vmap(functools.partial(regret, solver=solver)))
