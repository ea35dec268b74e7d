"""Estimates of whole tapes: against statsmodels, across segments, and what a panel shows."""

import dataclasses
import pathlib
import re

import jax
import numpy as np
import polars as pl
import pytest

from jaxexec import impact
from jaxexec.impact import (
    COEFFICIENTS,
    glosten_harris,
    glosten_harris_arrays,
    lanes,
    passes,
    summarise,
    tape_estimates,
    tape_passes,
)
from jaxexec.impact.batches import estimate_in_batches
from jaxexec.impact.estimates import checked_model
from jaxexec.impact.regression import checked_method
from jaxexec.numerics.status import Status
from tests.impact import simulated_stocks as simulate
from tests.impact.test_estimates import pooled

LENGTHS = (60, 700, 333, 9, 2600, 64, 1500)


@pytest.fixture(scope="module")
def stocks():
    return [simulate.stock(n, seed) for seed, n in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def panel(stocks):
    return glosten_harris(simulate.tape(list(enumerate(stocks))))


def test_equals_statsmodels_for_every_stock(panel, stocks):
    for i, s in enumerate(stocks):
        if len(s.price) == 9:
            assert panel.estimates.status[i] == Status.INSUFFICIENT_DATA
            continue
        order_flow, fit = simulate.reference(s)
        np.testing.assert_allclose(panel.estimates.order_flow[i], order_flow.params, rtol=1e-9)
        np.testing.assert_allclose(panel.estimates.coefficients[i], fit.params[1:], rtol=1e-9)
        np.testing.assert_allclose(panel.estimates.std_errors[i], fit.bse[1:], rtol=1e-9)
        assert panel.estimates.n[i] == fit.nobs


@pytest.mark.parametrize(("form", "covariance"), [("difference", "hac"), ("level", "hc0")])
def test_equals_the_traced_function(stocks, form, covariance):
    host = glosten_harris(simulate.tape(list(enumerate(stocks))), form=form, covariance=covariance).estimates
    traced = glosten_harris_arrays(*simulate.batch(stocks, 2600, 7), form=form, covariance=covariance)
    for a, b, path in zip(
        jax.tree.leaves(host), jax.tree.leaves(traced), jax.tree.leaves_with_path(traced), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-8, err_msg=str(path[0]))


@pytest.mark.parametrize(
    "options",
    [
        {"convention": "stata", "terms": ("permanent_variable", "transitory_fixed")},
        {"covariance": "hc1", "form": "level"},
    ],
    ids=["stata, two terms", "hc1, level"],
)
def test_sums_and_batches_agree(options):
    """The two ways to take a tape, days and all: three passes over pieces, and whole stocks side by side."""
    days = [simulate.stock(n, 30 + n) for n in (150, 60, 90)]
    tape = simulate.tape(
        [(0, days[0]), (1, simulate.stock(240, 4)), (0, days[1]), (2, simulate.stock(4, 1)), (0, days[2])]
    )
    sums = glosten_harris(tape, **options).estimates
    model = checked_model(sums.form, sums.terms, 5, glosten_harris(tape, **options).method)
    rows = estimate_in_batches(tape.segments(), model)
    for (path, a), b in zip(jax.tree.leaves_with_path(sums), jax.tree.leaves(rows), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, err_msg=str(path))
    assert sums.status.tolist() == [Status.OK, Status.OK, Status.INSUFFICIENT_DATA]


def test_what_sums_cannot_serve_goes_by_whole_stocks(stocks):
    """Days are pooled; a stock among others of other lengths has the numbers it has alone."""
    import statsmodels.api as sm

    days = [simulate.stock(n, 30 + n) for n in (150, 60, 90)]
    tape = simulate.tape([(0, days[0]), (1, stocks[1]), (0, days[1]), (0, days[2]), (2, stocks[2])])
    panel = glosten_harris(tape, covariance="hc3")
    model = pooled(days, 1).model
    fit = sm.OLS(model.endog, model.exog).fit(cov_type="HC3")
    np.testing.assert_allclose(panel.estimates.std_errors[0], fit.bse[1:], rtol=1e-9)
    for i in (1, 2):
        s = (*stocks[i],)
        alone = glosten_harris_arrays(*s, covariance="hc3")
        np.testing.assert_allclose(panel.estimates.std_errors[i], alone.std_errors, rtol=1e-8)
    assert "HC3" in panel.summary()


def test_difference_form_recovers_the_truth_and_level_form_does_not():
    """Erratum 7."""
    one = simulate.tape([(0, simulate.stock(40_000, 4))])
    sadka, thesis = glosten_harris(one).estimates, glosten_harris(one, form="level", covariance="hc0").estimates
    assert (np.abs(sadka.coefficients[0] - simulate.TRUTH) < 4 * sadka.std_errors[0]).all()
    assert (np.abs(thesis.coefficients[0] - simulate.TRUTH) > 10 * simulate.TRUTH).all()
    assert thesis.condition > 10 * sadka.condition


def test_days_are_pooled_and_nothing_crosses_them():
    """statsmodels' hac-panel with the day as group; a day shorter than the autoregression adds nothing."""
    days = [simulate.stock(n, 30 + n) for n in (700, 40, 560)]
    other = simulate.stock(300, 40)
    segments = [(0, days[0]), (0, days[1]), (0, simulate.stock(4, 1)), (0, days[2]), (1, other)]
    panel = glosten_harris(simulate.tape(segments), lags=8)
    fit = pooled(days, 8)
    np.testing.assert_allclose(panel.estimates.coefficients[0], fit.params[1:], rtol=1e-9)
    np.testing.assert_allclose(panel.estimates.std_errors[0], fit.bse[1:], rtol=1e-9)
    alone = simulate.reference(other, maxlags=8).fit
    np.testing.assert_allclose(panel.estimates.std_errors[1], alone.bse[1:], rtol=1e-9)


def test_where_pieces_are_cut_does_not_matter(panel, stocks, monkeypatch):
    """Relation 47, fault 46: pieces of 64 trades and lags that reach across them."""
    monkeypatch.setattr(lanes, "LONGEST", 64)
    again = glosten_harris(simulate.tape(list(enumerate(stocks))))
    for name in ("coefficients", "std_errors", "r2", "durbin_watson"):
        one, two = getattr(panel.estimates, name), getattr(again.estimates, name)
        np.testing.assert_allclose(one, two, rtol=1e-10, err_msg=name)


def test_order_of_stocks_does_not_matter(panel, stocks):
    """Relation 45."""
    turned = glosten_harris(simulate.tape(list(enumerate(stocks[::-1])))).estimates
    np.testing.assert_allclose(turned.std_errors[::-1], panel.estimates.std_errors, rtol=1e-12)


def test_failures_stay_in_their_stock(panel, stocks):
    odd = [s if i != 2 else s._replace(size=np.full(333, 100.0)) for i, s in enumerate(stocks)]
    result = glosten_harris(simulate.tape(list(enumerate(odd)))).estimates
    assert result.status[2] == Status.RANK_DEFICIENT
    assert np.isnan(result.coefficients[2]).all()
    others = [0, 1, 4, 5, 6]
    assert np.array_equal(result.std_errors[others], panel.estimates.std_errors[others])


def test_shares_beyond_32_bits():
    s = simulate.stock(333, 3)
    big = s._replace(size=s.size * 1e8, price=s.price + 400_000)
    one = glosten_harris(simulate.tape([(0, s)])).estimates
    two = glosten_harris(simulate.tape([(0, big)])).estimates
    np.testing.assert_allclose(two.coefficients, one.coefficients / [1, 1e8, 1, 1e8], rtol=1e-7)


def test_same_programs_for_another_tape(panel):
    """A second tape of other lengths compiles nothing but the fits of its own number of stocks."""
    sizes = [f._cache_size() for f in (tape_passes.flow_sums, tape_passes.column_products, tape_passes.score_sums)]
    glosten_harris(simulate.tape([(i, simulate.stock(n, n)) for i, n in enumerate((71, 350, 900, 1490, 61, 2500))]))
    assert [
        f._cache_size() for f in (tape_passes.flow_sums, tape_passes.column_products, tape_passes.score_sums)
    ] == sizes


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere tapes go through padded batches")
def test_twenty_days_of_different_sizes_compile_a_few_programs():
    """Each of the six at most three times, and after the first days none: shapes are few, whatever the tape."""
    programs = (tape_passes.flow_sums, tape_passes.column_products, tape_passes.score_sums)
    programs += (tape_estimates.fit_flow, tape_estimates.fit_impact, tape_estimates.finish)

    def compiled():
        return np.array([program._cache_size() for program in programs])

    rng = np.random.default_rng(0)
    longest = simulate.stock(3000, 50)
    counts = [compiled()]
    for _ in range(20):
        stocks = [
            simulate.Stock(*(x[first:end] for x in longest))
            for first, end in np.sort(rng.integers(0, 3000, (rng.integers(20, 60), 2)), 1)
        ]
        glosten_harris(simulate.tape([(i, s) for i, s in enumerate(stocks) if len(s.price)]), lags=11)
        counts.append(compiled())
    new = np.diff(counts, axis=0)
    assert (new.sum(0) <= 3).all(), new.sum(0)
    assert new.sum() > 0, "an option of its own, so that the programs are new"
    assert not new[5:].any()


def test_passes_lower_for_cuda_without_custom_calls(stocks):
    segments = simulate.tape([(0, stocks[0])]).segments()
    model = checked_model(
        "difference", COEFFICIENTS, 5, checked_method("ols", "hac", None, False, "stata", "yule-walker", 1)
    )
    tape = tape_estimates.lay_out_tape(segments, model)
    lanes_of = jax.ShapeDtypeStruct((lanes.WIDTH,), float)
    slopes, means = (jax.ShapeDtypeStruct((k, lanes.WIDTH), float) for k in (4, 5))
    rows, failed = (jax.ShapeDtypeStruct((lanes.WIDTH,), kind) for kind in (int, bool))
    flow = passes.OrderFlow(lanes_of, lanes_of, lanes_of, means, lanes_of, rows, failed)
    equation = {"form": "difference", "terms": COEFFICIENTS}
    line = tape_passes.Line(slopes, means)
    for program, arguments, options in (
        (tape_passes.flow_sums, (lanes_of,), {"order": 5, "halo": 37}),
        (tape_passes.column_products, (flow,), {**equation, "halo": 37}),
        (tape_passes.score_sums, (flow, line), {**equation, "covariance": "hac", "reach": 32}),
    ):
        exported = jax.export.export(program, platforms=["cuda"])(tape.chunks[0], *arguments, **options)
        assert set(re.findall(r"custom_call @(\w+)", exported.mlir_module())) == set()


def test_works_in_float64_where_jax_is_in_32_bits(panel, stocks):
    with jax.enable_x64(False):
        again = glosten_harris(simulate.tape(list(enumerate(stocks))))
    assert again.estimates.coefficients.dtype == np.float64
    np.testing.assert_allclose(again.estimates.coefficients, panel.estimates.coefficients, rtol=1e-12)


def test_table_and_summary(panel):
    table = panel.table()
    names = ["symbol", "coefficient", "estimate", "std_error", "t", "n", "r2", "condition", "status"]
    names += ["p", "durbin_watson", "rho", "low", "high"]
    assert table.columns == names
    assert table.height == 4 * len(LENGTHS)
    assert table["coefficient"].to_list()[:4] == list(COEFFICIENTS)
    assert table.filter(pl.col("symbol") == "S3")["status"].unique().to_list() == ["INSUFFICIENT_DATA"]
    assert panel.to_pandas().shape == (28, 14)
    text = " ".join(panel.summary().split())
    assert "Newey–West" in text
    assert "1 of 7 stocks could not be estimated" in text
    assert "<table" in panel._repr_html_()


def test_interval_and_summary_of_one_stock(panel, stocks):
    """Intervals and p are statsmodels' own."""
    fit = simulate.reference(stocks[2]).fit
    rows = panel.table(level=0.9).filter(pl.col("symbol") == "S2")
    np.testing.assert_allclose(rows.select("low", "high"), fit.conf_int(0.1)[1:], rtol=1e-9)
    np.testing.assert_allclose(rows["p"], fit.pvalues[1:], rtol=1e-9, atol=1e-15)
    facts, coefficients = panel.sheets("S2")
    found = {name: value for row in facts.rows for name, value in (row[:2], row[2:])}
    assert (found["trades used"], found["status"], found["R²"]) == ("328", "OK", f"{fit.rsquared:.4g}")
    assert coefficients.rows[1][:2] == ("permanent_variable", "currency per share")
    np.testing.assert_allclose([row[6:] for row in coefficients.rows], fit.conf_int(0.05)[1:], rtol=1e-9)
    text = " ".join(panel.summary("S2").split())
    assert "2.5%" in text and "no small-sample correction" in text
    assert "INSUFFICIENT_DATA: Too few" in " ".join(panel.summary("S3").split())
    with pytest.raises(ValueError, match="'S9' is none of the 7 stocks"):
        panel.summary("S9")
    with pytest.raises(ValueError, match="level"):
        panel.table(level=95)


def test_plots(panel, stocks):
    """The violins are of the winsorised cross-section, a pair of axes a coefficient."""
    figure = panel.plot()
    assert [axes.get_title().replace("\n", "_") for axes in figure.axes] == list(COEFFICIENTS)
    assert len(panel.plot(kind="pairs").axes) == 16
    few = glosten_harris(simulate.tape([(0, stocks[0]), (1, stocks[2])]), terms=("permanent_fixed", "transitory_fixed"))
    drawn = few.plot()
    np.testing.assert_allclose(
        drawn.axes[1].containers[0].lines[0].get_xdata(), 1e3 * few.estimates.coefficients[:, 1], rtol=1e-9
    )
    with pytest.raises(ValueError, match="kind"):
        panel.plot(kind="pie")


def test_cross_section_is_winsorised(panel):
    usable = panel.estimates.coefficients[panel.usable]
    plain, drawn = summarise(panel, winsorise=None), summarise(panel, winsorise=(0.25, 0.75))
    np.testing.assert_allclose(plain["mean"], usable.mean(0))
    np.testing.assert_allclose(plain["std"], usable.std(0, ddof=1))
    assert plain["n"].to_list() == [6] * 4
    np.testing.assert_allclose(drawn["min"], np.quantile(usable, 0.25, axis=0))
    np.testing.assert_allclose(drawn["max"], np.quantile(usable, 0.75, axis=0))
    with pytest.raises(ValueError, match="winsorise"):
        summarise(panel, winsorise=(0.9, 0.1))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"estimator": "gls"}, "'ols'"),
        ({"terms": ()}, "terms"),
        ({"form": "x"}, "form"),
        ({"covariance": "x"}, "cov"),
        ({"lags": -3}, "lags"),
        ({"order": True}, "order must be a positive whole number"),
    ],
)
def test_wrong_options_are_named(stocks, options, named):
    with pytest.raises(ValueError, match=named):
        glosten_harris(simulate.tape([(0, stocks[0])]), **options)


