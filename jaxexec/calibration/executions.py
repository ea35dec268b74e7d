"""The cost L(ρ) = η|ρ|^{1+φ} + ψ|ρ| from executions: what each paid a share, at which participation."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxexec.calibration.entry import Entry, enter_rows, start_of
from jaxexec.calibration.general import drawn, settings_of
from jaxexec.calibration.jackknife import Errors, jackknifed
from jaxexec.calibration.objective import Loss
from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.calibration.run_fit import run_fit
from jaxexec.calibration.transforms import POSITIVE, Bound
from jaxexec.numerics.arrays import positive_log

_NAMES = ("eta", "phi", "psi")
_BOUNDS: dict[str, Bound] = {"eta": POSITIVE, "phi": POSITIVE}
_FIRST_PHI = 0.6


def execution_cost(
    participation: ArrayLike,
    slippage: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    error_std: ArrayLike | None = None,
    state: ArrayLike | None = None,
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
    """η, φ and ψ of one stock, or of thousands at once, from what executions paid. Traced.

    Each row is an execution at an even rate: slippage = η ρ^φ e^{δ z} + ψ + error, the cost a share that
    `PowerLawCost(eta, phi, psi)` charges at the rate ρ. Errors are mostly the price's own movement, of standard
    deviation about σ√(T/3) over T days: give it as `error_std`.

    Args:
        participation: ρ > 0, own shares over those of others in the same time, (rows,) or (stocks, rows).
        slippage: Cost a share against the arrival price, currency; positive where the order lost, (…) the same shape.
            In units of the daily volatility η and ψ come out in the same units.
        mask: True for a real row; all rows where None.
        error_std: Standard deviation of each row's error up to a common factor, > 0; all alike where None.
        state: z, something that scales the temporary impact, such as the logarithm of volatility over its mean or a
            dummy for a time of day; adds the parameter "delta". One a row.
        bounds: (low, high) by name; eta and phi are positive unless told otherwise, psi and delta free.
        fixed: Known parameters by name, scalars or (stocks,): `{"phi": 0.5}` is the square-root law.
        start: Where to search from, by name, scalars or (stocks,); where None, φ = 0.6 and least squares of the rest.
        starts, key, loss, threshold, covariance, max_steps: As in `fit`.

    Returns:
        The fit, parameters "eta", "phi", "psi" (and "delta") without those fixed. Executions at one rate alone cannot
        tell η ρ^φ from ψ: RANK_DEFICIENT, with the null directions.

    Raises:
        ValueError: a wrong shape or option; of one stock, a row that is not finite or of the wrong sign, by its index.
            In a batch such a stock has the status NONFINITE_INPUT.

    Source: Almgren (2003) for the power law; Guéant (2016), ch. 3, for L. The specification with ψ is this package's.
    """
    names = _NAMES if state is None else (*_NAMES, "delta")
    columns = {"participation": participation, "slippage": slippage}
    columns |= {"error_std": error_std} if error_std is not None else {}
    columns |= {"state": state} if state is not None else {}
    entry = enter_rows(columns, mask, positive=("participation", "error_std"))
    known = start_of("fixed", fixed, names, entry)
    names = tuple(name for name in names if name not in known)
    settings = settings_of(names, known, bounds, _BOUNDS, loss, threshold, covariance, max_steps, True)
    first = _first_values(entry, known) | start_of("start", start, names, entry, settings)
    points = drawn(jnp.stack([first[name] for name in names], -1)[None], settings.bounds, starts, key)
    rows = _rows(entry)
    found = run_fit(_slippage_left, settings, points, rows, known, entry)
    return jackknifed(found, _slippage_left, settings, rows, known, entry.row) if covariance == "hc3" else found


def _rows(entry: Entry) -> dict[str, Float[Array, "lanes rows"]]:
    columns = entry.columns
    ones = jnp.ones_like(columns["slippage"])
    return {
        "log_rate": positive_log(columns["participation"]),
        "slippage": columns["slippage"],
        "weight": 1 / columns.get("error_std", ones),
    } | ({"state": columns["state"]} if "state" in columns else {})


def _slippage_left(parameters: dict[str, Array], data: Any) -> Float[Array, "rows lanes"]:
    """What the cost does not explain, over its standard deviation."""
    power = parameters["phi"] * data["log_rate"]
    if "state" in data:
        power = power + parameters["delta"] * data["state"]
    modelled = parameters["eta"] * jnp.exp(power) + parameters["psi"]
    return data["weight"] * (data["slippage"] - modelled)


def _first_values(entry: Entry, known: Mapping[str, Array]) -> dict[str, Float[Array, " lanes"]]:
    """η and ψ by least squares of slippage on ρ^0.6, η made positive."""
    y, row = entry.columns["slippage"], entry.row
    phi = known.get("phi", jnp.full_like(y[:, 0], _FIRST_PHI))
    power = jnp.exp(phi[:, None] * positive_log(entry.columns["participation"]))
    n = jnp.maximum(row.sum(1, dtype=jnp.int32), 1).astype(y.dtype)
    mean_x, mean_y = _mean(power, row, n), _mean(y, row, n)
    x, dy = jnp.where(row, power - mean_x[:, None], 0), jnp.where(row, y - mean_y[:, None], 0)
    square = (x * x).sum(1)
    slope = (x * dy).sum(1) / jnp.where(square > 0, square, 1)
    least = 0.01 * jnp.sqrt((jnp.where(row, y, 0) ** 2).sum(1) / n)
    eta = jnp.maximum(slope, jnp.where(least > 0, least, 1))
    psi = mean_y - eta * mean_x
    return {"eta": eta, "phi": phi, "psi": psi, "delta": jnp.zeros_like(eta)}


def _mean(x: Array, row: Bool[Array, "lanes rows"], n: Array) -> Array:
    return jnp.where(row, x, 0).sum(1) / n
