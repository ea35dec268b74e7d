"""Bands against resampled data: estimate again, solve again. Executions what the fit left, a tape in moving blocks."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx
from jaxexec.calibration import execution_cost
from jaxexec.sensitivity import FrontierPoints, OptimalSchedule, delta_method

STEPS = 6
GAMMAS = np.array([5e-7, 5e-6])


def order(eta, phi, psi):
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 4e6, permanent_impact=1e-8)
    return jx.Liquidation(2e5, market, jx.PowerLawCost(eta, phi, psi), 3e-6)


def test_bands_are_those_of_executions_drawn_again():
    """Cost, schedule and frontier, within 10 per cent: 600 samples of 800 executions, residuals drawn again."""
    rng, rows, draws = np.random.default_rng(0), 800, 600
    rate = np.exp(rng.uniform(np.log(0.005), np.log(0.5), rows))
    paid = 0.1 * rate**0.6 + 0.004 + 0.003 * rng.standard_normal(rows)
    found = execution_cost(rate, paid)
    assert int(found.status) == jx.Status.OK
    eta, phi, psi = np.asarray(found.values)
    fitted = eta * rate**phi + psi
    again = rng.choice(paid - fitted, (draws, rows))
    refits = execution_cost(np.broadcast_to(rate, again.shape), fitted + again)
    assert int(np.max(refits.status)) <= jx.Status.OK_INACCURATE

    names, frontier = ("eta", "phi", "psi"), FrontierPoints(GAMMAS)
    thought = order(*found.values)
    bands = delta_method(thought, found.covariance, OptimalSchedule(), parameters=names)
    points = delta_method(thought, found.covariance, frontier, parameters=names)

    @jax.jit
    @jax.vmap
    def solved(values):
        schedule, edge = OptimalSchedule()(order(*values)), frontier(order(*values))
        return schedule, edge

    schedules, edges = solved(refits.values)
    assert int(jnp.max(schedules["status"])) == jx.Status.OK
    for name in ("objective", "expected_cost", "variance", "inventory", "trades"):
        spread, error = (np.atleast_1d(x) for x in (np.std(schedules[name], 0, ddof=1), bands.std_errors[name]))
        moves = error > 1e-6 * np.max(error)  # not the ends of the schedule
        np.testing.assert_allclose(spread[moves], error[moves], rtol=0.1, err_msg=name)
    for name in ("expected_cost", "variance"):
        np.testing.assert_allclose(np.std(edges[name], axis=0, ddof=1), points.std_errors[name], rtol=0.1, err_msg=name)


def tape(rng, trades):
    """Signed flow that is predictable, and prices that it moves: λ = 1e-5 per unexpected share, ℓ = 5e-6."""
    shocks, flow = 300 * rng.standard_normal(trades), np.zeros(trades)
    for t in range(1, trades):
        flow[t] = 0.5 * flow[t - 1] + shocks[t]
    return np.cumsum(1e-5 * shocks + 1e-3 * rng.standard_normal(trades)) + 5e-6 * flow, flow


TERMS = ("permanent_variable", "transitory_variable")


def costs_of(estimates):
    """From Glosten and Harris's coefficients to what an order costs: a child order of 100 shares a step."""
    permanent, transitory = estimates["permanent_variable"], estimates["transitory_variable"]
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), 0.6, 4e6, permanent_impact=permanent)
    cost = jx.QuadraticCost(transitory * 4e6 / STEPS, 100 * transitory)
    return OptimalSchedule()(jx.Liquidation(2e4, market, cost, 3e-6))


def test_stacked_errors_are_those_of_a_tape_in_moving_blocks():
    """From the autoregression through the regression to the schedule; errors that take flow for known are too small."""
    rng, trades, block, draws = np.random.default_rng(3), 2400, 80, 400
    price, flow = tape(rng, trades)
    arguments = {"order": 1, "terms": TERMS}
    found = jx.impact.glosten_harris_stacked_arrays(price, abs(flow), np.sign(flow), **arguments)
    # A masked row between two blocks: nothing is taken for a change that is none.
    starts = rng.integers(0, trades - block, (draws, trades // block))
    rows = starts[..., None] + np.arange(block + 1)
    between = np.broadcast_to(np.arange(block + 1) < block, rows.shape).reshape(draws, -1)
    rows = rows.reshape(draws, -1)
    again = jx.impact.glosten_harris_stacked_arrays(
        price[rows], abs(flow)[rows], np.sign(flow)[rows], between, **arguments
    )
    assert int(jnp.max(again.status)) == jx.Status.OK

    places = [found.terms.index(term) for term in TERMS]
    estimates = {term: found.coefficients[k] for term, k in zip(TERMS, places, strict=True)}
    stacked, plain = (
        delta_method(estimates, covariance, costs_of, parameters=TERMS)
        for covariance in (
            np.asarray(found.covariance)[np.ix_(places, places)],
            np.diag(np.asarray(found.plain_std_errors)[places] ** 2),
        )
    )
    refits = {term: again.coefficients[:, k] for term, k in zip(TERMS, places, strict=True)}
    drawn = jax.jit(jax.vmap(costs_of))(refits)
    for name in ("objective", "expected_cost"):
        spread = np.std(drawn[name], ddof=1)
        np.testing.assert_allclose(stacked.std_errors[name], spread, rtol=0.1, err_msg=name)
    spread = np.std(np.asarray(drawn["inventory"]), axis=0, ddof=1)[1:-1]
    np.testing.assert_allclose(stacked.std_errors["inventory"][1:-1], spread, rtol=0.1)
    assert np.all(np.asarray(plain.std_errors["inventory"][1:-1]) < 0.5 * spread)
