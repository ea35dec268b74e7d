"""Nonlinear least squares by damped Gauss–Newton steps, many small problems side by side, lanes last.

A problem is seen through its normal equations alone: at parameters u the objective f = ½ Σ r², its gradient Jᵀr and
the matrix JᵀJ. One pass over the rows gives all three; each iteration makes one such pass, at the point it tries, and
keeps what it found where the point is better. A lane that has finished is frozen, bit for bit.

A step solves (JᵀJ + μ diag JᵀJ) s = −Jᵀr (Marquardt, SIAM J. Appl. Math. 11, 1963): with the diagonal as the measure of
length nothing depends on the units of the parameters. A lane stops where every column of J is at right angles to r,
cos ≤ tolerance (the test of Moré, LNM 630, 1978), where steps change the model by no more than rounding (a perfect fit,
whose residuals point anywhere), or where rounding hides all progress.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxexec.numerics.moments import times

_FIRST_DAMPING = 1e-3
_MOST_DAMPING = 1e12
_LONGEST = 1.0
_ROUNDING = 100  # changes of the objective below so many eps of it are not to be trusted


class Normal(NamedTuple):
    """The normal equations at a point.

    Attributes:
        objective: f ≥ 0, (lanes,); not finite where the model has no value.
        gradient: (p, lanes).
        matrix: Gauss–Newton matrix, (p, p, lanes).
        rounding: How far the objective may be off by rounding, (lanes,).
    """

    objective: Float[Array, " lanes"]
    gradient: Float[Array, "p lanes"]
    matrix: Float[Array, "p p lanes"]
    rounding: Float[Array, " lanes"]


class Minimum(NamedTuple):
    """Where a search ended.

    Attributes:
        parameters: (p, lanes).
        objective: f there, (lanes,).
        cosine: Largest cosine between r and a column of J, (lanes,).
        converged: Whether one of the tests was met, (lanes,).
        steps: Points tried, (lanes,).
    """

    parameters: Float[Array, "p lanes"]
    objective: Float[Array, " lanes"]
    cosine: Float[Array, " lanes"]
    converged: Bool[Array, " lanes"]
    steps: Int[Array, " lanes"]


class _Search(NamedTuple):
    u: Float[Array, "p lanes"]
    normal: Normal
    cosine: Float[Array, " lanes"]
    damping: Float[Array, " lanes"]
    growth: Float[Array, " lanes"]
    converged: Bool[Array, " lanes"]
    done: Bool[Array, " lanes"]
    steps: Int[Array, " lanes"]
    turn: Int[Array, ""]


def levenberg_marquardt(
    normal: Callable[[Float[Array, "p lanes"]], Normal],
    start: Float[Array, "p lanes"],
    *,
    max_steps: int,
    tolerance: float | None = None,
    unit: Float[Array, " p"] | None = None,
    begun: Minimum | None = None,
) -> Minimum:
    """A minimum of each lane, found from `start`. Carries no derivative: attach the optimum's own.

    Args:
        begun: What another search has found from there: lanes that converged in it are done.
        max_steps: Most points that a lane may try.
        tolerance: Largest cosine between the residuals and a column of the Jacobian that counts as zero; None means
            eps^0.6, 4e-10 in float64. At cos c an estimate is off by about c√n of its standard error.
        unit: What is no small change of a parameter that may be zero: 1 for a logarithm; None means 0.
    """
    eps = float(jnp.finfo(start.dtype).eps)
    smallest = eps**0.6 if tolerance is None else tolerance
    p, lanes = start.shape
    nowhere = Normal(
        jnp.full((lanes,), jnp.inf, start.dtype),
        jnp.zeros_like(start),
        jnp.broadcast_to(jnp.eye(p, dtype=start.dtype)[..., None], (p, p, lanes)),
        jnp.zeros((lanes,), start.dtype),
    )
    ones, no = jnp.ones((lanes,), start.dtype), jnp.zeros((lanes,), bool)
    done = no if begun is None else begun.converged
    state = _Search(
        start,
        nowhere,
        jnp.inf * ones,
        _FIRST_DAMPING * ones,
        2 * ones,
        no,
        done,
        jnp.zeros((lanes,), jnp.int32),
        jnp.asarray(0, jnp.int32),
    )

    def unfinished(s: _Search) -> Array:
        return (s.turn <= max_steps) & ~jnp.all(s.done)

    def tried(s: _Search) -> _Search:
        # The first turn looks at the start itself, so that the model stands once in the programme.
        first = s.turn == 0
        step = jnp.where(first, 0, within_reach(_step(s.normal, s.damping), unit))
        there = normal(s.u + step)
        cosine = _cosine(there)
        expected = -((s.normal.gradient + times(s.normal.matrix, step) / 2) * step).sum(0)
        hidden = (expected <= s.normal.rounding) & ~first
        gain = s.normal.objective - there.objective
        better = _is_finite(there) & jnp.where(hidden, cosine < s.cosine, gain > 0)
        ratio = jnp.where(hidden | first, 0.5, gain / jnp.where(expected > 0, expected, 1))
        gentle = (s.damping <= 1) & ~first
        vanishes = _is_rounding(s.normal, step, s.u, unit) & gentle
        stuck = hidden & ~better
        met = vanishes | (better & ((cosine <= smallest) | (there.objective == 0)))
        met = met | (stuck & (gentle | (s.cosine <= eps**0.4)))
        hopeless = stuck | (~better & (first | (s.damping > _MOST_DAMPING)))
        easier = s.damping * jnp.where(ratio > 0.75, 0.1, jnp.where(ratio > 0.25, 1, 4))
        kept = s.done
        take = better & ~kept
        chosen = _chosen(take, (s.u + step, there, cosine), (s.u, s.normal, s.cosine))
        return _Search(
            *chosen,
            damping=jnp.where(kept, s.damping, jnp.where(better, easier, s.damping * s.growth)),
            growth=jnp.where(kept, s.growth, jnp.where(better, 2, 2 * s.growth)),
            converged=s.converged | (met & ~kept),
            done=kept | met | hopeless,
            steps=s.steps + (~kept & ~first).astype(jnp.int32),
            turn=s.turn + 1,
        )

    end = lax.while_loop(unfinished, tried, state)
    found = Minimum(end.u, end.normal.objective, end.cosine, end.converged, end.steps)
    return found if begun is None else Minimum(*_chosen(begun.converged, begun, found))


def rounding_of(objective: Float[Array, " lanes"]) -> Float[Array, " lanes"]:
    """How far an objective may be off that was added up from squares."""
    return _ROUNDING * float(jnp.finfo(objective.dtype).eps) * objective


def scaled(matrix: Float[Array, "p p lanes"]) -> tuple[Float[Array, "p p lanes"], Float[Array, "p lanes"]]:
    """The matrix with a unit diagonal, and the lengths of the columns; columns that are zero count as length one."""
    square = jnp.stack([matrix[i, i] for i in range(matrix.shape[0])])
    length = jnp.sqrt(jnp.where(square > 0, square, 1))
    return matrix / (length[:, None] * length[None]), length


def _step(normal: Normal, damping: Array) -> Array:
    unit, length = scaled(normal.matrix)
    p = length.shape[0]
    # The floor keeps collinear columns solvable; a column of zeros gets no step, its gradient being zero.
    more = damping + 10 * p * float(jnp.finfo(damping.dtype).eps)
    right = normal.gradient / length
    return -jnp.stack(solve_damped([[unit[i, j] for j in range(p)] for i in range(p)], [*right], more)) / length


def solve_damped(a: list[list[Array]], b: list[Array], more: Array) -> list[Array]:
    """(A + more·I) x = b by LDLᵀ, written out: each number a vector over the lanes, all in one loop over them."""
    p = len(b)
    a, b, pivots = [list(row) for row in a], list(b), []
    for k in range(p):
        pivot = a[k][k] + more
        pivots.append(jnp.where(pivot > 0, pivot, 1))
        for i in range(k + 1, p):
            factor = a[k][i] / pivots[k]
            for j in range(i, p):
                a[i][j] = a[i][j] - factor * a[k][j]
            b[i] = b[i] - factor * b[k]
    for k in reversed(range(p)):
        for j in range(k + 1, p):
            b[k] = b[k] - a[k][j] * b[j]
        b[k] = b[k] / pivots[k]
    return b


def within_reach(step: Array, unit: Array | None, most: Array | float = _LONGEST) -> Array:
    """Steps shortened to at most so many units: an exponential far out is flat, and never found back from."""
    if unit is None:
        return step
    length = jnp.where(unit[:, None] > 0, jnp.abs(step) / jnp.where(unit[:, None] > 0, unit[:, None], 1), 0).max(0)
    return step / jnp.maximum(length / most, 1)[None]


def _is_rounding(normal: Normal, step: Array, u: Array, unit: Array | None) -> Array:
    """Whether no part of a step moves the model by more than rounding of the whole of it."""
    _, length = scaled(normal.matrix)
    size = jnp.abs(u) if unit is None else jnp.abs(u) + unit[:, None]
    eps = float(jnp.finfo(u.dtype).eps)
    return (length * jnp.abs(step)).max(0) <= eps**0.8 * (length * size).max(0)


def _cosine(normal: Normal) -> Array:
    _, length = scaled(normal.matrix)
    size = jnp.sqrt(2 * normal.objective)
    return (jnp.abs(normal.gradient) / length).max(0) / jnp.where(size > 0, size, 1)


def _is_finite(normal: Normal) -> Array:
    return (
        jnp.isfinite(normal.objective) & jnp.isfinite(normal.gradient).all(0) & jnp.isfinite(normal.matrix).all((0, 1))
    )


def _chosen(take: Array, new: tuple, old: tuple) -> tuple:
    return jax.tree.map(lambda a, b: jnp.where(take.reshape((1,) * (a.ndim - 1) + take.shape), a, b), new, old)
