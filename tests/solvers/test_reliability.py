"""A slice of the reliability sweep of `python -m benchmarks reliability`: every feature mixed, none may fail."""

import jax
import numpy as np
import pytest

import jaxexec as jx
from benchmarks.random_problems import COSTS, mixed

solve_batch = jax.jit(jax.vmap(jx.solve))
STEPS = 48


@pytest.mark.parametrize("decades", [(-3.0, 3.0), (3.0, 5.0)], ids=["to 1e3", "to 1e5"])
def test_two_thousand_orders(decades):
    s = solve_batch(mixed(71, 1000, STEPS, decades))
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert float(np.max(s.relative_gap)) <= 1e-8


@pytest.mark.parametrize("cost", COSTS[1:])
def test_other_costs(cost):
    s = solve_batch(mixed(72, 64, STEPS, cost=cost))
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    assert float(np.max(s.relative_gap)) <= 1e-8


def test_float32_is_close_or_says_so():
    s = solve_batch(mixed(73, 256, STEPS, dtype=np.float32))
    ok = np.asarray(s.status) == jx.Status.OK
    assert np.mean(ok) > 0.98
    assert float(np.max(np.asarray(s.relative_gap)[ok])) <= 1e-5
    failed = np.asarray(s.status) > jx.Status.LOCAL
    assert np.all(np.isnan(np.asarray(s.trades)[failed]))
