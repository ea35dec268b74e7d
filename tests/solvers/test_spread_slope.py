"""A spread that is the same in all steps moves no trade of an order that only sells: derivatives by it are exact."""

import jax
import numpy as np
import pytest

import jaxexec as jx

GRID = jx.TimeGrid.uniform(1.0, 20)


@jax.jit
def of_spread(psi, phi):
    order = jx.Liquidation(1e5, jx.Market(GRID, 0.6, 4e6), jx.PowerLawCost(0.1, phi, psi), 1e-3)
    s = jx.solve(order)
    return s.trades, s.costate, s.objective, s.expected_cost


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("phi", [0.6, 1.0, 2.5])
def test_slopes_by_the_spread(derivative, phi):
    """At φ = 2.5 the order is done long before the end, and H' has no bounded slope there."""
    trades, costate, objective, expected = jax.jit(derivative(of_spread))(0.01, phi)
    np.testing.assert_array_equal(trades, 0)
    np.testing.assert_allclose(costate, -1.0, rtol=1e-12)
    np.testing.assert_allclose([objective, expected], 1e5, rtol=1e-12)
