"""Impact of meta-orders: the published values back from synthetic orders, and the two example stocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from benchmarks.coverage_cases import meta_orders
from jaxexec.calibration import meta_order_impact, square_root_law

NAMES = ("gamma", "alpha", "delta", "eta", "beta")
TRUTH = np.array([0.314, 0.891, 0.267, 0.142, 0.600])


def orders(seed, shape, noise=1.0):
    """The study's orders, errors `noise` times Brownian."""
    columns = meta_orders(np.random.default_rng(seed), shape, noise)
    return {name: jnp.asarray(x) for name, x in columns.items()}


def test_joint_errors_are_the_smaller_ones():
    data = orders(3, (1, 5_000), noise=0.1)
    joint, separate = (meta_order_impact(**data, errors=e).std_errors[0] for e in ("joint", "separate"))
    assert np.all(joint < separate)


@pytest.mark.parametrize(
    ("volume", "outstanding", "volatility", "permanent", "realised"),
    [
        (6.561e6, 1728e6, 0.0157, 19.860, (32.224, 24.638, 18.418)),
        (1.929e6, 168e6, 0.0226, 21.679, (42.931, 32.012, 23.058)),
    ],
    ids=["IBM", "DRI"],
)
def test_the_two_example_stocks(volume, outstanding, volatility, permanent, realised):
    """An order of a tenth of the day, in basis points, at the rounded values γ = 0.314, η = 0.142, 1, ¼, ⅗."""
    for horizon, cost in zip((0.1, 0.2, 0.5), realised, strict=True):
        found = jx.almgren_2005(
            0.1 * volume, horizon, volatility=volatility, volume=volume, shares_outstanding=outstanding
        )
        np.testing.assert_allclose(1e4 * found.permanent_impact, permanent, atol=6e-4)
        np.testing.assert_allclose(1e4 * found.realised_cost, cost, atol=6e-4)


def test_model_is_the_pretrade_cost():
    """What is fitted is what `almgren_2005` charges."""
    data = orders(5, (1, 50), noise=0.0)
    gamma, alpha, delta, eta, beta = TRUTH

    def charged(turnover, horizon, volatility, inverse_turnover):
        return jx.almgren_2005(
            turnover * 1e6,
            horizon,
            volatility=volatility,
            volume=1e6,
            shares_outstanding=inverse_turnover * 1e6,
            gamma=gamma,
            eta=eta,
            permanent_exponent=alpha,
            turnover_exponent=delta,
            temporary_exponent=beta,
        )

    names = ("turnover", "horizon", "volatility", "inverse_turnover")
    found = jax.vmap(charged)(*(data[name][0] for name in names))
    np.testing.assert_allclose(found.permanent_impact, data["permanent"][0], rtol=1e-10)
    np.testing.assert_allclose(found.realised_cost, data["realised"][0], rtol=1e-10)


def test_one_inverse_turnover_cannot_tell_its_exponent():
    data = {name: x[0] for name, x in orders(6, (1, 200)).items()}
    found = meta_order_impact(**data | {"inverse_turnover": jnp.full(200, 150.0)})
    assert int(found.status) == jx.Status.RANK_DEFICIENT
    assert np.isinf(found.std_error("gamma"))
    assert np.isinf(found.std_error("delta"))
    assert np.isfinite(found.std_error("beta"))
    (direction,) = found.null_directions()
    assert direction == f"log gamma − {1 / np.log(150):.3g} delta"


def test_published_values_come_back():
    """30,000 orders with the errors of a Brownian price give standard errors like the published ones.

    These are, from memory, those of γ and η with the exponents held, and of α, β, δ from the whole fit.
    """
    data = {name: x[0] for name, x in orders(4, (1, 30_000)).items()}
    whole = meta_order_impact(**data, errors="separate")
    assert int(whole.status) == jx.Status.OK
    assert np.all(np.abs(whole.values - TRUTH) < 3 * whole.std_errors)
    np.testing.assert_allclose(whole.residual_std, 1, rtol=0.02)
    exponents = {name: float(TRUTH[NAMES.index(name)]) for name in ("alpha", "beta", "delta")}
    held = meta_order_impact(**data, errors="separate", fixed=exponents)
    published = {"alpha": 0.10, "beta": 0.038, "delta": 0.22, "gamma": 0.041, "eta": 0.0062}
    for name, error in published.items():
        ours = float((held if name in held.names else whole).std_error(name))
        assert error / 2 < ours < 2 * error, (name, ours)


def test_square_root_law_is_a_regression_on_the_root():
    rng = np.random.default_rng(7)
    turnover, volatility = np.exp(rng.uniform(-7, -2, 80)), rng.uniform(0.01, 0.03, 80)
    cost = volatility * (0.9 * turnover**0.5 + 0.05 * rng.standard_normal(80))
    fixed = square_root_law(cost, turnover=turnover, volatility=volatility, covariance="classical")
    x, y = turnover**0.5, cost / volatility
    np.testing.assert_allclose(fixed["prefactor"], x @ y / (x @ x), rtol=1e-9)


def test_a_price_before_the_end_of_its_order_is_refused():
    data = orders(5, (2, 40))
    early = data["settled"].at[1, 7].set(0.5 * data["horizon"][1, 7])
    with pytest.raises(ValueError, match=r"settled\[7\] must be at least horizon\[7\]"):
        meta_order_impact(**{name: x[1] for name, x in (data | {"settled": early}).items()})
    spoilt, whole = meta_order_impact(**(data | {"settled": early})), meta_order_impact(**data)
    assert int(spoilt.status[1]) == jx.Status.NONFINITE_INPUT and np.isnan(spoilt.values[1]).all()
    np.testing.assert_array_equal(spoilt.values[0], whole.values[0])
