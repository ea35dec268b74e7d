"""Monte Carlo of the implementation shortfall: block by block on the device, nothing kept but sums.

Paths are drawn in replicates that are independent of each other, each in blocks that stay in cache. Every estimate is
made of all paths; its standard error is the spread of the same estimate over the replicates, which holds for
antithetic and quasi-random paths too. Derivatives are pathwise, those of quantiles by conditional expectation:

    dE[C] = E[dC],     dVar = 2 E[(C − E C) dC],     dVaR = E[dC | C = VaR],     dCVaR = E[dC | C > VaR]

(Glasserman 2004, ch. 7; Hong 2009; Hong and Liu 2009).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.numerics.arrays import is_concrete
from jaxexec.numerics.status import Status, taint
from jaxexec.simulation.estimates import Simulation
from jaxexec.simulation.histogram import Histogram
from jaxexec.simulation.path import course, path, shape
from jaxexec.simulation.process import PriceProcess, settled, trades_of
from jaxexec.simulation.refusal import guarded
from jaxexec.simulation.shocks import (
    SAMPLINGS,
    Sampling,
    Shocks,
    align,
    block_size,
    draw,
    key_of,
    mirrored,
    quiet,
    sobol,
)

Progress = Callable[[int, int], None]

REPLICATES = 32
_SHIFT = 0x7FFFFFFF  # no block has this number


_LEAST_BEYOND = 1.5  # paths of a replicate beyond a level, below which replicates do not tell the error


class Plan(NamedTuple):
    """What is drawn; part of the compiled programme.

    Attributes:
        block: paths of a block.
        blocks: blocks of a replicate.
        sampling: how.
        levels: of value at risk.
    """

    block: int
    blocks: int
    sampling: Sampling
    levels: tuple[float, ...]

    @property
    def paths(self) -> int:
        """In all."""
        return REPLICATES * self.blocks * self.block


class _Inputs(NamedTuple):
    problem: Liquidation
    trades: Array
    process: PriceProcess


class _Totals(NamedTuple):
    """Everything drawn so far, and the sums of each replicate's own estimates and of their squares."""

    centre: Array
    scale: Array
    pooled: Histogram
    estimates: Array
    squares: Array


def simulate(
    problem: Liquidation,
    trades: Schedule | ArrayLike,
    process: PriceProcess | None = None,
    *,
    paths: int = 65_536,
    seed: int | Array = 0,
    sampling: Sampling = "pseudo",
    levels: Sequence[float] = (0.5, 0.95, 0.99),
    progress: Progress | None = None,
) -> Simulation:
    """The distribution of the implementation shortfall of a schedule, drawn step by step. Traced and differentiable.

    Memory does not grow with the number of paths. On one kind of device the same seed gives the same shocks whatever
    the order, so that differences between schedules are far more precise than either.

    Args:
        problem: the order.
        trades: a schedule, or (steps,) shares sold in each step.
        process: the price process; None is the order's own model.
        paths: how many, ≥ 64; rounded up to whole blocks, for "quasi" to 32 times a power of two.
        seed: an integer, or a JAX key.
        sampling: "pseudo"; "antithetic", each path with its mirror image; "quasi", low-discrepancy in the direction
            that the shortfall is most sensitive to.
        levels: of the quantiles of the shortfall (values at risk) and the means beyond them, between 0 and 1.
        progress: called with (paths done, paths in all); for concrete inputs only.

    Raises:
        ValueError: an argument is out of its range, or `progress` within a trace.

    Source: Glasserman, Monte Carlo Methods in Financial Engineering (2004).
    """
    plan = _plan(paths, sampling, levels)
    key = key_of(seed)
    inputs = _Inputs(problem, trades_of(problem, trades), settled(problem, process))
    if progress is None:
        return _simulate(plan, key, inputs)
    if not all(is_concrete(x) for x in jax.tree.leaves((key, inputs))):
        raise ValueError("progress needs concrete inputs: drop it inside jit, vmap or grad")
    return _with_progress(plan, key, inputs, progress)


