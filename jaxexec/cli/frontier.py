"""`jaxexec frontier`: expected cost against risk, for one order."""

import dataclasses
import math
from typing import Any

from jaxexec.cli import markets
from jaxexec.cli.app import OK, SOME_ROWS_FAILED
from jaxexec.cli.markets import Assumed, MarketFiles
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import Run, open_run, plan
from jaxexec.cli.single import Single, the_market

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
    order = Single(shares, horizon, steps)
    _check(low, high, points)
    if common.dry_run:
        return plan("frontier", common, {"points": points, "steps": steps})
    settings = {"shares": shares, "horizon": horizon, "low": low, "high": high, "points": points, "steps": steps}
    settings |= {"assumed": dataclasses.asdict(assumed), "precision": common.precision}
    with open_run("frontier", common, settings, markets.market_files(market)) as run:
        run.start_jax()
        import numpy as np

        import jaxexec as jx

        problem = order.problem(the_market(market, assumed), low, common.precision)
        gammas = np.geomspace(low, high, points).astype(common.precision)
        return _report(run, problem, jx.efficient_frontier(problem, gammas))


def _check(low: float, high: float, points: int) -> None:
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be finite with 0 < low < high, got {low} and {high}")
    if not 1 < points <= _MAX_POINTS:
        raise ValueError(f"points must be between 2 and {_MAX_POINTS:,}, got {points:,}")


def _report(run: Run, problem: Any, found: Any) -> int:
    """Show and write the frontier, beside even trading in time and in volume; the exit code."""
    import numpy as np

    run.show(found.table())
    run.write_parquet("frontier.parquet", found.to_polars())
    figure = found.plot(problem=problem)
    run.write_picture("frontier.svg", figure, "Least expected cost at each risk, beside even trading.")
    failed = int(np.sum(~np.isfinite(np.asarray(found.expected_cost))))
    run.result |= {"points": len(found.risk_aversions), "failed": failed}
    return SOME_ROWS_FAILED if failed else OK
