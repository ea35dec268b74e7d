"""Fixtures of the solvers' tests."""

import jax
import numpy as np
import pytest

import jaxexec as jx
from tests.solvers.spoiled_orders import GOOD, solve_batch


@pytest.fixture(scope="module")
def clean():
    """Schedules of the sound orders."""
    s = solve_batch(GOOD)
    assert np.all(np.asarray(s.status) == jx.Status.OK)
    return jax.tree.map(np.asarray, s)
