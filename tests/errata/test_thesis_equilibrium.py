"""Errata of the thesis's sections 5 to 7, on informed traders. `docs/errata.md` explains them.

The thesis's γ weighs the variance: half of `risk_aversion`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import jaxexec as jx

GAMMA = 1.0  # the thesis's
PERIODS = 4


@functools.cache
def solver(periods, preference="local"):
    def one(prior, noise, gamma, rho):
        return jx.kyle.solve(prior, noise * jnp.ones(periods), periods, gamma, preference, rho)

    return jax.jit(one), jax.jit(jax.vmap(one))


@functools.cache
def equilibrium(gamma=GAMMA, *, prior=1.0, noise=1.0, periods=PERIODS, preference="local", rho=0.0):
    e = solver(periods, preference)[0](*map(jnp.asarray, (prior, noise, 2 * gamma, rho)))
    assert e.status == jx.Status.OK
    return e


def fields(e, *names):
    return [np.asarray(getattr(e, name)) for name in names]


class Gaussian:
    """Value, order flows and price errors as combinations of v − μ, u_1, …, u_T, whose variances are known."""

    def __init__(self, e, *, carried=True):
        beta, impact, noise = fields(e, "intensity", "price_impact", "noise_variance")
        self.variances = np.r_[float(e.prior_variance), noise]
        self.value, *shocks = np.eye(noise.size + 1)
        price, self.flows, self.errors = 0 * self.value, [], []
        for b, lam, u in zip(beta, impact, shocks, strict=True):
            flow = b * (self.value - price) + u
            price = (price if carried else 0) + lam * flow
            self.flows.append(flow)
            self.errors.append(self.value - price)

    def covariance(self, one, other):
        return np.asarray(one) * self.variances @ np.asarray(other).T

    def left_unknown(self, periods):
        """Var(v | y_1..y_t) from the joint normal distribution."""
        flows = np.array(self.flows[:periods])
        with_value = self.covariance(flows, self.value)
        learnt = with_value @ np.linalg.solve(self.covariance(flows, flows), with_value)
        return self.variances[0] - learnt


# ---- 5: the price and what is learnt from it ------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, GAMMA])
def test_E15_prices_build_on_the_last_price(gamma):
    """Printed: p_t = p_0 + λ_t y_t + μ = E[v|y]. Right: p_{t−1} + λ_t y_t from p_0 = μ, of which no flow says more."""
    e = equilibrium(gamma)
    right, printed = Gaussian(e), Gaussian(e, carried=False)
    for t in range(PERIODS):
        flows = right.flows[: t + 1]
        np.testing.assert_allclose(right.covariance(flows, right.errors[t]), 0, atol=1e-14)
        np.testing.assert_allclose(right.covariance(right.errors[t], right.errors[t]), right.left_unknown(t + 1))
    for t in range(1, PERIODS):
        assert np.max(np.abs(printed.covariance(printed.flows[: t + 1], printed.errors[t]))) > 0.05
        assert printed.covariance(printed.errors[t], printed.errors[t]) > 1.05 * printed.left_unknown(t + 1)


@pytest.mark.parametrize(("prior", "noise"), [(4.0, 1.0), (1.0, 0.01), (0.3, 5.0)])
def test_E16_what_a_period_leaves_unknown(prior, noise):
    """Printed: Σ_t = Σ_{t−1} − λ_t, which may be negative. Right: Σ_{t−1}(1 − λ_tβ_t). λ_t is right, with β_t²."""
    e = equilibrium(prior=prior, noise=noise)
    beta, impact, after, before = fields(e, "intensity", "price_impact", "posterior_variance", "variance_before")
    exact = [Gaussian(e).left_unknown(t + 1) for t in range(PERIODS)]
    np.testing.assert_allclose(after, exact, rtol=1e-12)
    np.testing.assert_allclose(before * (1 - impact * beta), exact, rtol=1e-12)
    np.testing.assert_allclose(impact, beta * before / (beta**2 * before + noise), rtol=1e-12)
    assert np.all(np.abs((before - impact) / exact - 1) > 0.01)
    assert np.any(before - impact < 0) == (noise == 0.01)
    assert np.all(np.diff(after) < 0) and after[0] < prior  # footnote 17, right


def test_E16_where_the_printed_update_coincides():
    """At one period, γ = 0 and Σ_0 σ_u² = 1, where β_1 Σ_0 = 1: the numbers that one tries first."""
    for prior, noise, left in ((1.0, 1.0, 0.5), (4.0, 0.25, 2.0)):
        e = jx.kyle.one_period(prior, noise)
        np.testing.assert_allclose([prior - e.price_impact, e.posterior_variance], left, rtol=1e-13)
    e = jx.kyle.one_period(4.0, 1.0)
    np.testing.assert_allclose([4 - e.price_impact, e.posterior_variance], [3, 2], rtol=1e-13)


# ---- 5 and 6: the insider's problem ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_E17_the_last_trade(noise):
    """Printed: β_T = 1/2(λ_T + γ_T²σ_u²), and V_T = x(g − λ_T x). Right: γλ_T²σ_u², as in x_T; V_T less γ Var(π_T)."""
    e = equilibrium(noise=noise)
    impact, gap = float(e.price_impact[-1]), 1.3

    def loss(x, weight=GAMMA):
        return -(x * (gap - impact * x) - weight * impact**2 * x**2 * noise)

    # The variance: π = x(g − λx − λu), of which only u is random.
    draws, odds = np.array([-1.0, 1.0]) * noise**0.5, 0.5
    profit = 0.7 * (gap - impact * 0.7 - impact * draws)
    np.testing.assert_allclose(np.sum(odds * (profit - profit.mean()) ** 2), impact**2 * 0.7**2 * noise, rtol=1e-12)
    best = minimize_scalar(loss, bracket=(0.0, 1.0), tol=1e-10)
    np.testing.assert_allclose(best.x / gap, e.intensity[-1], rtol=1e-7)
    np.testing.assert_allclose(1 / (2 * (impact + GAMMA * impact**2 * noise)), e.intensity[-1], rtol=1e-12)
    assert 1 / (2 * (impact + GAMMA**2 * noise)) < 0.45 * float(e.intensity[-1])
    # A_T is the value with the penalty; without it the value is another, and so would be the trade, g/2λ_T.
    np.testing.assert_allclose(-best.fun, e.value_curvature[-1] * gap**2, rtol=1e-9)
    assert -loss(best.x, 0.0) > 1.2 * -best.fun
    np.testing.assert_allclose(minimize_scalar(loss, args=(0.0,)).x, gap / (2 * impact), rtol=1e-6)


def test_E18_the_continuation():
    """Printed: A_{t+1} = 1/4(λ + γλ²σ_u²), the last period's, in all, and no constant. Right: that of the recursion,
    and + B_t. Who plans as printed thinks that the next period is the last, trades too hard, and gets less."""
    e = equilibrium()
    impact, right, constant = fields(e, "price_impact", "value_curvature", "value_constant")
    impact_cost = impact + GAMMA * impact**2
    printed = 1 / (4 * impact_cost)
    np.testing.assert_allclose(right[-1], printed[-1], rtol=1e-12)
    assert np.all(printed[:-1] < 0.7 * right[:-1])
    np.testing.assert_allclose([right[0], printed[0]], [0.964620496088, 0.4926473], rtol=1e-7)

    def planned(curvature):
        later = np.r_[curvature[1:], 0.0]
        return (1 - 2 * later * impact) / (2 * (impact_cost - later * impact**2))

    np.testing.assert_allclose(planned(right), e.intensity, rtol=1e-12)
    value = jax.jit(lambda b: jx.kyle.deviate(e, b).value)
    assert planned(printed)[0] > 1.6 * float(e.intensity[0])
    assert value(planned(printed)) < 0.98 * value(planned(right))
    # The value of what is known now, and of what noise will give back.
    np.testing.assert_allclose(right[0] + constant[0], value(planned(right)), rtol=1e-12)
    np.testing.assert_allclose(constant[0], np.sum(right[1:] * impact[:-1] ** 2), rtol=1e-12)
    assert constant[0] > 0.2 * e.value
    # Risk-neutral it is a profit, and what noise traders lose on average, Σ λ_t σ_u².
    neutral = equilibrium(0.0)
    np.testing.assert_allclose(neutral.value, np.sum(neutral.price_impact), rtol=1e-12)
    assert neutral.value_curvature[0] < 0.75 * np.sum(neutral.price_impact)


GAMMAS = np.r_[0.0, np.geomspace(1e-3, 1e3, 31)]


@functools.cache
def batch(preference, noise=1.0):
    """Twenty periods for each of GAMMAS."""
    many = jnp.ones(GAMMAS.size)
    e = solver(20, preference)[1](many, noise * many, jnp.asarray(2 * GAMMAS), 0 * many)
    assert np.all(np.asarray(e.status) == jx.Status.OK)
    return e


@pytest.mark.parametrize("preference", ["local", "cara"])
def test_E19_impact_falls(preference):
    """Printed: λ_t increases with time, spikes, and warns the trader. Right: with constant noise it falls, and is known
    before the first trade."""
    impact, share = fields(batch(preference), "price_impact", "informed_share")
    assert np.all(np.diff(impact, axis=1) < 0)
    ratio = (share / (1 - share))[0, :-1]  # γ = 0
    np.testing.assert_allclose(impact[0, :-1] / impact[0, 1:], 1 + ratio**3 / (1 - ratio**2), rtol=1e-12)


def test_E19_impact_rises_only_where_noise_leaves():
    noise = jnp.asarray(np.r_[np.full(8, 4.0), np.full(6, 1.0), np.full(6, 4.0)])
    impact = np.asarray(solver(20)[0](jnp.asarray(1.0), noise, jnp.asarray(0.0), jnp.asarray(0.0)).price_impact)
    assert list(np.flatnonzero(np.diff(impact) > 0)) == [7]


def test_E20_intensity_rises_and_shares_do_not():
    """Printed: β_t rises (right), so that trading is cautious and then accelerates. Right: the expected number of
    shares is even, but for the last periods; of a CARA insider it falls."""
    for preference in ("local", "cara"):
        assert np.all(np.diff(np.asarray(batch(preference).intensity), axis=1) > 0)

    def shares(preference, gamma):
        beta, before = (
            x[GAMMAS.searchsorted(gamma)] for x in fields(batch(preference), "intensity", "variance_before")
        )
        expected = beta * before
        return expected / expected.mean(), beta[-1] / beta[0]

    even, rise = shares("local", 0.0)
    assert rise > 10 and np.ptp(even[:15]) < 0.12 and 1.2 < even[-1] < 1.7
    hurried, rise = shares("cara", 0.999)
    assert rise > 10 and hurried[0] > 2 and np.all(np.diff(hurried[:15]) < 0)


def test_E21_noise_does_not_slow_learning():
    """Printed: large σ_u², slower learning. Right: none at γ = 0, where the insider trades as much harder; slower under
    the thesis's own penalty; either way under CARA. Profit rises with σ_u, as printed."""
    quiet, loud = (equilibrium(0.0, noise=s) for s in (0.25, 9.0))
    np.testing.assert_allclose(quiet.posterior_variance, loud.posterior_variance, rtol=1e-12)
    np.testing.assert_allclose(loud.intensity, 6 * quiet.intensity, rtol=1e-12)
    np.testing.assert_allclose(loud.expected_profit, 6 * quiet.expected_profit, rtol=1e-12)
    quiet, loud = (equilibrium(noise=s) for s in (0.25, 9.0))
    assert np.all(np.asarray(loud.posterior_variance) > np.asarray(quiet.posterior_variance))
    left = np.asarray(batch("cara").posterior_variance)  # the same as more and more noise: only γσ_u√Σ_0 counts
    assert np.any(np.diff(left[:, 4]) < -1e-3) and np.any(np.diff(left[:, 4]) > 1e-3)


