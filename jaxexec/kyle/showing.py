"""The equilibrium as a table and as a figure."""

from typing import TYPE_CHECKING

import numpy as np

from jaxexec.presentation import Table
from jaxexec.presentation.figures import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxexec.kyle.equilibrium import Equilibrium

_ROWS = 12


def _is_one(equilibrium: "Equilibrium") -> None:
    if equilibrium.price_impact.ndim != 1:
        shape = equilibrium.price_impact.shape[:-1]
        raise ValueError(f"equilibrium must be one, got a batch {shape}; pick one: jax.tree.map(lambda x: x[0], e)")


def table(equilibrium: "Equilibrium") -> Table:
    """Some periods, evenly spaced, the first and the last among them."""
    _is_one(equilibrium)
    periods = equilibrium.periods
    chosen = np.unique(np.linspace(0, periods - 1, min(periods, _ROWS)).round().astype(int))
    columns = {
        "period": chosen + 1,
        "price impact (currency/share)": equilibrium.price_impact,
        "transitory impact (currency/share)": equilibrium.transitory_impact,
        "intensity (shares/currency)": equilibrium.intensity,
        "informed share": equilibrium.informed_share,
        "posterior variance": equilibrium.posterior_variance,
    }
    if not np.any(np.asarray(equilibrium.transitory_impact) != 0):
        del columns["transitory impact (currency/share)"]
    cells = [np.asarray(x) if name == "period" else np.asarray(x)[chosen] for name, x in columns.items()]
    profit, value = float(equilibrium.expected_profit), float(equilibrium.value)
    footer = f"Expected profit of each insider {profit:.6g}, ex-ante value {value:.6g}."
    return Table("Equilibrium", tuple(columns), list(zip(*(c.tolist() for c in cells), strict=True)), footer)


def plot(equilibrium: "Equilibrium") -> "Figure":
    """Price impact and intensity relative to their first, and what is left unknown relative to the prior."""
    _is_one(equilibrium)
    impact, intensity = np.asarray(equilibrium.price_impact), np.asarray(equilibrium.intensity)
    lines = {
        "price impact λ": impact / impact[0],
        "intensity β": intensity / intensity[0],
        "posterior variance Σ": np.asarray(equilibrium.posterior_variance) / float(equilibrium.prior_variance),
    }
    title = "The market maker learns, the insider hurries"
    at = np.arange(1, equilibrium.periods + 1)
    return curves(at, lines, title, "period", "relative to the first period, to the prior", log_y=True)
