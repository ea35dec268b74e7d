"""Rows of executions, meta-orders or order flow to fitted parameters, and these to markets."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxexec.cli.parameter_files import Lane, Source, padded

if TYPE_CHECKING:
    import polars as pl

    from jaxexec.calibration import Calibration, ParameterFit, PropagatorFit, StateTest


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The parameters of one symbol, part or order.

    Attributes:
        symbol: Its name; empty where there is one fit for all.
        part: What part of the symbol's rows, or which order; empty where it is all of them.
        fit: The fit.
        lane: The rows that were fitted; None for schedules.
        pooled: The fit drawn towards those of other symbols, where there are enough.
        kernel: The kernel that the parameters make, from flow.
        orders: Between how many orders errors are; 0 where they are of another kind.
    """

    symbol: str
    part: str
    fit: "ParameterFit"
    lane: Lane | None = None
    pooled: "ParameterFit | None" = None
    kernel: "PropagatorFit | None" = None
    orders: int = 0

    @property
    def rows(self) -> int:
        """How many rows of the file were used."""
        return int(self.fit.n) if self.lane is None else int(self.lane.mask.sum())

    @property
    def usable(self) -> bool:
        """Whether it has numbers."""
        from jaxexec.numerics.status import Status

        return int(self.fit.status) <= Status.LOCAL

    @property
    def name(self) -> str:
        """Symbol and part, as a heading has them."""
        return ", ".join(filter(None, (self.symbol, self.part))) or "all rows"


def fit_rows(source: Source, rows: Sequence[Lane], step: float | None, form: Any) -> list[Fitted]:
    """One fit a lane."""
    from jaxexec import calibration

    columns, mask = padded(rows)
    if source == "flow":
        assert step is not None
        whole = calibration.propagator(columns["flow"], columns["returns"], mask, step=step, form=form)
        kernels = [_lane(whole, i) for i in range(len(rows))]
        return [Fitted(r.symbol, r.part, k.parameters, r, kernel=k) for r, k in zip(rows, kernels, strict=True)]
    if source == "executions":
        fits = calibration.execution_cost(mask=mask, **columns)  # pyright: ignore[reportArgumentType]
    else:
        fits = calibration.meta_order_impact(mask=mask, **columns)  # pyright: ignore[reportArgumentType]
    enough = source == "executions" and not rows[0].part and len(rows) > len(fits.names) + 1
    pooled = calibration.shrink(fits).stocks if enough else None
    return [
        Fitted(r.symbol, r.part, _lane(fits, i), r, None if pooled is None else _lane(pooled, i))
        for i, r in enumerate(rows)
    ]


def _lane(batch: Any, at: int) -> Any:
    """One of a batch."""
    import jax

    return jax.tree.map(lambda x: x[at], batch)


def tests_of_parts(found: Sequence[Fitted]) -> "dict[str, StateTest]":
    """Of each symbol in several parts, whether these have the same parameters."""
    import jax
    import jax.numpy as jnp

    from jaxexec.calibration import same_in_all_states

    tests = {}
    for symbol in dict.fromkeys(one.symbol for one in found):
        parts = [one.fit for one in found if one.symbol == symbol]
        if len(parts) > 1:
            tests[symbol] = same_in_all_states(jax.tree.map(lambda *x: jnp.stack(x), *parts))
    return tests


def with_fit(source: Source, base: "Calibration", one: Fitted, as_cost: bool = False) -> "Calibration":
    """The market with what was fitted put in.

    Args:
        source: What was fitted to.
        base: The market before.
        one: The fit.
        as_cost: Whether the temporary impact comes from the kernel too.

    Raises:
        ValueError: The fit failed, or the market lacks something that no fit told.
    """
    from jaxexec import calibration

    if source == "executions":
        fit, pooled = (one.fit, False) if one.pooled is None else (one.pooled, True)
        market = calibration.with_execution_cost(base, fit, pooled=pooled)
    elif source == "meta-orders":
        assert one.lane is not None
        names = ("turnover", "horizon", "inverse_turnover")
        turnover, horizon, inverse = (float(np.median(one.lane.columns[name][one.lane.mask])) for name in names)
        market = calibration.with_meta_order_impact(
            base, one.fit, turnover=turnover, horizon=horizon, inverse_turnover=inverse
        )
    elif source == "flow":
        assert one.kernel is not None
        market = calibration.with_propagator(base, one.kernel, as_cost=as_cost)
    else:
        market = calibration.with_preferences(base, one.fit, orders=one.orders or None)
    if not np.all(np.isfinite(np.asarray(market.cost.eta))):  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("eta is not known: give --eta, or --market with a file that has it")
    return dataclasses.replace(market, symbol=one.symbol or base.symbol)


def parameters(found: Sequence[Fitted], pooled: bool = False) -> "pl.DataFrame":
    """A row a fit and parameter: estimate, standard error, 95 % interval, rows and status.

    Args:
        found: The fits, at least one.
        pooled: Those drawn towards other symbols, instead of each one's own.
    """
    import polars as pl

    from jaxexec.numerics.status import Status

    rows = []
    for one in found:
        fit = one.pooled if pooled else one.fit
        assert fit is not None
        ends = fit.intervals()
        rows += [
            {
                "symbol": one.symbol,
                "part": one.part,
                "parameter": name,
                "estimate": float(fit.values[k]),
                "std_error": float(fit.std_errors[k]),
                "low": float(ends[k, 0]),
                "high": float(ends[k, 1]),
                "rows": one.rows,
                "status": Status(int(fit.status)).name,
            }
            for k, name in enumerate(fit.names)
        ]
    return pl.DataFrame(rows)