def test_E22_a_risk_averse_market_maker_asks_for_more():
    """Printed: she is risk averse and sets p = E[v|y]. Right: at that price she bears risk for nothing. By −(ρ/2) Var
    she breaks even at λ_t + δ_t, δ_t = ½ρΣ_t. That falls too; only λ_t rises."""
    rho = 2.0
    e = equilibrium(0.0, periods=20, rho=rho)
    impact, transitory, left = fields(e, "price_impact", "transitory_impact", "posterior_variance")
    z, odds = np.polynomial.hermite_e.hermegauss(40)
    odds, flow = odds / odds.sum(), 1.7

    def certain(premium, variance):
        """Certainty equivalent of absorbing `flow` at E[v|y] + premium · flow, by quadrature."""
        profit = flow * (premium * flow + np.sqrt(variance) * z)
        return -np.log(np.sum(odds * np.exp(-rho * profit))) / rho

    for t in range(20):
        np.testing.assert_allclose(left[t], Gaussian(e).left_unknown(t + 1), rtol=1e-12)
        np.testing.assert_allclose(certain(transitory[t], left[t]), 0, atol=1e-9)
        assert certain(0.0, left[t]) < -0.2
    assert np.all(np.diff(impact) > 0) and np.all(np.diff(impact + transitory) < 0)
    assert e.market_maker_profit > 0 and equilibrium(0.0).market_maker_profit == 0


