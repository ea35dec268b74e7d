"""Schedules of least risk measure, where `solve` has no convex programme: by gradient, on moments or on a sample."""

import equinox as eqx
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxexec.liquidation import Liquidation
from jaxexec.risk import RiskMeasure
from jaxexec.simulation.exact import shortfall_moments
from jaxexec.simulation.process import PriceProcess, is_capped, settled
from jaxexec.simulation.sample import shortfalls
from jaxexec.simulation.shocks import key_of
from jaxexec.solvers.descent import LocalSchedule, descend

_CORNERS = 20.0  # residuals stall at about a quarter over the number of paths in the tail


class _OfMoments(eqx.Module):
    """Measure of a normal shortfall."""

    measure: RiskMeasure
    process: PriceProcess

    def __call__(self, problem: Liquidation, trades: Array) -> Array:
        moments = shortfall_moments(problem, trades, self.process)
        return self.measure.of_normal(moments.expected_cost, moments.variance)


class _OfSample(eqx.Module):
    """Measure of a sample of the shortfall, its shocks fixed."""

    measure: RiskMeasure
    process: PriceProcess
    key: Array
    paths: int = eqx.field(static=True)

    def __call__(self, problem: Liquidation, trades: Array) -> Array:
        return self.measure.of_sample(shortfalls(problem, trades, self.process, paths=self.paths, seed=self.key))


def minimise(
    problem: Liquidation,
    measure: RiskMeasure,
    process: PriceProcess | None = None,
    *,
    paths: int | None = None,
    seed: int | Array = 0,
    start: ArrayLike | None = None,
    one_sided: bool = True,
    rtol: float | None = None,
    max_steps: int = 1000,
    throw: bool = False,
) -> LocalSchedule:
    """The schedule of least `measure` of its shortfall, by gradient. Traced and differentiable.

    For E + (γ/2) Var with linear permanent impact use `solve`, which proves its answer; this is for what `solve` cannot
    take: nonlinear permanent impact, geometric prices, random volume and volatility, quantiles and tail means.

    Args:
        problem: the order; its own risk aversion plays no part.
        measure: what to minimise, such as `ConditionalValueAtRisk(0.95)`.
        process: the price process; None is the order's own model.
        paths: None takes mean and variance in closed form and the shortfall as normal, which an arithmetic price
            without random volume and variance makes exact; a number takes a sample of so many paths, which anything
            allows.
        seed: of the sample, an integer or a JAX key. Its optimum is that of the sample: compare a few seeds.
        start: (steps,) trades to start from; None is VWAP.
        one_sided: a sale has no purchases on the way; see `descend`.
        rtol: how flat the objective must be, see `LocalSchedule.residual`; None is 1e-9 on moments (1e-4 in float32)
            and 20/paths on a sample, whose tail has corners where paths change places.
        max_steps: of the search.
        throw: raise on failure; concrete problems only.

    Returns:
        A stationary point, with status LOCAL.

    Raises:
        ValueError: a wrong type or shape; a cost with a cap; without `paths`, a process that makes the shortfall other
            than normal.
        RuntimeError: `throw` and a failed status.
    """
    if not isinstance(measure, RiskMeasure):
        raise ValueError(f"measure must be a jaxexec.RiskMeasure, got {type(measure).__name__}")
    if is_capped(problem):
        raise ValueError("cost: a search by gradient cannot keep a cap; use solve, or a cost without one")
    process = settled(problem, process)
    if paths is None:
        if process.form != "arithmetic" or process.variance_noise is not None or process.volume_noise is not None:
            raise ValueError("paths: the shortfall of this process is not normal; give a number of paths")
        objective = _OfMoments(measure, process)
    else:
        objective, rtol = _OfSample(measure, process, key_of(seed), paths), _CORNERS / paths if rtol is None else rtol
    return descend(problem, objective, start=start, one_sided=one_sided, rtol=rtol, max_steps=max_steps, throw=throw)


__all__ = ["minimise"]
