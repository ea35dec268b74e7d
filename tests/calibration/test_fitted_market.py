"""Fits put into a market: what changes, what stays, whose errors; and the file that holds it all."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec import calibration
from jaxexec.calibration import Calibration, ParameterFit, PropagatorFit

STATED = calibration.stated_market(0.5, 2e6, eta=1.0, psi=0.02, permanent_impact=1e-8, symbol="ABC")


def fit_of(values, status=jx.Status.OK, seed=0):
    """A record of a fit with a covariance of its own."""
    names, p = tuple(values), len(values)
    theta = jnp.asarray(list(values.values()), float)
    a = np.random.default_rng(seed).standard_normal((p, p))
    covariance = jnp.asarray(a @ a.T + p * np.eye(p)) * 1e-4 * theta[:, None] * theta[None]
    bounds = tuple((None, None) if name == "psi" else (0.0, None) for name in names)
    one = jnp.asarray(1.0)
    return ParameterFit(
        values=theta,
        std_errors=jnp.sqrt(jnp.diagonal(covariance)),
        covariance=covariance,
        free_values=jnp.log(jnp.abs(theta)),
        free_covariance=covariance / (theta[:, None] * theta[None]),
        residual_std=one,
        n=jnp.asarray(100, jnp.int32),
        degrees_of_freedom=jnp.full(p, 100.0 - p),
        singular_values=jnp.ones(p),
        directions=jnp.eye(p),
        agreeing=jnp.asarray(1, jnp.int32),
        steps=jnp.asarray(5, jnp.int32),
        status=jnp.asarray(int(status), jnp.int32),
        names=names,
        bounds=bounds,
    )


def test_a_stated_market_says_that_it_was_given():
    assert {entry.origin for entry in STATED.provenance} == {"given"}
    assert STATED.symbol == "ABC" and float(STATED.cost.phi) == 0.6
    unknown = calibration.stated_market(0.5, 2e6)
    assert math.isnan(unknown.cost.eta) and unknown.of("eta").note.startswith("not known")
    for name, value in (("volume", 0.0), ("volatility", -1.0), ("eta", math.inf), ("psi", -0.1)):
        with pytest.raises(ValueError, match=name):
            calibration.stated_market(**{"volatility": 0.5, "volume": 2e6, name: value})
    with pytest.raises(KeyError, match="colour"):
        STATED.of("colour")


def test_cost_of_executions():
    fit = fit_of({"eta": 0.1, "phi": 0.7, "psi": -0.001})
    found = calibration.with_execution_cost(STATED, fit)
    assert [float(getattr(found.cost, name)) for name in ("eta", "phi", "psi")] == pytest.approx([0.1, 0.7, 0.0])
    assert found.of("psi").origin == "shrunk" and "negative" in found.of("psi").note
    assert found.of("eta").std_error == pytest.approx(float(fit.std_error("eta")))
    assert found.market is STATED.market and found.of("volume") == STATED.of("volume")
    fixed = calibration.with_execution_cost(STATED, fit_of({"eta": 0.1, "psi": 0.01}))
    assert float(fixed.cost.phi) == 0.6 and fixed.of("phi").origin == "given"
    held = calibration.with_execution_cost(STATED, fit_of({"eta": 0.1, "psi": 0.01}), fixed={"phi": 0.5})
    assert float(held.cost.phi) == 0.5 and float(held.cost.eta) == pytest.approx(0.1)
    assert held.of("phi").note.startswith("held fixed")
    for wrong, said in (
        ({"eta": 1.0}, "which was fitted"),
        ({"colour": 1.0}, "none of"),
        ({"phi": math.nan}, "finite"),
    ):
        with pytest.raises(ValueError, match=said):
            calibration.with_execution_cost(STATED, fit_of({"eta": 0.1, "psi": 0.01}), fixed=wrong)


def test_impact_of_meta_orders_is_the_model_of_the_paper():
    """With α = 1 held the market's cost of an even order is the fit's J, whatever order is called typical."""
    values = {"gamma": 0.314, "delta": 0.267, "eta": 0.142, "beta": 0.6}
    sigma, volume, theta = 0.5, 2e6, 300.0
    costs = []
    for x in (0.05, 0.1):
        fit = fit_of(values)
        found = calibration.with_meta_order_impact(
            STATED, fit, turnover=x, horizon=0.5, inverse_turnover=theta, fixed={"alpha": 1.0}
        )
        market = found.market
        order = jx.Liquidation(0.1 * volume, market, dataclasses.replace(found.cost, psi=jnp.asarray(0.0)), 0.0)
        grid = jx.Market(jx.TimeGrid.uniform(0.5, 4), sigma, volume, market.permanent_impact)
        order = eqx.tree_at(lambda o: o.market, order, grid)
        costs.append(float(jx.expected_cost(order, jnp.full(4, 0.025 * volume))) / (0.1 * volume))
    lasting = sigma * 0.314 * 0.1 * theta**0.267
    assert costs == pytest.approx([lasting / 2 + sigma * 0.142 * 0.2**0.6] * 2)
    kappa = found.of("permanent_impact")
    by = np.array([1 / 0.314, np.log(theta), 0, 0]) * kappa.value
    assert kappa.std_error == pytest.approx(float(np.sqrt(by @ np.asarray(fit.covariance) @ by)), rel=1e-6)
    assert found.of("eta").std_error == pytest.approx(sigma * float(fit.std_error("eta")))
    with pytest.raises(ValueError, match="horizon must be positive"):
        calibration.with_meta_order_impact(STATED, fit, turnover=0.1, horizon=0.0, inverse_turnover=theta)
    with pytest.raises(ValueError, match="fit lacks alpha, which it held fixed: say at what"):
        calibration.with_meta_order_impact(STATED, fit, turnover=0.1, horizon=0.5, inverse_turnover=theta)
    bare = fit_of({"gamma": 0.3, "eta": 0.1, "beta": 0.6})
    held = calibration.with_meta_order_impact(
        STATED, bare, turnover=0.02, horizon=0.5, inverse_turnover=150.0, fixed={"alpha": 0.8, "delta": 0.0}
    )
    assert held.of("permanent_impact").value == pytest.approx(sigma * 0.3 * 0.5 * 0.04**0.8 / (0.02 * volume))
    with pytest.raises(ValueError, match="fit lacks beta"):
        few = fit_of({"gamma": 0.3, "eta": 0.1})
        calibration.with_meta_order_impact(STATED, few, turnover=0.1, horizon=0.5, inverse_turnover=theta)


def test_a_kernel_and_the_cost_that_it_tends_to():
    """Trading evenly for many decay times costs what the kernel does."""
    kernel = jx.ExponentialKernel(1e-6, 200.0)
    fit = PropagatorFit(fit_of({"impact": 1e-6, "decay": 200.0}), kernel)
    found = calibration.with_propagator(STATED, fit, as_cost=True)
    assert found.of("eta").value == pytest.approx(1e-6 * 2e6 / 200) and float(found.cost.phi) == 1
    by = np.array([1 / 1e-6, -1 / 200]) * found.of("eta").value
    expected = float(np.sqrt(by @ np.asarray(fit.parameters.covariance) @ by))
    assert found.of("eta").std_error == pytest.approx(expected, rel=1e-6)
    lag = np.abs(np.subtract.outer(np.arange(400), np.arange(400))) / 400
    cost = (
        250.0**2 * np.sum(1e-6 * np.exp(-200 * lag)) / 2
    )  # half of each trade's own impact, all of the others' before
    evenly = found.of("eta").value * 1e5**2 / 2e6
    assert cost == pytest.approx(evenly, rel=0.04)
    power = PropagatorFit(fit_of({"impact": 1e-6, "exponent": 0.4}), jx.PowerLawKernel(1e-6, 0.4, 0.01))
    with pytest.raises(ValueError, match="as_cost needs an exponential kernel"):
        calibration.with_propagator(STATED, power, as_cost=True)


@pytest.mark.parametrize(
    "kernel",
    [
        jx.ExponentialKernel(1e-6, 3.0),
        jx.PowerLawKernel(1e-6, 0.4, 0.01),
        jx.SumKernel((jx.ExponentialKernel(1e-6, 3.0), jx.ExponentialKernel(1e-7, 0.0))),
    ],
)
def test_files_hold_kernels_and_preferences(kernel):
    whole = dataclasses.replace(STATED, kernel=kernel, risk_aversion=2e-6)
    text = whole.to_toml()
    back = Calibration.from_toml(text)
    assert back.to_toml() == text and back.risk_aversion == 2e-6
    assert jax.tree.structure(back.kernel) == jax.tree.structure(kernel)
    lags = jnp.asarray([0.0, 0.1, 1.0])
    np.testing.assert_array_equal(back.kernel.value(lags), kernel.value(lags))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('[kernel]\nkind = "cubic"\n', "kernel.kind must be one of"),
        ('[kernel]\nkind = "exponential"\nimpact = 1.0\n', "lacks decay"),
        ('[kernel]\nkind = "power-law"\nimpact = 1.0\nexponent = 0.4\nscale = 0.1\npermanent = 1.0\n', "'permanent'"),
        ("[preferences]\nrisk_aversion = [1.0]\n", "preferences.risk_aversion"),
        ("[preferences]\nlambda = 1.0\n", "lacks risk_aversion"),
    ],
)
def test_bad_sections_are_named(section, said):
    with pytest.raises(ValueError, match=said):
        Calibration.from_toml(STATED.to_toml() + section)


def test_other_kernels_have_no_place_in_a_file():
    two = jx.SumKernel((jx.ExponentialKernel(1e-6, 3.0), jx.ExponentialKernel(1e-7, 1.0)))
    with pytest.raises(ValueError, match="SumKernel has no place"):
        dataclasses.replace(STATED, kernel=two).to_toml()


def test_preferences_and_what_is_refused():
    fit = fit_of({"risk_aversion": 2e-6, "phi": 0.5})
    found = calibration.with_preferences(STATED, fit)
    assert found.risk_aversion == pytest.approx(2e-6) and float(found.cost.phi) == pytest.approx(0.5)
    assert float(found.cost.eta) == 1.0 and found.of("risk_aversion").unit == "per currency"
    assert "7 orders" in calibration.with_preferences(STATED, fit, orders=7).of("risk_aversion").note
    with pytest.raises(ValueError, match="'gamma', which is none of"):
        calibration.with_preferences(STATED, fit_of({"gamma": 1.0}))
    batch = jax.tree.map(lambda x: x[None], fit)
    with pytest.raises(ValueError, match="one of a batch"):
        calibration.with_preferences(STATED, batch)
    lost = fit_of({"risk_aversion": 1.0, "eta": 1.0}, jx.Status.RANK_DEFICIENT)
    null = jnp.asarray([[2**-0.5, 2**-0.5], [2**-0.5, -(2**-0.5)]])
    lost = eqx.tree_at(lambda f: (f.singular_values, f.directions), lost, (jnp.asarray([0.0, 1.0]), null))
    with pytest.raises(ValueError, match=r"RANK_DEFICIENT.*cannot tell 0.707 log risk_aversion"):
        calibration.with_preferences(STATED, lost)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("volatility = 0.5", "volatility = 1" + "0" * 400, r"market.volatility\[0\] must be a number of 64 bits"),
        ('kind = "power-law"', 'kind = ["power-law"]', "cost.kind must be one of"),
        ("schema = 1", "schema = true", "schema must be 1"),
        ('origin = "given"', 'origin = "stolen"', r"provenance\[0\].origin must be one of"),
        ("value = 0.5", 'value = "much"', r"provenance\[0\].value\[0\] must be a number"),
        ("value = 0.5", "value = [0.5]", r"provenance\[0\].value must be a number"),
        ('name = "volatility"', "name = 3", r"provenance\[0\].name must be text"),
    ],
)
def test_a_file_that_is_no_market_is_refused_by_the_key(old, new, said):
    text = STATED.to_toml()
    assert old in text
    with pytest.raises(ValueError, match=said):
        Calibration.from_toml(text.replace(old, new, 1))


def test_provenance_is_a_list():
    text = STATED.to_toml().split("[[provenance]]")[0].replace("schema = 1", "schema = 1\nprovenance = 3")
    with pytest.raises(ValueError, match="provenance must be a list"):
        Calibration.from_toml(text)