def test_E23_a_penalty_by_the_period_fades():
    """Printed: max E[π_t] − γ Var(π_t) makes the trader risk averse. Right: less so the shorter a period, and not at
    all in the limit; aversion to the risk of the whole, CARA, stays: λ_1 → 1 + √2 at γ = 1."""

    def first(gamma, periods, preference="local"):
        return float(equilibrium(gamma, noise=1 / periods, periods=periods, preference=preference).price_impact[0])

    limit = float(jx.kyle.continuous_limit(1.0, 1.0, 1.0, jnp.zeros(1), 2.0).price_impact[0])
    np.testing.assert_allclose(limit, 1 + 2**0.5, rtol=1e-12)
    gaps = [abs(first(GAMMA, n) / first(0.0, n) - 1) for n in (4, 200)]
    assert gaps[0] > 0.01 and gaps[1] < 1e-5
    assert 0 < limit - first(GAMMA, 200, "cara") < 0.2


# ---- 7: the conclusion ----------------------------------------------------------------------------------------------


def test_E37_no_reason_to_sell_shows_in_an_order():
    """Printed: who trades for no information may trade more aggressively. Right: only if that is known. Taken for
    informed, the best reply at γ = 0 is what the informed is expected to do, at the same cost."""
    e = equilibrium(0.0, periods=20)
    c = jx.intention.compare(e, 5.0)
    np.testing.assert_allclose(c.mistaken.trades, c.informed.trades, rtol=1e-10)
    np.testing.assert_allclose(c.mistaken.expected_cost, c.informed.expected_cost, rtol=1e-12)
    np.testing.assert_allclose(c.mistaken.leakage, c.informed.leakage, rtol=1e-10)
    hasty = jx.intention.against_rule(e, jnp.where(jnp.arange(20) < 3, 5.0 / 3, 0.0))
    assert hasty.expected_cost > 1.2 * c.mistaken.expected_cost
