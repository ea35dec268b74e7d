"""Mean and variance of the shortfall of any schedule in closed form: any g and h, arithmetic or geometric price.

The pair (price, what has been lost so far) is a linear recursion with random factors, S' = M S + b and C' = C − a S,
so its first two moments obey a recursion of their own and no path is drawn. With M = 1 they are Almgren and Chriss's
E and V (2000, eqs. 4–5).
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.simulation.path import OWN_SHARE, Course
from jaxexec.simulation.process import PriceProcess, settled, trades_of
from jaxexec.simulation.refusal import guarded


class ShortfallMoments(eqx.Module):
    """Mean and variance of the implementation shortfall.

    Attributes:
        expected_cost: E, currency.
        variance: Var, currency².
        status: OK; NONFINITE_INPUT; INFEASIBLE for trades without volume or beyond a cap.
    """

    expected_cost: Float[Array, ""]
    variance: Float[Array, ""]
    status: Int[Array, ""]


class _State(NamedTuple):
    """Moments of the price's move from S_0 and of what has been lost."""

    move: Array
    loss: Array
    move_variance: Array
    covariance: Array
    loss_variance: Array


@eqx.filter_jit
def shortfall_moments(
    problem: Liquidation, trades: Schedule | ArrayLike, process: PriceProcess | None = None
) -> ShortfallMoments:
    """E and Var of a schedule under any price process that leaves the volume alone. Traced and differentiable.

    With the defaults of `PriceProcess` they are `expected_cost` and `variance`. The variance's own noise has mean one
    and does not change them.

    Args:
        problem: the order.
        trades: a schedule, or (steps,) shares sold in each step.
        process: the price process.

    Raises:
        ValueError: `trades` has another shape; the process has random volume, or a geometric price with random
            variance: simulate those.
    """
    process = settled(problem, process)
    if process.volume_noise is not None:
        raise ValueError("volume_noise: with random volume there is no closed form; use simulate")
    if process.form == "geometric" and process.variance_noise is not None:
        raise ValueError("variance_noise: with a geometric price there is no closed form; use simulate")
    safe = guarded(problem, trades_of(problem, trades), process)
    mean, spread = _moments(safe.course, safe.process, safe.problem)
    return ShortfallMoments(safe.spoilt(mean), safe.spoilt(spread), safe.status)


def _moments(course: Course, process: PriceProcess, problem: Liquidation) -> tuple[Array, Array]:
    execution = process.execution_of(problem)
    start = process.initial_price if process.form == "geometric" else None
    share = OWN_SHARE[execution]

    def step(state: _State, now: tuple) -> tuple[_State, None]:
        open_trades, permanent, drift, deviation = now
        if execution == "before":
            state = _traded(state, open_trades, 0.0)
            state = _lowered(_moved(state, drift, deviation, start), permanent)
        elif execution == "after":
            state = _lowered(_moved(state, drift, deviation, start), permanent)
            state = _traded(state, open_trades, 0.0)
        else:
            half = drift / 2, deviation * 0.5**0.5
            state = _traded(_moved(state, *half, start), open_trades, share * permanent)
            state = _moved(_lowered(state, permanent), *half, start)
        return state, None

    nothing = jnp.zeros_like(course.open_end)
    curves = (course.open_trades, course.permanent, course.drift, course.deviation)
    end, _ = lax.scan(step, _State(*[nothing] * 5), curves)
    end = _traded(end, course.open_end, 0.0)
    return end.loss + jnp.sum(course.costs) + course.certain, end.loss_variance


def _moved(state: _State, drift: Array, deviation: Array, start: Array | None) -> _State:
    """After one exogenous move of the price."""
    if start is None:
        return state._replace(move=state.move + drift, move_variance=state.move_variance + deviation**2)
    growth, spread = drift / start, (deviation / start) ** 2
    price, factor = start + state.move, jnp.exp(growth)
    return state._replace(
        move=state.move + price * jnp.expm1(growth),
        move_variance=factor**2 * (jnp.exp(spread) * state.move_variance + price**2 * jnp.expm1(spread)),
        covariance=factor * state.covariance,
    )


def _lowered(state: _State, permanent: Array) -> _State:
    return state._replace(move=state.move - permanent)


def _traded(state: _State, shares: Array, own_impact: Array | float) -> _State:
    """After a sale of `shares` at the price of the moment, less `own_impact`."""
    return state._replace(
        loss=state.loss - shares * (state.move - own_impact),
        covariance=state.covariance - shares * state.move_variance,
        loss_variance=state.loss_variance - 2 * shares * state.covariance + shares**2 * state.move_variance,
    )


__all__ = ["ShortfallMoments", "shortfall_moments"]
