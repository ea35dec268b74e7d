"""From one trade and one quote to the cost of a schedule, in one differentiable programme.

    trades, quotes ─► effective spread ─► ψ ─┐
           │                                 ├─► order ─► best schedule ─► cost
           └────────► Glosten–Harris ─► κ, η ┘

What would tomorrow's order be thought to cost, had this one trade printed a cent higher, or this one bid stood a cent
lower? One reverse pass answers for all trades and all quotes. Signs, and which rows were dropped, stay as they
are: they are not continuous in prices.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxexec as jx

jax.config.update("jax_enable_x64", True)

TICK, STEPS = 1e-4, 13


def signed_trades() -> dict[str, np.ndarray]:
    """Prices, prevailing quotes, sizes and signs of one synthetic stock."""
    made = jx.tape.synthetic.generate(stocks=1, trades=1500, seed=2)
    trades = jx.tape.sign(made.trades, made.quotes, rule="lee-ready", midpoint="keep").trades
    trades = trades.drop_nulls(["bid_ticks", "ask_ticks"])
    prices = {
        to: trades[f"{of}ticks"].to_numpy() * TICK for to, of in (("price", ""), ("bid", "bid_"), ("ask", "ask_"))
    }
    return prices | {name: trades[name].to_numpy().astype(float) for name in ("size", "sign")}


def cost_of_the_order(price, bid, ask, size, sign):
    """The expected cost of the best schedule, and its first trade, by what these trades and quotes say."""
    impact = jx.impact.glosten_harris_arrays(price, size, sign)
    fixed, variable, _, transitory = impact.coefficients
    nothing_later = jnp.full_like(price, jnp.nan)
    spread = jx.impact.spread_measures_arrays(price, bid, ask, sign, nothing_later.at[0].set(price[0]))
    child, volume = jnp.mean(size), jnp.sum(size)
    market = jx.Market(
        jx.TimeGrid.uniform(1.0, STEPS), volatility=0.8, volume=volume, permanent_impact=variable + fixed / child
    )
    # One child order a step pays `transitory` for each of its shares; the half-spread is what trades paid.
    cost = jx.QuadraticCost(eta=transitory * volume / STEPS, psi=spread["effective_spread"] / 2)
    schedule = jx.solve(jx.Liquidation(0.05 * volume, market, cost, risk_aversion=1e-5))
    return schedule.expected_cost, schedule.trades[0]


def derivatives(tape: dict[str, np.ndarray]):
    """The cost, and its derivatives with respect to every price, bid and ask."""
    arrays = {name: jnp.asarray(values) for name, values in tape.items()}
    of = jax.jit(jax.value_and_grad(lambda moved: cost_of_the_order(**{**arrays, **moved})[0]))
    return of({name: arrays[name] for name in ("price", "bid", "ask")})


if __name__ == "__main__":
    tape = signed_trades()
    cost, slopes = derivatives(tape)
    trade = int(np.argmax(np.abs(slopes["price"])))
    quote = int(np.argmax(np.abs(slopes["bid"])))
    print(f"{len(tape['price']):,} trades; the order is thought to cost {cost:,.2f}")
    print(f"trade {trade}, one cent higher: {0.01 * slopes['price'][trade]:+.4f}")
    print(f"bid before trade {quote}, one cent higher: {0.01 * slopes['bid'][quote]:+.6f}")

    priced = jax.jit(lambda moved: cost_of_the_order(**moved)[0])
    arrays = {name: jnp.asarray(values) for name, values in tape.items()}
    for name, row in (("price", trade), ("bid", quote), ("ask", quote)):
        up, down = (float(priced({**arrays, name: arrays[name].at[row].add(h)})) for h in (1e-4, -1e-4))
        np.testing.assert_allclose(slopes[name][row], (up - down) / 2e-4, rtol=1e-5)
        assert abs(float(slopes[name][row])) > 0

    # All prices and quotes up by a cent change no difference, so no estimate and no cost.
    together = sum(float(jnp.sum(slope)) for slope in slopes.values())
    assert abs(together) < 1e-6 * float(jnp.sum(jnp.abs(slopes["price"])))
