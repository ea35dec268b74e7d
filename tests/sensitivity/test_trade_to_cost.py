"""The example from tape to cost: both derivatives against differences, and neither is zero."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PATH = pathlib.Path(__file__).resolve().parents[2] / "examples" / "trade_to_cost.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("trade_to_cost", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_price_and_one_quote(example):
    tape = {name: jnp.asarray(x) for name, x in example.signed_trades().items()}
    _, slopes = example.derivatives(tape)
    both = jax.jit(lambda moved: jnp.stack(example.cost_of_the_order(**moved)))
    first_trade = jax.jit(jax.grad(lambda price: example.cost_of_the_order(**{**tape, "price": price})[1]))(
        tape["price"]
    )
    for name, row in (("price", 100), ("price", 901), ("bid", 100), ("ask", 901)):
        assert tape["sign"][row] != 0
        up, down = (both({**tape, name: tape[name].at[row].add(h)}) for h in (1e-4, -1e-4))
        cost, trade = (up - down) / 2e-4
        np.testing.assert_allclose(slopes[name][row], cost, rtol=1e-5)
        assert abs(float(cost)) > 1e-6
        if name == "price":
            # Through η the schedule itself moves; a quote is in ψ alone, which moves no trade.
            np.testing.assert_allclose(first_trade[row], trade, rtol=1e-4)
            assert abs(float(trade)) > 1e-6
        else:
            assert abs(float(trade)) < 1e-6
    # The quote's derivative in closed form: −½ of the sign's part of the half-spread, on every share of the order.
    shares = 0.05 * float(jnp.sum(tape["size"]))
    count = tape["sign"].size
    np.testing.assert_allclose(slopes["bid"][100], -float(tape["sign"][100]) * shares / (2 * count), rtol=1e-9)