def test_a_result_is_a_line(panel):
    """However many stocks there are, and whatever they are called."""
    assert repr(panel) == "Panel(7 stocks: 'S0', 'S1', 'S2', 'S3', 'S4', …)"
    many = dataclasses.replace(panel, symbols=("\x1b[31m" + "A" * 10_000,) * 10_000)
    assert len(repr(many)) < 200 and "\x1b" not in repr(many)
    with pytest.raises(ValueError, match="'B' is none of the 10000 stocks") as refused:
        many.summary("B")
    assert len(str(refused.value)) < 250


def test_what_is_no_tape_is_named(panel):
    for wrong, words in (
        ("trades.parquet", "tape must be a jaxexec.tape.SignedTape, got a str: files become one by jaxexec.tape.sign"),
        (None, "got a NoneType"),
        ({"a": 1}, "got a dict"),
        (panel.table(), "got a DataFrame"),
        ([panel.table()], "got a DataFrame"),
        (iter([3]), "got a int"),
    ):
        with pytest.raises(ValueError, match=words):
            glosten_harris(wrong)
    for measure in (impact.huang_stoll, impact.kyle_lambda, impact.spread_measures, impact.realised_volatility):
        with pytest.raises(ValueError, match=r"tape must be a jaxexec.tape.SignedTape, got a list"):
            measure([panel])
    with pytest.raises(ValueError, match=r"quotes must be a table of cleaned quotes .*, got a Panel without symbol"):
        impact.quoted_spread(panel)
    for wrong in (0.01, (0.1, 0.2, 0.9), (float("nan"), 0.9)):
        with pytest.raises(ValueError, match="winsorise must be None or a pair"):
            summarise(panel, wrong)
    with pytest.raises(ValueError, match="panels must be a dictionary"):
        panel.compare([panel])
    with pytest.raises(ValueError, match=r"panels\['x'\] must be a panel, .* got a int"):
        panel.compare({"x": 3})