def _plan(paths: int, sampling: Any, levels: Sequence[float]) -> Plan:
    if isinstance(paths, bool) or not isinstance(paths, int | np.integer) or not 64 <= paths < 2**31:
        raise ValueError(f"paths must be an integer of at least 64 and below 2³¹, got {paths!r}")
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {SAMPLINGS}, got {sampling!r}")
    chosen = tuple(float(level) for level in levels)
    for i, level in enumerate(chosen):
        if not 0 < level < 1:
            raise ValueError(f"levels[{i}] must be between 0 and 1, got {level}")
    each = math.ceil(int(paths) / REPLICATES)
    each += each % 2
    if sampling == "quasi":
        each = 1 << math.ceil(math.log2(each))
    block = block_size(each)
    return Plan(block, math.ceil(each / block), sampling, chosen)


@functools.partial(jax.jit, static_argnums=0)
def _simulate(plan: Plan, key: Array, inputs: _Inputs) -> Simulation:
    safe = guarded(*inputs)
    found = _estimates(plan, key, _Inputs(safe.problem, safe.trades, safe.process))
    return _reported(safe, found)


def _with_progress(plan: Plan, key: Array, inputs: _Inputs, progress: Progress) -> Simulation:
    """The same numbers, with a word after each replicate."""
    harmless = _settle(inputs)
    totals = _begin(plan, key, harmless)
    for replicate in range(REPLICATES):
        totals = jax.block_until_ready(_advance(plan, key, harmless, totals, jnp.int32(replicate)))
        progress((replicate + 1) * plan.blocks * plan.block, plan.paths)
    return _conclude(plan, inputs, totals)


@jax.jit
def _settle(inputs: _Inputs) -> _Inputs:
    safe = guarded(*inputs)
    return _Inputs(safe.problem, safe.trades, safe.process)


@functools.partial(jax.jit, static_argnums=0)
def _begin(plan: Plan, key: Array, inputs: _Inputs) -> _Totals:
    return _pilot(plan, _sampler(plan, key, inputs))


@functools.partial(jax.jit, static_argnums=0)
def _advance(plan: Plan, key: Array, inputs: _Inputs, totals: _Totals, replicate: Array) -> _Totals:
    return _replicate(plan, _sampler(plan, key, inputs), totals, replicate)


@functools.partial(jax.jit, static_argnums=0)
def _conclude(plan: Plan, inputs: _Inputs, totals: _Totals) -> Simulation:
    return _reported(guarded(*inputs), _read(plan, totals))


def _reported(safe: Any, found: Simulation) -> Simulation:
    """The estimates with their status, NaN where there are none."""
    finite = jnp.isfinite(found.mean) & jnp.isfinite(found.variance)
    status = jnp.where(~safe.failed & ~finite, Status.NONFINITE_INTERNAL, safe.status).astype(jnp.int32)
    safe = safe._replace(status=status)
    spoilt = {
        name: safe.spoilt(value)
        for name, value in vars(found).items()
        if jnp.issubdtype(value.dtype, jnp.floating) and name != "levels"
    }
    return Simulation(**(vars(found) | spoilt | {"status": status}))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _estimates(plan: Plan, key: Array, inputs: _Inputs) -> Simulation:
    losses = _sampler(plan, key, inputs)
    totals = lax.fori_loop(0, REPLICATES, lambda r, t: _replicate(plan, losses, t, r), _pilot(plan, losses))
    return _read(plan, totals)


