"""The ladder with blocks: every step carries a vector y_k, every node a vector q_n, without LAPACK.

    q_k − q_{k+1}   = A_k y_k + r_k        k = 0..N−1     (rungs; A_k symmetric, positive semidefinite, often diagonal)
    y_{n−1} − y_n   = W_n q_n − g_n        n = 1..N−1     (rails; W_n = s_n C Cᵀ)

Forward, R and α carry q = α − R y across each node, as in the scalar ladder,

    B = (I + R W)⁻¹ R,      β = α − B (W α − g),      R ← B + A,      α ← β − r

and B is reached by one rank-one update for each column c of C, the measurement update of a Kalman filter:
R ← R − s R c (R c)ᵀ / (1 + s cᵀR c). It divides by numbers ≥ 1 only, so that singular W, W = 0 and A = 0 are nothing
special, and it is made of products of whole [lanes, assets, assets] arrays. O(N d³), one solve more costs O(N d²).
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jaxtyping import Array, Bool, Float

_REFINEMENTS = 2


class Rail(NamedTuple):
    """W_n = scale_n · matrix, with matrix = columns columnsᵀ; one matrix for all nodes, or one for each."""

    scale: Float[Array, " interior"]
    matrix: Float[Array, "*interior assets assets"]
    columns: Float[Array, "*interior assets assets"]


def solve_block_ladder(
    rung: Float[Array, "steps assets"] | Float[Array, "steps assets assets"],
    rail: Rail,
    flow: Float[Array, "steps assets"],
    charge: Float[Array, "interior assets"],
    first: Float[Array, " assets"],
    last: Float[Array, " assets"],
) -> tuple[Float[Array, "interior assets"], Float[Array, "steps assets"]]:
    """Solve the ladder, refined against its residual where that is large (B loses digits where R W is large).

    Under `vmap` all lanes go together, side by side in memory: [assets, assets, lanes].

    Args:
        rung: A; (steps, assets) for diagonal blocks.
        rail: W.
        flow: r.
        charge: g.
        first: q_0.
        last: q_N.

    Returns:
        q at the interior nodes, and y.
    """

    @custom_batching.custom_vmap
    def solve(*given):
        return _solve(*given)

    @solve.def_vmap
    def solve_lanes(lanes: int, batched, *given):
        def turned(x: Array, is_batched: bool) -> Array:
            return jnp.moveaxis(x, 0, -1) if is_batched else jnp.broadcast_to(x[..., None], (*x.shape, lanes))

        found = _solve(*jax.tree.map(turned, given, tuple(batched)))
        return tuple(jnp.moveaxis(x, -1, 0) for x in found), (True, True)

    return solve(rung, rail, flow, charge, first, last)


class _Ladder(NamedTuple):
    """An eliminated ladder: B at the interior nodes and R behind the last step. Lanes, if any, come last."""

    rung: Array
    rail: Rail
    passed: Array
    reach: Array


def _solve(rung: Array, rail: Rail, flow: Array, charge: Array, first: Array, last: Array) -> tuple[Array, Array]:
    ladder = _eliminate(rung, rail, flow.ndim - 2)

    def residual(q: Array, y: Array) -> tuple[Array, Array, Array]:
        nodes = jnp.concatenate([first[None], q, last[None]])
        left = through_rungs(rung, y) + flow - (nodes[:-1] - nodes[1:])
        rest = charge - through_rails(rail, q) + y[:-1] - y[1:]
        # Lane by lane, so that no lane's digits depend on its neighbours.
        over = _largest(left) > tolerance * _largest(nodes)
        return left, rest, over

    def refine(state):
        q, y, tries = state
        left, rest, over = residual(q, y)
        dq, dy = _sweep(ladder, left, rest)
        return jnp.where(over, q + dq, q), jnp.where(over, y + dy, y), tries + 1

    def rough(state):
        q, y, tries = state
        return (tries < _REFINEMENTS) & jnp.any(residual(q, y)[2])

    tolerance = 100 * jnp.finfo(flow.dtype).eps
    q, y = _sweep(ladder, *residual(jnp.zeros_like(charge), jnp.zeros_like(flow))[:2])
    q, y, _ = lax.while_loop(rough, refine, (q, y, jnp.asarray(0, jnp.int32)))
    return q, y


def _eliminate(rung: Array, rail: Rail, lanes: int) -> _Ladder:
    """The O(N d³) part; `lanes` is 1 where there is an axis of lanes."""

    def block(rung: Array) -> Array:
        if rung.ndim == 2 + lanes:
            return rung
        eye = jnp.eye(rung.shape[0], dtype=rung.dtype)
        return (eye[..., None] if lanes else eye) * rung[None]

    def node(reach, at):
        rung, scale, columns = at
        columns = rail.columns if columns is None else columns

        def withhold(j, reach):
            c = lax.dynamic_index_in_dim(columns, j, 1, keepdims=False)
            v = _product(reach, c)
            return reach - v[:, None] * (v * (scale / (1 + scale * jnp.sum(c * v, 0)))[None])[None]

        passed = lax.fori_loop(0, columns.shape[1], withhold, reach)
        return passed + block(rung), passed

    each = rail.columns if rail.columns.ndim == 3 + lanes else None
    reach, passed = lax.scan(node, block(rung[0]), (rung[1:], rail.scale, each))
    return _Ladder(rung, rail, passed, reach)


def _sweep(ladder: _Ladder, flow: Array, charge: Array) -> tuple[Array, Array]:
    """The solution with both ends at zero."""
    rail = ladder.rail

    def weigh(at, q: Array) -> Array:
        scale, matrix = at
        return scale[None] * _product(rail.matrix if matrix is None else matrix, q)

    def forward(level, node):
        passed, weight, g, r = node
        beta = level - _product(passed, weigh(weight, level) - g)
        return beta - r, beta

    def backward(y, node):
        passed, weight, g, beta = node
        q = beta - _product(passed, y)
        return y + weigh(weight, q) - g, (q, y)

    weight = rail.scale, rail.matrix if rail.matrix.ndim == flow.ndim + 1 else None
    level, beta = lax.scan(forward, -flow[0], (ladder.passed, weight, charge, flow[1:]))
    last = solve_definite if flow.ndim == 2 else jax.vmap(solve_definite, in_axes=-1, out_axes=-1)
    y_first, (q, y_rest) = lax.scan(
        backward, last(ladder.reach, level), (ladder.passed, weight, charge, beta), reverse=True
    )
    return q, jnp.concatenate([y_first[None], y_rest])


def _product(matrix: Array, vector: Array) -> Array:
    """A symmetric matrix times a vector; with lanes, row by row, so that a processor works on lanes side by side."""
    if vector.ndim == 1:
        return matrix @ vector
    return functools.reduce(operator.add, [matrix[i] * vector[i][None] for i in range(vector.shape[0])])


def through_rungs(rung: Array, y: Float[Array, "steps assets"]) -> Float[Array, "steps assets"]:
    """A y, step by step."""
    return rung * y if rung.ndim == y.ndim else jax.vmap(_product)(rung, y)


def through_rails(rail: Rail, q: Float[Array, "interior assets"]) -> Float[Array, "interior assets"]:
    """W q, node by node."""
    each = 0 if rail.matrix.ndim == q.ndim + 1 else None
    return rail.scale[:, None] * jax.vmap(_product, in_axes=(each, 0))(rail.matrix, q)


def block_response(
    rung: Float[Array, "steps assets"] | Float[Array, "steps assets assets"],
    rail: Rail,
    flow: Float[Array, "steps assets"],
    charge: Float[Array, "interior assets"],
) -> tuple[Float[Array, "interior assets"], Float[Array, "steps assets"]]:
    """The block ladder with both ends at zero, linear in `flow` and `charge` and differentiable in all, both ways.

    `rail.columns` only serve the elimination: derivatives go through `rail.matrix`.
    """
    rail = rail._replace(columns=lax.stop_gradient(rail.columns))
    interior = charge.shape[0]
    end = jnp.zeros_like(flow[:1])

    def apply(unknown):
        q, y = unknown[:interior], unknown[interior:]
        nodes = jnp.concatenate([end, q, end])
        return jnp.concatenate(
            [through_rails(rail, q) + y[1:] - y[:-1], nodes[:-1] - nodes[1:] - through_rungs(rung, y)]
        )

    def solve(_, right_side):
        g, r = right_side[:interior], right_side[interior:]
        return jnp.concatenate(solve_block_ladder(rung, rail, r, g, end[0], end[0]))

    # One array, not a pair: the transpose wants all of the right side to be unknown, or none.
    solution = lax.custom_linear_solve(apply, jnp.concatenate([charge, flow]), solve, symmetric=True)
    return solution[:interior], solution[interior:]


def semidefinite_columns(
    matrix: Float[Array, "assets assets"], tolerance: float
) -> tuple[Float[Array, "assets assets"], Bool[Array, ""]]:
    """C with C Cᵀ = matrix, column by column, and whether the matrix is positive semidefinite.

    A pivot below `tolerance` times its diagonal entry is taken for zero, and its column left out; a more negative one,
    or a column that does not vanish with its pivot, is a verdict.
    """
    own = jnp.abs(jnp.diagonal(matrix))
    index = jnp.arange(matrix.shape[0])

    def pivot(j, state):
        rest, columns, sound = state
        column = lax.dynamic_index_in_dim(rest, j, 1, keepdims=False)
        at, scale = column[j], own[j]
        positive = at > tolerance * scale
        c = jnp.where(positive & (index >= j), column / jnp.sqrt(jnp.where(positive, at, 1)), 0)
        left = jnp.where(index > j, jnp.abs(column), 0)
        empty = (at >= -tolerance * scale) & jnp.all(left <= tolerance**0.5 * jnp.sqrt(scale * own))
        columns = lax.dynamic_update_index_in_dim(columns, c, j, 1)
        return rest - c[:, None] * c[None, :], columns, sound & (positive | empty)

    start = matrix, jnp.zeros_like(matrix), jnp.asarray(True)
    _, columns, sound = lax.fori_loop(0, matrix.shape[0], pivot, start)
    return columns, sound


def solve_definite(matrix: Float[Array, "assets assets"], right: Float[Array, " assets"]) -> Float[Array, " assets"]:
    """matrix⁻¹ right for a positive definite matrix, scaled to unit diagonal; zero where a diagonal entry is zero."""
    return solve_definite_many(matrix, right[:, None])[:, 0]


def solve_definite_many(
    matrix: Float[Array, "assets assets"], right: Float[Array, "assets columns"]
) -> Float[Array, "assets columns"]:
    """matrix⁻¹ right by Gauss–Jordan elimination, which needs no pivoting here. Differentiable."""
    diagonal = jnp.diagonal(matrix)
    open_ = diagonal > 0
    root = jnp.where(open_, 1 / jnp.sqrt(jnp.where(open_, diagonal, 1)), 0)
    unit = matrix * root[:, None] * root[None, :] + jnp.diag(jnp.where(open_, 0, 1).astype(matrix.dtype))
    index = jnp.arange(matrix.shape[0])
    least = jnp.finfo(matrix.dtype).eps

    def pivot(j, table):
        row = lax.dynamic_index_in_dim(table, j, 0, keepdims=False)
        column = lax.dynamic_index_in_dim(table, j, 1, keepdims=False)
        row = row / jnp.maximum(row[j], least)
        others = jnp.where(index == j, 0, column)
        cleared = table - others[:, None] * row[None, :]
        return jnp.where((index == j)[:, None], row[None, :], cleared)

    table = jnp.concatenate([unit, right * root[:, None]], axis=1)
    table = lax.fori_loop(0, matrix.shape[0], pivot, table)
    return table[:, matrix.shape[0] :] * root[:, None]


def _largest(x: Array) -> Array:
    return jnp.max(jnp.abs(x), (0, 1), keepdims=True)


__all__ = [
    "Rail",
    "block_response",
    "semidefinite_columns",
    "solve_block_ladder",
    "solve_definite",
    "solve_definite_many",
    "through_rails",
    "through_rungs",
]
