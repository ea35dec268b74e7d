"""Errata of the thesis: what is printed fails, what is right holds, both computed. `docs/errata.md` explains them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import jaxexec as jx
from jaxexec.impact.normal_flow import expected_sign
from tests.errata.paper import (
    DAYS,
    ETA,
    KAPPA,
    LAMBDA,
    PSI,
    SHARES,
    SIGMA,
    STEPS,
    inventory_of,
    law,
    order,
    shortfall,
    trades_of,
)

TAU = DAYS / STEPS
NET = ETA - KAPPA * TAU / 2  # η̃
FIXED = KAPPA * SHARES**2 / 2 + PSI * SHARES


def optimum(steps=STEPS, **changes):
    return jx.almgren_chriss(
        SHARES,
        DAYS,
        steps,
        volatility=SIGMA,
        temporary_impact=ETA,
        permanent_impact=KAPPA,
        half_spread=PSI,
        **{"variance_weight": LAMBDA} | changes,
    )


# ---- 3: prices and their shortfall ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [5, 20])
def test_E01_prices_move_by_the_rate_within_a_step(steps):
    """Printed: g(n_k/T), shocks of size σ^½ in the shortfall. Right: g(n_k/τ), σ√τ."""
    problem, trades = order(steps), optimum(steps).trades
    expected, variance = jx.expected_cost(problem, trades), jx.variance(problem, trades)
    mean, spread = law(trades)
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    np.testing.assert_allclose(spread, variance, rtol=1e-12)
    printed_mean, _ = law(trades, spoken_for=DAYS)
    assert printed_mean < 0.96 * expected
    _, printed_variance = law(trades, scale=SIGMA**0.5)
    np.testing.assert_allclose(printed_variance / variance, steps / DAYS / SIGMA, rtol=1e-12)
    assert abs(printed_variance / variance - 1) > 0.05


def test_E01_the_shortfall_path_by_path():
    """Printed: a bracket that charges Σ n h once a step. Right: once. The sum begins with the first trade."""
    trades = np.asarray(optimum().trades)
    held = inventory_of(trades)[1:]
    shocks = np.random.default_rng(0).standard_normal(STEPS)
    moved = SIGMA * TAU**0.5 * shocks - KAPPA * trades
    impact = np.sum(trades * (PSI + ETA * trades / TAU))
    path = shortfall(trades, shocks)
    np.testing.assert_allclose(path, impact - np.sum(moved * held), rtol=1e-12)
    np.testing.assert_allclose(path, shortfall(trades, shocks, start=80.0), rtol=1e-9)
    printed = STEPS * impact - np.sum(moved * held)
    assert abs(printed - path) > 3 * impact


def test_E02_cost_of_equal_slices():
    """Printed: η̃X²/τ, what one sale at once costs. Right: η̃X²/T."""
    problem = order()
    cost = jx.expected_cost(problem, jx.twap(problem))
    np.testing.assert_allclose(cost, FIXED + NET * SHARES**2 / DAYS, rtol=1e-12)
    np.testing.assert_allclose(cost, 662_500, rtol=1e-12)
    printed = FIXED + NET * SHARES**2 / TAU
    np.testing.assert_allclose(printed, jx.expected_cost(problem, jx.immediate(problem)), rtol=1e-12)
    assert printed > 3.8 * cost


@pytest.mark.parametrize("steps", [5, 20, 50])
def test_E03_variance_of_equal_slices_is_right(steps):
    problem = order(steps)
    printed = SIGMA**2 * DAYS * SHARES**2 * (steps - 1) * (2 * steps - 1) / (6 * steps**2)
    np.testing.assert_allclose(jx.variance(problem, jx.twap(problem)), printed, rtol=1e-12)


def test_E04_limit_of_many_slices():
    """Printed: εX times η̃X²/τ, a + missing; put back, it grows without bound. Right: η X²/T, reached as 1/N."""
    limit = FIXED + ETA * SHARES**2 / DAYS + LAMBDA * SIGMA**2 * DAYS * SHARES**2 / 3
    apart, printed = [], []
    for steps in (1000, 10_000):
        problem = order(steps)
        apart.append(jx.objective(problem, jx.twap(problem)) / limit - 1)
        tau = DAYS / steps
        printed.append(FIXED + (ETA - KAPPA * tau / 2) * SHARES**2 / tau + LAMBDA * SIGMA**2 * DAYS * SHARES**2 / 3)
    np.testing.assert_allclose(apart[0] / apart[1], 10, rtol=2e-3)
    assert abs(apart[1]) < 2e-4
    assert printed[1] > 9 * printed[0] > 100 * limit


def test_E05_cost_of_selling_at_once_is_right():
    """εX + ηX²/τ stands: the two terms in γ cancel. Nothing about it is random, and the trade is n_1, not n_0."""
    problem = order()
    trades = jx.immediate(problem)
    assert trades[0] == SHARES and jnp.all(trades[1:] == 0)
    cost = jx.expected_cost(problem, trades)
    np.testing.assert_allclose(cost, PSI * SHARES + ETA * SHARES**2 / TAU, rtol=1e-12)
    np.testing.assert_allclose(cost, 2_562_500, rtol=1e-12)
    assert jx.variance(problem, trades) == 0
    paths = [shortfall(trades, z) for z in np.random.default_rng(0).standard_normal((3, STEPS))]
    np.testing.assert_allclose(paths, cost, rtol=1e-12)
    doubted = FIXED + ETA * SHARES**2 / TAU
    assert doubted - cost > 1e5


def test_E09_inventory_of_equal_slices():
    """Printed: (N − k)X/N is what is liquidated by then. Right: what remains."""
    problem = order()
    formula = (STEPS - np.arange(STEPS + 1)) * SHARES / STEPS
    trades = np.asarray(jx.twap(problem))
    np.testing.assert_allclose(inventory_of(trades), formula, atol=1e-6)
    assert abs(np.cumsum(trades)[0] - formula[1]) > SHARES / 2


# ---- 3.2: the optimum -----------------------------------------------------------------------------------------------


def printed_condition(inner, spread):
    """The thesis's first-order condition, for each inner inventory."""
    x = np.r_[SHARES, inner, 0.0]
    bend = x[:-2] - 2 * x[1:-1] + x[2:]
    return 2 * TAU * (LAMBDA * SIGMA**2 * x[1:-1] - NET * bend / TAU**2) + spread


