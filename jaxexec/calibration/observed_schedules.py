"""Inverse control: the risk aversion, and parameters of the cost, under which what a desk did is optimal."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.calibration.general import check_starts, drawn, settings_of
from jaxexec.calibration.joint_newton import search_jointly, with_parameters
from jaxexec.calibration.lane_fit import Covariance, Settings
from jaxexec.calibration.objective import Loss
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.calibration.run_fit import compiled_fit
from jaxexec.calibration.transforms import POSITIVE, Bound, to_free
from jaxexec.costs import PowerLawCost, QuadraticCost
from jaxexec.liquidation import Liquidation
from jaxexec.numerics.arrays import as_float, check
from jaxexec.numerics.levenberg_marquardt import Minimum
from jaxexec.numerics.status import replace_where
from jaxexec.solvers import solve

_COSTS = (PowerLawCost, QuadraticCost)


def observed_preferences(
    problem: Liquidation,
    trades: ArrayLike,
    parameters: Sequence[str] = ("risk_aversion",),
    *,
    common: bool = False,
    bounds: Mapping[str, Bound] | None = None,
    start: Mapping[str, ArrayLike] | None = None,
    starts: int = 1,
    key: Array | None = None,
    loss: Loss = "squares",
    threshold: float = 1.345,
    covariance: Covariance = "robust",
    max_steps: int = 60,
) -> ParameterFit:
    """Parameters of a `Liquidation` whose optimal schedule is nearest to the one observed. Traced.

    The inventory that was held is compared with the optimal one at every inner node, as a share of the order, and the
    sum of squares made least through the derivatives of `solve`. A schedule shows only ratios: with η known it tells γ,
    with neither known no more than γ/η, which is then said (RANK_DEFICIENT, "log eta + log risk_aversion").

    Args:
        problem: The order, with what is known of its market and cost; the parameters that are fitted have their
            starting values in it, positive ones. One for all schedules, or a batch with a leading axis on every array
            (`jax.vmap` of its making does that).
        trades: Shares sold in each step, (steps,) or (schedules, steps).
        parameters: Names of what is fitted: "risk_aversion", and "eta", "phi", "psi" of a `PowerLawCost` or
            `QuadraticCost`.
        common: One value for all schedules, from all of them together, instead of one each.
        bounds: (low, high) by name; all are positive unless told otherwise.
        start: Where to search from, by name; the problem's own values where None. A spread of zero is no start.
        starts, key, loss, threshold, max_steps: As in `fit`.
        covariance: As in `fit`. It takes deviations at different nodes as independent; where a desk's persist
            over m nodes the errors are too small by about √m.

    Returns:
        The fit. `n` counts the inner nodes.

    Raises:
        ValueError: a wrong shape, an unknown parameter, or concrete trades that are not finite.
    """
    names = tuple(parameters)
    observed = as_float("trades", trades)
    problem, held, single = _entered(problem, observed, names)
    settings = settings_of(names, {}, bounds, dict.fromkeys(names, POSITIVE), loss, threshold, covariance, max_steps)
    lanes = 1 if common else held.shape[0]
    first = {name: _first(name, problem, lanes, common) for name in names}
    for name, value in (start or {}).items():
        if name not in names:
            raise ValueError(f"start names {name!r}, which is none of {', '.join(names)}")
        first[name] = jnp.broadcast_to(as_float(f"start[{name!r}]", value).astype(held.dtype), (lanes,))
    check_starts(first, settings)
    points = drawn(jnp.stack([first[name] for name in names], -1)[None], settings.bounds, starts, key)
    data = {"problem": problem, "held": held}
    data = jax.tree.map(lambda x: x[None], data) if common else data
    begun, near = None, {}
    if starts == 1 and problem.terminal_penalty is None:
        begun, costate = _begun(settings, common, problem, held, points)
        near = {"costate": costate[None] if common else costate}
    flat = data["held"].reshape(lanes, -1)
    bad = ~jnp.isfinite(flat).all(1)
    lost = jnp.broadcast_to(bad.reshape(lanes, *[1] * (data["held"].ndim - 1)), data["held"].shape)
    safe = data | near | {"held": replace_where(lost, data["held"], jnp.zeros_like(data["held"]))}
    row = jnp.ones(flat.shape, bool)
    alone = single or common
    return compiled_fit(Observed(names, common), settings, points, safe, {}, row, bad, data, alone, begun=begun)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begun(settings: Settings, common: bool, problem: Liquidation, held: Array, points: Array) -> tuple[Minimum, Array]:
    """The joint search from the one start there is: minima, lanes first, and costates to start `solve` from."""
    start = jnp.stack([to_free(points[0, :, i], bound) for i, bound in enumerate(settings.bounds)], -1)
    start = jnp.broadcast_to(start, (held.shape[0], start.shape[1]))
    found, costates = search_jointly(
        problem, held, start, settings.names, settings.bounds, common=common, max_steps=settings.max_steps
    )
    return (jax.tree.map(lambda x: x[:1], found) if common else found), costates


@dataclasses.dataclass(frozen=True)
class Observed:
    """Optimal minus observed inventories, as shares of the order; every field is static."""

    names: tuple[str, ...]
    common: bool

    def __call__(self, parameters: dict[str, Array], data: Any) -> Float[Array, "rows lanes"]:
        values = {name: parameters[name][0] for name in self.names}
        lane = self._of_many if self.common else self._of_one
        return jax.vmap(lane, in_axes=(-1, -1), out_axes=-1)(values, data)

    def _of_many(self, values: dict[str, Array], data: Any) -> Float[Array, " rows"]:
        return jax.vmap(self._of_one, in_axes=(None, 0))(values, data).reshape(-1)

    def _of_one(self, values: dict[str, Array], data: Any) -> Float[Array, " nodes"]:
        problem = data["problem"]
        schedule = solve(with_parameters(problem, values), guess=data.get("costate"))
        return schedule.inventory[1:-1] / problem.shares - data["held"]


def _entered(problem: Any, trades: Array, names: tuple[str, ...]) -> tuple[Liquidation, Array, bool]:
    """Problems and held shares of the order at inner nodes, schedules first, and whether there is one alone.

    Raises:
        ValueError: a wrong type or shape, an unknown parameter, or concrete trades that are not finite.
    """
    if not isinstance(problem, Liquidation):
        raise ValueError(f"problem must be a jaxexec.Liquidation, got {type(problem).__name__}")
    allowed = ("risk_aversion", *(f.name for f in dataclasses.fields(problem.cost) if isinstance(problem.cost, _COSTS)))
    for name in names:
        if name not in allowed:
            raise ValueError(f"parameters names {name!r}, which is none of {', '.join(allowed)}")
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"parameters must be different names, at least one, got {names}")
    steps = problem.market.grid.times.shape[-1] - 1
    if trades.ndim not in (1, 2) or trades.shape[-1] != steps or steps < 2:
        raise ValueError(
            f"trades must have shape ({steps},) or (schedules, {steps}), at least 2 steps, got {trades.shape}"
        )
    batched = problem.shares.ndim == 1
    count = problem.shares.shape[0] if batched else trades.shape[0] if trades.ndim == 2 else 1
    if batched and trades.shape != (count, steps):
        raise ValueError(f"trades must have shape ({count}, {steps}) like the batch of problems, got {trades.shape}")
    if trades.ndim == 1:
        check("trades", trades, np.isfinite, "finite")
    trades = jnp.atleast_2d(trades).astype(problem.shares.dtype)
    if not batched:
        problem = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (count, *x.shape)), problem)
    for name in names:
        if name != "risk_aversion" and getattr(problem.cost, name).ndim != 1:
            raise ValueError(f"cost.{name} must be a scalar to be fitted: it is a curve")
    held = (problem.shares[:, None] - jnp.cumsum(trades, 1)[:, :-1]) / problem.shares[:, None]
    return problem, held, not batched and count == 1


def _first(name: str, problem: Liquidation, lanes: int, common: bool) -> Float[Array, " lanes"]:
    """Where to search from: the problem's own values, of many problems their geometric mean."""
    own = problem.risk_aversion if name == "risk_aversion" else getattr(problem.cost, name)
    return jnp.exp(jnp.log(own).mean(keepdims=True)) if common else own
