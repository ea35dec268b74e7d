"""What a simulation refuses, from its inputs alone, and the harmless inputs that stand in for them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxexec.liquidation import Liquidation
from jaxexec.numerics.status import Status, poison, replace_where, taint
from jaxexec.simulation.path import Course, course
from jaxexec.simulation.process import MeanReverting, PriceProcess
from jaxexec.solvers.verdict import harmless_where


class Guarded(NamedTuple):
    """Inputs that can be simulated, and what was wrong with those that were given.

    Attributes:
        problem, trades, process: the inputs, harmless where they were refused.
        course: what their paths have in common.
        status: OK, NONFINITE_INPUT, or INFEASIBLE for trades without volume or beyond a cap.
        nothing: 0, which sends NaN back to every input of a lane that failed.
    """

    problem: Liquidation
    trades: Float[Array, " steps"]
    process: PriceProcess
    course: Course
    status: Int[Array, ""]
    nothing: Float[Array, ""]

    def spoilt(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x`, NaN where the lane failed, and so its derivatives."""
        return poison(x + self.nothing, self.failed)

    @property
    def failed(self) -> Bool[Array, ""]:
        """Whether the lane was refused."""
        return self.status > Status.LOCAL


def guarded(problem: Liquidation, trades: Float[Array, " steps"], process: PriceProcess) -> Guarded:
    """The inputs with their status."""
    inputs = (problem, trades, process)
    refused = ~_is_sound(problem, trades, process)
    impossible = ~jnp.all(jnp.isfinite(course(*_harmless_where(refused, inputs)).costs))
    status = jnp.where(impossible, Status.INFEASIBLE, Status.OK)
    status = jnp.where(refused, Status.NONFINITE_INPUT, status).astype(jnp.int32)
    problem, trades, process = _harmless_where(refused | impossible, inputs)
    everywhere = taint(inputs, refused | impossible)
    return Guarded(problem, trades, process, course(problem, trades, process), status, everywhere)


def _harmless_where(refused: Bool[Array, ""], inputs: tuple) -> tuple:
    problem, trades, process = inputs
    safe = jax.tree_util.tree_map_with_path(_harmless, (trades, process))
    swapped = jax.tree.map(
        lambda x, s: replace_where(jnp.broadcast_to(refused, x.shape), x, s), (trades, process), safe
    )
    return harmless_where(refused, problem), *swapped


def _is_sound(problem: Liquidation, trades: Array, process: PriceProcess) -> Bool[Array, ""]:
    market = problem.market
    tests = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((problem, trades, process))]
    tests += [jnp.all(x >= 0) for x in (market.volume, market.volatility, market.gap_variance)]
    tests.append(jnp.all(problem.grid.durations > 0))
    if process.initial_price is not None:
        tests.append(process.initial_price > 0)
    for impact in (process.permanent, process.temporary):
        if impact is not None:
            tests.append(impact.is_valid())
    for noise in (process.variance_noise, process.volume_noise):
        if isinstance(noise, MeanReverting):
            tests += [noise.deviation >= 0, noise.speed >= 0, jnp.abs(noise.correlation) <= 1]
    return functools.reduce(jnp.logical_and, tests)


def _harmless(where: Any, x: Array) -> Array:
    name = getattr(where[-1], "name", "")
    return jnp.ones_like(x) if name in ("initial_price", "exponent") else jnp.zeros_like(x)
