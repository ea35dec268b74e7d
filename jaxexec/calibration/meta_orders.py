"""Permanent and temporary impact from meta-orders, jointly: Almgren, Thum, Hauptmann and Li (2005).

An order of X shares trades evenly in T days; I is the relative move of the price from before the order to T_post days
after its start, J the relative cost of its mean fill, both positive where the price moved against it. With V shares a
day, Θ shares outstanding, daily volatility σ (relative), and standard normal ξ, χ,

    I       = σ γ T |X/VT|^α (Θ/V)^δ + σ √T_post ξ
    J − I/2 = σ η |X/VT|^β + σ [ √(T (4 − 3T/T_post)/12) χ − (T_post − T)/(2√T_post) ξ ]

The errors are those of a Brownian price: its value at T_post, and its mean over [0, T] less half of that. They depend
on each other, so the second equation is taken given the first: both rows then have unit variance and are independent.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxexec.calibration.entry import Entry, enter_rows, start_of
from jaxexec.calibration.general import drawn, settings_of
from jaxexec.calibration.jackknife import Errors, jackknifed
from jaxexec.calibration.objective import Loss
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.calibration.run_fit import run_fit
from jaxexec.calibration.transforms import POSITIVE, Bound
from jaxexec.numerics.arrays import is_concrete, positive_log
from jaxexec.numerics.status import replace_where

_NAMES = ("gamma", "alpha", "delta", "eta", "beta")
_BOUNDS: dict[str, Bound] = dict.fromkeys(("gamma", "alpha", "eta", "beta"), POSITIVE)
_START = {"gamma": 0.3, "alpha": 1.0, "delta": 0.25, "eta": 0.15, "beta": 0.6}


def meta_order_impact(
    permanent: ArrayLike,
    realised: ArrayLike,
    *,
    turnover: ArrayLike,
    horizon: ArrayLike,
    settled: ArrayLike,
    volatility: ArrayLike,
    inverse_turnover: ArrayLike,
    mask: ArrayLike | None = None,
    errors: Literal["joint", "separate"] = "joint",
    bounds: Mapping[str, Bound] | None = None,
    fixed: Mapping[str, ArrayLike] | None = None,
    start: Mapping[str, ArrayLike] | None = None,
    starts: int = 1,
    key: Array | None = None,
    loss: Loss = "squares",
    threshold: float = 1.345,
    covariance: Errors = "classical",
    max_steps: int = 100,
) -> ParameterFit:
    """γ, α, δ of permanent and η, β of temporary impact, from one set of meta-orders or several. Traced.

    Args:
        permanent: I, fraction of the price, positive where it moved against the order, (orders,) or (sets, orders).
        realised: J, fraction of the price, positive where the order lost, same shape.
        turnover: |X|/V, order over daily volume, > 0, same shape.
        horizon: T > 0, days that the order traded (of volume time), same shape.
        settled: T_post ≥ T, days from the start to the price that I is measured by, same shape; a little above T at
            least.
        volatility: σ > 0, fraction of the price per √day, same shape.
        inverse_turnover: Θ/V > 0, shares outstanding over daily volume, same shape.
        mask: True for a real row.
        errors: "joint" weighs the two equations by the covariance of their errors, which is efficient; "separate" takes
            them as independent, as two regressions would.
        bounds: (low, high) by name; all but delta are positive unless told otherwise.
        fixed: Known parameters by name: `{"alpha": 1.0}` makes permanent impact linear, `{"beta": 0.5}` temporary
            impact the square root.
        start: Where to search from, by name.
        starts, key, loss, threshold, covariance, max_steps: As in `fit`. Errors of unequal variance beyond the model's
            own ask for covariance="hc3".

    Returns:
        The fit, parameters "gamma", "alpha", "delta", "eta", "beta" without those fixed. `almgren_2005` and
        `almgren_2005_model` make costs of them. Rows count twice: one a equation.

    Raises:
        ValueError: a wrong shape or option; of one set, a row that is not finite or of the wrong sign, or whose
            price was taken before the order ended.

    Source: Almgren, Thum, Hauptmann and Li, Direct estimation of equity market impact, Risk (2005); the equations are
    quoted from memory, the covariance of the errors is derived here.
    """
    if errors not in ("joint", "separate"):
        raise ValueError(f"errors must be 'joint' or 'separate', got {errors!r}")
    positive = {
        "turnover": turnover,
        "horizon": horizon,
        "settled": settled,
        "volatility": volatility,
        "inverse_turnover": inverse_turnover,
    }
    entry = enter_rows({"permanent": permanent, "realised": realised, **positive}, mask, positive=tuple(positive))
    entry = _settled_after(entry)
    known = start_of("fixed", fixed, _NAMES, entry)
    names = tuple(name for name in _NAMES if name not in known)
    settings = settings_of(names, known, bounds, _BOUNDS, loss, threshold, covariance, max_steps, True)
    like = entry.columns["permanent"][:, 0]
    first = {name: jnp.full_like(like, _START[name]) for name in names}
    first |= start_of("start", start, names, entry, settings)
    points = drawn(jnp.stack([first[name] for name in names], -1)[None], settings.bounds, starts, key)
    rows = _rows(entry.columns, errors == "joint")
    both = jnp.concatenate([entry.row, entry.row], 1)
    found = run_fit(_orders_left, settings, points, rows, known, entry, both)
    return jackknifed(found, _orders_left, settings, rows, known, both) if covariance == "hc3" else found


def square_root_law(
    cost: ArrayLike,
    *,
    turnover: ArrayLike,
    volatility: ArrayLike,
    mask: ArrayLike | None = None,
    error_std: ArrayLike | None = None,
    exponent: float | None = 0.5,
    start: Mapping[str, ArrayLike] | None = None,
    covariance: Errors = "hc3",
    loss: Loss = "squares",
    threshold: float = 1.345,
    max_steps: int = 100,
) -> ParameterFit:
    """Y of the law cost = Y σ (|X|/V)^κ, κ = ½ or fitted. Traced.

    Args:
        cost: Relative cost or peak move of each meta-order, positive against it, (orders,) or (sets, orders).
        turnover: |X|/V > 0, same shape.
        volatility: σ > 0, fraction of the price per √day, same shape.
        mask: True for a real row.
        error_std: Standard deviation of each row's error up to a common factor; None means proportional to σ.
        exponent: κ; None fits it.
        start: Where to search from, by name; 1 and ½ where None.
        covariance, loss, threshold, max_steps: As in `fit`.

    Returns:
        The fit, parameters "prefactor" (Y) and, where fitted, "exponent".

    Raises:
        ValueError: a wrong shape or option; of one set, a row that is not finite or of the wrong sign.

    Source: the law of Barra and of Grinold and Kahn (1994), and of Tóth et al., Phys. Rev. X 1 (2011); from memory.
    """
    columns = {"cost": cost, "turnover": turnover, "volatility": volatility}
    columns["error_std"] = volatility if error_std is None else error_std
    entry = enter_rows(columns, mask, positive=("turnover", "volatility", "error_std"))
    both = ("prefactor", "exponent")
    known = start_of("fixed", {} if exponent is None else {"exponent": exponent}, both, entry)
    names = tuple(name for name in both if name not in known)
    defaults = dict.fromkeys(names, POSITIVE)
    settings = settings_of(names, known, None, defaults, loss, threshold, covariance, max_steps, True)
    like = entry.columns["cost"][:, 0]
    first = {"prefactor": jnp.ones_like(like), "exponent": jnp.full_like(like, 0.5)}
    first |= start_of("start", start, names, entry, settings)
    points = jnp.stack([first[name] for name in names], -1)[None]
    c = entry.columns
    rows = {
        "log_turnover": positive_log(c["turnover"]),
        "cost": c["cost"] / c["error_std"],
        "scale": c["volatility"] / c["error_std"],
    }
    found = run_fit(_law_left, settings, points, rows, known, entry)
    return jackknifed(found, _law_left, settings, rows, known, entry.row) if covariance == "hc3" else found


def _settled_after(entry: Entry) -> Entry:
    """The rows, lanes bad where a price was taken before its order ended.

    Raises:
        ValueError: a concrete row of one set is such.
    """
    early = (entry.columns["settled"] < entry.columns["horizon"]) & entry.row
    if entry.single and is_concrete(early) and np.any(np.asarray(early)):
        at = int(np.argmax(np.asarray(early[0])))
        settled, horizon = (float(entry.columns[name][0, at]) for name in ("settled", "horizon"))
        raise ValueError(f"settled[{at}] must be at least horizon[{at}], {horizon}, got {settled}")
    lost = early.any(1)
    columns = entry.columns
    safe = {
        name: replace_where(jnp.broadcast_to(lost[:, None], x.shape), x, jnp.ones_like(x))
        for name, x in columns.items()
    }
    return dataclasses.replace(entry, columns=safe, bad=entry.bad | lost)


def _rows(columns: dict[str, Array], joint: bool) -> dict[str, Float[Array, "lanes orders"]]:
    horizon, settled = columns["horizon"], columns["settled"]
    permanent = columns["permanent"] / columns["volatility"]
    temporary = columns["realised"] / columns["volatility"] - permanent / 2
    given = jnp.sqrt(horizon / 12 * (4 - 3 * horizon / settled))
    whole = jnp.sqrt(settled / 4 - horizon / 6)
    return {
        "permanent": permanent,
        "temporary": temporary,
        "log_rate": positive_log(columns["turnover"] / horizon),
        "log_inverse_turnover": positive_log(columns["inverse_turnover"]),
        "horizon": horizon,
        "root_settled": jnp.sqrt(settled),
        # How much of the first equation's error the second one has, and what is left of its own.
        "shared": (settled - horizon) / (2 * settled) if joint else jnp.zeros_like(horizon),
        "own": given if joint else whole,
    }


def _orders_left(parameters: dict[str, Array], data: Any) -> Float[Array, "rows lanes"]:
    """ξ of every order, then χ of every order."""
    rate = data["log_rate"]
    lasting = jnp.exp(parameters["alpha"] * rate + parameters["delta"] * data["log_inverse_turnover"])
    first = data["permanent"] - parameters["gamma"] * (data["horizon"] * lasting)
    second = data["temporary"] - parameters["eta"] * jnp.exp(parameters["beta"] * rate)
    return jnp.concatenate([first / data["root_settled"], (second + data["shared"] * first) / data["own"]])


def _law_left(parameters: dict[str, Array], data: Any) -> Float[Array, "rows lanes"]:
    modelled = parameters["prefactor"] * jnp.exp(parameters["exponent"] * data["log_turnover"])
    return data["cost"] - data["scale"] * modelled
