"""Accuracy control: cells small enough that the error of the continuous problem is below a tolerance.

Cells are halved until two solutions agree. With a difference d between a grid and one k times finer, and an order p,
the finer one is wrong by about d/(kᵖ − 1); p is measured as soon as there are three grids, is 4 for smooth orders and
less where an order finishes early or turns. Grids grow by powers of two, so that few programmes are compiled.

An urgent order moves most at its start. There cells may grow with time, t = T (e^{s ln(1+θ)} − 1)/θ for s in [0, 1],
which has cells of equal ratio and takes a fraction of the uniform number.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.liquidation import Liquidation, Schedule
from jaxexec.numerics.arrays import as_float, is_concrete
from jaxexec.solvers.collocation import Collocation
from jaxexec.solvers.solve import solve

_LARGEST_JUMP = 16
_HALVINGS = 60


class Resolved(eqx.Module):
    """A schedule of the continuous problem and how far off it is thought to be.

    Attributes:
        schedule: on the finest grid.
        problem: the problem on that grid.
        error: estimate, the larger of |x − exact| over the largest inventory and the relative error of the objective.
        order: observed order of accuracy, at most 4; NaN where two grids were enough.
        reached: whether `error` is within the tolerance.
    """

    schedule: Schedule
    problem: Liquidation
    error: float = eqx.field(static=True)
    order: float = eqx.field(static=True)
    reached: bool = eqx.field(static=True)


def solve_to(
    problem: Liquidation | Callable[[int], Liquidation],
    rtol: float,
    *,
    max_steps: int = 65536,
    throw: bool = True,
) -> Resolved:
    """Solve the continuous problem to a relative tolerance, on a grid that is chosen here. Concrete problems only.

    Args:
        problem: an order, whose curves stay piecewise constant while each of its steps is cut in 1, 2, 4, … cells; or
            a function that makes the order on a number of cells, 8 times a power of two, for smooth curves and graded
            grids (`Market.from_functions(TimeGrid(graded_ends(…)), …, points="gauss")`). Cells must be halved alike:
            the ends of 8 cells are among those of 16.
        rtol: tolerance of the inventories, over the largest, and of the objective. Not below 1e-11.
        max_steps: most steps of a grid, two a cell.
        throw: raise where the tolerance is out of reach; else return what there is, with `reached` false.

    Raises:
        ValueError: a traced problem, a tolerance out of range, or grids that are not nested.
        RuntimeError: a solve failed, or the tolerance was not reached within `max_steps`.
    """
    if not 1e-11 <= rtol < 1:
        raise ValueError(f"rtol must be between 1e-11 and 1, got {rtol}")
    solver = Collocation()

    def at(parts: int) -> tuple[Liquidation, Schedule]:
        finer = problem.refine(2 * parts) if isinstance(problem, Liquidation) else problem(8 * parts)
        if not is_concrete(finer.grid.times):
            raise ValueError("solve_to chooses grids from numbers and needs a concrete problem; inside jit use solve")
        return finer, solve(finer, solver, throw=True)

    parts, order, error = 1, math.nan, math.inf
    finest, coarse = at(1)
    steps, jump, before, last = finest.grid.steps, 2, 2, math.nan
    while 2 * steps <= max_steps:
        jump = min(jump, 2 ** int(math.log2(max_steps / steps)))
        parts, steps = parts * jump, steps * jump
        finest, fine = at(parts)
        difference = _difference(coarse, fine)
        if not math.isnan(last):
            order = _order(last, difference, before)
        error = difference / (jump ** (2.0 if math.isnan(order) else order) - 1)
        coarse, last, before = fine, difference, jump
        if error <= rtol:
            break
        wanted = (error / rtol) ** (1 / (4 if math.isnan(order) else order))
        jump = 2 if math.isnan(order) else int(min(_LARGEST_JUMP, 2 ** math.ceil(math.log2(max(wanted, 2)))))
    if throw and error > rtol:
        raise RuntimeError(
            f"the error is about {error:.1e} on {steps} steps, above rtol = {rtol:.1e}: raise max_steps, or give an "
            "urgent order a grid that is finer at its start (graded_ends)"
        )
    return Resolved(coarse, finest, float(error), float(order), bool(error <= rtol))


def graded_ends(horizon: ArrayLike, cells: int, rate: ArrayLike) -> Float[Array, " ends"]:
    """Ends of `cells` cells that grow at a constant ratio, for an order that decays at `rate` at its start. Traceable.

    Args:
        horizon: T, trading days.
        cells: their number.
        rate: λ_0, per day, as of `initial_decay`; θ = max(λ_0 T/2, 1/100).
    """
    horizon, rate = as_float("horizon", horizon), as_float("rate", rate)
    theta = jnp.maximum(rate * horizon / 2, 0.01)
    s = jnp.arange(cells + 1, dtype=theta.dtype) / cells
    return horizon * (jnp.expm1(s * jnp.log1p(theta)) / theta)


def initial_decay(problem: Liquidation) -> Float[Array, ""]:
    """λ_0 = −q'/q at the start, per day, if the market stayed as it begins and there was no horizon. Traceable.

    The rate ρ of participation then solves V H(L'(ρ)) = ½ γσ²q² (Guéant 2016, ch. 3: the energy is zero).
    """
    market, steps = problem.market, (problem.grid.steps,)
    cost = jax.tree.map(lambda x: x[0] if jnp.shape(x) == steps else x, problem.cost)
    volume, volatility = (jnp.broadcast_to(x, steps)[0] for x in (market.volume, market.volatility))
    span = jnp.abs(problem.shares - problem.target)
    volume, span = jnp.where(volume > 0, volume, 1), jnp.where(span > 0, span, 1)
    energy = problem.risk_aversion * volatility**2 * span**2 / (2 * volume)
    vwap = span / (volume * problem.grid.horizon)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = cost.hamiltonian(cost.marginal(vwap * jnp.exp(middle))) > energy
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, _ = lax.fori_loop(0, _HALVINGS, halve, (jnp.full_like(vwap, -25), jnp.full_like(vwap, 25)))
    return vwap * jnp.exp(low) * volume / span


def _difference(coarse: Schedule, fine: Schedule) -> float:
    """Largest relative difference of the inventories at common nodes, and of the objective."""
    stride = (fine.inventory.shape[0] - 1) // (coarse.inventory.shape[0] - 1)
    # The middles of cells that grow are no nodes of the finer grid; the ends must be.
    for step in (1, 2):
        before, after = np.asarray(coarse.times)[::step], np.asarray(fine.times)[:: step * stride]
        if before.shape == after.shape and np.allclose(before, after, rtol=1e-6, atol=1e-9 * np.ptp(before)):
            old, new = np.asarray(coarse.inventory)[::step], np.asarray(fine.inventory)[:: step * stride]
            size, cost = np.abs(new).max() or 1.0, abs(float(fine.objective)) or 1.0
            return max(float(np.abs(new - old).max() / size), abs(float(fine.objective - coarse.objective)) / cost)
    raise ValueError("cells must be halved alike: the ends of a coarse grid are not among those of the finer one")


def _order(coarse: float, fine: float, jump: int) -> float:
    """Observed order, between 1 and 4, from two differences; the grids of the coarser one are `jump` apart."""
    if fine <= 0 or coarse <= 0:
        return 4.0
    return float(np.clip(math.log(coarse / fine) / math.log(jump), 1.0, 4.0))
