"""What many orders cost: the record that `analyse` makes, its tables and its picture."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxexec.numerics.status import Status
from jaxexec.post_trade.frames import Fault
from jaxexec.post_trade.groups import QUANTILES, aggregated
from jaxexec.post_trade.shortfall import label_of

Reference = Literal["decision", "arrival"]

OF_MODEL = ("temporary_impact", "permanent_impact", "timing")
_RATIOS = ("filled", "measured_spread", "participation", "pov", "duration", "z_score")


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What many orders cost, one row an order.

    Attributes:
        columns: (orders,) by name: what was ordered and done; the parts of the shortfall in currency and, with `_bps`,
            in basis points of the order's value at the `reference`; slippage against each benchmark, with `_bps` of
            the filled value; what the model expects and how far off the order was; its regret; `status`, `fault`.
            Purchases have negative shares, costs are positive for both sides.
        fills: (fills,) by name, of orders that could be analysed: what each fill cost against its mid and against
            arrival, in currency and basis points.
        groups: columns of the frames that were carried along, for `aggregate`.
        faults: why orders were refused; first of each cell.
        reference: whose value basis points are of.
    """

    columns: Mapping[str, Any]
    fills: Mapping[str, Any]
    groups: tuple[str, ...]
    faults: tuple[Fault, ...]
    reference: Reference

    @property
    def failed(self) -> int:
        """Orders that could not be analysed."""
        return sum(status != Status.OK.name for status in self.columns["status"])

    def to_polars(self):
        """One row an order (polars DataFrame)."""
        import polars

        return polars.DataFrame([_series(name, cells) for name, cells in self.columns.items()])

    def to_pandas(self):
        """`to_polars()` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.to_polars().to_dict(as_series=False))

    def fills_to_polars(self):
        """One row a fill (polars DataFrame)."""
        import polars

        return polars.DataFrame([_series(name, cells) for name, cells in self.fills.items()])

    def aggregate(
        self,
        by: str | Sequence[str] = (),
        *,
        weights: Literal["value", "equal"] = "value",
        measures: Sequence[str] | None = None,
        quantiles: Sequence[float] = QUANTILES,
    ):
        """Means, standard errors and quantiles over the orders that could be analysed (polars DataFrame).

        Where a column of `by` belongs to the fills alone, such as `venue`, fills are aggregated instead of orders.

        Args:
            by: columns that make the groups, such as symbol, side, trader, date; none for all together.
            weights: "value": rows count by their value in currency, so that the mean of a part in basis points is the
                money over the money; "equal": all alike.
            measures: numeric columns; None for costs in basis points and what goes with them.
            quantiles: between 0 and 1.

        Returns:
            A row a group and measure: the groups, measure, orders (or fills), mean, std_error, q5, q25, … Standard
            errors take rows as independent; see `jaxexec.post_trade.groups`.

        Raises:
            ValueError: no such column, weights, or quantile.
        """
        import polars

        names = (by,) if isinstance(by, str) else tuple(by)
        of_fills = any(name not in self.columns for name in names)
        table, counted = (self.fills, "fills") if of_fills else (self.columns, "orders")
        _check_choice(names, measures, weights, quantiles, table)
        usable = np.array([status == Status.OK.name for status in self.columns["status"]], bool)
        usable = np.ones(len(table["order_id"]), bool) if of_fills else usable
        shown = _measures(table, usable) if measures is None else measures
        records = aggregated(
            {name: [cell for cell, use in zip(table[name], usable, strict=True) if use] for name in names},
            {name: np.asarray(table[name], float)[usable] for name in shown},
            np.asarray(table["value"], float)[usable],
            by_value=weights == "value",
            quantiles=quantiles,
            counted=counted,
        )
        places = [f"q{100 * q:g}" for q in quantiles]
        numbers = dict.fromkeys(("mean", "std_error", *places), polars.Float64)
        schema = {**dict.fromkeys(names, polars.String), "measure": polars.String, counted: polars.Int64, **numbers}
        return polars.DataFrame(records, schema=schema)

    def table(self, by: str | Sequence[str] = (), weights: Literal["value", "equal"] = "value"):
        """`aggregate` as a `presentation.Table`: one row a group and measure."""
        from jaxexec.presentation import Table

        frame = self.aggregate(by, weights=weights, quantiles=(0.05, 0.5, 0.95))
        rows = [
            [label_of(cell) if name == "measure" else cell for name, cell in row.items()] for row in frame.to_dicts()
        ]
        footer = (
            f"{len(self.columns['status']):,} orders, {self.failed:,} failed. Costs are positive; parts in bps of the "
            f"{self.reference} value, slippages of the filled value. Means by {weights}; standard errors take rows as "
            "independent."
        )
        return Table("After the trade", [label_of(name) for name in frame.columns], rows, footer)

    def summary(self) -> str:
        """The table over all orders as text."""
        return self.table().text()

    def plot(self, order_id: str | None = None):
        """The parts of the shortfall as a waterfall, in basis points: of one order, or of all together by value."""
        from jaxexec.presentation import figures

        ids, status = self.columns["order_id"], self.columns["status"]
        usable = np.array(
            [s == Status.OK.name and order_id in (None, i) for s, i in zip(status, ids, strict=True)], bool
        )
        if not usable.any():
            raise ValueError("no order could be analysed" if order_id is None else f"no analysis of order {order_id!r}")
        parts = self._parts(usable)
        title = f"{int(usable.sum()):,} orders" if order_id is None else f"order {order_id}"
        ylabel = f"cost (bp of {self.reference} value)"
        return figures.waterfall(parts, f"Where the shortfall went: {title}", ylabel)

    def _parts(self, usable: np.ndarray) -> dict[str, float]:
        """Parts of the total of some orders, in basis points; own impact apart where all of them have a model."""
        value = float(np.sum(self.columns["value"][usable]))
        split = all(name in self.columns and np.all(np.isfinite(self.columns[name][usable])) for name in OF_MODEL)
        names = ["delay", "spread", *(OF_MODEL if split else ("price_move",)), "opportunity", "fees"]
        return {label_of(name): 1e4 * float(np.sum(self.columns[name][usable])) / value for name in names}


def _series(name: str, cells: Any) -> Any:
    """A column of a polars frame; one of mixed types, which only a user's own can be, as text."""
    import polars

    if isinstance(cells, np.ndarray):
        return polars.Series(name, cells)
    try:
        return polars.Series(name, cells)
    except (TypeError, polars.exceptions.PolarsError):
        return polars.Series(name, [None if cell is None else str(cell) for cell in cells], dtype=polars.String)


def _measures(table: Mapping[str, Any], usable: np.ndarray) -> list[str]:
    """The columns that are aggregated unless others are asked for: those of which something is known."""
    names = [name for name in table if name.endswith("_bps") or name in _RATIOS]
    return [name for name in names if np.any(np.isfinite(np.asarray(table[name], float)[usable]))]


def _check_choice(
    names: Sequence[str], measures: Sequence[str] | None, weights: str, quantiles: Sequence[float], table: Mapping
) -> None:
    for name in names:
        if name not in table:
            raise ValueError(f"by: no column {name!r}; there are {', '.join(table)}")
    for name in measures or ():
        if name not in table or np.asarray(table[name]).dtype.kind not in "iuf":
            raise ValueError(f"measures: no numeric column {name!r}")
    if weights not in ("value", "equal"):
        raise ValueError(f"weights must be 'value' or 'equal', got {weights!r}")
    for q in quantiles:
        if not 0 <= q <= 1:
            raise ValueError(f"quantiles must be between 0 and 1, got {q}")
