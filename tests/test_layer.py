"""The layer is `solve`, it trains, it can be served and stored, and failures stay in their lane."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxexec as jx
from jaxexec.layer import export_scheduler, load_scheduler

STEPS, DAYS, SHARES = 6, 4, 2e5


def layer(dtype=None):
    grid = jx.TimeGrid.uniform(1.0, STEPS)
    made = jx.ExecutionLayer(grid, jx.PowerLawCost(0.1, 0.6, 0.004), 3e-6, 1e-7)
    return made if dtype is None else jax.tree.map(lambda x: x.astype(dtype), made)


@pytest.fixture(scope="module")
def days():
    rng = np.random.default_rng(0)
    volatility = 0.6 * np.exp(0.2 * rng.normal(size=(DAYS, STEPS)))
    volume = 4e6 * np.exp(0.4 * rng.normal(size=(DAYS, STEPS)))
    return jnp.full((DAYS,), SHARES), jnp.asarray(volatility), jnp.asarray(volume)


@pytest.fixture(scope="module")
def planned(days):
    return jax.jit(jax.vmap(layer()))(*days)


def test_it_is_solve(days, planned):
    shares, volatility, volume = (x[1] for x in days)
    market = jx.Market(jx.TimeGrid.uniform(1.0, STEPS), volatility, volume, 1e-7)
    direct = jx.solve(jx.Liquidation(shares, market, jx.PowerLawCost(0.1, 0.6, 0.004), 3e-6))
    np.testing.assert_allclose(planned.trades[1], direct.trades, rtol=1e-9)
    bill = layer().realised(planned.trades[1], shares, volatility, volume)
    np.testing.assert_allclose(bill, direct.objective, rtol=1e-12)


def loss_of(weights, days, wrap=lambda f: f):
    made = layer()

    def day(shares, volatility, volume):
        forecast = jnp.exp(weights["volatility"]), jnp.exp(weights["volume"])
        trades = wrap(lambda *x: made(*x).trades)(shares, *forecast)
        return made.realised(trades, shares, volatility, volume)

    return jnp.mean(jax.vmap(day)(*days))


@pytest.fixture(scope="module")
def start():
    return {"volatility": jnp.zeros(STEPS) - 1.0, "volume": jnp.linspace(14.0, 16.0, STEPS)}


def test_gradient_through_the_layer_and_its_checkpoint(days, start):
    plain = jax.jit(jax.grad(loss_of))(start, days)
    kept = jax.jit(jax.grad(lambda w: loss_of(w, days, jax.checkpoint)))(start)
    value, h = jax.jit(loss_of), 1e-5
    for name, slope in plain.items():
        np.testing.assert_allclose(kept[name], slope, rtol=1e-9)
        for k in (0, STEPS - 1):
            up, down = ({**start, name: start[name].at[k].add(s)} for s in (h, -h))
            numeric = (value(up, days) - value(down, days)) / (2 * h)
            np.testing.assert_allclose(slope[k], numeric, rtol=1e-5)


def test_it_trains_on_what_it_costs(days, start):
    """One forecast for all days: optax finds one that costs no more than their mean market does."""
    optimiser = optax.adam(0.03)

    @jax.jit
    def train(weights):
        def step(carry, _):
            weights, state = carry
            loss, slope = jax.value_and_grad(loss_of)(weights, days)
            update, state = optimiser.update(slope, state, weights)
            return (optax.apply_updates(weights, update), state), loss

        return jax.lax.scan(step, (weights, optimiser.init(weights)), length=300)

    with jax.numpy_dtype_promotion("standard"):  # Adam divides by powers of integers
        (weights, _), losses = train(start)
    mean = {"volatility": jnp.log(days[1].mean(0)), "volume": jnp.log(days[2].mean(0))}
    assert losses[-1] < losses[0]
    assert float(loss_of(weights, days)) < float(loss_of(mean, days))


def test_a_failed_day_stays_alone(days, start):
    shares, volatility, volume = days
    broken = (shares, volatility.at[2, 1].set(jnp.nan), volume)
    together = jax.vmap(layer())
    good, mixed = jax.jit(together)(*days), jax.jit(together)(*broken)
    assert mixed.status.tolist() == [0, 0, int(jx.Status.NONFINITE_INPUT), 0] and np.isnan(mixed.trades[2]).all()
    np.testing.assert_array_equal(mixed.trades[np.array([0, 1, 3])], good.trades[np.array([0, 1, 3])])

    def masked(more):
        found = together(shares, broken[1] + more, volume)
        return jnp.sum(jnp.where(found.status == 0, found.objective, 0))

    assert float(jax.jit(jax.grad(masked))(0.0)) > 0


def test_served_from_bytes(days, planned):
    pytest.importorskip("flatbuffers")
    data = export_scheduler(layer(), DAYS, platforms=("cpu", "cuda"))
    assert isinstance(data, bytes) and b"cnumpy" not in data and b"__reduce__" not in data
    serve = load_scheduler(data)
    answer = serve(*(np.asarray(x) for x in days))
    for name in ("times", "inventory", "trades", "costate", "expected_cost", "variance", "objective", "status"):
        np.testing.assert_allclose(answer[name], getattr(planned, name), rtol=1e-12, err_msg=name)
    with pytest.raises(ValueError, match=r"volume must have shape \(4, 6\)"):
        serve(days[0], days[1], days[2][:, :3])
    with pytest.raises(ValueError, match="orders must be"):
        export_scheduler(layer(), 0)


def test_stored_without_pickle():
    """Leaves alone are written, as plain arrays; the shape of the model is the reader's code."""
    trained = eqx.tree_at(lambda m: m.cost.eta, layer(), jnp.asarray(0.23))
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, trained)
    file.seek(0)
    back = eqx.tree_deserialise_leaves(file, layer())
    assert bool(eqx.tree_equal(back, trained)) and float(back.cost.eta) == 0.23
    file.seek(0)
    first = np.load(file, allow_pickle=False)  # the nodes of the grid
    np.testing.assert_array_equal(first, trained.grid.times)


