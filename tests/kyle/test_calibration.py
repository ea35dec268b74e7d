"""Parameters back from profiles of impact and volume: exactly from exact ones, within their errors from noisy ones."""

import functools

import jax
import numpy as np
import pytest

import jaxexec as jx

PROFILE = np.linspace(2, 1, 8)
TRUTH = np.array([2.5, 4e4, 0.004])


@functools.cache
def profiles(preference="local", gamma=0.004):
    e = jx.kyle.solve(2.5, 4e4 * PROFILE, 8, gamma, preference, 0.0, 1.0)
    flow = np.asarray(e.noise_variance) / (1 - np.asarray(e.informed_share))
    return np.asarray(e.price_impact), np.sqrt(2 / np.pi * flow)


def parameters(found):
    return np.array([found.prior_variance, found.noise_variance, found.risk_aversion])


@pytest.mark.parametrize("preference", ["local", "cara"])
def test_exact_profiles_give_the_parameters_back_from_twenty_starts(preference):
    impact, volume = profiles(preference)
    rng = np.random.default_rng(2)
    starts = [None, *(TRUTH * np.exp(2 * rng.normal(size=(20, 3))))]
    for start in starts:
        found = jx.kyle.fit(impact, volume, noise_profile=PROFILE, preference=preference, start=start)
        assert found.status == jx.Status.OK
        np.testing.assert_allclose(parameters(found), TRUTH, rtol=1e-8)
    assert np.all(found.std_error < 1e-9 * TRUTH)  # a perfect fit has no error, and divides by none
    np.testing.assert_allclose(found.equilibrium.price_impact, impact, rtol=1e-9)


def test_standard_errors_are_the_spread_of_estimates():
    impact, volume = profiles()
    rng, error = np.random.default_rng(0), 0.02
    drawn, said = [], []
    for _ in range(150):
        noisy = [x * np.exp(error * rng.normal(size=8)) for x in (impact, volume)]
        found = jx.kyle.fit(
            *noisy, impact_error=error * impact, volume_error=error * volume, noise_profile=PROFILE, preference="local"
        )
        drawn.append(parameters(found))
        said.append(found.std_error)
    drawn = np.asarray(drawn)
    np.testing.assert_allclose(drawn.std(0), np.mean(said, 0), rtol=0.2)
    assert np.all(np.abs(drawn.mean(0) - TRUTH) < 4 * drawn.std(0) / np.sqrt(150) + 0.02 * TRUTH)


def test_halving_the_errors_halves_the_standard_errors():
    impact, volume = profiles()
    said = [
        jx.kyle.fit(impact, volume, impact_error=e * impact, volume_error=e * volume, noise_profile=PROFILE).std_error
        for e in (0.02, 0.01)
    ]
    np.testing.assert_allclose(said[0], 2 * said[1], rtol=1e-6)


def test_no_risk_aversion_is_the_end_of_the_range():
    impact, volume = profiles(gamma=0.0)
    falling = impact * (1 - 1e-3 * np.linspace(-1, 1, 8))  # faster than at any risk aversion, which flattens it
    found = jx.kyle.fit(falling, volume, noise_profile=PROFILE)
    assert found.flags & jx.Flag.CLIPPED
    assert found.risk_aversion == 0
    assert 0 < found.std_error[2] < np.inf


def test_a_known_risk_aversion_is_left_alone():
    impact, volume = profiles()
    found = jx.kyle.fit(impact, volume, noise_profile=PROFILE, risk_aversion=0.004)
    np.testing.assert_allclose(parameters(found), TRUTH, rtol=1e-9)
    assert found.std_error[2] == 0


def test_digits_do_not_depend_on_the_64_bit_flag():
    impact, volume = profiles()
    with jax.enable_x64(False):
        found = jx.kyle.fit(impact, volume, noise_profile=PROFILE, risk_aversion=0.004)
    np.testing.assert_allclose(parameters(found), TRUTH, rtol=1e-9)


def test_one_period_does_not_tell():
    found = jx.kyle.fit([0.3], [2.0])
    assert found.status in (jx.Status.INSUFFICIENT_DATA, jx.Status.RANK_DEFICIENT)
    assert np.all(np.isinf(found.std_error))
    flat = jx.kyle.fit([0.3], [2.0], impact_error=[0.1], volume_error=[0.1])
    assert flat.status in (jx.Status.INSUFFICIENT_DATA, jx.Status.RANK_DEFICIENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price_impact": [1.0, -1.0]}, r"price_impact\[1\] must be positive"),
        ({"volume": [1.0]}, r"volume must have shape \(2,\)"),
        ({"impact_error": 0.1}, "must be given both"),
        ({"noise_profile": [1.0, 0.0]}, r"noise_profile\[1\] must be positive"),
        ({"preference": "none"}, "preference must be one of"),
        ({"risk_aversion": -1.0}, "risk_aversion must be finite"),
        ({"risk_aversion": [1.0, 2.0]}, "risk_aversion must be a number"),
        ({"start": (1.0, -1.0, 0.0)}, "start must be"),
        ({"start": (1.0, 1.0)}, "start must be three numbers"),
        ({"market_maker_risk_aversion": -1.0}, "market_maker_risk_aversion must be finite and at least 0"),
        ({"insiders": 0}, "insiders must be finite and at least 1"),
        ({"insiders": 1.5}, "insiders must be a whole number"),
        ({"max_steps": 0}, "max_steps must be a positive whole number"),
        ({"volume": ["a", "b"]}, "volume must be concrete real numbers"),
        ({"price_impact": [1e200, 1e200], "volume": [1e200, 1e200]}, "price_impact and volume lead to no equilibrium"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        jx.kyle.fit(**{"price_impact": [1.0, 0.9], "volume": [1.0, 1.0]} | change)
