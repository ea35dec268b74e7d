"""A fit for each state: rows go where they belong, and the test of equality holds its level and has power."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxexec as jx
from jaxexec import calibration


def test_states_are_cut_at_quantiles_or_edges():
    values = np.array([5.0, 1.0, 3.0, np.nan, 2.0, 4.0, 6.0])
    assert calibration.states_of(values, 3).tolist() == [2, 0, 1, -1, 0, 1, 2]
    assert calibration.states_of(values, edges=[2.0, 5.5]).tolist() == [1, 0, 1, -1, 1, 1, 2]
    for given, said in (
        ({"states": 0}, "states must be a whole number"),
        ({"edges": [2.0, 1.0]}, "edges must increase"),
    ):
        with pytest.raises(ValueError, match=said):
            calibration.states_of(values, **given)
    with pytest.raises(ValueError, match="too alike"):
        calibration.states_of(np.ones(4))
    with pytest.raises(ValueError, match="no finite entry"):
        calibration.states_of([np.nan])


def test_rows_go_to_their_states():
    rows = calibration.rows_by_state(np.array([1, 0, 1, -1, 1]), {"y": np.arange(5.0)})
    assert rows["mask"].tolist() == [[True, False, False], [True, True, True]]
    assert rows["y"].tolist() == [[1.0, 1.0, 1.0], [0.0, 2.0, 4.0]]
    assert calibration.rows_by_state(np.array([0]), {"y": [2.0]}, count=2)["mask"].tolist() == [[True], [False]]
    with pytest.raises(ValueError, match="y must have the shape of states"):
        calibration.rows_by_state(np.array([0, 1]), {"y": [1.0]})
    with pytest.raises(ValueError, match="states must be whole numbers"):
        calibration.rows_by_state(np.array([0.5]), {})
    with pytest.raises(ValueError, match="count must be at least 2"):
        calibration.rows_by_state(np.array([0, 1]), {}, count=1)


def test_the_test_of_equality_holds_its_level_and_has_power():
    """300 pairs of fits with the same truth: p-values are uniform; where η differs by half they are small."""
    rng = np.random.default_rng(5)
    rate = rng.uniform(0.01, 0.4, (600, 120))
    paid = 0.1 * rate**0.6 + 0.01 + 2e-3 * rng.standard_normal(rate.shape)
    paid[1::2][:20] += 0.05 * rate[1::2][:20] ** 0.6
    fits = calibration.execution_cost(rate, paid)
    pairs = [_of(fits, slice(2 * i, 2 * i + 2)) for i in range(300)]
    p = np.array([calibration.same_in_all_states(pair).p_value for pair in pairs])
    assert np.median(p[:20]) < 1e-4
    assert stats.kstest(p[20:], "uniform").pvalue > 0.01
    found = calibration.same_in_all_states(pairs[-1])
    assert (found.numerator, found.denominator) == (3, 2 * 120 - 6)
    # Another currency is no other test, and errors that are infinite say nothing of a state.
    dear = calibration.same_in_all_states(calibration.execution_cost(rate[:2], 1e-6 * paid[:2]))
    assert dear.statistic == pytest.approx(calibration.same_in_all_states(pairs[0]).statistic, rel=1e-6)
    three = _of(fits, slice(0, 3))
    blind = dataclasses.replace(three, free_covariance=three.free_covariance.at[2].set(jnp.inf))
    assert calibration.same_in_all_states(blind).statistic == calibration.same_in_all_states(pairs[0]).statistic
    one = _of(fits, slice(0, 1))
    assert np.isnan(calibration.same_in_all_states(one).p_value)
    with pytest.raises(ValueError, match="batch"):
        calibration.same_in_all_states(_of(fits, 0))


def _of(fits, at):
    import jax

    return jax.tree.map(lambda x: x[at], fits)


def test_state_of_the_market_in_a_fit():
    """Impact that grows with volatility, by the state: δ is found; by parts: their η differ as they must."""
    rng = np.random.default_rng(6)
    rate, volatility = rng.uniform(0.01, 0.4, 800), np.exp(0.4 * rng.standard_normal(800))
    z = np.log(volatility)
    paid = 0.1 * rate**0.6 * np.exp(0.8 * z) + 0.005 + 1e-3 * rng.standard_normal(800)
    whole = calibration.execution_cost(rate, paid, state=z)
    assert abs(float(whole["delta"]) - 0.8) < 4 * float(whole.std_error("delta"))
    rows = calibration.rows_by_state(calibration.states_of(volatility), {"participation": rate, "slippage": paid})
    parts = calibration.execution_cost(**rows)
    assert jnp.all(parts.status == jx.Status.OK)
    assert float(parts["eta"][1]) > 1.5 * float(parts["eta"][0])
    assert calibration.same_in_all_states(parts).p_value < 1e-10