def test_float32(days, planned):
    narrow = jax.jit(jax.vmap(layer(jnp.float32)))(*(x.astype(jnp.float32) for x in days))
    assert narrow.trades.dtype == jnp.float32
    np.testing.assert_allclose(narrow.trades, planned.trades, atol=1e-4 * SHARES)


def test_wrong_parts_are_named():
    grid, cost = jx.TimeGrid.uniform(1.0, STEPS), jx.PowerLawCost(0.1, 0.6)
    with pytest.raises(ValueError, match="risk_aversion"):
        jx.ExecutionLayer(grid, cost, -1.0)
    with pytest.raises(ValueError, match="cost"):
        jx.ExecutionLayer(grid, 0.1, 1e-6)  # pyright: ignore
    with pytest.raises(ValueError, match="permanent_impact"):
        jx.ExecutionLayer(grid, cost, 1e-6, -1.0)
    with pytest.raises(ValueError, match="volume must be a scalar"):
        layer()(SHARES, 0.6, jnp.ones(3))


def test_a_bill_of_no_schedule_is_masked_like_any_other(days):
    """Billed first and masked then: zero where the loss does not ask, NaN where it does."""
    made, volatility = layer(), jnp.asarray([0.6, -0.6, 0.6])

    def loss(volatility, asked):
        bills = jax.vmap(lambda v: made.realised(made(SHARES, v, 4e6).trades, SHARES, 0.9, 3e6))(volatility)
        return jnp.sum(jnp.where(asked, bills, 0.0))

    slope = jax.jit(jax.grad(loss))
    masked = slope(volatility, jnp.asarray([True, False, True]))
    assert masked[1] == 0 and np.isfinite(masked).all() and masked[0] != 0
    np.testing.assert_array_equal(np.isnan(slope(volatility, jnp.ones(3, bool))), [False, True, False])


def test_bytes_of_something_else_are_refused():
    for data in (b"", b"abc", b"\x80\x04K\x01."):
        with pytest.raises(ValueError, match="not the bytes that export_scheduler wrote"):
            load_scheduler(data)
    other = jax.export.export(jax.jit(jnp.sin))(jax.ShapeDtypeStruct((), jnp.float32)).serialize()
    with pytest.raises(ValueError, match="none that export_scheduler wrote"):
        load_scheduler(bytes(other))