@jax.jit
@jax.grad
def slope(inner, psi):
    x = jnp.concatenate([jnp.array([SHARES]), inner, jnp.array([0.0])])
    return jx.objective(order(psi=psi), x[:-1] - x[1:])


def test_E06_the_spread_is_not_in_the_first_order_condition():
    """Printed: … + ε = 0. Right: … = 0, as Σ|n_k| telescopes to X for every sale."""
    best = np.asarray(optimum().inventory)[1:-1]
    # In currency per share: at the optimum the whole slope vanishes, whatever the spread.
    for psi in (0.0, PSI):
        np.testing.assert_allclose(slope(best, psi), 0, atol=1e-12)
    np.testing.assert_allclose(printed_condition(best, 0.0), 0, atol=1e-12)
    np.testing.assert_allclose(printed_condition(best, PSI), PSI, rtol=1e-9)
    # Solved as printed, it gives a schedule that costs more.
    system = np.stack([printed_condition(one, 0.0) for one in np.eye(STEPS - 1)], 1)
    system -= printed_condition(np.zeros(STEPS - 1), 0.0)[:, None]
    printed = np.linalg.solve(system, -printed_condition(np.zeros(STEPS - 1), PSI))
    problem = order()
    assert jx.objective(problem, trades_of(printed)) > optimum().objective + 1000
    without = np.linalg.solve(system, -printed_condition(np.zeros(STEPS - 1), 0.0))
    np.testing.assert_allclose(without, best, rtol=1e-10)


