"""From estimates to a market: what is derived, what is shrunk, what is assumed, and that all of it is said."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import jaxexec as jx
from jaxexec.impact import Activity, ImpactEstimates, Panel

C, LAMBDA, ZETA, ELL = 3e-3, 5e-6, 6e-3, 2e-6
ERRORS = np.array([1e-4, 1e-6, 2e-4, 5e-7])


def panel(coefficients=(C, LAMBDA, ZETA, ELL), status=jx.Status.OK):
    values = np.asarray(coefficients, float)[None]
    one = np.ones(1)
    estimates = ImpactEstimates(
        coefficients=values,
        std_errors=ERRORS[None],
        covariance=np.diag(ERRORS**2)[None],
        t=values / ERRORS,
        intercept=0 * one,
        n=np.array([2000]),
        r2=0.3 * one,
        durbin_watson=2 * one,
        condition=3 * one,
        order_flow=np.zeros((1, 6)),
        order_flow_std=300 * one,
        lags=np.array([7]),
        status=np.array([int(status)]),
        form="difference",
        covariance_type="hac",
    )
    return Panel(("ABC",), estimates, "ols", "newey-west-fixed")


def activity(half_spread=0.01, volatility=(0.8, 0.6, 0.7, 0.9)):
    volume = np.array([[6e5, 3e5, 4e5, 7e5]])
    return Activity(
        symbols=("ABC",),
        days=np.array([1]),
        bin_edges=np.linspace(34_200e9, 57_600e9, 5).astype(np.int64),
        volume=volume,
        volume_rate=volume * 4,
        average_daily_volume=volume.sum(1),
        volatility=np.asarray([volatility], float),
        daily_volatility=np.array([0.75]),
        mean_trade_size=np.array([200.0]),
        half_spread=np.array([half_spread]),
        source="midpoint",
        samples_per_bin=6,
    )


def origin(calibration, name):
    return next(p for p in calibration.provenance if p.name == name)


def test_what_the_estimates_give():
    c = jx.calibrate(panel(), activity())
    np.testing.assert_allclose(c.cost.psi, ZETA + ELL * 200)
    np.testing.assert_allclose(c.market.permanent_impact, LAMBDA + C / 200)
    np.testing.assert_allclose(c.market.volume, [2.4e6, 1.2e6, 1.6e6, 2.8e6])
    np.testing.assert_allclose(c.market.volatility, [0.8, 0.6, 0.7, 0.9])
    assert origin(c, "psi").origin == "derived"
    np.testing.assert_allclose(origin(c, "psi").std_error, np.hypot(2e-4, 200 * 5e-7))
    np.testing.assert_allclose(origin(c, "permanent_impact").std_error, np.hypot(1e-6, 1e-4 / 200))


def test_a_term_that_was_left_out_is_zero():
    whole = panel((0.0, LAMBDA, ZETA, 0.0))
    some = dataclasses.replace(
        whole.estimates,
        coefficients=np.array([[LAMBDA, ZETA]]),
        covariance=np.diag(ERRORS[1:3] ** 2)[None],
        terms=("permanent_variable", "transitory_fixed"),
    )
    c = jx.calibrate(dataclasses.replace(whole, estimates=some), activity())
    np.testing.assert_allclose(c.cost.psi, ZETA)
    np.testing.assert_allclose(c.market.permanent_impact, LAMBDA)
    np.testing.assert_allclose(origin(c, "psi").std_error, 2e-4)


def test_speed_is_a_prior_and_says_so():
    c = jx.calibrate(panel(), activity())
    daily = np.sqrt(np.mean(np.square([0.8, 0.6, 0.7, 0.9])))
    np.testing.assert_allclose(c.cost.eta, 0.142 * daily)
    assert origin(c, "eta").origin == origin(c, "phi").origin == "assumed"
    assert any("Almgren" in w for w in c.warnings)
    assert "assumed" in c.summary()


def test_calibrated_market_can_be_solved():
    c = jx.calibrate(panel(), activity(), steps_per_bin=3)
    assert c.market.grid.steps == 12
    s = jx.solve(jx.Liquidation(1e5, c.market, c.cost, 1e-6), throw=True)
    assert s.relative_gap < 1e-12


def test_child_orders_give_a_quadratic_cost():
    c = jx.calibrate(panel(), activity(), eta_from="children")
    assert isinstance(c.cost, jx.QuadraticCost)
    np.testing.assert_allclose(c.cost.eta, ELL * 2e6 / 4)
    # The cost of n shares in a step is then transitory_variable · n² .
    n, step_volume = 1000.0, 2e6 / 4
    np.testing.assert_allclose(step_volume * (c.cost.eta * (n / step_volume) ** 2), ELL * n**2)


def test_a_negative_child_cost_is_refused():
    with pytest.raises(ValueError, match=r"transitory_variable.*-1.9e-07.*not be convex"):
        jx.calibrate(panel((C, LAMBDA, ZETA, -0.19e-6)), activity(), eta_from="children")


def test_a_negative_spread_takes_the_quoted_one():
    c = jx.calibrate(panel((C, LAMBDA, -ZETA, ELL)), activity())
    np.testing.assert_allclose(c.cost.psi, 0.01)
    assert origin(c, "psi").origin == "measured"
    assert "negative" in origin(c, "psi").note


def test_a_negative_spread_without_quotes_is_shrunk_to_zero():
    c = jx.calibrate(panel((C, LAMBDA, -ZETA, ELL)), activity(half_spread=np.nan))
    assert c.cost.psi == 0
    assert origin(c, "psi").origin == "shrunk"
    assert any(w.startswith("psi") and "negative" in w for w in c.warnings)


def test_a_negative_permanent_impact_is_shrunk_to_zero():
    c = jx.calibrate(panel((-C, -LAMBDA, ZETA, ELL)), activity())
    assert c.market.permanent_impact == 0
    assert origin(c, "permanent_impact").origin == "shrunk"


def test_without_estimates():
    nothing = panel((np.nan,) * 4, jx.Status.INSUFFICIENT_DATA)
    c = jx.calibrate(nothing, activity())
    assert c.market.permanent_impact == 0
    assert "INSUFFICIENT_DATA" in origin(c, "permanent_impact").note
    np.testing.assert_allclose(c.cost.psi, 0.01)


def test_what_is_given_is_used():
    c = jx.calibrate(
        panel(), activity(), "ABC", child_size=500.0, eta=0.2, phi=0.5, half_spread=0.02, permanent_impact=1e-8
    )
    np.testing.assert_allclose([c.cost.eta, c.cost.phi, c.cost.psi], [0.2, 0.5, 0.02])
    assert c.market.permanent_impact == 1e-8
    assert all(origin(c, n).origin == "given" for n in ("eta", "phi", "psi", "permanent_impact", "child size"))


def test_bins_without_a_price_change_are_filled_and_reported():
    c = jx.calibrate(panel(), activity(volatility=(0.8, np.nan, 0.6, 0.0)))
    filled = np.sqrt((0.64 + 0.36) / 2)
    np.testing.assert_allclose(c.market.volatility, [0.8, filled, 0.6, filled])
    assert "2 of 4 bins" in origin(c, "volatility").note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"symbol": "XYZ"}, "'XYZ' is not in the panel"),
        ({"eta": -1.0}, "eta must be positive"),
        ({"child_size": 0.0}, "child_size must be positive"),
        ({"half_spread": np.nan}, "half_spread must be finite"),
        ({"permanent_impact": -1.0}, "permanent_impact must be finite"),
        ({"eta_from": "thin air"}, "eta_from must be"),
        ({"eta_from": "children", "phi": 0.5}, "phi must be 1"),
        ({"steps_per_bin": 0}, "steps_per_bin"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        jx.calibrate(panel(), activity(), **arguments)


def test_dead_stocks_are_refused():
    with pytest.raises(ValueError, match="no price change"):
        jx.calibrate(panel(), activity(volatility=(np.nan,) * 4))


@pytest.mark.parametrize("options", [{}, {"eta_from": "children"}])
def test_toml_round_trip(options):
    c = jx.calibrate(panel(), activity(), **options)
    back = jx.Calibration.from_toml(c.to_toml())
    assert back.symbol == c.symbol
    assert back.to_toml() == c.to_toml()
    for name in ("volatility", "volume", "permanent_impact"):
        np.testing.assert_array_equal(getattr(back.market, name), getattr(c.market, name))
    assert type(back.cost) is type(c.cost)
    np.testing.assert_array_equal(back.cost.eta, c.cost.eta)


def test_hostile_symbol_survives_the_file():
    import dataclasses

    name = 'A"B\\C\n[market]\x7f\x01🙂=cmd()'
    c = dataclasses.replace(jx.calibrate(panel(), activity()), symbol=name)
    assert jx.Calibration.from_toml(c.to_toml()).symbol == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: "nonsense [", "not a market file"),
        (lambda t: t.replace("schema = 1", "schema = 9"), "schema must be 1"),
        (lambda t: t.replace("[market]", "[market]\nweather = 1.0"), "unknown key 'weather'"),
        (lambda t: t.replace("volume = ", "volumes = "), "lacks volume"),
        (lambda t: t.replace('kind = "power-law"', 'kind = "log"'), "cost.kind"),
        (lambda t: t.replace("eta = ", 'eta = "a" # '), r"cost.eta\[0\] must be a number"),
        (lambda t: t.replace("permanent_impact = ", "permanent_impact = -"), "permanent_impact must be at least 0"),
        (lambda t: t.replace("permanent_impact = ", "permanent_impact = nan # "), "permanent_impact must be finite"),
    ],
)
def test_bad_files_are_refused(change, message):
    text = jx.Calibration.to_toml(jx.calibrate(panel(), activity()))
    with pytest.raises(ValueError, match=message):
        jx.Calibration.from_toml(change(text))


def test_calibration_is_in_the_precision_of_the_process():
    assert jx.calibrate(panel(), activity()).market.volume.dtype == jnp.float64


def test_the_session_is_kept():
    c = jx.calibrate(panel(), activity())
    assert c.session == "09:30:00-16:00:00"
    assert jx.Calibration.from_toml(c.to_toml()).session == c.session


def test_a_tape_does_in_place_of_a_panel():
    """The numbers of one stock are those of the whole tape's estimates and activity."""
    made = jx.tape.synthetic.generate(stocks=2, trades=400, seed=2)
    tape = jx.tape.SignedTape.from_frames(jx.tape.sign(made.trades, made.quotes, midpoint="keep").trades)
    whole = jx.calibrate(jx.impact.glosten_harris(tape), jx.impact.activity(tape), "S00001")
    alone = jx.calibrate(tape, symbol="S00001")
    assert [entry.origin for entry in alone.provenance] == [entry.origin for entry in whole.provenance]
    np.testing.assert_allclose([p.value for p in alone.provenance], [p.value for p in whole.provenance], rtol=1e-10)
    with pytest.raises(ValueError, match="must be named"):
        jx.calibrate(tape)
    with pytest.raises(ValueError, match="give the tape itself"):
        jx.calibrate(panel())


def test_the_cost_of_executions():
    rng = np.random.default_rng(1)
    rate = rng.uniform(0.01, 0.5, 80)
    noise = 1e-3 * rng.standard_normal(80)
    fit = jx.calibration.execution_cost(rate, 0.1 * rate**0.6 + 0.02 + noise)
    c = jx.calibrate(panel(), activity(), executions=fit)
    for name in ("eta", "phi", "psi"):
        assert origin(c, name).origin == "estimated"
        np.testing.assert_array_equal(getattr(c.cost, name), fit[name])
        np.testing.assert_array_equal(origin(c, name).std_error, fit.std_error(name))
    assert not any(name in line for line in c.warnings for name in ("eta", "phi", "psi"))
    below = jx.calibrate(
        panel(), activity(), executions=jx.calibration.execution_cost(rate, 0.1 * rate**0.6 - 0.02 + noise)
    )
    assert origin(below, "psi").origin == "shrunk"
    with pytest.raises(ValueError, match="beside executions"):
        jx.calibrate(panel(), activity(), executions=fit, eta=0.1)