@_estimates.defjvp
def _estimates_jvp(plan: Plan, primals: tuple, tangents: tuple) -> tuple[Simulation, Simulation]:
    key, inputs = primals
    found = _estimates(plan, key, inputs)
    known, slopes = jax.jvp(lambda given: _weighted(plan, key, given, found), (inputs,), (tangents[1],))
    # The conditional mean of dC at C = VaR is the intercept of a local line, so that no slope of dC in C biases it;
    # where all losses are the same there is no line, and their mean will do.
    near, skew, wide = known.near
    level = wide * slopes.near_losses[0] - skew * slopes.near_losses[1]
    spread = near * wide - skew**2
    lined = spread > 1e-9 * near**2
    level = jnp.where(lined, level / jnp.where(lined, spread, 1), slopes.near_losses[0] / jnp.maximum(near, 1e-30))
    # A sample says nothing about second derivatives at a quantile: they are NaN, not a number that looks like one.
    once = 1 + taint(inputs, jnp.ones_like(found.mean, bool))
    first, second = slopes.losses
    return found, eqx.tree_at(
        lambda s: (s.mean, s.variance, s.value_at_risk, s.conditional_value_at_risk),
        jax.tree.map(_no_tangent, found),
        (
            first / plan.paths,
            (second - 2 * known.losses[0] / plan.paths * first) / (plan.paths - 1),
            level * once,
            slopes.beyond_losses / jnp.maximum(known.beyond, 1) * once,
        ),
    )


class _Weighted(NamedTuple):
    """Σ w C, whose tangents make those of the estimates, and the Σ w that they are divided by.

    Attributes:
        losses: Σ (C − c) and Σ (C − c)², c the mean.
        near_losses, near: (2, levels) and (3, levels), weights around each quantile times powers of the distance.
        beyond_losses, beyond: (levels,), weight one beyond it.
    """

    losses: Array
    near_losses: Array
    near: Array
    beyond_losses: Array
    beyond: Array


