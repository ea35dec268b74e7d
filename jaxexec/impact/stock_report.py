"""The regression of one stock as tables: what was done, and its coefficients with errors and intervals."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from jaxexec.numerics.status import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxexec.impact.estimates import ImpactEstimates
    from jaxexec.presentation import Table


def normal_interval(estimate: ArrayLike, std_error: ArrayLike, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the two-sided interval estimate ± z · std_error, z from the normal distribution.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    half = NormalDist().inv_cdf(0.5 + level / 2) * np.asarray(std_error)
    return np.asarray(estimate) - half, np.asarray(estimate) + half


def regression_sheets(
    symbol: str, at: int, estimates: ImpactEstimates, units: Mapping[str, str], convention: str, level: float
) -> tuple[Table, Table]:
    """Facts about the regression of the stock at place `at`, and its coefficients."""
    from jaxexec.presentation import Table

    e: Any = _of_stock(estimates, at)
    low, high = normal_interval(e.coefficients, e.std_errors, level)
    p = np.full(len(e.terms), np.nan) if e.p is None else e.p
    tail = 50 * (1 - level)
    columns = ("coefficient", "unit", "estimate", "std. error", "t", "p", f"{tail:.3g}%", f"{100 - tail:.3g}%")
    rows = [
        (term, units[term], *(float(x[k]) for x in (e.coefficients, e.std_errors, e.t, np.round(p, 4), low, high)))
        for k, term in enumerate(e.terms)
    ]
    status = Status(int(e.status))
    remedy = "" if status == Status.OK else f" {status.name}: {status.remedy}"
    facts = Table(f"Price impact of {symbol}", ("fit", "", " ", "  "), _in_two(_facts(e, status)))
    return facts, Table("", columns, rows, f"{convention} p and intervals by the normal distribution.{remedy}")


def _of_stock(estimates: ImpactEstimates, at: int) -> ImpactEstimates:
    import jax

    return jax.tree.map(lambda x: np.asarray(x)[at], estimates)


def _facts(e: Any, status: Status) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("trades used", int(e.n)),
        ("R²", float(e.r2)),
        ("status", status.name),
        ("Durbin–Watson", float(e.durbin_watson)),
        ("condition number", float(e.condition)),
        ("intercept (currency)", float(e.intercept)),
        ("Σ order-flow weights", float(np.sum(e.order_flow[1:]))),
        ("σ of order flow (shares)", float(e.order_flow_std)),
    ]
    if e.covariance_type == "hac":
        facts.append(("Newey–West lags", int(e.lags)))
    if e.rho is not None and int(e.iterations or 0):
        facts.append(("ρ of the errors", float(e.rho)))
    return facts


def _in_two(facts: list[tuple[str, Any]]) -> list[tuple[Any, ...]]:
    """Facts as rows of two each; text, so that a column may hold all sorts of numbers."""
    from jaxexec.presentation import format_number

    texts = [(name, value if isinstance(value, str) else format_number(value)) for name, value in facts]
    texts += [("", "")] * (len(texts) % 2)
    half = len(texts) // 2
    return [(*left, *right) for left, right in zip(texts[:half], texts[half:], strict=True)]
