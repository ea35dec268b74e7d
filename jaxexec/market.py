"""What the market is while an order works: a grid of times and piecewise-constant curves on its steps."""

import functools
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.numerics.arrays import as_device_array, as_float, check, is_concrete, namespace, unify
from jaxexec.numerics.records import record

Curve = Callable[[Float[Array, " points"]], ArrayLike] | ArrayLike
_SCALARS = ("permanent_impact", "elapsed")


class TimeGrid(eqx.Module):
    """The times between which an order trades, in trading days.

    Args:
        times: (nodes,) increasing and finite, at least two. May be traced.

    Raises:
        ValueError: fewer than two nodes, not one-dimensional, or (where concrete) a time that is not finite or does
            not increase; the message names the index.
    """

    times: Float[Array, " nodes"]

    def __init__(self, times: ArrayLike):
        times = as_float("times", times)
        if times.ndim != 1 or times.shape[0] < 2:
            raise ValueError(f"times must have shape (nodes,) with at least 2 nodes, got shape {times.shape}")
        check("times", times, np.isfinite, "finite")
        if is_concrete(times):
            _check_increasing(np.asarray(times))
        self.times = times

    @classmethod
    def uniform(cls, horizon: ArrayLike, steps: int) -> "TimeGrid":
        """`steps` equal steps from 0 to `horizon` trading days; `horizon` may be traced.

        Raises:
            ValueError: `horizon` is concrete and not positive and finite, or `steps` is not a positive integer.
        """
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
            raise ValueError(f"steps must be a positive integer, got {steps!r}")
        horizon = as_float("horizon", horizon)
        if horizon.ndim:
            raise ValueError(f"horizon must be a scalar, got shape {horizon.shape}; use jax.vmap for many horizons")
        check("horizon", horizon, lambda h: np.isfinite(h) & (h > 0), "positive and finite")
        # A Python number for the horizon does not fix the precision: until a market does, the times are NumPy's
        # where the horizon is known, else weakly typed.
        if is_concrete(horizon):
            nodes = np.arange(int(steps) + 1, dtype=horizon.dtype) / np.asarray(steps, horizon.dtype)
            times = np.asarray(horizon) * nodes
            _check_increasing(times)
            return record(cls, times=times if horizon.weak_type else as_device_array(times))
        ones = jnp.broadcast_to(jnp.asarray(1.0), (int(steps) + 1,))
        return cls(horizon * ((lax.cumsum(ones) - 1) / int(steps)))

    @property
    def steps(self) -> int:
        """Number of steps, one less than the number of nodes."""
        return self.times.shape[0] - 1

    @property
    def durations(self) -> Float[Array, " steps"]:
        """τ_k, the length of each step in trading days."""
        return self.times[1:] - self.times[:-1]

    @property
    def horizon(self) -> Float[Array, ""]:
        """From the first node to the last, in trading days."""
        return self.times[-1] - self.times[0]


