"""One order that begins at the open, as options of the command line give it."""

import dataclasses
import math
from typing import TYPE_CHECKING

from jaxexec.cli import markets
from jaxexec.cli.markets import Assumed, Day, MarketFiles
from jaxexec.cli.orders import Order

if TYPE_CHECKING:
    from jaxexec import Liquidation

MOST_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class Single:
    """An order, checked: shares (negative to buy), its end in trading days, and the steps of its schedule.

    Raises:
        ValueError: one of them is out of its range.
    """

    shares: float
    horizon: float
    steps: int

    def __post_init__(self):
        if not (math.isfinite(self.shares) and self.shares != 0):
            raise ValueError(f"shares must be finite and not 0, got {self.shares}")
        if not 0 < self.horizon <= 1:
            raise ValueError(f"horizon must be above 0 and at most 1 trading day, got {self.horizon}")
        if not 1 < self.steps <= MOST_STEPS:
            raise ValueError(f"steps must be between 2 and {MOST_STEPS:,}, got {self.steps:,}")

    def problem(self, day: Day, risk_aversion: float, precision: str) -> "Liquidation":
        """The order in this market; JAX must have been started."""
        import numpy as np

        import jaxexec as jx

        volatility, volume = (np.asarray(curve, precision) for curve in day.window(0.0, self.horizon, self.steps))
        cast = np.dtype(precision).type
        grid = jx.TimeGrid.uniform(cast(self.horizon), self.steps)
        curves = jx.Market(grid, volatility, volume, cast(day.permanent_impact))
        cost = jx.PowerLawCost(cast(day.eta), cast(day.phi), cast(day.psi))
        return jx.Liquidation(cast(self.shares), curves, cost, cast(risk_aversion))


def the_market(market: MarketFiles, assumed: Assumed) -> Day:
    """The one market that is given.

    Raises:
        ValueError: there are several, or what is needed is not known.
    """
    known = markets.read_markets(market)
    if len(known) > 1:
        raise ValueError(f"market: give one file, not {len(known)}")
    symbol = next(iter(known), "")
    return markets.market_for(symbol, Order(1.0, 0.0, 1.0, *[math.nan] * 5), known, assumed)