def test_E07_kappa_of_a_discrete_schedule():
    """Printed: κ² = λσ²/η̃ in the sinh. Right: 2(cosh κτ − 1)/τ² = λσ²/η̃; they meet as τ → 0."""
    best, tilde = optimum(), (LAMBDA * SIGMA**2 / NET) ** 0.5
    np.testing.assert_allclose(2 * (np.cosh(best.kappa * TAU) - 1) / TAU**2, tilde**2, rtol=1e-12)
    assert abs(best.kappa / tilde - 1) > 0.02
    problem = order()

    def of(kappa):
        return jx.objective(problem, -np.diff(SHARES * np.sinh(kappa * (DAYS - best.times)) / np.sinh(kappa * DAYS)))

    np.testing.assert_allclose(of(best.kappa), best.objective, rtol=1e-12)
    assert of(tilde) > of(best.kappa) + 100
    fine = optimum(500)
    net = ETA - KAPPA * DAYS / 500 / 2
    np.testing.assert_allclose(fine.kappa, (LAMBDA * SIGMA**2 / net) ** 0.5, rtol=1e-5)


def test_E08_trades_of_the_optimum():
    """Printed: 2 sinh(κT/2)/sinh κT · cosh κ(T − t_{j−½}), without X. Right: sinh(κτ/2), and X."""
    best = optimum()
    kappa, middle = best.kappa, DAYS - (np.arange(STEPS) + 0.5) * TAU
    shape = 2 * np.cosh(kappa * middle) / np.sinh(kappa * DAYS)
    right = np.sinh(kappa * TAU / 2) * shape
    np.testing.assert_allclose(right * SHARES, best.trades, rtol=1e-12)
    np.testing.assert_allclose(right.sum(), 1, rtol=1e-12)
    printed = np.sinh(kappa * DAYS / 2) * shape
    np.testing.assert_allclose(printed.sum(), np.sinh(kappa * DAYS / 2) / np.sinh(kappa * TAU / 2), rtol=1e-12)
    assert printed.sum() > 9


# ---- 4: continuous time ---------------------------------------------------------------------------------------------

CONTINUOUS = {"horizon": 1.0, "volatility": 1.0, "volume": 2.0, "eta": 0.1, "risk_aversion": 1.0}


def continuous(points=2001, **changes):
    return jx.gueant_quadratic(1.0, np.linspace(0, 1, points), **CONTINUOUS | changes)


def test_E10_price_moves_with_what_was_sold():
    """Printed (fn 11): S_t = S_0 + σW − q_t. Right: S_0 + σW + k(q_t − q_0); then X_T is as printed, path by path."""
    start, k, sigma, best = 10.0, 0.3, CONTINUOUS["volatility"], continuous()
    q = np.asarray(best.inventory)
    steps = np.diff(best.times)
    noise = np.r_[0.0, np.cumsum(np.random.default_rng(0).standard_normal(steps.size) * steps**0.5)]

    def cash(price):
        return -np.sum((price[1:] + price[:-1]) / 2 * np.diff(q))

    printed_terminal = start - k / 2 + sigma * np.sum((q[1:] + q[:-1]) / 2 * np.diff(noise))
    np.testing.assert_allclose(cash(start + sigma * noise + k * (q - 1)), printed_terminal, rtol=1e-12)
    assert abs(cash(start + sigma * noise - q) - printed_terminal) > 0.3
    # What is deterministic in it is the package's expected cost; ∫V L(v/V), V outside of L.
    with_permanent = continuous(permanent_impact=k)
    volume, rate = CONTINUOUS["volume"], np.asarray(best.rate)
    impact = np.trapezoid(volume * CONTINUOUS["eta"] * (rate / volume) ** 2, best.times)
    np.testing.assert_allclose(with_permanent.expected_cost, k / 2 + impact, rtol=1e-6)


