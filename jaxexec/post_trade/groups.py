"""Means, standard errors and quantiles of orders or fills, by group."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Σ w x / Σ w and its standard error, √(n/(n − 1) Σ w² (x − mean)²) / Σ w: with equal weights the usual s/√n.

    The error is NaN for fewer than two values, the mean for none.

    Source: Cochran, Sampling Techniques (1977), sec. 6.3, the ratio estimator, without the correction for a finite
    population.
    """
    count, total = len(values), float(np.sum(weights))
    if not count or not total > 0:
        return math.nan, math.nan
    mean = float(values[0] + np.sum(weights * (values - values[0])) / total)  # exact where all are the same
    if count < 2:
        return mean, math.nan
    scatter = float(np.sum((weights * (values - mean)) ** 2)) * count / (count - 1)
    return mean, math.sqrt(scatter) / total


def weighted_quantiles(values: np.ndarray, weights: np.ndarray | None, at: Sequence[float]) -> np.ndarray:
    """Quantiles: linearly interpolated without weights, the inverse of the weighted distribution function with them."""
    if not len(values) or (weights is not None and not np.sum(weights) > 0):
        return np.full(len(at), math.nan)
    if weights is None:
        return np.quantile(values, at)
    return np.quantile(values, at, weights=weights, method="inverted_cdf")


def aggregated(
    keys: dict[str, list],
    measures: dict[str, np.ndarray],
    weights: np.ndarray,
    *,
    by_value: bool,
    quantiles: Sequence[float],
    counted: str,
) -> list[dict[str, Any]]:
    """One record a group and measure, groups in the order of their names.

    Args:
        keys: (rows,) the columns that make the groups.
        measures: (rows,) what is aggregated; a row whose value is not finite does not count.
        weights: (rows,) values in currency, ≥ 0.
        by_value: whether rows count by their value, or all alike.
        quantiles: between 0 and 1.
        counted: what a row is, for the name of the column of counts.
    """
    rows = len(weights)
    names = [tuple("" if cell is None else str(cell) for cell in cells) for cells in zip(*keys.values(), strict=True)]
    names = names if keys else [()] * rows
    members: dict[tuple[str, ...], list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)
    records = []
    for name in sorted(members):
        of_group = np.array(members[name])
        for measure, values in measures.items():
            counts = np.isfinite(values[of_group]) & np.isfinite(weights[of_group])
            taken = of_group[counts]
            own = weights[taken] if by_value else np.ones(len(taken))
            mean, error = weighted_mean(values[taken], own)
            spots = weighted_quantiles(values[taken], own if by_value else None, quantiles)
            numbers = {"measure": measure, counted: len(taken), "mean": mean, "std_error": error}
            places = {f"q{100 * q:g}": float(x) for q, x in zip(quantiles, spots, strict=True)}
            records.append({**dict(zip(keys, name, strict=True)), **numbers, **places})
    return records
