"""Parameters that depend on a state, such as the time of day or how volatile the market is: one fit for each state."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxexec.calibration.parameter_fit import ParameterFit
from jaxexec.numerics.distributions import f_cdf
from jaxexec.numerics.status import Status


class StateTest(NamedTuple):
    """Whether parameters are the same in all states.

    Attributes:
        statistic: F, the mean square of what estimates differ by, in their errors.
        numerator: Its degrees of freedom, (states − 1) × parameters.
        denominator: Rows less parameters, over all states.
        p_value: Probability of a larger statistic where the parameters are the same; NaN where fewer than two states
            could be fitted.
    """

    statistic: float
    numerator: int
    denominator: int
    p_value: float


def states_of(values: ArrayLike, states: int = 2, edges: ArrayLike | None = None) -> np.ndarray:
    """The state of each row by the size of something: 0 where it is smallest. On the host.

    Args:
        values: What decides, such as the realised volatility while a row lasted, or its time of day, (rows,).
        states: How many, with equally many rows each, cut at quantiles.
        edges: Where to cut instead, increasing, (states − 1,); a value at an edge belongs above it.

    Returns:
        Numbers 0 to states − 1, (rows,) int; −1 where a value is not finite.

    Raises:
        ValueError: a wrong shape, fewer than one state, edges that do not increase, or values too alike to cut.
    """
    x = np.asarray(values, float)
    if x.ndim != 1:
        raise ValueError(f"values must have shape (rows,), got {x.shape}")
    known = np.isfinite(x)
    if edges is None:
        if isinstance(states, bool) or not isinstance(states, int) or states < 1:
            raise ValueError(f"states must be a whole number, at least 1, got {states!r}")
        if not known.any():
            raise ValueError("values has no finite entry to cut at quantiles")
        cuts = np.quantile(x[known], np.arange(1, states) / states)
        if np.unique(np.concatenate([cuts, [x[known].min()]])).size < states:
            raise ValueError(f"values are too alike to be cut in {states} states: give fewer, or edges")
    else:
        cuts = np.asarray(edges, float)
        if cuts.ndim != 1 or not np.all(np.diff(cuts) > 0):
            raise ValueError("edges must increase, of shape (states − 1,)")
    return np.where(known, np.searchsorted(cuts, x, side="right"), -1)


def rows_by_state(states: ArrayLike, columns: Mapping[str, ArrayLike], count: int | None = None) -> dict[str, Any]:
    """Columns of one stock as a batch with one lane a state, and the mask that goes with it. On the host.

        fits = execution_cost(**rows_by_state(states_of(volatility), {"participation": rho, "slippage": paid}))

    Args:
        states: Numbers from 0; a row with a negative one is left out, (rows,).
        columns: Arrays by name, (rows,) each.
        count: Number of states; the largest number and one more where None.

    Returns:
        The columns and "mask", (states, most rows of a state) each; ones where the mask is False.

    Raises:
        ValueError: a wrong shape, states that are no whole numbers, or `count` below the states that occur.
    """
    labels = np.asarray(states)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"states must be whole numbers of shape (rows,), got {labels.dtype} of shape {labels.shape}")
    found = int(labels.max(initial=-1)) + 1
    total = found if count is None else count
    if total < max(found, 1):
        raise ValueError(f"count must be at least {max(found, 1)}, one more than the largest state, got {total}")
    places = [np.flatnonzero(labels == state) for state in range(total)]
    longest = max(1, *(len(place) for place in places))
    mask = np.arange(longest) < np.array([len(place) for place in places])[:, None]
    out: dict[str, Any] = {"mask": mask}
    for name, column in columns.items():
        values = np.asarray(column)
        if values.shape != labels.shape:
            raise ValueError(f"{name} must have the shape of states, {labels.shape}, got {values.shape}")
        lanes = np.ones(mask.shape, values.dtype)
        lanes[mask] = values[np.concatenate(places)]
        out[name] = lanes
    return out


def same_in_all_states(fits: ParameterFit) -> StateTest:
    """Wald's test that the parameters of all fits of a batch are the same, in the parameters without bounds.

    Args:
        fits: One fit a state, on one leading axis; those that failed, or whose errors are infinite, are left out.

    Raises:
        ValueError: `fits` is no batch.
    """
    if np.ndim(fits.status) != 1:
        raise ValueError("fits must be a batch with one leading axis: one fit a state")
    finite = np.isfinite(np.asarray(fits.free_covariance)).all((1, 2))
    used = np.flatnonzero((np.asarray(fits.status) <= Status.LOCAL) & finite)
    p = len(fits.names)
    numerator, denominator = (len(used) - 1) * p, int(np.sum(np.asarray(fits.n)[used])) - p * len(used)
    if len(used) < 2 or denominator < 1:
        return StateTest(np.nan, max(numerator, 0), max(denominator, 0), np.nan)
    values, covariance = (np.asarray(x, float)[used] for x in (fits.free_values, fits.free_covariance))
    # In units of the errors: what counts as singular is then no matter of currency.
    size = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).max(0)
    size = np.where(size > 0, size, 1)
    values, covariance = values / size, covariance / (size[:, None] * size[None])
    weights = np.linalg.pinv(covariance, hermitian=True)
    mean = np.linalg.solve(weights.sum(0), np.einsum("sij,sj->i", weights, values))
    apart = values - mean
    statistic = float(np.einsum("si,sij,sj->", apart, weights, apart)) / numerator
    p_value = 1 - float(np.asarray(f_cdf(np.array(statistic), numerator, denominator)))
    return StateTest(statistic, numerator, denominator, p_value)