def test_E11_sign_of_exponential_utility():
    """Printed: max E[−exp(+γX_T)], which wants the dearest schedule. Right: −exp(−γX_T), which is E + (γ/2)Var."""
    problem = order()
    gamma = 2 * LAMBDA
    rivals = [optimum().trades, jx.twap(problem), jx.immediate(problem), jx.front_loaded(problem)]
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()

    def certainty_equivalent(trades, sign):
        """Money that is as good as the lottery, by quadrature over a normal wealth."""
        wealth = -jx.expected_cost(problem, trades) + np.sqrt(jx.variance(problem, trades)) * z
        return -sign * np.log(np.sum(weight * np.exp(-sign * gamma * wealth))) / gamma

    right = np.array([certainty_equivalent(n, 1) for n in rivals])
    np.testing.assert_allclose(right, [-jx.objective(problem, n) for n in rivals], rtol=1e-9)
    assert np.argmax(right) == 0
    # −E exp(γX) is greatest where log E exp(γX), a reward for wealth turned into a penalty, is least.
    printed = np.array([-certainty_equivalent(n, -1) for n in rivals])
    assert np.argmax(printed) == np.argmax([float(jx.expected_cost(problem, n)) for n in rivals]) == 2


def test_E12_hamiltonian_of_the_cost():
    """Printed: H(ρ) = sup_p pρ − L(ρ), ρ²/4n. Right: H(p) = sup_ρ ρp − L(ρ) = p²/4η."""
    eta, p = 0.3, 0.7
    cost = jx.QuadraticCost(eta)
    rates = np.linspace(-10, 10, 200_001)
    np.testing.assert_allclose(cost.hamiltonian(p), np.max(rates * p - cost.value(rates)), rtol=1e-8)
    np.testing.assert_allclose(cost.hamiltonian(p), p**2 / (4 * eta), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(cost.hamiltonian)(p), cost.optimal_rate(p), rtol=1e-12)
    # Over p the bracket is a straight line: no supremum.
    printed = [np.max(np.linspace(-reach, reach, 101) * 0.5 - cost.value(0.5)) for reach in (10.0, 100.0, 1000.0)]
    np.testing.assert_allclose(np.diff(printed), [45, 450], rtol=1e-12)


def test_E13_hamiltonian_system_and_its_solution_are_right():
    """p' = γσ²q, q' = V H'(p), q = q_0 sinh κ(T − t)/sinh κT with κ² = γσ²V/2η; V H(p) − γσ²q²/2 is constant."""
    s, c = continuous(4001), CONTINUOUS
    t, q, p = (np.asarray(x) for x in (s.times, s.inventory, s.costate))
    np.testing.assert_allclose(s.kappa, np.sqrt(c["risk_aversion"] * c["volume"] / (2 * c["eta"])), rtol=1e-12)
    np.testing.assert_allclose(q, np.sinh(s.kappa * (1 - t)) / np.sinh(s.kappa), atol=1e-13)
    inner, width = slice(1, -1), t[2] - t[0]
    np.testing.assert_allclose((p[2:] - p[:-2]) / width, c["risk_aversion"] * q[inner], rtol=1e-4, atol=1e-9)
    cost = jx.QuadraticCost(c["eta"])
    speed = c["volume"] * np.asarray(cost.optimal_rate(p))
    np.testing.assert_allclose((q[2:] - q[:-2]) / width, speed[inner], rtol=1e-4)
    energy = c["volume"] * cost.hamiltonian(p) - c["risk_aversion"] * q**2 / 2
    np.testing.assert_allclose(energy, energy[0], rtol=1e-11)


def test_E14_risk_matters_less_as_the_position_falls():
    """Printed: the risk component grows as the position decreases. Right: its share of the running cost falls to 0."""
    s, c = continuous(101), CONTINUOUS
    risk = c["risk_aversion"] / 2 * np.asarray(s.inventory) ** 2
    impact = c["volume"] * jx.QuadraticCost(c["eta"]).value(s.rate / c["volume"])
    share = risk / (risk + impact)
    assert np.all(np.diff(share) < 0) and share[0] > 0.49 and share[-1] == 0


# ---- 3.3: the regression --------------------------------------------------------------------------------------------


