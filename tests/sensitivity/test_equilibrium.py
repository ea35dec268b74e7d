"""Sensitivities of the equilibrium: closed forms, scaling laws, differences of gradients, symmetric Hessians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.sensitivity import InformedTrading, sensitivities
from jaxexec.sensitivity.levels import levels

PERIODS = 4
INPUTS = {
    "prior_variance": 4.0,
    "noise_variance": np.array([2.0, 1.5, 1.0, 2.5]),
    "risk_aversion": 0.5,
    "market_maker_risk_aversion": 0.3,
    "insiders": 2.0,
}
GAME = InformedTrading(PERIODS, "cara")


def found_at(inputs):
    return sensitivities(inputs, GAME, second=True)


@pytest.fixture(scope="module")
def found():
    return jax.jit(found_at)(jax.tree.map(jnp.asarray, INPUTS))


def test_first_and_second_are_differences(found):
    assert found.second is not None and int(found.status) == jx.Status.OK
    assert found.parameters == tuple(sorted(INPUTS))
    inputs = jax.tree.map(jnp.asarray, INPUTS)
    chosen = levels(inputs)
    at = jax.jit(lambda v: (lambda s: (s.answers, s.first))(sensitivities(chosen.at(v), GAME)))
    slopes, bends = [], []
    for i, size in enumerate(np.asarray(found.values)):
        h = 1e-4 * size
        four = [at(chosen.values.at[i].add(k * h)) for k in (-2, -1, 1, 2)]
        slope, bend = jax.tree.map(lambda a, b, c, d, h=h: (a - 8 * b + 8 * c - d) / (12 * h), *four)
        slopes.append(slope)
        bends.append(bend)
    sizes = np.asarray(found.values)
    for name, value in found.answers.items():
        scale = float(jnp.max(jnp.abs(value)))
        first = np.stack([s[name] for s in slopes], -1) * sizes
        np.testing.assert_allclose(np.asarray(found.first[name]) * sizes, first, atol=1e-8 * scale, err_msg=name)
        second = np.stack([b[name] for b in bends], -1) * sizes[:, None] * sizes
        exact = np.asarray(found.second[name]) * sizes[:, None] * sizes
        np.testing.assert_allclose(exact, second, atol=1e-8 * scale, err_msg=name)
        np.testing.assert_allclose(exact, np.swapaxes(exact, -1, -2), atol=1e-10 * scale, err_msg=name)


def test_scaling_laws_are_sums_of_elasticities(found):
    """k times the standard deviation of the value, 1/k times both risk aversions: λ grows k times, Σ k² times."""
    place = found.parameters.index
    for name, power in (("price_impact", 1), ("posterior_variance", 2), ("expected_profit", 1), ("intensity", -1)):
        elastic = found.elasticity(name)
        total = 2 * elastic[..., place("prior_variance")]
        total = total - elastic[..., place("risk_aversion")] - elastic[..., place("market_maker_risk_aversion")]
        np.testing.assert_allclose(total, power, rtol=1e-9, err_msg=name)
    noise = found.elasticity("price_impact")[..., place("noise_variance")] * 2
    risks = sum(
        found.elasticity("price_impact")[..., place(p)] for p in ("risk_aversion", "market_maker_risk_aversion")
    )
    np.testing.assert_allclose(noise - risks, -1, rtol=1e-9)


def test_one_period_without_risk_aversion_is_kyles():
    """λ = ½√(Σ/s), profit ½√(Σ s), Σ_1 = Σ/2: elasticities ±½ and their Hessians; shown with units."""
    inputs = {"prior_variance": jnp.asarray(4.0), "noise_variance": jnp.asarray(2.0)}
    one = jax.jit(lambda x: sensitivities(x, InformedTrading(1), second=True))(inputs)
    noise, prior = (one.parameters.index(p) for p in ("noise_variance", "prior_variance"))
    for name, value, of_prior, of_noise in (
        ("price_impact", np.sqrt(0.5), 0.5, -0.5),
        ("expected_profit", np.sqrt(2.0), 0.5, 0.5),
        ("posterior_variance", 2.0, 1.0, 0.0),
    ):
        answer = np.ravel(one.answers[name])[0]
        np.testing.assert_allclose(answer, value, rtol=1e-12)
        elastic = np.ravel(one.elasticity(name))
        np.testing.assert_allclose(elastic[[prior, noise]], [of_prior, of_noise], atol=1e-12)
        bend = one.second[name].reshape(2, 2) * np.outer(one.values, one.values) / answer
        np.testing.assert_allclose(bend[noise, prior], of_noise * of_prior, atol=1e-9)
        np.testing.assert_allclose(bend[noise, noise], of_noise * (of_noise - 1), atol=1e-9)
    text = one.table().text(300)
    assert "shares²" in text and "currency²" in text and "expected profit" in text


def test_a_failed_lane_stays_alone_and_float32_agrees(found):
    several = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 3), INPUTS)
    bad = several | {"prior_variance": several["prior_variance"].at[1].set(-1.0)}
    few = jax.jit(jax.vmap(lambda x: sensitivities(x, GAME)))
    good, mixed = few(several), few(bad)
    assert mixed.status.tolist() == [0, int(jx.Status.NONFINITE_INPUT), 0]
    for name, slopes in mixed.first.items():
        assert np.isnan(slopes[1]).all()
        np.testing.assert_array_equal(slopes[::2], good.first[name][::2])
        np.testing.assert_allclose(good.first[name][0], found.first[name], rtol=1e-9, atol=1e-12)
    narrow = sensitivities(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), INPUTS), GAME)
    for name, slopes in narrow.first.items():
        assert slopes.dtype == jnp.float32
        moved = np.asarray(found.per_percent(name))
        np.testing.assert_allclose(narrow.per_percent(name), moved, atol=2e-5 * np.max(np.abs(moved)) + 1e-9)
