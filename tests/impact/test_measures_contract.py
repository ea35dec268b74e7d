"""What all measures of liquidity have in common: lanes, masks, statuses, derivatives, float32, refusals."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxexec import impact
from jaxexec.numerics.status import Flag, Status

TRADES = 160


class Measure(NamedTuple):
    """A function of its first argument (prices or price changes), and the other arguments."""

    call: Callable
    price: np.ndarray
    rest: tuple


def day(seed: int) -> dict[str, np.ndarray]:
    """Persistent signs, a random walk with a half-spread of 1 cent and impact of half a cent; all on a coarse grid."""
    rng = np.random.default_rng(seed)
    sign = np.ones(TRADES)
    for t in range(1, TRADES):
        sign[t] = sign[t - 1] if rng.random() < 0.6 else -sign[t - 1]
    sign[::17] = 0
    middle = np.cumsum(0.005 * sign + 0.01 * rng.standard_normal(TRADES))
    before = middle - 0.005 * sign
    half = 0.01 + 0.002 * rng.integers(0, 3, TRADES)
    return {
        "price": before + 0.01 * sign,
        "bid": before - half,
        "ask": before + half,
        "sign": sign,
        "later": np.where(np.arange(TRADES) < TRADES - 20, np.roll(middle, -10), np.nan),
        "size": rng.integers(1, 9, TRADES) * 100.0,
        "elapsed": np.sort(rng.random(TRADES)),
    }


def measures(seed: int) -> dict[str, Measure]:
    d = day(seed)
    change, flow = np.diff(d["price"], prepend=d["price"][:1]), d["sign"] * d["size"] / 100
    sampled = (d["elapsed"],)
    return {
        "spreads": Measure(
            impact.spread_measures_arrays, d["price"], (d["bid"], d["ask"], d["sign"], d["later"], d["size"])
        ),
        "quoted": Measure(impact.quoted_spread_arrays, d["bid"], (d["ask"], d["size"])),
        "roll": Measure(impact.roll_spread_arrays, d["price"], ()),
        "mrr": Measure(impact.madhavan_richardson_roomans_arrays, d["price"], (d["sign"],)),
        "huang_stoll": Measure(
            lambda p, s, m: impact.huang_stoll_arrays(p, s, m, components="three"), d["price"], (d["sign"],)
        ),
        "kyle": Measure(impact.kyle_lambda_arrays, change, (flow,)),
        "hasbrouck": Measure(
            lambda r, x, m: impact.hasbrouck_arrays(r, x, m, order=2, horizon=3), change, (d["sign"],)
        ),
        "realised": Measure(lambda p, e, m: impact.realised_variance_arrays(p, e, m, intervals=8), d["price"], sampled),
    }


NAMES = tuple(measures(0))


def numbers(result) -> dict[str, jax.Array]:
    """All that must be NaN where a stock has failed."""
    if isinstance(result, impact.TradeResponses):
        return {**numbers(result.measured), "response": result.response, "own": result.flow_on_flow}
    kept = ("values", "std_errors", "covariance") if isinstance(result, impact.Measured) else ("values", "std_errors")
    return {name: getattr(result, name) for name in kept}


@pytest.fixture(scope="module", params=NAMES)
def lanes(request):
    """Two good stocks with five failed ones between: NaN, nothing at all, one trade, constant price and sign."""
    one, two = measures(1)[request.param], measures(2)[request.param]
    columns = [np.stack([a] * 6 + [b]) for a, b in zip((one.price, *one.rest), (two.price, *two.rest), strict=True)]
    mask = np.ones((7, TRADES), bool)
    mask[0, 150:] = False
    columns[0][0, 150:] = np.nan  # padding
    columns[0][1, 40] = np.nan
    mask[2] = False
    mask[3] = np.arange(TRADES) < 1
    columns[0][4] = 7.0
    columns[-1][5] = np.inf
    return request.param, one, columns, mask, one.call(*columns, mask)


def status_of(result) -> np.ndarray:
    return np.asarray(result.status)


def test_failures_stay_in_their_lane(lanes):
    """Faults 40 and 41."""
    name, _, columns, mask, result = lanes
    status = status_of(result)
    assert status[[0, 6]].tolist() == [Status.OK] * 2
    assert status[1] == status[5] == Status.NONFINITE_INPUT or name == "roll"
    assert status[2] == status[3] == Status.INSUFFICIENT_DATA
    if name in ("roll", "mrr", "huang_stoll", "hasbrouck"):
        assert status[4] in (Status.RANK_DEFICIENT, Status.UNBOUNDED)
    failed = status > Status.LOCAL
    healthy = [np.stack([c[0]] * 6 + [c[6]]) for c in columns]
    alone = lanes[1].call(*healthy, np.stack([mask[0]] * 6 + [mask[6]]))
    for key, value in numbers(result).items():
        assert np.isnan(np.asarray(value)[failed]).all(), key
        assert np.isfinite(np.asarray(value)[~failed]).all(), key
        for lane in (0, 6):
            assert np.array_equal(value[lane], numbers(alone)[key][lane]), key


def test_one_stock_is_a_lane(lanes):
    _, one, columns, mask, result = lanes
    alone = one.call(*(c[0] for c in columns), mask[0])
    for key, value in numbers(alone).items():
        np.testing.assert_allclose(value, numbers(result)[key][0], rtol=1e-9, atol=1e-14, err_msg=key)


def test_derivatives(lanes):
    """Forward, reverse and central differences agree, padding has none, and a failed lane asks for nothing."""
    name, one, columns, mask, _ = lanes
    rest = tuple(jnp.asarray(c[:2]) for c in columns[1:])
    price, real = jnp.asarray(columns[0][:2]), jnp.asarray(mask[:2])

    def loss(price):
        result = numbers(one.call(price, *rest, real))
        picked = [jnp.where(jnp.array([True, False])[:, None], result["values"], 0)]
        picked += [jnp.where(jnp.array([True, False])[:, None], 10 * result["std_errors"], 0)]
        return sum((w * x).sum() for w, x in enumerate(picked, 1))

    @jax.jit
    def both(price, tangent):
        value, forward = jax.jvp(loss, (price,), (tangent,))
        return value, forward, jax.grad(loss)(price)

    tangent = np.random.default_rng(3).standard_normal(price.shape)
    tangent[1] = 0
    tangent = jnp.asarray(tangent)
    _, forward, reverse = both(price, tangent)
    assert np.isfinite(reverse).all()
    assert (reverse[0, 150:] == 0).all()
    assert (reverse[1] == 0).all()
    np.testing.assert_allclose((reverse * tangent).sum(), forward, rtol=1e-9)
    step = 1e-6
    above, below = (both(price + h * tangent, tangent)[0] for h in (step, -step))
    np.testing.assert_allclose((above - below) / (2 * step), forward, rtol=1e-5, err_msg=name)


def test_lowers_for_cuda_without_custom_calls(lanes):
    _, one, columns, mask, _ = lanes

    def gradient(price, *rest):
        return jax.grad(lambda p: numbers(one.call(p, *rest))["std_errors"].sum())(price)

    exported = jax.export.export(jax.jit(gradient), platforms=["cuda"])(*columns, mask)
    assert "stablehlo.custom_call" not in exported.mlir_module()


def test_float32(lanes):
    _, one, columns, mask, result = lanes
    narrow = one.call(*(c[[0, 6]].astype(np.float32) for c in columns), mask[[0, 6]])
    for key, value in numbers(narrow).items():
        assert value.dtype == np.float32
        wide = np.asarray(numbers(result)[key])[[0, 6]]
        np.testing.assert_allclose(value, wide, rtol=5e-3, atol=1e-4 * np.abs(wide).max(), err_msg=key)
    errors = np.asarray(numbers(result)["std_errors"])[[0, 6]]
    away = np.abs(np.asarray(numbers(narrow)["values"]) - np.asarray(numbers(result)["values"])[[0, 6]])
    assert (away <= 1e-3 * errors).all()
    measured = narrow.measured if isinstance(narrow, impact.TradeResponses) else narrow
    assert (np.asarray(measured.flags) == Flag.FLOAT32).all()


def test_shapes_are_named(lanes):
    _, one, columns, mask, _ = lanes
    with pytest.raises(ValueError, match="mask"):
        one.call(*(c[0] for c in columns), mask[0, 1:])
    with pytest.raises(ValueError, match="shape"):
        one.call(*(c[None] for c in columns), mask[None])


@pytest.mark.parametrize("lags", [-1, 2.5, True, TRADES, "newey"])
def test_wrong_lags_are_named(lags):
    with pytest.raises(ValueError, match="lags"):
        impact.roll_spread_arrays(day(0)["price"], lags=lags)


def test_no_trades_at_all():
    """Every function on arrays, whatever the regression below it."""
    for shape in ((0,), (2, 0)):
        none = np.zeros(shape)
        for call in (
            lambda x: impact.glosten_harris_arrays(x, x, x),
            lambda x: impact.regress(x, x[..., None]),
            lambda x: impact.realised_variance_arrays(x, x),
            lambda x: impact.roll_spread_arrays(x),
        ):
            status = np.asarray(call(none).status)
            assert status.shape == shape[:-1] and np.all(status == Status.INSUFFICIENT_DATA)


def test_whole_numbers_of_numpy_are_whole_numbers():
    d = day(0)
    one = impact.hasbrouck_arrays(d["price"], d["sign"], order=np.int64(2), horizon=np.int64(3))
    assert one.response.shape == (4,) and one.change_on_change.shape == (2,)
    impact.glosten_harris_arrays(np.zeros(0), np.zeros(0), np.zeros(0), order=np.int64(5), max_iterations=np.int32(3))
    impact.realised_variance_arrays(np.zeros(0), np.zeros(0), intervals=np.int64(78))
    with pytest.raises(ValueError, match="intercept must be True or False"):
        impact.regress(d["price"], d["sign"][:, None], intercept="no")
    assert impact.expected_sign(1.0, 2.0) == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=1e-13)


def test_quantiles_of_a_picture_are_checked():
    measured = impact.Measures("", ("A",) * 7, jax.tree.map(lambda x: np.stack([x] * 7), _roll()), ("",) * 2, "")
    with pytest.raises(ValueError, match="winsorise"):
        measured.plot((0.9, 0.1))


def _roll():
    return impact.roll_spread_arrays(day(0)["price"])


def test_wrong_options_are_named():
    d = day(0)
    for options in ({"order": 0}, {"order": 2.0}, {"horizon": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            impact.hasbrouck_arrays(d["price"], d["sign"], **options)
    for options in ({"intervals": 3}, {"subgrids": 1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            impact.realised_variance_arrays(d["price"], d["elapsed"], **options)
    with pytest.raises(ValueError, match="components"):
        impact.huang_stoll_arrays(d["price"], d["sign"], components="four")


def test_a_measure_is_found_by_its_name():
    d = day(0)
    result = impact.roll_spread_arrays(d["price"])
    assert result["roll_spread"] == result.values[0]
    assert result.std_error("serial_covariance") == result.std_errors[1]
    np.testing.assert_allclose(result.t, result.values / result.std_errors)
    with pytest.raises(KeyError, match="effective"):
        result["effective"]
