"""The ladder of two-stage Gauss collocation: order four, condensed cell by cell to a ladder again.

A cell n is a pair of steps of one length, which carry its two stages. With Q and Y (2,) at the stages, q and y at the
ends of cells, s = 1/√3 and Ā twice the tableau of Gauss,

    Q = q_n 1 − Ā f           q_{n+1} = q_n − Σ f              f = a Y + r         Ā = ⎡ ½    ½−s ⎤
    Y = y_{n+1} 1 + Āᵀ z      y_n = y_{n+1} + Σ z              z = w Q − g             ⎣ ½+s  ½   ⎦

Gauss's method is symplectic (its transpose is itself), so that these are the optimality conditions of a convex
programme in f. Eliminating the stages, M = 1 + Ā diag(a) Āᵀ diag(w), leaves a symmetric system

    q_{n+1} = t q_n − c y_{n+1} − e,     y_n = t y_{n+1} + k q_n + h

           y_1        y_2        y_3             c, k ≥ 0 and det M ≥ 1 are sums of products of a, w ≥ 0:
    q_0 ───┼── q_1 ───┼── q_2 ───┼── q_3         no pivoting, and nothing special happens at a = 0 or w = 0.
        k_0        k_1        k_2                t = 1, c = a, k = w would be `tridiagonal`'s ladder.

Further axes behind the first are lanes.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxexec.numerics.recurrence import along

_S = 3**-0.5
_TABLEAU = ((0.5, 0.5 - _S), (0.5 + _S, 0.5))
_NEAR, _FAR = 0.5 + 3**0.5 / 4, 0.5 - 3**0.5 / 4


class Cells(NamedTuple):
    """The condensed ladder: t, c, k and the inhomogeneous e, h of each cell."""

    turn: Float[Array, " cells"]
    reach: Float[Array, " cells"]
    hold: Float[Array, " cells"]
    loss: Float[Array, " cells"]
    gain: Float[Array, " cells"]


class Stages(NamedTuple):
    """What the stages hold: inventory Q, marginal cost Y and flow f, (steps,) each, two to a cell."""

    inventory: Float[Array, " steps"]
    marginal: Float[Array, " steps"]
    flow: Float[Array, " steps"]


def condense(
    rung: Float[Array, " steps"],
    rail: Float[Array, " steps"],
    flow: Float[Array, " steps"],
    charge: Float[Array, " steps"],
) -> Cells:
    """Eliminate the stages: a = `rung` ≥ 0, w = `rail` ≥ 0, r = `flow`, g = `charge`."""
    (a1, a2), (w1, w2), (g1, g2) = halves(rung), halves(rail), halves(charge)
    det, _ = _matrix(rung, rail)
    aw = a1 * a2 * w1 * w2 / 9
    turn = 1 - (w1 * a1 + w2 * a2) / 4 + (w1 * a2 + w2 * a1) / 12 + aw
    reach = a1 + a2 + a1 * a2 * (w1 + w2) / 3
    hold = w1 + w2 + w1 * w2 * (a1 + a2) / 3
    f1, f2 = _free_flow(rung, flow, charge)
    q1, q2 = _solve_stages(rung, rail, *_times_tableau(-f1, -f2))
    m1, m2 = _times_tableau(a1, a2)
    loss = f1 + f2 + m1 * w1 * q1 + m2 * w2 * q2
    gain = w1 * q1 + w2 * q2 - g1 - g2
    return Cells(turn / det, reach / det, hold / det, loss, gain)


def solve_cells(
    cells: Cells, first: Float[Array, ""], last: Float[Array, ""]
) -> tuple[Float[Array, " interior"], Float[Array, " cells"]]:
    """q at the interior ends of cells and y_{n+1} of each cell, one pass forward and one back.

    Forward, q_n = α − A y_n is carried across each cell; A ≥ 0 grows by additions.
    """

    # Both passes hand on what they put out, as in `solve_ladder`.
    def forward(carry, cell):
        reach, level = carry
        t, c, k, e, h = cell
        passed = t / (1 + reach * k)
        after = (c + t * reach * passed, passed * (level - reach * h) - e)
        return after, after

    def backward(y, cell):
        passed, rest = cell
        before = passed * y + rest
        return before, before

    start = (jnp.zeros_like(cells.reach[0]), first)
    (reach, level), after = along(forward, start, cells)
    reaches, levels = (jnp.concatenate([x[None], rest[:-1]]) for x, rest in zip(start, after, strict=True))
    inverse = 1 / (1 + reaches * cells.hold)
    y_last = (level - last) / jnp.where(reach > 0, reach, 1)
    steps = (cells.turn * inverse, (cells.hold * levels + cells.gain) * inverse)
    _, before = along(backward, y_last, steps, reverse=True)
    return (levels - reaches * before)[1:], jnp.concatenate([before[1:], y_last[None]])


def cells_response(cells: Cells) -> tuple[Float[Array, " interior"], Float[Array, " cells"]]:
    """The cells with both ends at zero, linear in `loss` and `gain` and differentiable in all five, both ways.

    One symmetric system in (q, y), the row of node n before that of cell n:

        k_n q_n + t_n y_{n+1} − y_n = −h_n,      t_n q_n − q_{n+1} − c_n y_{n+1} = e_n
    """
    turn, reach, hold, loss, gain = cells
    interior = turn.shape[0] - 1
    zero = jnp.zeros_like(turn[:1])

    def apply(unknown):
        q, y = unknown[:interior], unknown[interior:]
        nodes = jnp.concatenate([zero, q, zero])
        held = hold[1:] * q + turn[1:] * y[1:] - y[:-1]
        return jnp.concatenate([held, turn * nodes[:-1] - nodes[1:] - reach * y])

    def solve(_, right_side):
        h, e = jnp.concatenate([zero, -right_side[:interior]]), right_side[interior:]
        return jnp.concatenate(solve_cells(Cells(turn, reach, hold, e, h), zero[0], zero[0]))

    right_side = jnp.concatenate([-gain[1:], loss])
    solution = lax.custom_linear_solve(apply, right_side, solve, symmetric=True)
    return solution[:interior], solution[interior:]


def stages(
    rung: Float[Array, " steps"],
    rail: Float[Array, " steps"],
    flow: Float[Array, " steps"],
    charge: Float[Array, " steps"],
    before: Float[Array, " cells"],
    after: Float[Array, " cells"],
) -> Stages:
    """The stages of each cell from q_n (`before`) and y_{n+1} (`after`)."""
    a1, a2 = halves(rung)
    f1, f2 = _free_flow(rung, flow, charge)
    n1, n2 = _times_tableau(a1 * after + f1, a2 * after + f2)
    held = joined(*_solve_stages(rung, rail, before - n1, before - n2))
    marginal = after_stages(rail * held - charge, after)
    return Stages(held, marginal, rung * marginal + flow)


def after_stages(withheld: Float[Array, " steps"], after: Float[Array, " cells"]) -> Float[Array, " steps"]:
    """Y = y_{n+1} 1 + Āᵀ z."""
    (b11, b12), (b21, b22) = _TABLEAU
    z1, z2 = halves(withheld)
    return joined(after + b11 * z1 + b21 * z2, after + b12 * z1 + b22 * z2)


def ends_of(withheld: Float[Array, " steps"], marginal: Float[Array, " steps"]) -> tuple[Array, Array]:
    """y at the first and at the last end, from z and Y."""
    after = (marginal - after_stages(withheld, jnp.zeros_like(withheld[::2])))[::2]
    return after[0] + withheld[0] + withheld[1], after[-1]


def flow_to_middle(flow: Float[Array, " steps"], together: Array) -> Float[Array, " steps"]:
    """What flows in each half of a cell by the collocation polynomial, where `together`; else in each stage.

    The integral of the line through the slopes at the stages, from an end to the middle. The next Legendre polynomial
    integrates to nothing there, so the node in the middle is of order four as the ends are; the weights are positive.
    """
    f1, f2 = halves(flow)
    return jnp.where(together, joined(_NEAR * f1 + _FAR * f2, _FAR * f1 + _NEAR * f2), flow)


def halves(steps: Float[Array, " steps"]) -> tuple[Float[Array, " cells"], Float[Array, " cells"]]:
    """First and second stage of each cell."""
    return steps[::2], steps[1::2]


def joined(first: Float[Array, " cells"], second: Float[Array, " cells"]) -> Float[Array, " steps"]:
    """The inverse of `halves`."""
    return jnp.stack([first, second], 1).reshape(2 * first.shape[0], *first.shape[1:])


def _matrix(rung: Array, rail: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """det M and S = Ā diag(a) Āᵀ, M = 1 + S diag(w); all terms of the determinant are non-negative."""
    (b11, b12), (b21, b22) = _TABLEAU
    (a1, a2), (w1, w2) = halves(rung), halves(rail)
    s11 = b11**2 * a1 + b12**2 * a2
    s22 = b21**2 * a1 + b22**2 * a2
    s12 = b11 * b21 * a1 + b12 * b22 * a2
    return 1 + s11 * w1 + s22 * w2 + a1 * a2 * w1 * w2 / 9, (s11, s12, s22)


def _solve_stages(rung: Array, rail: Array, b1: Array, b2: Array) -> tuple[Array, Array]:
    """M⁻¹ b by the adjugate."""
    w1, w2 = halves(rail)
    det, (s11, s12, s22) = _matrix(rung, rail)
    inverse = 1 / det
    return ((1 + s22 * w2) * b1 - s12 * w2 * b2) * inverse, ((1 + s11 * w1) * b2 - s12 * w1 * b1) * inverse


def _times_tableau(x1: Array, x2: Array) -> tuple[Array, Array]:
    (b11, b12), (b21, b22) = _TABLEAU
    return b11 * x1 + b12 * x2, b21 * x1 + b22 * x2


def _free_flow(rung: Array, flow: Array, charge: Array) -> tuple[Array, Array]:
    """r − a Āᵀ g: the flow at Q = 0, y_{n+1} = 0."""
    return halves(flow + rung * after_stages(-charge, jnp.zeros_like(charge[::2])))


__all__ = [
    "Cells",
    "Stages",
    "after_stages",
    "cells_response",
    "condense",
    "ends_of",
    "flow_to_middle",
    "halves",
    "joined",
    "solve_cells",
    "stages",
]
