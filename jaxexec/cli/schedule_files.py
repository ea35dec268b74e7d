"""Schedules that a desk traded: a file of them, and the preferences that they reveal."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxexec.cli.markets import Day
from jaxexec.cli.parameter_files import number_column, read_rows, text_column
from jaxexec.cli.row_fits import Fitted
from jaxexec.cli.session import Session
from jaxexec.storage import FileError

if TYPE_CHECKING:
    import polars as pl

    from jaxexec import Liquidation
    from jaxexec.calibration import ParameterFit

FITTED = ("risk_aversion", "eta", "phi", "psi")
_ALIASES = {"order_id": ("order", "id"), "trades": ("shares", "sold"), "inventory": ("left",)}
_STARTS = 3
_FEWEST_CLUSTERS = 5  # orders, for errors between orders
_TOLERANCE = 1e-9  # of a day, between the end of a step and the start of the next


class Observed(NamedTuple):
    """One order as it was traded.

    Attributes:
        order_id: Its name; empty where the file has no such column.
        symbol: Empty where the file has no such column.
        times: Trading days after the open, (nodes,).
        trades: Shares sold in each step, purchases negative, (steps,).
    """

    order_id: str
    symbol: str
    times: np.ndarray
    trades: np.ndarray

    @property
    def shares(self) -> float:
        """Of the whole order; negative in a purchase."""
        return float(self.trades.sum())

    @property
    def left(self) -> np.ndarray:
        """Share of the order that is left at each node."""
        return 1 - np.concatenate([[0.0], np.cumsum(self.trades)]) / self.shares


def read_schedules(path: Path, horizon: float | None, session: Session) -> list[Observed]:
    """Observed schedules from CSV or Parquet, orders in the order of their coming.

    Steps have `start` and `end` (clock times, or trading days), or a number `step` where the order's horizon is cut
    evenly; with them `trades` (shares sold in the step) or `inventory` (shares left before it). Or rows are moments:
    `time` and `inventory`.

    Args:
        path: The file; `jaxexec solve` writes such ones.
        horizon: Trading days of each order, where rows have a number `step`; 1 where None.
        session: Hours of the trading day, for clock times.

    Raises:
        FileError: A column is missing or a cell holds what it cannot; column and row (the first is 1) are said.
    """
    frame = _renamed(read_rows(path))
    _check_columns(path, frame)
    columns: dict[str, np.ndarray] = {}
    for name in ("step", "trades", "inventory"):
        if name in frame.columns:
            values = number_column(path, frame, name)
            if values.is_null().any():
                raise FileError(
                    path, f"{name}, row {int(values.is_null().arg_max() or 0) + 1}: empty", "Fill the cell."
                )
            columns[name] = values.to_numpy()
    for name in ("start", "end", "time"):
        if name in frame.columns:
            columns[name] = _moments(path, frame, name, session)
    names = [text_column(frame, name).to_list() for name in ("order_id", "symbol")]
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(*names, strict=True)):
        groups.setdefault(key, []).append(row)
    twice = next((key[0] for key in groups if sum(key[0] == other[0] for other in groups) > 1), None)
    if twice:
        raise FileError(path, f"order {twice[:40]!r} has two symbols", "Give each order a name of its own.")
    return [_schedule(path, key, np.array(rows), columns, horizon) for key, rows in groups.items()]


def _renamed(frame: "pl.DataFrame") -> "pl.DataFrame":
    names = {
        alias: name
        for name, aliases in _ALIASES.items()
        for alias in aliases
        if alias in frame.columns and name not in frame.columns
    }
    return frame.rename(names)


def _check_columns(path: Path, frame: "pl.DataFrame") -> None:
    found = set(frame.columns)
    amount = found & {"trades", "inventory"}
    steps = {"start", "end"} <= found or "step" in found
    if (amount and steps) or {"time", "inventory"} <= found:
        return
    missing = "trades or inventory" if not amount else "step, or start and end, or time beside inventory"
    remedy = "Name order_id, symbol, step (or start and end, or time) and trades (or inventory) as they are."
    raise FileError(path, f"no column {missing} (found: {', '.join(frame.columns[:20])})", remedy)


def _moments(path: Path, frame: "pl.DataFrame", name: str, session: Session) -> np.ndarray:
    """Times as trading days after the open."""
    times = np.empty(frame.height)
    for row, value in enumerate(frame[name].to_list()):
        text = value.isoformat() if hasattr(value, "isoformat") else "" if value is None else str(value).strip()
        try:
            times[row] = session.fraction(text)
        except ValueError as error:
            raise FileError(path, f"{name}, row {row + 1}: {error}", "Correct the cell.") from error
    return times


def _schedule(
    path: Path, key: tuple[str, str], rows: np.ndarray, columns: Mapping[str, np.ndarray], horizon: float | None
) -> Observed:
    """One order from its rows."""
    by_moment = "start" not in columns and "step" not in columns
    along = next(columns[name] for name in ("start", "step", "time") if name in columns)
    rows = rows[np.argsort(along[rows], kind="stable")]

    def refuse(reason: str, row: int | None = None) -> FileError:
        place = f"order {key[0][:40]!r}" if key[0] else "the order"
        return FileError(path, f"{place}{'' if row is None else f', row {row + 1}'}: {reason}", "Correct the rows.")

    again = np.flatnonzero(np.diff(along[rows]) <= 0)
    if len(again):
        raise refuse("a step or a time comes twice", int(rows[again[0] + 1]))
    if "start" not in columns and "step" in columns:
        # An even cut of the horizon has no place for a step that is not there.
        apart = np.flatnonzero(np.abs(np.diff(along[rows]) - 1) > 1e-9)
        if len(apart):
            raise refuse("steps are no consecutive numbers: is one missing?", int(rows[apart[0] + 1]))
    times = _nodes(rows, columns, horizon, by_moment, refuse)
    if "trades" in columns and not by_moment:
        trades = columns["trades"][rows]
    else:
        held = columns["inventory"][rows]
        trades = -np.diff(held if by_moment else np.append(held, 0.0))
    if len(trades) < 2:
        raise refuse("fewer than two steps, which show no preference")
    if not (math.isfinite(trades.sum()) and abs(trades.sum()) > 1e-9 * np.abs(trades).sum()):
        raise refuse("shares sold and bought cancel: there is no order")
    return Observed(*key, times, trades)


def _nodes(
    rows: np.ndarray,
    columns: Mapping[str, np.ndarray],
    horizon: float | None,
    by_moment: bool,
    refuse: Callable[..., FileError],
) -> np.ndarray:
    if by_moment:
        return columns["time"][rows]
    if "start" not in columns:
        return np.linspace(0.0, 1.0 if horizon is None else horizon, len(rows) + 1)
    start, end = columns["start"][rows], columns["end"][rows]
    for bad, reason in (
        (np.flatnonzero(end <= start), "its end is not after its start"),
        (
            np.flatnonzero(np.abs(start[1:] - end[:-1]) > _TOLERANCE) + 1,
            "it does not begin where the step before it ends",
        ),
    ):
        if len(bad):
            raise refuse(reason, int(rows[bad[0]]))
    return np.append(start, end[-1])


def check_fitted(names: str) -> tuple[str, ...]:
    """Names of parameters from text such as risk_aversion,phi.

    Raises:
        ValueError: One is unknown or comes twice.
    """
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in found:
        if name not in FITTED:
            raise ValueError(f"--fit names {name[:30]!r}: known are {', '.join(FITTED)}")
    if not found or len(set(found)) < len(found):
        raise ValueError(f"--fit must name different parameters, at least one of {', '.join(FITTED)}")
    return found


def problems(orders: Sequence[Observed], days: Mapping[str, Day]) -> "Liquidation":
    """Orders of equally many steps as one batch, each in the market of its symbol.

    The risk aversion to search from makes the risk of trading with the volume cost as much as its impact.
    """
    import jax

    import jaxexec as jx

    rows = []
    for order in orders:
        day = days[order.symbol]
        scalars = (day.permanent_impact, day.eta, day.phi, day.psi)
        rows.append((order.times - order.times[0], order.shares, *day.between(order.times), *scalars))

    def one(times: Any, shares: Any, volatility: Any, volume: Any, permanent: Any, eta: Any, phi: Any, psi: Any) -> Any:
        market = jx.Market(jx.TimeGrid(times), volatility, volume, permanent)
        problem = jx.Liquidation(shares, market, jx.PowerLawCost(eta, phi, psi), 0 * eta)
        trades = jx.vwap(problem)
        lasting = permanent * shares**2 / 2
        gamma = 2 * (jx.expected_cost(problem, trades) - lasting) / jx.variance(problem, trades)
        return jx.Liquidation(shares, market, problem.cost, gamma)

    columns = [np.stack([np.asarray(cell, float) for cell in cells]) for cells in zip(*rows, strict=True)]
    return jax.jit(jax.vmap(one))(*columns)


def fit_schedules(
    orders: Sequence[Observed], days: Mapping[str, Day], names: tuple[str, ...], together: bool
) -> list[Fitted]:
    """What each order reveals, or all together; one batch for each number of steps.

    Raises:
        ValueError: `together`, and orders differ in their number of steps.
    """
    from jaxexec.calibration import observed_preferences
    from jaxexec.numerics.status import Status

    if together:
        lengths = {len(order.trades): order.order_id for order in orders}
        if len(lengths) > 1:
            (a, first), (b, second) = list(lengths.items())[:2]
            raise ValueError(
                f"--common needs orders of equally many steps: {first[:30]!r} has {a}, {second[:30]!r} has {b}"
            )
    found: dict[int, Fitted] = {}
    for steps in sorted({len(order.trades) for order in orders}):
        places = [i for i, order in enumerate(orders) if len(order.trades) == steps]
        batch = [orders[i] for i in places]
        trades = np.stack([order.trades for order in batch])
        problem = problems(batch, days)
        fits = observed_preferences(
            problem, trades, names, common=together, starts=_STARTS, start=_spread(problem, names)
        )
        if together:
            symbols = {order.symbol for order in orders}
            clustered = len(orders) >= _FEWEST_CLUSTERS and int(fits.status) <= Status.LOCAL
            fits = between_orders(fits, orders, days) if clustered else fits
            return [
                Fitted(symbols.pop() if len(symbols) == 1 else "", "", fits, orders=len(orders) if clustered else 0)
            ]
        for at, place in enumerate(places):
            order = orders[place]
            found[place] = Fitted(order.symbol, order.order_id, _at(fits, at))
    return [found[i] for i in range(len(orders))]


def optimal_shares(orders: Sequence[Observed], days: Mapping[str, Day]) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """What share of each order is left at each node by the schedule that is optimal for parameters, (orders, nodes)."""
    import jax
    import jax.numpy as jnp

    from jaxexec import solve
    from jaxexec.calibration.observed_schedules import with_parameters

    batch = problems(orders, days)
    best = jax.jit(jax.vmap(lambda problem, p: solve(with_parameters(problem, p)).inventory, in_axes=(0, None)))

    def left(parameters: Mapping[str, Any]) -> np.ndarray:
        values = {name: jnp.asarray(value, batch.shares.dtype) for name, value in parameters.items()}
        return np.asarray(best(batch, values)) / np.asarray(batch.shares)[:, None]

    return left


def between_orders(fit: "ParameterFit", orders: Sequence[Observed], days: Mapping[str, Day]) -> "ParameterFit":
    """One fit to all orders, with errors that let the deviations of one order depend on each other as they like.

    An order that runs ahead stays ahead for a while, so that its deviations are far from independent; orders are. `n`
    becomes the number of orders.

    Source: Liang and Zeger, Biometrika 73 (1986).
    """
    import equinox as eqx
    import jax.numpy as jnp

    optimal, values = optimal_shares(orders, days), np.asarray(fit.values, float)

    def at(logs: np.ndarray) -> np.ndarray:
        return optimal(dict(zip(fit.names, np.exp(logs), strict=True)))[:, 1:-1]

    logs, moves = np.log(values), 1e-4 * np.eye(len(values))
    slope = np.stack([(at(logs + move) - at(logs - move)) / 2e-4 for move in moves], -1)
    apart = np.stack([order.left[1:-1] for order in orders]) - at(logs)
    bread = np.linalg.inv(np.einsum("oni,onj->ij", slope, slope))
    scores = np.einsum("oni,on->oi", slope, apart)
    count = len(orders)
    free = bread @ (scores.T @ scores) @ bread * (count / (count - 1))
    covariance = free * values[:, None] * values[None]
    like = fit.values.dtype
    changed = (np.sqrt(np.diag(covariance)), covariance, free)
    return eqx.tree_at(
        lambda f: (f.std_errors, f.covariance, f.free_covariance, f.n),
        fit,
        (*(jnp.asarray(x, like) for x in changed), jnp.asarray(count, jnp.int32)),
    )


def _at(batch: Any, at: int) -> Any:
    import jax

    return jax.tree.map(lambda x: x[at], batch)


def _spread(problem: "Liquidation", names: tuple[str, ...]) -> dict[str, float] | None:
    """Where ψ is searched from; zero, which a market file may have, is no start."""
    if "psi" not in names:
        return None
    cost: Any = problem.cost
    return {"psi": float(np.mean(np.where(np.asarray(cost.psi) > 0, cost.psi, 0.1 * np.asarray(cost.eta))))}
