"""Newton's method for baskets, on the Hamiltonian system, neither inventories nor costates eliminated.

Each iteration replaces the own curves ρ = H'(v), v = y − 2Qn, by tangents ρ ≈ d v + c and solves a block ladder,

    q_k − q_{k+1} = A_k y_k + r_k,   A = (B⁻¹ + 2Q)⁻¹,  B = b d,        y_{n−1} − y_n = W_n q_n − g_n,

in O(N d³) (`numerics.block_tridiagonal`). The two phases are those of `LadderNewton`: tangents kept at the rate where
that is safe, then damped semismooth Newton on the dual, for kinks and for trades that change sign. With Q the dual is

    min over y, m of  Σ b H(y − 2Qm) + mᵀQm + …        (at the optimum m = n)

convex and C¹, and its derivative along a step is monotone: the line search brackets a zero of that derivative.
A `FactorCovariance` is made dense: after one node R is as full with factors as without, so Woodbury saves nothing.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.costs import CurvePoint
from jaxexec.numerics.block_tridiagonal import Rail, solve_block_ladder, through_rails, through_rungs
from jaxexec.solvers.basket_program import BasketProgram, Curves
from jaxexec.solvers.line_search import line_search

_KEEP_RATIO = 0.2
_COARSER = 4
_ROUGH_GAP, _ROUGH_STEPS = 1e-4, 10


class BlockLadderNewton(eqx.Module):
    """Certified solver for baskets.

    Args:
        rtol: relative tolerance of the schedule in the energy norm, √(gap/objective); None means 1e-10 in float64
            and 3e-6 in float32.
        max_steps: most Newton steps in each of the two phases.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=60)

    def iterate(self, program: BasketProgram, curves: Curves) -> "BlockIterate":
        """Solve a dimensionless programme."""
        tolerance = self.rtol or (1e-10 if program.volume.dtype == jnp.float64 else 3e-6)
        newton = _Newton(program, curves, program.rail(), tolerance**2, self.max_steps)
        guarded = newton.guarded()
        damped = newton.damped(guarded)
        pick = guarded.converged
        return BlockIterate(
            jnp.where(pick, guarded.inventory, damped.inventory),
            jnp.where(pick, guarded.marginal, damped.marginal),
            guarded.iterations + damped.iterations,
            pick | damped.converged,
        )


class BlockIterate(NamedTuple):
    """A pair (q, y) on the rails, and how it was reached."""

    inventory: Float[Array, "interior assets"]
    marginal: Float[Array, "steps assets"]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class _State(NamedTuple):
    """A point of the own curves, the trades m that it was seen from, and the pair."""

    point: CurvePoint
    flows: Float[Array, "steps assets"]
    inventory: Float[Array, "interior assets"]
    marginal: Float[Array, "steps assets"]
    gap: Float[Array, ""]
    iterations: Int[Array, ""]


