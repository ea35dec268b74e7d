"""What orders are worth: blocks with and without a deadline, benchmarks that are guaranteed, the best time to take."""

from jaxexec.pricing.block import BlockPrice, block_price
from jaxexec.pricing.equal_trades import SlicesCurve, TwapHorizons, slices_curve, twap_horizons
from jaxexec.pricing.horizon import BestHorizon, HorizonCurve, best_horizon, horizon_curve
from jaxexec.pricing.participation import BestParticipation, best_participation
from jaxexec.pricing.premium import LiquidationPremium, against, liquidation_premium, target_close

__all__ = [
    "BestHorizon",
    "BestParticipation",
    "BlockPrice",
    "HorizonCurve",
    "LiquidationPremium",
    "SlicesCurve",
    "TwapHorizons",
    "against",
    "best_horizon",
    "best_participation",
    "block_price",
    "horizon_curve",
    "liquidation_premium",
    "slices_curve",
    "target_close",
    "twap_horizons",
]
