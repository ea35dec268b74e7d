"""What trades do to prices, and what they cost: per stock, on arrays and on whole tapes.

    panel = glosten_harris(tape)
    print(summarise(panel))

Names that end in `_arrays` are the same estimators on arrays: traced, batched and differentiable. Files and frames are
met through `jaxexec.tape`.
"""

from jaxexec.impact.comparison import Comparison, compare
from jaxexec.impact.estimates import COEFFICIENTS, ImpactEstimates, glosten_harris_arrays
from jaxexec.impact.intraday import Activity, activity
from jaxexec.impact.measured import Measured
from jaxexec.impact.measures import Measures
from jaxexec.impact.normal_flow import expected_sign
from jaxexec.impact.panel import Panel, glosten_harris, summarise
from jaxexec.impact.price_on_flow import kyle_lambda_arrays
from jaxexec.impact.realised_variance import RealisedVariance, realised_variance_arrays
from jaxexec.impact.regression import Regression, regress
from jaxexec.impact.roll import roll_spread_arrays
from jaxexec.impact.sign_surprise import madhavan_richardson_roomans_arrays
from jaxexec.impact.spread_components import huang_stoll_arrays
from jaxexec.impact.spreads import quoted_spread_arrays, spread_measures_arrays
from jaxexec.impact.stacked import StackedEstimates, glosten_harris_stacked_arrays
from jaxexec.impact.tape_measures import (
    hasbrouck,
    huang_stoll,
    kyle_lambda,
    madhavan_richardson_roomans,
    realised_volatility,
)
from jaxexec.impact.tape_spreads import quoted_spread, roll_spread, spread_measures
from jaxexec.impact.vector_autoregression import TradeResponses, hasbrouck_arrays

__all__ = [
    "COEFFICIENTS",
    "Activity",
    "Comparison",
    "ImpactEstimates",
    "Measured",
    "Measures",
    "Panel",
    "RealisedVariance",
    "Regression",
    "StackedEstimates",
    "TradeResponses",
    "activity",
    "compare",
    "expected_sign",
    "glosten_harris",
    "glosten_harris_arrays",
    "glosten_harris_stacked_arrays",
    "hasbrouck",
    "hasbrouck_arrays",
    "huang_stoll",
    "huang_stoll_arrays",
    "kyle_lambda",
    "kyle_lambda_arrays",
    "madhavan_richardson_roomans",
    "madhavan_richardson_roomans_arrays",
    "quoted_spread",
    "quoted_spread_arrays",
    "realised_variance_arrays",
    "realised_volatility",
    "regress",
    "roll_spread",
    "roll_spread_arrays",
    "spread_measures",
    "spread_measures_arrays",
    "summarise",
]
