"""Against results in 30- to 40-digit arithmetic: exact where the model is discrete, second order where it is not."""

import jax
import numpy as np
import pytest

import jaxexec as jx

POWER = [
    "gueant_power_phi1_gam2",
    "gueant_power_phi1_gam20",
    "gueant_power_phi0.5_gam2",
    "gueant_power_phi0.5_gam20",
    "gueant_power_phi0.75_gam2",
    "gueant_power_phi2_gam2",
    "gueant_power_phi2_gam20",
    "gueant_realistic_T1",
]
VOLUME = 4e6  # of the Almgren–Chriss cases, whose own coefficient is eta/V: any volume will do


def ac_problem(p: dict) -> jx.Liquidation:
    sigma = 0.3 * 50 / np.sqrt(250) if isinstance(p["sig"], str) else p["sig"]
    grid = jx.TimeGrid.uniform(float(p["T"]), p["N"])
    market = jx.Market(grid, sigma, VOLUME, permanent_impact=p["gam"], drift=p.get("alpha", 0.0))
    cost = jx.QuadraticCost(p["eta"] * VOLUME, p["eps"])
    return jx.Liquidation(p["X"], market, cost, 2 * p.get("lam", 0.0), convention="almgren-chriss")


@pytest.mark.parametrize("case", ["ac_A", "ac_u", "ac_A_sigma_exact", "ac_drift_u"])
@pytest.mark.parametrize("method", ["closed form", "solver"])
def test_almgren_chriss(references, case, method):
    r = references[case]
    p = r["params"]
    problem = ac_problem(p)
    if method == "solver":
        s = jx.solve(problem, throw=True)
    else:
        s = jx.almgren_chriss(
            p["X"],
            float(p["T"]),
            p["N"],
            volatility=problem.market.volatility,
            temporary_impact=p["eta"],
            permanent_impact=p["gam"],
            half_spread=p["eps"],
            variance_weight=p["lam"],
            drift=p.get("alpha", 0.0),
        )
        np.testing.assert_allclose(s.kappa, r["kappa_real"], rtol=1e-13)
        np.testing.assert_allclose(s.time_constant, r["half_life"], rtol=1e-13)
    np.testing.assert_allclose(s.inventory, r["x"], rtol=1e-12)
    np.testing.assert_allclose(s.trades, r["n"], rtol=1e-12)
    for name, value in (("expected_cost", r["E"]), ("variance", r["V"]), ("objective", r["U"])):
        np.testing.assert_allclose(getattr(s, name), value, rtol=1e-12)


def test_almgren_chriss_benchmarks(references):
    for case, schedule in (("ac_twap", jx.twap), ("ac_instant", jx.immediate)):
        problem = ac_problem(references[case]["params"])
        trades = schedule(problem)
        np.testing.assert_allclose(jx.expected_cost(problem, trades), references[case]["E"], rtol=1e-13)
        np.testing.assert_allclose(jx.variance(problem, trades), references[case]["V"], rtol=1e-13)


def test_almgren_chriss_two_assets(references):
    """A symmetric basket is two single orders in the coordinates that make impact and covariance diagonal."""
    r = references["ac_multi_sym"]
    p = r["params"]
    tau = p["T"] / p["N"]
    impact, risk, permanent = (np.array(p[k]) for k in ("H", "C", "Gamma"))
    net = impact - tau / 2 * permanent
    root = np.linalg.cholesky(net)
    whitened = np.linalg.solve(root, np.linalg.solve(root, risk).T)
    modes, turn = np.linalg.eigh(whitened)
    start = turn.T @ root.T @ np.array(p["X"])

    def solve_mode(shares, variance_rate):
        market = jx.Market(jx.TimeGrid.uniform(float(p["T"]), p["N"]), variance_rate**0.5, 1.0)
        return jx.solve(
            jx.Liquidation(shares, market, jx.QuadraticCost(1.0), 2 * p["lam"], convention="almgren-chriss")
        )

    paths = np.array(jax.vmap(solve_mode)(start, modes).inventory)
    inventory = (np.linalg.solve(root.T, turn) @ paths).T
    np.testing.assert_allclose(inventory[:-1], np.array(r["x"])[:-1], rtol=1e-10)
    trades = -np.diff(inventory, axis=0)
    held = np.array(p["X"])
    expected = (
        np.sum(np.array(p["eps"]) * np.abs(trades))
        + held @ permanent @ held / 2
        + np.einsum("ki,ij,kj->", trades, net, trades) / tau
    )
    np.testing.assert_allclose(expected, r["E"], rtol=1e-10)
    variance = tau * np.einsum("ki,ij,kj->", inventory[1:], risk, inventory[1:])
    np.testing.assert_allclose(variance, r["V"], rtol=1e-10)


def power_problem(p: dict, steps: int) -> jx.Liquidation:
    market = jx.Market(jx.TimeGrid.uniform(float(p["T"]), steps), float(p["sigma"]), float(p["V"]))
    return jx.Liquidation(float(p["q0"]), market, jx.PowerLawCost(p["eta"], p["phi"]), p["gamma"])


