"""What each order's cost owes to its inputs: the tables of `jaxexec solve --sensitivities`."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxexec.cli import scheduling
from jaxexec.presentation import Table

if TYPE_CHECKING:
    import polars as pl

_CHUNK = 256
_SHOWN_ORDERS = 3
_REPORTED_ORDERS = 100
_PARAMETERS = (
    "shares",
    "horizon",
    "volatility",
    "volume",
    "permanent_impact",
    "eta",
    "phi",
    "psi",
    "risk_aversion",
)
_ANSWERS = ("objective", "expected_cost")
_HEADINGS = {
    "order_id": "order",
    "parameter": "parameter",
    "unit": "unit",
    "value": "value",
    "d_objective": "d objective",
    "elasticity_of_objective": "elasticity",
    "d_expected_cost": "d exp. cost",
    "elasticity_of_expected_cost": "elasticity",
}
_FOOTER = "Elasticity: per cent of the answer for one per cent of the input; a curve moves as a whole."


def frame(
    names: Sequence[str],
    orders: scheduling.Arrays,
    precision: str,
    benchmark: scheduling.Benchmark = "arrival",
    advance: Callable[[int], None] = lambda done: None,
) -> "pl.DataFrame":
    """One row an order and input: value, derivatives of the objective and of the expected cost, elasticities.

    Args:
        names: of the orders.
        orders: the orders, at least one.
        precision: `float64` or `float32`.
        benchmark: as in `scheduling.schedule`.
        advance: told how many orders more are done.
    """
    import polars as pl

    from jaxexec.sensitivity.levels import unit_of

    count = len(names)
    limited = bool(np.isfinite(orders.rho_max).any())
    narrow = scheduling.narrowed(orders, precision)
    compiled = _compiled(benchmark, limited)
    parts: list[dict[str, np.ndarray]] = []
    for first in range(0, count, _CHUNK):
        # The last chunk is filled up with its last order, so that one programme serves all.
        rows = np.minimum(np.arange(first, first + min(_CHUNK, count)), count - 1)
        found = compiled(scheduling.Arrays(*(array[rows] for array in narrow)))
        real = min(_CHUNK, count - first)
        parts.append({name: np.asarray(x)[:real] for name, x in found.items()})
        advance(real)
    joined = {name: np.concatenate([part[name] for part in parts]).reshape(-1) for name in parts[0]}
    return pl.DataFrame(
        {
            "order_id": pl.Series(np.repeat(np.asarray(names, object), len(_PARAMETERS)).tolist(), dtype=pl.String),
            "parameter": list(_PARAMETERS) * count,
            "unit": [unit_of(name) for name in _PARAMETERS] * count,
            **joined,
        }
    )


@functools.cache
def _compiled(benchmark: scheduling.Benchmark, limited: bool) -> Callable[[scheduling.Arrays], dict[str, Any]]:
    import jax

    import jaxexec as jx

    def answers(order: scheduling.Arrays) -> dict[str, Any]:
        s = jx.solve(scheduling.problem(order, benchmark, limited))
        return {"objective": s.objective, "expected_cost": s.expected_cost, "status": s.status}

    def one(order: scheduling.Arrays) -> dict[str, Any]:
        found = jx.sensitivities(order, answers, parameters=_PARAMETERS)
        derivatives = {f"d_{name}": found.first[name] for name in _ANSWERS}
        elasticities = {f"elasticity_of_{name}": found.elasticity(name) for name in _ANSWERS}
        return {"value": found.values} | derivatives | elasticities

    return jax.jit(jax.vmap(one))


def table(found: "pl.DataFrame") -> Table:
    """The first few orders."""
    shown = found.head(_SHOWN_ORDERS * len(_PARAMETERS)).select(list(_HEADINGS))
    orders = found.height // len(_PARAMETERS)
    more = f" The first {_SHOWN_ORDERS} of {orders:,} orders." if orders > _SHOWN_ORDERS else ""
    return Table("Sensitivities", list(_HEADINGS.values()), shown.rows(), _FOOTER + more)


def records(found: "pl.DataFrame") -> list[dict[str, Any]]:
    """The rows of the first hundred orders, as JSON has them; what is not a number is None."""
    rows = found.head(_REPORTED_ORDERS * len(_PARAMETERS)).to_dicts()
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
