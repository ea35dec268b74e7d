"""Price impact of trades: Glosten–Harris/Sadka estimates per stock, and how active each stock is through the day.

    panel = glosten_harris(tape)
    print(summarise(panel))

`glosten_harris_arrays` is the same estimator on arrays: traced, batched and differentiable. Files and frames are met
through `jaxexec.tape`.
"""

from jaxexec.impact.activity import Activity, activity
from jaxexec.impact.estimates import COEFFICIENTS, ImpactEstimates, glosten_harris_arrays
from jaxexec.impact.expected_sign import expected_sign
from jaxexec.impact.panel import Panel, glosten_harris, summarise
from jaxexec.impact.regression import Regression, regress

__all__ = [
    "COEFFICIENTS",
    "Activity",
    "ImpactEstimates",
    "Panel",
    "Regression",
    "activity",
    "expected_sign",
    "glosten_harris",
    "glosten_harris_arrays",
    "regress",
    "summarise",
]
