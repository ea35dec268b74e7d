"""Kyle's λ: the price change of a time bar for the shares that were bought, net, within it."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxexec.impact.influence import delta_method, regress
from jaxexec.impact.measured import Lags, Measured, check_arrays, check_lags, conclude, enter
from jaxexec.numerics.moments import sum_time
from jaxexec.numerics.status import Status

KYLE_LAMBDA = ("kyle_lambda", "intercept", "r2")


def kyle_lambda_arrays(
    change: ArrayLike, flow: ArrayLike, mask: ArrayLike | None = None, *, lags: Lags = None
) -> Measured:
    """Slope λ of the price changes of bars on their order flow, Δp_k = c + λ f_k + u_k, by least squares.

    With f the signed volume Σ D V, λ is in currency per share, the slope of Kyle's pricing rule. With f = Σ D √V it is
    the measure of Hasbrouck (2009), and concave impact bends the line less. Order flow is not exogenous: who buys
    because the price rises makes λ too large.

    Source: Kyle, "Continuous auctions and insider trading" (Econometrica 53, 1985), for the rule; Hasbrouck, "Trading
    costs and returns for U.S. equities" (J. Finance 64, 2009), for the regression.

    Args:
        change: Price changes Δp of the bars, currency, (bars,) for one stock or (stocks, bars).
        flow: Order flow f of the bars, positive when buyers initiated more, same shape.
        mask: True for a real bar; padding belongs at the end. Between two dates leave `lags` False slots.
        lags: Newey–West lags; None is ⌊4 (n/100)^{2/9}⌋.

    Returns:
        `Measured` with kyle_lambda (currency per unit of flow), intercept (currency a bar) and r2. Status
        NONFINITE_INPUT, INSUFFICIENT_DATA (fewer than four bars, or no more than `lags`), RANK_DEFICIENT (flow that
        does not vary).

    Raises:
        ValueError: Shapes or `lags` are not as above.
    """
    arrays, mask = check_arrays(mask, change=change, flow=flow)
    return _estimate(arrays, mask, lags=check_lags(lags, mask.shape[-1]))


@partial(jax.jit, static_argnames=("lags",))
def _estimate(arrays, mask, *, lags: int | None) -> Measured:
    entered = enter(arrays, mask)
    change, row = entered.arrays["change"], entered.mask
    fit = regress(entered.arrays["flow"][:, None], change, row)
    share = sum_time(fit.weight * fit.residual**2)
    deviation = fit.residual + fit.slopes[0][None] * fit.centred[:, 0]
    total = sum_time(fit.weight * deviation**2)
    still = total == 0
    pieces = [
        fit.slope_influence()[:, 0],
        fit.intercept_influence(),
        fit.weight * (fit.residual**2 - share[None]),
        fit.weight * (deviation**2 - total[None]),
    ]

    def measures(m):
        # Prices that never moved are explained by nothing.
        return jnp.stack([m[0], m[1], jnp.where(still, 0, 1 - m[2] / jnp.where(still, 1, m[3]))])

    estimates = jnp.stack([fit.slopes[0], fit.intercept, share, total])
    values, influence = delta_method(measures, estimates, jnp.stack(pieces, 1))
    return conclude(
        KYLE_LAMBDA,
        values,
        influence,
        row.sum(0, dtype=jnp.int32),
        {Status.NONFINITE_INPUT: entered.bad, Status.RANK_DEFICIENT: fit.deficient},
        lags=lags,
        fewest=4,
        condition=fit.condition,
        single=mask.ndim == 1,
    )
