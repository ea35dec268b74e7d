"""`jaxexec frontier`: expected cost against risk, for one order."""

import dataclasses
import math
from typing import Any

from jaxexec.cli import markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.markets import Assumed, Day, MarketFiles
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.orders import Order
from jaxexec.cli.run import Run, open_run, plan

_MAX_POINTS = 10_000


def frontier(
    shares: float,
    *,
    market: MarketFiles = (),
    horizon: float = 1.0,
    low: float = 1e-8,
    high: float = 1e-3,
    points: int = 25,
    steps: int = 78,
    assumed: Assumed = markets.DEFAULT,
    common: Common = DEFAULT,
) -> int:
    """Expected cost against risk, for one order that begins at the open.

    Args:
        shares: Shares to sell; negative to buy.
        market: One market file that `jaxexec calibrate` wrote.
        horizon: End of the order, in trading days, at most 1.
        low: Least risk aversion, per currency.
        high: Greatest risk aversion, per currency.
        points: Points of the frontier.
        steps: Steps of each schedule.
    """
    _check(shares, horizon, low, high, points, steps)
    if common.dry_run:
        return plan("frontier", common, {"points": points, "steps": steps})
    settings = {"shares": shares, "horizon": horizon, "low": low, "high": high, "points": points, "steps": steps}
    settings |= {"assumed": dataclasses.asdict(assumed), "precision": common.precision}
    with open_run("frontier", common, settings, markets.market_files(market)) as run:
        run.start_jax()
        day = _market(market, assumed)
        return _report(run, *_solve(run, day, shares, horizon, (low, high, points), steps))


def _check(shares: float, horizon: float, low: float, high: float, points: int, steps: int) -> None:
    if not (math.isfinite(shares) and shares != 0):
        raise ValueError(f"shares must be finite and not 0, got {shares}")
    if not 0 < horizon <= 1:
        raise ValueError(f"horizon must be above 0 and at most 1 trading day, got {horizon}")
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be finite with 0 < low < high, got {low} and {high}")
    for name, value in (("points", points), ("steps", steps)):
        if not 1 < value <= _MAX_POINTS:
            raise ValueError(f"{name} must be between 2 and {_MAX_POINTS:,}, got {value:,}")


def _market(market: MarketFiles, assumed: Assumed) -> Day:
    """The one market that is given."""
    known = markets.read_markets(market)
    if len(known) > 1:
        raise ValueError(f"market: give one file, not {len(known)}")
    symbol = next(iter(known), "")
    return markets.market_for(symbol, Order(1.0, 0.0, 1.0, *[math.nan] * 5), known, assumed)


def _solve(
    run: Run, day: Day, shares: float, horizon: float, ladder: tuple[float, float, int], steps: int
) -> tuple[Any, dict[str, tuple[float, float]]]:
    """The frontier, and where trading evenly in time or in volume would lie."""
    import jax.numpy as jnp
    import numpy as np

    import jaxexec as jx

    dtype = run.common.precision
    volatility, volume = (np.asarray(curve, dtype) for curve in day.window(0.0, horizon, steps))
    cast = np.dtype(dtype).type
    grid = jx.TimeGrid.uniform(cast(horizon), steps)
    curves = jx.Market(grid, volatility, volume, cast(day.permanent_impact))
    cost = jx.PowerLawCost(cast(day.eta), cast(day.phi), cast(day.psi))
    problem = jx.Liquidation(cast(shares), curves, cost, cast(ladder[0]))
    found = jx.efficient_frontier(problem, np.geomspace(*ladder).astype(dtype))
    benchmarks = {}
    for name, share in (("TWAP", np.full(steps, 1 / steps)), ("VWAP", volume / np.sum(volume))):
        trades = jnp.asarray((shares * share).astype(dtype))
        deviation = math.sqrt(float(jx.variance(problem, trades)))
        benchmarks[name] = (deviation, float(jx.expected_cost(problem, trades)))
    return found, benchmarks


def _report(run: Run, found: Any, benchmarks: dict[str, tuple[float, float]]) -> int:
    """Show and write the frontier; the exit code."""
    import numpy as np

    from jaxexec import presentation

    run.show(found.table())
    run.write_parquet("frontier.parquet", found.to_polars())
    deviation, cost = np.sqrt(np.asarray(found.variance)), np.asarray(found.expected_cost)
    shown = {name: place for name, place in benchmarks.items() if all(map(math.isfinite, place))}
    figure = presentation.frontier(deviation, cost, points=shown)
    run.write_picture("frontier.svg", figure, "Least expected cost at each risk, beside even trading.")
    failed = int(np.sum(~np.isfinite(cost)))
    run.result |= {"points": len(cost), "failed": failed}
    return SOME_ROWS_FAILED if failed else OK
