"""Inverse control: the risk aversion, and parameters of the cost, under which what a desk did is optimal."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.calibration.general import check_starts, drawn, settings_of
from jaxexec.calibration.jackknife import jackknifed
from jaxexec.calibration.joint_newton import Deviations, search_jointly, with_parameters
from jaxexec.calibration.lane_fit import Settings
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
ScheduleErrors = Literal["classical", "robust", "hc3", "clustered"]


def observed_preferences(
    problem: Liquidation,
    trades: ArrayLike,
    parameters: Sequence[str] = ("risk_aversion",),
    *,
    common: bool = False,
    deviations: Deviations = "inventory",
    bounds: Mapping[str, Bound] | None = None,
    start: Mapping[str, ArrayLike] | None = None,
    starts: int = 1,
    key: Array | None = None,
    loss: Loss = "squares",
    threshold: float = 1.345,
    covariance: ScheduleErrors | None = None,
    max_steps: int = 60,
) -> ParameterFit:
    """Parameters of a `Liquidation` whose optimal schedule is nearest to the one observed. Traced.

    The inventory that was held is compared with the optimal one at every inner node, as a share of the order, or the
    trades of every step are, and the sum of squares made least through the derivatives of `solve`. A schedule shows
    only ratios: with η known it tells γ, with neither known no more than γ/η, which is then said (RANK_DEFICIENT,
    "log eta + log risk_aversion").

    Args:
        problem: The order, with what is known of its market and cost; the parameters that are fitted have their
            starting values in it, positive ones. One for all schedules, or a batch with a leading axis on every array
            (`jax.vmap` of its making does that).
        trades: Shares sold in each step, (steps,) or (schedules, steps).
        parameters: Names of what is fitted: "risk_aversion", and "eta", "phi", "psi" of a `PowerLawCost` or
            `QuadraticCost`.
        common: One value for all schedules, from all of them together, instead of one each.
        deviations: What departs from the optimum independently from step to step. "inventory": a desk is off its plan
            and soon on it again; "trades": what it was ahead or behind it carries on, until the order ends.
        bounds: (low, high) by name; all are positive unless told otherwise.
        start: Where to search from, by name; the problem's own values where None. A spread of zero is no start.
        starts, key, loss, threshold, max_steps: As in `fit`.
        covariance: As in `fit`, for deviations that are independent as `deviations` says: where they persist over m
            nodes instead, errors are too small by about √m. "clustered" lets deviations within a schedule depend on
            each other in any way, schedules being independent: for `common=True` with some ten schedules or more. None
            means "clustered" where one value is common to several schedules, else "classical".

    Returns:
        The fit. `n` counts the inner nodes.

    Raises:
        ValueError: a wrong shape, an unknown parameter or option, or concrete trades that are not finite.
    """
    names = tuple(parameters)
    observed = as_float("trades", trades)
    if deviations not in get_args(Deviations):
        raise ValueError(f"deviations must be one of {get_args(Deviations)}, got {deviations!r}")
    problem, seen, single = _entered(problem, observed, names, deviations)
    kind = covariance or ("clustered" if common and seen.shape[0] > 1 else "classical")
    if kind == "clustered" and not (common and seen.shape[0] > 1):
        raise ValueError("covariance='clustered' needs common=True and at least 2 schedules")
    unclustered = "hc3" if kind == "clustered" else kind
    settings = settings_of(names, {}, bounds, dict.fromkeys(names, POSITIVE), loss, threshold, unclustered, max_steps)
    lanes = 1 if common else seen.shape[0]
    first = {name: _first(name, problem, lanes, common) for name in names}
    for name, value in (start or {}).items():
        if name not in names:
            raise ValueError(f"start names {name!r}, which is none of {', '.join(names)}")
        first[name] = jnp.broadcast_to(as_float(f"start[{name!r}]", value).astype(seen.dtype), (lanes,))
    check_starts(first, settings)
    points = drawn(jnp.stack([first[name] for name in names], -1)[None], settings.bounds, starts, key)
    data = {"problem": problem, "seen": seen}
    data = jax.tree.map(lambda x: x[None], data) if common else data
    begun, near = None, {}
    if starts == 1 and problem.terminal_penalty is None:
        begun, costate = _begun(settings, common, deviations, problem, seen, points)
        near = {"costate": costate[None] if common else costate}
    flat = data["seen"].reshape(lanes, math.prod(data["seen"].shape[1:]))
    bad = ~jnp.isfinite(flat).all(1)
    lost = jnp.broadcast_to(bad.reshape(lanes, *[1] * (data["seen"].ndim - 1)), data["seen"].shape)
    safe = data | near | {"seen": replace_where(lost, data["seen"], jnp.zeros_like(data["seen"]))}
    row, model = jnp.ones(flat.shape, bool), Observed(names, common, deviations)
    nodes = observed.shape[-1] - 1
    # The trades of a schedule are one more than what they tell: their sum is the order.
    n = jnp.full(lanes, flat.shape[1] // max(seen.shape[1], 1) * nodes, jnp.int32)
    found = compiled_fit(model, settings, points, safe, {}, row, bad, data, single or common, n, begun)
    if kind not in ("hc3", "clustered"):
        return found
    return jackknifed(found, model, settings, safe, {}, row, seen.shape[1] if kind == "clustered" else 1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _begun(
    settings: Settings, common: bool, deviations: Deviations, problem: Liquidation, seen: Array, points: Array
) -> tuple[Minimum, Array]:
    """The joint search from the one start there is: minima, lanes first, and costates to start `solve` from."""
    start = jnp.stack([to_free(points[0, :, i], bound) for i, bound in enumerate(settings.bounds)], -1)
    start = jnp.broadcast_to(start, (seen.shape[0], start.shape[1]))
    fitted = (settings.names, settings.bounds)
    found, costates = search_jointly(
        problem, seen, start, *fitted, deviations=deviations, common=common, max_steps=settings.max_steps
    )
    return (jax.tree.map(lambda x: x[:1], found) if common else found), costates


@dataclasses.dataclass(frozen=True)
class Observed:
    """Optimal minus observed inventories or trades, as shares of the order; every field is static."""

    names: tuple[str, ...]
    common: bool
    deviations: Deviations

    def __call__(self, parameters: dict[str, Array], data: Any) -> Float[Array, "rows lanes"]:
        values = {name: parameters[name][0] for name in self.names}
        lane = self._of_many if self.common else self._of_one
        return jax.vmap(lane, in_axes=(-1, -1), out_axes=-1)(values, data)

    def _of_many(self, values: dict[str, Array], data: Any) -> Float[Array, " rows"]:
        return jax.vmap(self._of_one, in_axes=(None, 0))(values, data).reshape(-1)

    def _of_one(self, values: dict[str, Array], data: Any) -> Float[Array, " seen"]:
        problem = data["problem"]
        schedule = solve(with_parameters(problem, values), guess=data.get("costate"))
        best = schedule.inventory[1:-1] if self.deviations == "inventory" else schedule.trades
        return best / problem.shares - data["seen"]


def _entered(
    problem: Any, trades: Array, names: tuple[str, ...], deviations: Deviations
) -> tuple[Liquidation, Array, bool]:
    """Problems, what was seen as shares of the order (held at inner nodes, or traded in each step), schedules first,
    and whether there is one alone.

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
    held = problem.shares[:, None] - jnp.cumsum(trades, 1)[:, :-1]
    seen = (held if deviations == "inventory" else trades) / problem.shares[:, None]
    return problem, seen, not batched and count == 1


def _first(name: str, problem: Liquidation, lanes: int, common: bool) -> Float[Array, " lanes"]:
    """Where to search from: the problem's own values, of many problems their geometric mean."""
    own = problem.risk_aversion if name == "risk_aversion" else getattr(problem.cost, name)
    return jnp.exp(jnp.log(own).mean(keepdims=True)) if common else own