class Market(eqx.Module):
    """Volatility, volume, drift and permanent impact over a grid: all that an order cannot choose.

    Args:
        grid: the times.
        volatility: σ, currency per share per √day; scalar or (steps,), ≥ 0. Typically 1–3 % of the price.
        volume: V, shares per day traded by the others; scalar or (steps,), ≥ 0. A step without volume cannot be
            traded in.
        permanent_impact: κ, currency per share, per share traded; scalar, ≥ 0. The price falls by κ for each share
            sold (Almgren and Chriss 2000, eq. 7: their γ).
        drift: α, expected price change in currency per share per day; scalar or (steps,).
        gap_variance: variance that a step adds to σ²τ, currency² per share²; scalar or (steps,), ≥ 0. An overnight
            gap is a step with zero volume and its own variance.
        elapsed: days of the grid that are over, ≥ 0; scalar. Nothing more happens in them: no volume, no variance, no
            drift; the step that is under way keeps the rest of its share. See `Liquidation.resume`.

    Raises:
        ValueError: a wrong shape, or a concrete value that is not finite or breaks its sign; field and index named.
    """

    grid: TimeGrid
    volatility: Float[Array, "*#steps"]
    volume: Float[Array, "*#steps"]
    permanent_impact: Float[Array, ""]
    drift: Float[Array, "*#steps"]
    gap_variance: Float[Array, "*#steps"]
    elapsed: Float[Array, ""]

    def __init__(
        self,
        grid: TimeGrid,
        volatility: ArrayLike,
        volume: ArrayLike,
        permanent_impact: ArrayLike = 0.0,
        drift: ArrayLike = 0.0,
        gap_variance: ArrayLike = 0.0,
        elapsed: ArrayLike = 0.0,
    ):
        if not isinstance(grid, TimeGrid):
            raise ValueError(f"grid must be a jaxexec.TimeGrid, got {type(grid).__name__}")
        curves = {
            "volatility": volatility,
            "volume": volume,
            "permanent_impact": permanent_impact,
            "drift": drift,
            "gap_variance": gap_variance,
            "elapsed": elapsed,
        }
        arrays = {name: as_float(name, value) for name, value in curves.items()}
        for name, array in arrays.items():
            _check_shape(name, array, () if name in _SCALARS else (grid.steps,))
            _check_sign(name, array)
        normal = unify({"grid": grid, **arrays})
        self.grid = normal["grid"]
        self.volatility = normal["volatility"]
        self.volume = normal["volume"]
        self.permanent_impact = normal["permanent_impact"]
        self.drift = normal["drift"]
        self.gap_variance = normal["gap_variance"]
        self.elapsed = normal["elapsed"]

    @classmethod
    def from_functions(
        cls,
        grid: TimeGrid,
        volatility: Curve,
        volume: Curve,
        permanent_impact: ArrayLike = 0.0,
        drift: Curve = 0.0,
        gap_variance: ArrayLike = 0.0,
        *,
        points: Literal["midpoint", "gauss"] = "midpoint",
    ) -> "Market":
        """A market from smooth curves, sampled where a method of second or of fourth order needs them.

        Args:
            grid: the times. With "gauss" its steps are the cells of `Collocation`, and the market has two steps a
                cell, which carry the curves at the cell's two Gauss points.
            volatility: σ(t) as a function of an array of times, or a number.
            volume: V(t), likewise.
            permanent_impact: as in `Market`.
            drift: α(t), likewise.
            gap_variance: as in `Market`; one number or one a step of `grid`, halved between the two steps of a cell.
            points: "midpoint" (second order) or "gauss" (fourth order, with `Collocation`).

        Raises:
            ValueError: `points` is neither, or a curve has a wrong shape or breaks its sign.
        """
        if points not in ("midpoint", "gauss"):
            raise ValueError(f"points must be 'midpoint' or 'gauss', got {points!r}")
        times, gap = grid.times, as_float("gap_variance", gap_variance)
        at = (times[:-1] + times[1:]) / 2
        if points == "gauss":
            nodes, at = gauss_times(times)
            grid = TimeGrid(nodes)
            gap = jnp.repeat(gap, 2) / 2 if gap.ndim else gap / 2

        def sample(curve: Curve) -> ArrayLike:
            return curve(at) if callable(curve) else curve

        return cls(grid, sample(volatility), sample(volume), permanent_impact, sample(drift), gap)

    def refine(self, parts: int) -> "Market":
        """The same market on a finer grid: every step is cut into `parts` equal ones.

        Raises:
            ValueError: `parts` is not a positive integer.
        """
        if isinstance(parts, bool) or not isinstance(parts, int | np.integer) or parts < 1:
            raise ValueError(f"parts must be a positive integer, got {parts!r}")

        def repeated(curve: Array) -> Array:
            return jnp.repeat(curve, parts) if curve.ndim else curve

        return Market(
            TimeGrid(cut(self.grid.times, parts)),
            repeated(self.volatility),
            repeated(self.volume),
            self.permanent_impact,
            repeated(self.drift),
            repeated(self.gap_variance) / parts,
            self.elapsed,
        )

    def window(self, start: ArrayLike, end: ArrayLike, steps: int) -> "Market":
        """The market between two times on `steps` equal steps, every integral preserved.

        The volume, variance and drift of a new step are those of the old steps it overlaps; the variance of a gap is
        spread evenly over the gap's own step. `start` and `end` may be traced, so orders of different horizons make
        one batch.

        Args:
            start: where the window begins, trading days, within the grid.
            end: where it ends, after `start` and within the grid.
            steps: number of new steps.

        Raises:
            ValueError: concrete ends outside the grid or in the wrong order, or `steps` not a positive integer.
        """
        ends = {"start": as_float("start", start), "end": as_float("end", end)}
        for name, value in ends.items():
            if value.ndim:
                raise ValueError(f"{name} must be a scalar, got shape {value.shape}; use jax.vmap for many windows")
        length = ends["end"] - ends["start"]
        check("end − start", length, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
        _check_within(self.grid, ends)
        dtype = self.grid.times.dtype
        uniform = TimeGrid.uniform(length.astype(dtype), steps)
        grid = TimeGrid(ends["start"].astype(dtype) + uniform.times)
        share = _overlap(grid.times, self.grid.times)  # days that a new step spends in an old one
        old = (self.grid.steps,)
        mean = share / grid.durations[:, None]
        ahead = self._ahead
        squared = mean @ jnp.broadcast_to(self.volatility**2 * ahead, old)
        moving = squared > 0
        volatility = jnp.where(moving, jnp.sqrt(jnp.where(moving, squared, 1)), 0)
        # What averaging would hide from a solver must not pass: it shows as NaN, and NaN as a status.
        sound = self._is_sound() & _is_within(self.grid, ends)
        return Market(
            grid,
            volatility=volatility if is_concrete(sound) else jnp.where(sound, volatility, jnp.nan),
            volume=mean @ jnp.broadcast_to(self.volume * ahead, old),
            permanent_impact=self.permanent_impact,
            drift=mean @ jnp.broadcast_to(self.drift * ahead, old),
            gap_variance=share @ (jnp.broadcast_to(self.gap_variance * ahead, old) / self.grid.durations),
        )

    def _is_sound(self) -> Bool[Array, ""]:
        curves = (self.volatility, self.volume, self.gap_variance)
        return functools.reduce(jnp.logical_and, [jnp.all(curve >= 0) for curve in curves])

    @property
    def step_volume(self) -> Float[Array, " steps"]:
        """b_k = τ_k V_k: shares that the others trade in each step."""
        return self.step_durations * self.volume

    @property
    def step_variance(self) -> Float[Array, " steps"]:
        """σ_k² τ_k + gap variance: variance of the price change over each step, currency² per share²."""
        return self.step_durations * self.volatility**2 + self.gap_variance * self._ahead

    @property
    def step_drift(self) -> Float[Array, " steps"]:
        """α_k τ_k: expected price change over each step, currency per share."""
        return self.step_durations * self.drift

    @property
    def step_durations(self) -> Float[Array, " steps"]:
        """What is left of each step, in trading days."""
        since = self.grid.times - self.grid.times[0]
        still = namespace(since, self.elapsed).where(since > self.elapsed, since, self.elapsed)
        return still[1:] - still[:-1]

    @property
    def _ahead(self) -> Float[Array, " steps"]:
        """The part of each step that is still to come, between 0 and 1."""
        return self.step_durations / self.grid.durations


def gauss_times(ends: ArrayLike) -> tuple[Float[Array, " nodes"], Float[Array, " steps"]]:
    """The times of the steps of cells with these ends, and the times at which to sample smooth curves for them.

    Args:
        ends: (cells + 1,) increasing, trading days. May be traced.

    Returns:
        (2·cells + 1,) times, the middle of each cell inserted; (2·cells,) the Gauss points, ½ ∓ 1/√12 of a cell.
    """
    ends = as_float("ends", ends)
    if ends.ndim != 1 or ends.shape[0] < 2:
        raise ValueError(f"ends must have shape (cells + 1,) with at least 2 entries, got shape {ends.shape}")
    start, length = ends[:-1], ends[1:] - ends[:-1]

    def at(share: float) -> Array:
        return start + length * share

    inner = jnp.stack([start, at(0.5)], 1).reshape(-1)
    points = jnp.stack([at(0.5 - 12**-0.5), at(0.5 + 12**-0.5)], 1).reshape(-1)
    return jnp.concatenate([inner, ends[-1:]]), points


def cut(x: Float[Array, " nodes"], parts: int) -> Float[Array, " finer"]:
    """Values at the nodes and, linearly between them, at those that cut each step into `parts`."""
    inner = x[:-1, None] + (x[1:] - x[:-1])[:, None] * (jnp.arange(parts, dtype=x.dtype) / parts)[None]
    return jnp.append(inner.reshape(-1), x[-1])


def _check_increasing(times: np.ndarray) -> None:
    late = np.flatnonzero(np.diff(times) <= 0)
    if late.size:
        i = int(late[0]) + 1
        raise ValueError(f"times must increase: times[{i}] = {times[i]} is not after times[{i - 1}] = {times[i - 1]}")


def _check_within(grid: TimeGrid, ends: dict[str, Array]) -> None:
    within = _is_within(grid, ends)
    if is_concrete(within) and not bool(within):
        start, end, first, last = (float(v) for v in (ends["start"], ends["end"], grid.times[0], grid.times[-1]))
        raise ValueError(f"start and end must lie within the grid, [{first}, {last}], got {start} and {end}")


def _is_within(grid: TimeGrid, ends: dict[str, Array]) -> Bool[Array, ""]:
    first, last = grid.times[0], grid.times[-1]
    slack = 1e-6 * (last - first)
    start, end = (ends[name].astype(first.dtype) for name in ("start", "end"))
    return (start >= first - slack) & (end <= last + slack) & (end > start)


def _overlap(new: Float[Array, " new_nodes"], old: Float[Array, " old_nodes"]) -> Float[Array, "new_steps old_steps"]:
    """Length of the part that each new step shares with each old one. Dense: no gathers, and differentiable."""
    begin = jnp.maximum(new[:-1, None], old[None, :-1])
    finish = jnp.minimum(new[1:, None], old[None, 1:])
    return jnp.maximum(finish - begin, 0)


def _check_shape(name: str, array: Array, steps: tuple[int, ...]) -> None:
    if array.shape not in ((), steps):
        allowed = f"a scalar or shape {steps}" if steps else "a scalar"
        raise ValueError(f"{name} must be {allowed}, got shape {array.shape}")


def _check_sign(name: str, array: Array) -> None:
    check(name, array, np.isfinite, "finite")
    if name != "drift":
        check(name, array, lambda v: v >= 0, "at least 0")