def test_E24_expected_sign_of_a_trade():
    """1 − 2φ(−m/σ) is right with φ the distribution function, as the thesis says; with the density it is not."""
    mean, deviation = 150.0, 300.0
    sold, bought = (quad(norm.pdf, *ends, args=(mean, deviation))[0] for ends in ((-np.inf, 0), (0, np.inf)))
    exact = bought - sold
    np.testing.assert_allclose(expected_sign(jnp.array(mean), jnp.array(deviation)), exact, rtol=1e-9)
    assert abs(1 - 2 * norm.pdf(-mean / deviation) - exact) > 0.05


def simulated_trades(count, truth, seed=0):
    """Trades that obey Glosten and Harris's equation, of a flow with some memory; price changes by 0.01 besides."""
    fixed, variable, spread, slope_ = truth
    rng = np.random.default_rng(seed)
    memory, deviation = 0.4, 300.0
    flow = np.zeros(count)
    for t in range(1, count):
        flow[t] = memory * flow[t - 1] + deviation * rng.standard_normal()
    sign = np.sign(flow)
    expected = memory * np.r_[0.0, flow[:-1]]
    surprise = sign - (1 - 2 * norm.cdf(-expected / deviation))
    value = np.cumsum(fixed * surprise + variable * (flow - expected) + 0.01 * rng.standard_normal(count))
    return 20 + value + spread * sign + slope_ * flow, np.abs(flow), sign


def test_E24_glosten_and_harris_in_differences():
    """Printed: regressors D and DV. Right: ΔD and ΔDV; they alone give back what the trades were made with."""
    truth = np.array([3e-3, 5e-6, 6e-3, 2e-6])
    trades = simulated_trades(20_000, truth)
    right, printed = (jx.impact.glosten_harris_arrays(*trades, form=form) for form in ("difference", "level"))
    assert np.all(np.abs(right.coefficients - truth) < 4 * right.std_errors)
    assert np.all(np.abs(printed.coefficients - truth) > 4 * printed.std_errors)
    assert np.all(np.abs(printed.coefficients / truth) > 10) and printed.condition > 5 * right.condition


# ---- figure 2 -------------------------------------------------------------------------------------------------------


def test_E36_negative_correlation_of_estimates_whose_truth_has_none():
    """Printed: C and λ correlate negatively across stocks, so the components compensate each other. Right: so do the
    errors of their estimates, D and DV being collinear; with a tenth of the noise the correlation goes, the truth
    being a full grid, in which there is none."""
    stocks, count = 60, 1200
    fixed, variable = (x.reshape(-1, 1) for x in np.meshgrid(np.linspace(2e-3, 4e-3, 6), np.linspace(3e-6, 7e-6, 10)))
    assert abs(np.corrcoef(fixed[:, 0], variable[:, 0])[0, 1]) < 1e-12
    rng = np.random.default_rng(0)
    flow, news = 300 * rng.standard_normal((stocks, count)), rng.standard_normal((stocks, count))
    for t in range(1, count):
        flow[:, t] += 0.4 * flow[:, t - 1]
    sign, expected = np.sign(flow), np.c_[np.zeros(stocks), 0.4 * flow[:, :-1]]
    surprise = sign - (1 - 2 * norm.cdf(-expected / 300))
    seen, foretold = [], []
    for noise in (0.03, 0.003):
        price = 20 + np.cumsum(fixed * surprise + variable * (flow - expected) + noise * news, axis=1)
        estimates = jx.impact.glosten_harris_arrays(price + 6e-3 * sign + 2e-6 * flow, np.abs(flow), sign)
        seen.append(np.corrcoef(np.asarray(estimates.coefficients)[:, :2].T)[0, 1])
        error = np.asarray(estimates.covariance)[:, :2, :2].mean(axis=0)
        truth = np.diag([fixed.var(), variable.var()])
        foretold.append((error + truth)[0, 1] / np.sqrt(np.prod(np.diag(error + truth))))
    assert seen[0] < -0.4 and abs(seen[1]) < 0.25
    np.testing.assert_allclose(seen, foretold, atol=0.25)