class _Newton(NamedTuple):
    program: BasketProgram
    curves: Curves
    rail: Rail
    gap_tolerance: float
    max_steps: int

    def start(self) -> Array:
        """Rates to begin with: those of a rough solution on a quarter of the steps, or VWAP."""
        p = self.program
        span = p.first - p.last
        sign = jnp.where(span < 0, -1, 1).astype(span.dtype)
        vwap = jnp.broadcast_to((sign * jnp.maximum(jnp.abs(span), 0.1))[None], p.volume.shape)
        small = _coarsened(p)
        if small is None or any(jnp.ndim(x) > 1 for x in jax.tree.leaves(self.curves.cost)):
            return vwap
        steps = min(_ROUGH_STEPS, self.max_steps)
        rough = self._replace(
            program=small, rail=self.rail._replace(scale=small.scale), gap_tolerance=_ROUGH_GAP, max_steps=steps
        ).guarded()
        rates = _interpolated(small.rates(rough.inventory))
        fit = rough.converged & (p.volume > 0) & jnp.isfinite(rates) & (rates != 0)
        return jnp.where(fit, rates, vwap)

    def guarded(self) -> BlockIterate:
        """Each tangent at the rate that the linear solve found, while that stays near the old one."""
        p = self.program
        rates = self.start()
        zero = jnp.zeros_like(rates)
        begin = _State(
            self.curves.curve_point(rates, zero, jnp.ones(rates.shape, bool)),
            zero,
            jnp.zeros_like(p.charge),
            zero,
            jnp.where(p.idle, 0, jnp.inf).astype(rates.dtype),
            jnp.asarray(0, jnp.int32),
        )

        def unfinished(s: _State):
            return (s.iterations < self.max_steps) & ~(s.gap <= self.gap_tolerance) & ~jnp.isnan(s.gap)

        def step(s: _State):
            old = s.point
            q, y, flows = self.tangent_solution(old.slope, old.intercept)
            own = y - p.across(flows)
            rate = old.slope * own + old.intercept
            keep = (old.rate != 0) & (rate * jnp.sign(old.rate) >= _KEEP_RATIO * jnp.abs(old.rate))
            new = self.curves.curve_point(rate, own, keep)
            kept = new.slope * (new.marginal - own) ** 2 / 2
            jumped = jnp.abs(new.rate - rate) * jnp.abs(own)
            gap = self.relative(jnp.sum(p.volume * jnp.where(keep, kept, jumped)), rate, own, q)
            sound = jnp.isfinite(gap)  # else stay at the last pair that was, for the second phase to go on from
            q, y, flows = (jnp.where(sound, a, b) for a, b in ((q, s.inventory), (y, s.marginal), (flows, s.flows)))
            return _State(new, flows, q, y, jnp.where(sound, gap, jnp.nan), s.iterations + 1)

        end = lax.while_loop(unfinished, step, begin)
        return BlockIterate(end.inventory, end.marginal, end.iterations, end.gap <= self.gap_tolerance)

    def damped(self, start: BlockIterate) -> BlockIterate:
        """Newton on the dual in (y, m), each step cut back to where the dual no longer falls."""
        p = self.program
        never = jnp.zeros(p.volume.shape, bool)
        least_slope = jnp.finfo(p.volume.dtype).eps
        tolerance = self.gap_tolerance**0.5  # the bound below is of first order in the error, the gap of second

        def at(flows: Array, marginal: Array) -> CurvePoint:
            own = marginal - p.across(flows)
            return self.curves.curve_point(own, own, never)

        def step(s: _State):
            point = s.point
            slope = jnp.maximum(point.slope, least_slope)
            intercept = jnp.where(point.slope >= least_slope, point.intercept, point.rate - slope * point.marginal)
            q_full, y_full, m_full = self.tangent_solution(slope, intercept)
            dq, dy, dm = q_full - s.inventory, y_full - s.marginal, m_full - s.flows
            dv, down = dy - p.across(dm), p.flows(s.inventory)
            change = p.flows(q_full) - down

            def slope_along(t: Array) -> tuple[Array, Array]:
                """Of the dual: Σ b H(y − 2Qm) + mᵀQm − yᵀ(q_k − q_{k+1}) …, linear but for H'."""
                rate = at(s.flows + t * dm, s.marginal + t * dy).rate
                paid = jnp.sum(dm * p.across(s.flows + t * dm))
                return jnp.sum(dv * p.volume * rate) + paid - jnp.sum(dy * (down + t * change)), rate

            fall, rate = slope_along(jnp.zeros_like(s.gap))
            t, _ = line_search(slope_along, fall, rate, jnp.asarray(True))
            q, y, flows = s.inventory + t * dq, s.marginal + t * dy, s.flows + t * dm
            new = at(flows, y)
            miss = jnp.abs(p.volume * new.rate - p.flows(q))
            if p.coupling is not None:
                miss = miss + jnp.abs(flows - p.flows(q))
            gap = self.relative(jnp.sum(miss * jnp.abs(new.marginal)), new.rate, new.marginal, q)
            return _State(new, flows, q, y, gap, s.iterations + 1)

        def unfinished(s: _State):
            return (s.iterations < self.max_steps) & ~(s.gap <= tolerance)

        flows = p.flows(start.inventory)
        limit = jnp.where(start.converged, 0, jnp.inf).astype(flows.dtype)
        zero = jnp.asarray(0, jnp.int32)
        begin = _State(at(flows, start.marginal), flows, start.inventory, start.marginal, limit, zero)
        end = lax.while_loop(unfinished, step, begin)
        return BlockIterate(end.inventory, end.marginal, end.iterations, end.gap <= tolerance)

    def tangent_solution(self, slope: Array, intercept: Array) -> tuple[Array, Array, Array]:
        """(q, y) of the linearised conditions, and the trades n = A y + r."""
        p = self.program
        rung = p.rungs(slope)
        flow = p.own_flows(rung, p.volume * intercept)
        q, y = solve_block_ladder(rung, self.rail, flow, p.charge, p.first, p.last)
        return q, y, through_rungs(rung, y) + flow

    def relative(self, gap: Array, rate: Array, own: Array, inventory: Array) -> Array:
        held = jnp.sum(inventory * through_rails(self.rail, inventory)) / 2
        size = jnp.sum(self.program.volume * jnp.abs(rate * own)) + held
        return jnp.where(gap > 0, gap / jnp.where(size > 0, size, 1), gap)


def _coarsened(program: BasketProgram) -> BasketProgram | None:
    """The programme on a quarter of the steps; None where there are few, or matrices of their own at every step."""
    steps, assets = program.volume.shape
    if steps % _COARSER or steps < 4 * _COARSER or program.matrix.ndim > 2 or program.coupling is not None:
        return None
    # Interior nodes 2 … steps − 3, those within half a coarse step of a coarse node.
    half = _COARSER // 2
    around = slice(half - 1, half - 1 + steps - _COARSER)
    scale = jnp.sum(program.scale[around].reshape(-1, _COARSER), 1)
    charge = jnp.sum(program.charge[around].reshape(-1, _COARSER, assets), 1)
    volume = jnp.sum(program.volume.reshape(-1, _COARSER, assets), 1)
    return eqx.tree_at(lambda p: (p.volume, p.scale, p.charge), program, (volume, scale, charge))


def _interpolated(rates: Float[Array, "coarse assets"]) -> Float[Array, "steps assets"]:
    """Linear between the middles of coarse steps and beyond them, at most half of a rate away from it."""
    ends = jnp.concatenate([2 * rates[:1] - rates[1:2], rates, 2 * rates[-1:] - rates[-2:-1]])
    room, parts = jnp.abs(rates) / 2, []
    for j in range(_COARSER):
        x = (j + 0.5) / _COARSER - 0.5
        other = ends[2:] if x > 0 else ends[:-2]
        change = abs(x) * (other - rates)
        parts.append(rates + jnp.clip(change, -room, room))
    return jnp.stack(parts, 1).reshape(-1, rates.shape[1])