def test_sizes_must_be_positive(stocks):
    segments = simulate.tape([(0, stocks[0])]).segments()
    size = segments.size.copy()
    size[7] = 0
    with pytest.raises(ValueError, match=r"size\[7\]"):
        glosten_harris(simulate.Tape(segments._replace(size=size)))


def test_an_empty_tape():
    segments = simulate.tape([(0, simulate.stock(3, 0))]).segments()
    empty = segments._replace(symbols=[], stock=segments.stock[:0], offsets=segments.offsets[:1])
    empty = empty._replace(ticks=empty.ticks[:0], size=empty.size[:0], sign=empty.sign[:0])
    panel = glosten_harris(simulate.Tape(empty))
    assert panel.table().is_empty()
    assert summarise(panel)["n"].to_list() == [0] * 4
    short = glosten_harris(simulate.tape([(0, simulate.stock(3, 0))]))
    assert short.estimates.status.tolist() == [Status.INSUFFICIENT_DATA]


def test_recovers_the_truth_of_a_synthetic_tape():
    from jaxexec import tape

    synthetic = tape.synthetic.generate(stocks=300, trades=2000, seed=0, model="exact")
    panel = glosten_harris(tape.sign(synthetic.trades, synthetic.quotes, midpoint="keep"))
    truth = synthetic.truth.sort("symbol").select(COEFFICIENTS).to_numpy()
    simulate.assert_recovered(panel.estimates.coefficients, panel.estimates.std_errors, truth)


def test_real_tape_equals_statsmodels(taq_sample):
    from jaxexec import tape

    files = (taq_sample / "ctm_XXX.parquet", taq_sample / "cqm_XXX.parquet")
    signed = tape.sign(*files, midpoint="keep", session="auto", unsorted="sort", quote_exchange="N")
    panel = glosten_harris(signed)
    parts = signed.segments()
    days = [
        simulate.Stock(parts.ticks[a:b] * 1e-4, parts.size[a:b].astype(float), parts.sign[a:b].astype(float))
        for a, b in zip(parts.offsets[:-1], parts.offsets[1:], strict=True)
    ]
    fit = pooled(days, int(panel.estimates.lags[0]))
    np.testing.assert_allclose(panel.estimates.coefficients[0], fit.params[1:], rtol=1e-9)
    np.testing.assert_allclose(panel.estimates.std_errors[0], fit.bse[1:], rtol=1e-9)


def test_no_public_name_is_hidden_by_a_module_of_its_name():
    """Importing a submodule binds its name in the package: a function of that name would then be gone."""
    files = {path.stem for path in pathlib.Path(impact.__file__).parent.glob("*.py")}
    assert not files & set(impact.__all__)