# ---- figure 3 -------------------------------------------------------------------------------------------------------

PERIODS, POSITION = 50, 40_000.0
FLOW = 1e5  # the others' volume in a period


def component(convention="continuous", *, fixed=0.0, permanent=0.0, variable=5e-6):
    """Figure 3's order at zero risk aversion, one component of impact at a time."""
    market = jx.Market(jx.TimeGrid.uniform(50.0, PERIODS), 0.6, FLOW, permanent_impact=permanent)
    cost = jx.QuadraticCost(variable * FLOW, fixed)
    return jx.Liquidation(POSITION, market, cost, risk_aversion=0.0, convention=convention)


def monotone_paths(problem):
    rng = np.random.default_rng(0)
    yield from (jx.twap(problem), jx.front_loaded(problem), jx.exponential(problem, 0.1), jx.immediate(problem))
    yield from POSITION * rng.dirichlet(np.ones(PERIODS), 4)


def cost_of(part, convention="continuous"):
    """What `part` adds to the cost of every path."""
    with_it, without = component(convention, **part), component(convention)
    paths = list(monotone_paths(with_it))
    return np.array([float(jx.expected_cost(with_it, n) - jx.expected_cost(without, n)) for n in paths])


def test_E32_only_the_transitory_variable_part_pins_a_schedule():
    """Printed: paths that differ by component at zero risk aversion. Right: permanent cost κX²/2 for every path."""
    permanent = 1.11e-6
    added = cost_of({"permanent": permanent})
    np.testing.assert_allclose(added, permanent * POSITION**2 / 2, rtol=1e-9)
    variable = 5e-6
    problem = component(variable=variable)
    costs = np.array([float(jx.expected_cost(problem, n)) for n in monotone_paths(problem)])
    np.testing.assert_allclose(costs[0], variable * POSITION**2 / PERIODS, rtol=1e-12)
    assert np.all(costs[1:] > 1.05 * costs[0])
    np.testing.assert_allclose(jx.solve(problem, throw=True).trades, POSITION / PERIODS, rtol=1e-9)


def test_E34_permanent_impact_alone_has_no_inner_optimum():
    """In discrete time, sold at the price before the trade, κ(X² − Σn²)/2 is least at a corner; at the price after it,
    κ(X² + Σn²)/2 is least for equal slices (Bertsimas and Lo)."""
    permanent = 1.11e-6
    added = cost_of({"permanent": permanent}, "almgren-chriss")
    paths = [np.asarray(n) for n in monotone_paths(component())]
    np.testing.assert_allclose(added, [permanent * (POSITION**2 - n @ n) / 2 for n in paths], atol=1e-6)
    assert np.argmax(added) == 0 and np.argmin(added) == 3 and abs(added[3]) < 1e-6
    with pytest.raises(ValueError, match="permanent_impact is too large"):
        component("almgren-chriss", permanent=permanent, variable=permanent / 3)
    # At the price after the trade: half a step more of impact, which is η = κτ under their convention.
    later = component("almgren-chriss", permanent=permanent, variable=permanent)
    costs = np.array([float(jx.expected_cost(later, n)) for n in paths])
    np.testing.assert_allclose(costs, [permanent * (POSITION**2 + n @ n) / 2 for n in paths], rtol=1e-12)
    np.testing.assert_allclose(jx.solve(later, throw=True).trades, POSITION / PERIODS, rtol=1e-9)


def test_E35_fixed_costs_move_nothing():
    """Printed: steep early liquidation to save fixed costs. Right: ζX for every schedule that only sells."""
    added = cost_of({"fixed": 0.02})
    np.testing.assert_allclose(added, 0.02 * POSITION, rtol=1e-9)
    plain, dear = (jx.solve(component(fixed=psi, variable=5e-6), throw=True) for psi in (0.0, 0.02))
    np.testing.assert_allclose(dear.trades, plain.trades, rtol=1e-9)