def extrapolated(values: list[np.ndarray]) -> np.ndarray:
    """Richardson's extrapolation of second-order values on grids halved twice."""
    a, b, c = values
    first, second = (4 * b - a) / 3, (4 * c - b) / 3
    return (16 * second - first) / 15


@pytest.mark.parametrize("case", POWER)
def test_gueant_power_law(references, case):
    r = references[case]
    steps = (256, 512, 1024)
    solved = [jx.solve(power_problem(r["params"], n), throw=True) for n in steps]
    assert all(float(s.relative_gap) < 1e-14 for s in solved)
    paths = [np.array(s.inventory)[:: n // 4] for s, n in zip(solved, steps, strict=True)]
    costs = [np.array(s.objective) for s in solved]
    exact = np.array(r["q"])
    for values, truth in ((paths, exact), (costs, r["J"])):
        errors = [np.max(np.abs(v - truth)) for v in values]
        order = np.log2(errors[1] / errors[2])
        assert abs(order - 2) < 0.1, (errors, order)
    np.testing.assert_allclose(extrapolated(paths), exact, rtol=0, atol=1e-9 * exact[0])
    np.testing.assert_allclose(extrapolated(costs), r["J"], rtol=1e-9)


@pytest.mark.parametrize("case", ["gueant_ushape_gam1e-08", "gueant_ushape_gam2.0"])
def test_gueant_ushaped_volume(references, case):
    r = references[case]
    p = r["params"]

    def solved(n):
        grid = jx.TimeGrid.uniform(1.0, n)
        t = np.array(grid.times)
        # Volume integrated exactly over each step: 2(2t − 1)² has the primitive (2t − 1)³/3.
        cumulated = (t + (2 * t - 1) ** 3 / 3) / (1 + 2 / 3)
        market = jx.Market(grid, 1.0, np.diff(cumulated) * n)
        return jx.solve(jx.Liquidation(1.0, market, jx.QuadraticCost(p["eta"]), p["gamma"]), throw=True)

    steps = (256, 512, 1024)
    answers = [solved(n) for n in steps]
    paths = [np.array(s.inventory)[:: n // 4][1:-1] for s, n in zip(answers, steps, strict=True)]
    truth = np.array(r["q"])
    if p["gamma"] > 1e-3:  # at zero risk aversion the error is rounding, and has no order
        errors = [np.max(np.abs(v - truth)) for v in paths]
        assert abs(np.log2(errors[1] / errors[2]) - 2) < 0.1
    np.testing.assert_allclose(extrapolated(paths), truth, atol=1e-9)
    cost = extrapolated([np.array(s.objective) for s in answers])
    np.testing.assert_allclose(cost, r["J_equals_minus_half_p0q0"], rtol=1e-9)


def test_block_price_is_the_limit_of_long_horizons(references):
    """J_T falls to the infinite-horizon price ℓ as the horizon grows."""
    r = references["gueant_block_realistic"]
    p = r["params"]

    def cost_at(horizon, steps):
        market = jx.Market(jx.TimeGrid.uniform(horizon, steps), p["sigma"], p["V"])
        problem = jx.Liquidation(float(p["q0"]), market, jx.PowerLawCost(p["eta"], p["phi"]), p["gamma"])
        return float(jx.solve(problem, throw=True).objective)

    costs = [(4 * cost_at(horizon, 1024) - cost_at(horizon, 512)) / 3 for horizon in (1.0, 2.0, 4.0, 8.0)]
    assert costs[0] > 1.03 * r["ell_inf"]
    assert costs[0] > costs[1] > costs[2] > costs[3]
    np.testing.assert_allclose(costs[3], r["ell_inf"], rtol=1e-6)


def test_overnight_gap(references):
    """Two sessions with a night between them: the discrete reference to rounding, through a step without volume."""
    r = references["gap_two_sessions"]
    p = r["params"]
    n = 10
    day = np.linspace(0, p["T1"], n + 1)
    times = np.r_[day, 1 + day + 1e-6]
    closed = np.arange(2 * n + 1) == n
    market = jx.Market(
        jx.TimeGrid(times),
        volatility=np.where(closed, 0.0, p["sigma"]),
        volume=np.where(closed, 0.0, VOLUME),
        gap_variance=np.where(closed, p["sigma_on2"], 0.0),
    )
    cost = jx.QuadraticCost(p["eta"] * VOLUME)
    s = jx.solve(jx.Liquidation(p["X"], market, cost, 2 * p["lam"], convention="almgren-chriss"), throw=True)
    assert float(s.trades[n]) == 0
    expected = np.array(r["x_discrete_n10"])
    np.testing.assert_allclose(np.delete(s.inventory, [0, n, 2 * n + 1]), expected, rtol=1e-5)
    np.testing.assert_allclose(float(s.inventory[n]), r["x_gap_discrete_n10"], rtol=1e-5)
