"""Lee and Ready's rule on arrays in memory, against tclf."""

import numpy as np

import jaxexec as jx
from benchmarks import harness

TICK = 1e-4


def run(trades: int = 5_000_000, quick: bool = False) -> list[harness.Row]:
    """One row; a quarter of the trades lie at the midpoint."""
    trades = 20_000 if quick else trades
    draw = np.random.default_rng(1)
    bid = draw.integers(990_000, 1_000_000, trades, dtype=np.int32)
    ask = bid + 4 * draw.integers(1, 80, trades, dtype=np.int32)
    ticks = bid + (ask - bid) // 4 * draw.integers(0, 5, trades, dtype=np.int32)
    # The tick test as both define it: the last price that differs. The peer is handed it.
    by_tick = jx.tape.sign_arrays(ticks, bid, ask, rule="tick")
    truth = np.sign(2 * ticks - bid - ask)
    truth = np.where(truth == 0, by_tick, truth)

    def ours():
        return jx.tape.sign_arrays(ticks, bid, ask)

    fields: dict = {"size": {"trades": trades}, "error": float(np.mean(ours() != truth))}
    note = "processor seconds a trade; error: share of trades with the wrong sign, by integers"
    repeats = 1 if quick else 7
    if not harness.peer("tclf"):
        (seconds,) = harness.median_seconds(ours, repeats=repeats, clock=harness.clock)
        return [harness.row("Lee–Ready on arrays", **fields, run_seconds=seconds / trades, note=note)]
    table = np.column_stack([ticks * TICK, ticks * TICK - by_tick, ask * TICK, bid * TICK])
    names = ["trade_price", "price_ex_lag", "ask_ex", "bid_ex"]
    tclf = harness.peer("tclf.classical_classifier")
    peer = tclf.ClassicalClassifier(layers=[("lr", "ex")], features=names, random_state=1).fit(table[:10])

    def theirs():
        return peer.predict(table)

    seconds, other = harness.median_seconds(ours, theirs, repeats=repeats, clock=harness.clock)
    fields |= {"run_seconds": seconds / trades, "peer_seconds": other / trades}
    wrong = (theirs() != truth) & (truth != 0)
    fields |= {"peer": "tclf", "peer_error": float(np.mean(wrong))}
    note += "; the peer is handed the last price that differs, ours finds it"
    return [harness.row("Lee–Ready on arrays", **fields, note=note)]
