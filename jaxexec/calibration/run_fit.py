"""From entered rows to the record of a fit, in one compiled programme."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxexec.calibration.entry import Entry
from jaxexec.calibration.lane_fit import Settings, fit_lanes
from jaxexec.calibration.objective import Residuals
from jaxexec.calibration.parameter_fit import ParameterFit, parameter_fit
from jaxexec.numerics.levenberg_marquardt import Minimum


def run_fit(
    residuals: Residuals,
    settings: Settings,
    starts: Float[Array, "starts lanes p"],
    data: Any,
    fixed: dict[str, Float[Array, " lanes"]],
    entry: Entry,
    row: Bool[Array, "lanes rows"] | None = None,
) -> ParameterFit:
    """Fit every lane of `entry`; `row` where residuals have other rows than the columns."""
    return compiled_fit(
        residuals,
        settings,
        starts,
        data,
        fixed,
        entry.row if row is None else row,
        entry.bad,
        entry.given,
        entry.single,
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 8))
def compiled_fit(
    residuals: Residuals,
    settings: Settings,
    starts: Float[Array, "starts lanes p"],
    data: Any,
    fixed: dict[str, Float[Array, " lanes"]],
    row: Bool[Array, "lanes rows"],
    bad: Bool[Array, " lanes"],
    inputs: Any,
    single: bool,
    n: Int[Array, " lanes"] | None = None,
    begun: Minimum | None = None,
) -> ParameterFit:
    """`fit_lanes` and its record; `inputs` are what NaN goes back to in a failed lane."""
    usable = jnp.isfinite(starts).all(2)
    starts = jnp.where(usable[..., None], starts, 1)
    found = fit_lanes(residuals, settings, starts, data, fixed, row, bad | ~usable.all(0), n, begun)
    return parameter_fit(found, settings.names, settings.bounds, inputs, single)
