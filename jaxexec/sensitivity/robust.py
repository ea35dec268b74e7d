"""One schedule for many possible markets: least expected regret, or least worst regret, over a set of scenarios.

With scenarios i and the regret r_i(n) = U_i(n) − min U_i of a schedule n,

    expected    minimise Σ π_i r_i(n)        worst    minimise max_i r_i(n) = max_λ min_n Σ λ_i r_i(n),  λ ≥ 0, Σ λ = 1

Both are convex, and Σ λ_i U_i is itself an order (`blend`): costs add, so do variances weighed by γ, drifts and
permanent impacts. The first is one solve, however many scenarios there are. The second is a concave maximum over λ
(`minimax`): every λ bounds the least worst regret from below, Σ λ_i r_i(n(λ)), and every schedule from above, so that
what is left of the gap is known.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxexec.costs import CustomCost, ExecutionCost, QuadraticCost, SumCost
from jaxexec.costs.mixture import MixedCost, stacked
from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.market import Market
from jaxexec.numerics.arrays import as_float, check
from jaxexec.numerics.status import Status, poison, taint
from jaxexec.sensitivity.minimax import Cases, least_worst, numbers_of, with_numbers
from jaxexec.solvers import solve
from jaxexec.solvers.plan import ScheduleSolver
from jaxexec.solvers.verdict import comparable, harmless_where

Criterion = Literal["expected", "worst"]


class RobustSchedule(eqx.Module):
    """A schedule for a set of scenarios. Currency throughout.

    Attributes:
        schedule: the schedule; its costs and certificate are those of the blend of the scenarios by `weights`.
        regrets: (scenarios,) what it costs above the best schedule of each.
        expected_regret: Σ π_i r_i, with the probabilities that were given.
        worst_regret: max_i r_i.
        weights: (scenarios,) π, or for "worst" λ: the scenarios that bind have weight.
        gap: upper bound of what the criterion is above the least possible.
        status: a `Status`; OK_INACCURATE where the gap of "worst" is above 1e-4 of the worst regret that the mean of
            the scenarios' own schedules has, and MAX_STEPS, with NaN, above 1e-2.
    """

    schedule: Schedule
    regrets: Float[Array, " scenarios"]
    expected_regret: Float[Array, ""]
    worst_regret: Float[Array, ""]
    weights: Float[Array, " scenarios"]
    gap: Float[Array, ""]
    status: Int[Array, ""]


def robust_schedule(
    scenarios: Liquidation | Sequence[Liquidation],
    probabilities: ArrayLike | None = None,
    *,
    criterion: Criterion = "expected",
    solver: ScheduleSolver | None = None,
) -> RobustSchedule:
    """The schedule of least expected or least worst regret. Traced; first derivatives are exact.

    Args:
        scenarios: views of one order, a sequence of them or one with a leading axis (scenarios,) on every leaf: the
            same shares, target and grid; market, cost and risk aversion as each has it. A thousand are fine,
            and compile no longer than a dozen; but each `CustomCost` adds to the programme. Convention "continuous", no
            benchmark.
        probabilities: (scenarios,) π > 0, scaled to sum to one; None weighs all alike. "worst" looks at which
            scenarios there are only.
        criterion: "expected" or "worst".
        solver: an N-step method; None means the default.

    Returns:
        `RobustSchedule`; NaN with the status of the scenario, or of the blend, that failed.

    Raises:
        ValueError: scenarios of different kinds or shapes, another convention, a benchmark, or an option or a concrete
            probability that is none of the above.

    Source: minimax regret, Savage, The theory of statistical decision, J. Amer. Stat. Assoc. 46 (1951).
    """
    if criterion not in ("expected", "worst"):
        raise ValueError(f"criterion must be 'expected' or 'worst', got {criterion!r}")
    batch = _stacked(scenarios)
    count, dtype = batch.shares.shape[0], batch.shares.dtype
    weights = jnp.ones((count,), dtype) if probabilities is None else as_float("probabilities", probabilities)
    if weights.shape != (count,):
        raise ValueError(f"probabilities must have shape ({count},), one a scenario, got {weights.shape}")
    check("probabilities", weights, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
    weights = weights.astype(dtype)
    return _robust(batch, weights / jnp.sum(weights), criterion, solver)


def blend(scenarios: Liquidation, weights: Float[Array, " scenarios"]) -> Liquidation:
    """The order whose objective is Σ w_i U_i, up to what no schedule changes. Traced.

    With b_i the volume of a step in scenario i and b their mean, L(ρ) = Σ w_i (b_i/b) L_i(ρ b/b_i).

    Args:
        scenarios: with a leading axis (scenarios,) on every leaf.
        weights: w > 0.
    """
    grid = jax.tree.map(lambda x: x[0], scenarios.market.grid)
    durations = grid.durations
    volumes = jax.vmap(lambda p: jnp.broadcast_to(p.market.step_volume, durations.shape))(scenarios)
    open_ = jnp.all(volumes > 0, axis=0)  # what cannot be traded in one scenario is not planned for
    volume = jnp.where(open_, jnp.mean(volumes, axis=0), 0)
    ratios = jnp.where(open_[None], volume[None] / jnp.where(open_[None], volumes, 1), 1)
    gamma = jnp.sum(weights * scenarios.risk_aversion)
    safe_gamma = jnp.where(gamma > 0, gamma, 1)
    risks = jax.vmap(lambda p: jnp.broadcast_to(p.risk_aversion * p.market.step_variance, durations.shape))(scenarios)
    drifts = jax.vmap(lambda p: jnp.broadcast_to(p.market.step_drift, durations.shape))(scenarios)
    market = Market(
        grid,
        volatility=0.0,
        volume=volume / durations,
        permanent_impact=jnp.sum(weights * scenarios.market.permanent_impact),
        drift=weights @ drifts / durations,
        gap_variance=weights @ risks / safe_gamma,
    )
    penalty = scenarios.terminal_penalty
    end = None if penalty is None else jnp.sum(weights * penalty)
    shares, target = scenarios.shares[0], scenarios.target[0]
    return Liquidation(shares, market, _blended(scenarios.cost, weights, ratios), gamma, target, terminal_penalty=end)


def _blended(cost: ExecutionCost, weights: Array, ratios: Float[Array, "scenarios steps"]) -> ExecutionCost:
    """Σ w_i L_i(ρ b/b_i) b_i/b, with b/b_i the ratios."""
    count, steps = ratios.shape
    if any(isinstance(part, CustomCost) for part in jax.tree.leaves(cost, is_leaf=lambda x: isinstance(x, CustomCost))):
        # A user's parameters may have any shape, and are not laid side by side.
        costs = [jax.tree.map(lambda x, i=i: x[i], cost) for i in range(count)]
        return SumCost([c.in_units(ratio, 1 / w) for c, ratio, w in zip(costs, ratios, weights, strict=True)])
    members = jax.vmap(lambda c, ratio, w: c.in_units(ratio, 1 / w))(stacked(cost, steps), ratios, weights)
    if not isinstance(members, QuadraticCost):
        return MixedCost(members)
    # Quadratic costs add to a quadratic one, whose conjugate needs no root.
    return jax.tree.map(lambda x: jnp.sum(x, 0), members)


def _stacked(scenarios: Liquidation | Sequence[Liquidation]) -> Liquidation:
    if not isinstance(scenarios, Liquidation):
        several = list(scenarios)
        for index, one in enumerate(several):
            if not isinstance(one, Liquidation):
                raise ValueError(f"scenarios[{index}] must be a jaxexec.Liquidation, got {type(one).__name__}")
            if jax.tree.structure(one) != jax.tree.structure(several[0]):
                raise ValueError(f"scenarios[{index}] is of another kind than scenarios[0]: cost, convention or fields")
        if not several:
            raise ValueError("scenarios must hold at least one order")
        try:
            scenarios = jax.tree.map(lambda *x: jnp.stack(jnp.broadcast_arrays(*x)), *several)
        except (TypeError, ValueError) as error:
            raise ValueError(f"scenarios must have the same steps: {error}") from error
    assert isinstance(scenarios, Liquidation)
    if scenarios.shares.ndim != 1:
        raise ValueError(f"scenarios must have one leading axis on every leaf, got shares {scenarios.shares.shape}")
    if scenarios.convention != "continuous" or scenarios.benchmark is not None:
        raise ValueError("scenarios must have convention 'continuous' and no benchmark")
    for name, same in (("shares", scenarios.shares), ("target", scenarios.target), ("times", scenarios.grid.times)):
        check(name, jnp.max(jnp.abs(same - same[:1])), lambda v: v == 0, "the same in all scenarios")
    return scenarios


@functools.partial(jax.jit, static_argnums=(2, 3))
def _robust(batch: Liquidation, probabilities: Array, criterion: Criterion, solver) -> RobustSchedule:
    alone = jax.vmap(lambda p: solve(p, solver))(batch)
    lost = jnp.max(alone.status) > Status.LOCAL
    everywhere = taint((batch, probabilities), lost)
    worst_status = jnp.max(alone.status)
    # Harmless numbers there: gradients that mask a failed lane stay finite.
    batch = jax.vmap(lambda p: harmless_where(lost, p))(batch)
    cases = Cases(batch, jax.tree.map(lambda x: jnp.where(lost, jnp.zeros_like(x), x), alone))
    if criterion == "worst" and probabilities.shape[0] > 1:
        schedule, weights, lower, close = least_worst(cases, blend, solver, lost)
    else:
        schedule, weights = solve(blend(batch, probabilities), solver), probabilities
        lower, close = None, jnp.asarray(Status.OK)
    found = cases.regrets(jnp.where(schedule.status > Status.LOCAL, 0, schedule.trades))
    expected, worst = jnp.sum(probabilities * found), jnp.max(found)
    gap = schedule.duality_gap if lower is None else jnp.maximum(worst - lower, 0)
    status = jnp.maximum(worst_status, schedule.status)
    status = jnp.where(status <= Status.LOCAL, jnp.maximum(status, close), status)
    failed = status > Status.LOCAL

    def safe(tree):
        return jax.tree.map(lambda x: poison(jnp.where(failed, 0, x) + everywhere, failed), tree)

    found, expected, worst, weights = safe((found, expected, worst, weights))
    kept = with_numbers(schedule, safe(numbers_of(schedule)))
    gap = comparable(lax.stop_gradient(gap))
    return RobustSchedule(kept, found, expected, worst, weights, gap, status.astype(jnp.int32))
