"""What was ordered and what was done: a parent order with its reference prices, and its fills."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.market import TimeGrid
from jaxexec.numerics.arrays import as_float, check, is_concrete, unify

_SLACK = 1e-6  # of the horizon: fills this far outside the grid are rounding


class ParentOrder(eqx.Module):
    """A parent order and the prices that its shortfall is measured from.

    Args:
        shares: X, shares ordered; negative for a purchase, not zero. Scalar.
        decision_price: P_d, mid price when the order was decided, currency per share, > 0.
        arrival_price: P_0, mid price when it reached the market; None: it arrived as it was decided.
        end_price: P_N, mid price when the order ended, at which unfilled shares are valued; None or NaN: not known,
            which is a fault where shares are left.

    Raises:
        ValueError: a field is not a scalar, or concrete and not finite or not positive, or `shares` is zero.
    """

    shares: Float[Array, ""]
    decision_price: Float[Array, ""]
    arrival_price: Float[Array, ""]
    end_price: Float[Array, ""]

    def __init__(
        self,
        shares: ArrayLike,
        decision_price: ArrayLike,
        arrival_price: ArrayLike | None = None,
        end_price: ArrayLike | None = None,
    ):
        given = {
            "shares": shares,
            "decision_price": decision_price,
            "arrival_price": decision_price if arrival_price is None else arrival_price,
            "end_price": math.nan if end_price is None else end_price,
        }
        arrays = {name: as_float(name, value) for name, value in given.items()}
        for name, array in arrays.items():
            if array.ndim:
                raise ValueError(f"{name} must be a scalar, got shape {array.shape}; use jax.vmap for many orders")
        check("shares", arrays["shares"], lambda v: np.isfinite(v) & (v != 0), "finite and not 0")
        for name in ("decision_price", "arrival_price"):
            check(name, arrays[name], is_price, "positive and finite")
        check("end_price", arrays["end_price"], lambda v: np.isnan(v) | is_price(v), "positive and finite, or NaN")
        normal = unify(arrays)
        self.shares = normal["shares"]
        self.decision_price = normal["decision_price"]
        self.arrival_price = normal["arrival_price"]
        self.end_price = normal["end_price"]


class Fills(eqx.Module):
    """The fills of one parent order.

    Args:
        prices: (fills,) p_i, currency per share, > 0.
        sizes: (fills,) n_i, shares, not zero, with the sign of the order: a purchase is negative.
        fees: f_i, commissions and fees of each fill, currency; negative for a rebate. Scalar or (fills,).
        mids: (fills,) m_i, the mid price that prevailed before each fill, currency per share; NaN where it is not
            known, None where none is.
        times: (fills,) trading days, on the clock of the problem that the order is compared with; None where there is
            no such comparison.
        mask: (fills,) True for fills, False for what pads them to a common length; None: all are fills.

    Raises:
        ValueError: a wrong shape, or a concrete value that is not finite or breaks its sign; field and index named.
    """

    prices: Float[Array, " fills"]
    sizes: Float[Array, " fills"]
    fees: Float[Array, "*#fills"]
    mids: Float[Array, "*#fills"]
    times: Float[Array, "*#fills"]
    mask: Bool[Array, " fills"]

    def __init__(
        self,
        prices: ArrayLike,
        sizes: ArrayLike,
        fees: ArrayLike = 0.0,
        mids: ArrayLike | None = None,
        times: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ):
        given = {
            "prices": prices,
            "sizes": sizes,
            "fees": fees,
            "mids": math.nan if mids is None else mids,
            "times": math.nan if times is None else times,
        }
        arrays = {name: as_float(name, value) for name, value in given.items()}
        shape = arrays["prices"].shape
        live = np.ones(shape, bool) if mask is None else mask if isinstance(mask, jax.Array) else np.asarray(mask)
        _check_shapes(arrays, live, shape)
        _check_values(arrays, live, times is not None)
        normal = unify(arrays)
        self.prices = normal["prices"]
        self.sizes = normal["sizes"]
        self.fees = normal["fees"]
        self.mids = normal["mids"]
        self.times = normal["times"]
        self.mask = jnp.asarray(live)

    def trades_on(self, grid: TimeGrid) -> Float[Array, " steps"]:
        """Shares filled in each step of a grid, (steps,): what `certify` and `expected_cost` ask for.

        A fill on a node counts in the step that begins there, on the last node in the last step. All are NaN where a
        time is not known or lies outside the grid.

        Raises:
            ValueError: concrete fills with such a time; its index is named.
        """
        within = is_on_grid(self, grid.times) | ~self.mask
        if is_concrete(within) and not np.all(within):
            i = int(np.argmin(np.asarray(within)))
            raise ValueError(
                f"times[{i}] must be known and within the grid, got {np.broadcast_to(self.times, within.shape)[i]}"
            )
        sizes = jnp.where(self.mask, self.sizes, 0)
        trades = binned(sizes, jnp.broadcast_to(self.times, sizes.shape), grid.times)
        return jnp.where(jnp.all(within), trades, jnp.nan)


def is_price(value: np.ndarray) -> np.ndarray:
    """Whether numbers can be prices."""
    return np.isfinite(value) & (value > 0)


def is_on_grid(fills: Fills, nodes: Float[Array, " nodes"]) -> Bool[Array, " fills"]:
    """Whether each fill lies between the first node and the last, but for rounding; not where its time is NaN."""
    slack = _SLACK * (nodes[-1] - nodes[0])
    times = fills.times.astype(nodes.dtype)
    return (times >= nodes[0] - slack) & (times <= nodes[-1] + slack)


def steps_of(times: Float[Array, " fills"], nodes: Float[Array, " nodes"]) -> Array:
    """The step that each time falls in; times outside fall in the first and the last."""
    place = jnp.searchsorted(nodes, times.astype(nodes.dtype), side="right") - 1
    return jnp.clip(place, 0, nodes.shape[0] - 2)


def binned(
    sizes: Float[Array, " fills"], times: Float[Array, " fills"], nodes: Float[Array, " nodes"]
) -> Float[Array, " steps"]:
    """Sizes summed over the fills of each step."""
    return jax.ops.segment_sum(sizes, steps_of(times, nodes), nodes.shape[0] - 1)


def _check_shapes(arrays: dict[str, Array], mask: np.ndarray | Array, shape: tuple[int, ...]) -> None:
    if len(shape) != 1:
        raise ValueError(f"prices must have shape (fills,), got {shape}; use jax.vmap for many orders")
    for name in ("sizes", "fees", "mids", "times"):
        allowed = (shape,) if name == "sizes" else (shape, ())
        if arrays[name].shape not in allowed:
            raise ValueError(f"{name} must have the shape of prices, {shape}, got {arrays[name].shape}")
    if mask.shape != shape or mask.dtype != bool:
        raise ValueError(f"mask must be boolean of shape {shape}, got {mask.dtype} of shape {mask.shape}")


def _check_values(arrays: dict[str, Array], mask: np.ndarray | Array, timed: bool) -> None:
    if not is_concrete(mask):
        return
    padding = ~np.asarray(mask)

    def check_live(name: str, valid: Callable[[np.ndarray], np.ndarray], requirement: str) -> None:
        if is_concrete(arrays[name]):
            values = np.broadcast_to(np.asarray(arrays[name]), padding.shape)
            bad = np.flatnonzero(~(padding | valid(values)))
            if bad.size:
                raise ValueError(f"{name}[{bad[0]}] must be {requirement}, got {values[bad[0]]}")

    check_live("prices", is_price, "positive and finite")
    check_live("sizes", lambda v: np.isfinite(v) & (v != 0), "finite and not 0")
    check_live("fees", np.isfinite, "finite")
    check_live("mids", lambda v: np.isnan(v) | is_price(v), "positive and finite, or NaN")
    if timed:
        check_live("times", np.isfinite, "finite")