def _weighted(plan: Plan, key: Array, inputs: _Inputs, found: Simulation) -> _Weighted:
    """The sums over all paths; recomputed, not stored, on the way back."""
    found = lax.stop_gradient(found)
    spread = jnp.sqrt(jnp.maximum(found.variance, 0))
    width = jnp.where(spread > 0, 1.06 * spread * plan.paths**-0.2, 1)  # Silverman's
    levels = found.value_at_risk[:, None]
    slack = jnp.finfo(spread.dtype).eps ** 0.5 * spread  # a quantile that rounds above the greatest loss has one beyond

    @jax.checkpoint
    def block(inputs: _Inputs, replicate: Array, number: Array) -> _Weighted:
        losses = _sampler(plan, key, inputs)(replicate, number)
        known = lax.stop_gradient(losses)
        apart = (known[None] - levels) / width
        kernel = jnp.exp(-0.5 * apart**2)
        near = jnp.stack([kernel, kernel * apart, kernel * apart**2])
        beyond = (known[None] >= levels - slack).astype(known.dtype)
        moved = losses - found.mean
        moments = jnp.stack([jnp.sum(moved), jnp.sum(moved**2)])
        return _Weighted(moments, near[:2] @ losses, jnp.sum(near, -1), beyond @ losses, jnp.sum(beyond, -1))

    def step(sums: _Weighted, number: Array) -> tuple[_Weighted, None]:
        more = block(inputs, number // plan.blocks, number % plan.blocks)
        return jax.tree.map(jnp.add, sums, more), None

    nothing, none = jnp.zeros_like(found.mean), jnp.zeros_like(found.value_at_risk)
    start = _Weighted(jnp.stack([nothing] * 2), jnp.stack([none] * 2), jnp.stack([none] * 3), none, none)
    return lax.scan(step, start, jnp.arange(REPLICATES * plan.blocks, dtype=jnp.int32))[0]


def _sampler(plan: Plan, key: Array, inputs: _Inputs) -> Callable[[Array, Array], Float[Array, " paths"]]:
    """The shortfalls of a block, by its replicate and number."""
    problem, process = inputs.problem, inputs.process
    common, size = course(problem, inputs.trades, process), shape(problem, process)
    drawn = plan.block // 2 if plan.sampling == "antithetic" else plan.block

    def shortfall(shocks: Shocks) -> Array:
        return path(problem, common, process, shocks).shortfall

    def losses(replicate: Array, number: Array) -> Array:
        source = jax.random.fold_in(key, replicate)
        shocks = draw(jax.random.fold_in(source, number), size, drawn)
        if steepest is not None:
            shift = jax.random.bits(jax.random.fold_in(source, _SHIFT), (2, 1), jnp.uint32)
            index = number.astype(jnp.uint32) * drawn + jnp.arange(drawn, dtype=jnp.uint32)
            shocks = align(shocks, steepest, sobol(index) ^ shift)
        some = jax.vmap(shortfall, in_axes=-1)(shocks)
        if plan.sampling != "antithetic":
            return some
        return jnp.concatenate([some, jax.vmap(shortfall, in_axes=-1)(mirrored(shocks))])

    steepest = lax.stop_gradient(jax.grad(shortfall)(quiet(size))) if plan.sampling == "quasi" else None
    return losses


def _pilot(plan: Plan, losses: Callable) -> _Totals:
    """Nothing yet, but a place and a scale to count from: those of the first block."""
    first = losses(jnp.int32(0), jnp.int32(0))
    centre, spread = jnp.mean(first), jnp.std(first)
    scale = jnp.where(spread > 0, spread, 1)
    pooled = Histogram.empty(centre)
    nothing = jnp.broadcast_to(pooled.total, (2 + 2 * len(plan.levels),))
    return _Totals(centre, scale, pooled, nothing, nothing)


def _replicate(plan: Plan, losses: Callable, totals: _Totals, replicate: Array) -> _Totals:
    """With all blocks of one more replicate."""

    def block(number: Array, drawn: Histogram) -> Histogram:
        return drawn.add((losses(replicate, number) - totals.centre) / totals.scale)

    drawn = lax.fori_loop(0, plan.blocks, block, Histogram.empty(totals.centre))
    found = _standardised(plan, drawn)
    return totals._replace(
        pooled=totals.pooled.merge(drawn), estimates=totals.estimates + found, squares=totals.squares + found**2
    )


def _standardised(plan: Plan, drawn: Histogram) -> Float[Array, " estimates"]:
    """Mean, variance, quantiles and tail means of standardised losses."""
    quantiles = [drawn.quantile(level) for level in plan.levels]
    tails = [drawn.tail_mean(level) for level in plan.levels]
    return jnp.stack([drawn.mean(), drawn.variance(), *quantiles, *tails])


def _read(plan: Plan, totals: _Totals) -> Simulation:
    """Estimates and standard errors in currency."""
    centre, scale, k = totals.centre, totals.scale, len(plan.levels)
    found = _standardised(plan, totals.pooled)
    apart = totals.squares - totals.estimates**2 / REPLICATES
    errors = jnp.sqrt(jnp.maximum(apart, 0) / (REPLICATES - 1) / REPLICATES)
    rare = np.array([plan.blocks * plan.block * min(level, 1 - level) < _LEAST_BEYOND for level in plan.levels])
    errors = jnp.where(np.concatenate([[False, False], rare, rare]), jnp.nan, errors)
    return Simulation(
        paths=totals.pooled.number,
        mean=centre + scale * found[0],
        mean_error=scale * errors[0],
        variance=scale**2 * found[1],
        variance_error=scale**2 * errors[1],
        levels=jnp.asarray(plan.levels, centre.dtype),
        value_at_risk=centre + scale * found[2 : 2 + k],
        value_at_risk_error=scale * errors[2 : 2 + k],
        conditional_value_at_risk=centre + scale * found[2 + k :],
        conditional_value_at_risk_error=scale * errors[2 + k :],
        least=centre + scale * totals.pooled.least,
        greatest=centre + scale * totals.pooled.greatest,
        centre=centre,
        scale=scale,
        counts=totals.pooled.counts,
        status=jnp.zeros_like(totals.pooled.number),
    )


def _no_tangent(x: Array) -> Any:
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return jnp.zeros_like(x) if floating else np.zeros(x.shape, jax.dtypes.float0)


__all__ = ["REPLICATES", "Progress", "simulate"]
