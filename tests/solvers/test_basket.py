"""Baskets: references, relations that must hold, an outsider, derivatives, and what cannot be solved."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import jaxexec as jx
from jaxexec.basket import Basket, FactorCovariance, basket_cost, basket_variance
from jaxexec.solvers.basket import solve_basket
from jaxexec.solvers.block_ladder import BlockLadderNewton

STEPS, VOLUME, ETA = 8, 4e6, 0.1
SHARES = np.array([2e5, -1e5, 5e4])
COVARIANCE = np.array([[0.36, 0.2, 0.1], [0.2, 0.5, -0.1], [0.1, -0.1, 0.3]])
COUPLING = 1e-8 * np.array([[0.0, 0.3, 0.1], [0.3, 0.0, 0.2], [0.1, 0.2, 0.0]])


def grid(steps=STEPS):
    return jx.TimeGrid(np.cumsum(np.r_[0, 1 + 0.3 * np.sin(np.arange(steps))]) / steps)


def one(kind: str = "", shares=SHARES, covariance=COVARIANCE, permute=None) -> Basket:
    """Three assets over an uneven day. `kind` names features: quadratic, spread, drift, closed, target, across."""
    words = kind.split()
    rng = np.random.default_rng(1)
    volume = VOLUME * rng.uniform(0.5, 2, (len(shares), STEPS))
    drift = 0.05 * rng.normal(size=(len(shares), STEPS)) * ("drift" in words)
    if "closed" in words:
        volume[0, 3] = volume[:, 5] = 0
    phi = 1.0 if "quadratic" in words else 0.6
    eta = ETA * rng.uniform(0.5, 2, len(shares))
    psi = 0.004 * ("spread" in words)
    order = np.arange(len(shares)) if permute is None else permute
    market = [jx.Market(grid(), 0.0, volume[i], permanent_impact=1e-8, drift=drift[i]) for i in order]
    cost = [jx.PowerLawCost(eta[i], phi, psi) for i in order]
    target = 2e4 if "target" in words else 0.0
    across = {"cross_impact": jnp.asarray(COUPLING)} if "across" in words else {}
    if "across" in words and "quadratic" not in words:
        across["cross_impact"] += 1e-8 * jnp.eye(len(shares))  # positive semidefinite by itself
    covariance = np.asarray(covariance)[np.ix_(order, order)]
    return Basket(np.asarray(shares)[order], market, cost, covariance, risk_aversion=3e-6, target=target, **across)


KINDS = ("", "quadratic", "spread drift", "closed", "target", "across", "quadratic across closed", "spread across")


def test_reference_of_almgren_and_chriss(references):
    reference = references["ac_multi_sym"]
    p = reference["params"]
    impact = np.array(p["H"])
    market = jx.Market(jx.TimeGrid.uniform(p["T"], p["N"]), 0.0, 1.0)
    s = solve_basket(
        Basket(
            p["X"],
            market,
            [jx.QuadraticCost(impact[i, i], p["eps"][i]) for i in range(2)],
            np.array(p["C"]),
            cross_impact=impact - np.diag(np.diag(impact)),
            risk_aversion=2 * p["lam"],
            convention="almgren-chriss",
            permanent_impact=np.array(p["Gamma"]),
        ),
        throw=True,
    )
    np.testing.assert_allclose(s.inventory, reference["x"], rtol=1e-10, atol=1e-4)
    np.testing.assert_allclose(s.expected_cost, reference["E"], rtol=1e-10)
    np.testing.assert_allclose(s.variance, reference["V"], rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_schedule_is_consistent_and_optimal(kind):
    """Certified; and no random change of the path is cheaper."""
    basket = one(kind)
    s = solve_basket(basket, throw=True)
    assert s.status == jx.Status.OK
    assert s.residual <= 1e-7  # of the order of √gap
    np.testing.assert_allclose(jnp.sum(s.trades, 0), basket.shares - basket.target, rtol=1e-11)
    assert np.all(np.asarray(s.trades)[np.asarray(basket.step_volume) == 0] == 0)

    @jax.jit
    def total(nodes):
        trades = jnp.where(basket.step_volume > 0, nodes[:-1] - nodes[1:], 0)
        return basket_cost(basket, nodes, trades) + basket.risk_aversion / 2 * basket_variance(basket, nodes)

    best = float(total(s.inventory))
    np.testing.assert_allclose(s.objective, best, rtol=1e-12)
    rng = np.random.default_rng(0)
    open_ = np.asarray(basket.step_volume) > 0
    for size in (1e2, 1e3, 1e4):
        change = rng.normal(size=open_.shape) * open_
        change = size * (change - open_ * change.sum(0) / open_.sum(0))
        moved = np.asarray(s.inventory).copy()
        moved[1:] -= np.cumsum(change, 0)
        assert float(total(jnp.asarray(moved))) >= best * (1 - 1e-12)


def test_against_scipy():
    basket = one("across")
    s = solve_basket(basket, throw=True)
    nodes = np.asarray(s.inventory)
    unit, size = abs(float(s.objective)), np.abs(SHARES)

    @jax.jit
    @jax.value_and_grad
    def total(inner):
        inside = inner.reshape(STEPS - 1, 3) * jnp.asarray(size)[None]
        path = jnp.concatenate([nodes[:1], inside, nodes[-1:]])
        cost = basket_cost(basket, path, path[:-1] - path[1:])
        return (cost + basket.risk_aversion / 2 * basket_variance(basket, path)) / unit

    start = np.linspace(nodes[0], nodes[-1], STEPS + 1)[1:-1] / size
    found = scipy.optimize.minimize(
        lambda x: [np.asarray(v) for v in total(jnp.asarray(x))],
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-10},
    )
    assert float(s.objective) <= found.fun * unit * (1 + 1e-12)
    np.testing.assert_allclose(found.x.reshape(STEPS - 1, 3), nodes[1:-1] / size, atol=1e-4)


def test_against_clarabel():
    cp = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    basket = one("")
    s = solve_basket(basket, throw=True)
    size, unit = np.abs(SHARES), float(s.objective)
    volume, phi = np.asarray(basket.step_volume), 0.6
    trades, left = cp.Variable((STEPS, 3)), cp.Variable((STEPS + 1, 3))
    scaled = np.asarray(basket.cost.eta) * size ** (1 + phi) * volume**-phi / unit
    paid = cp.sum(cp.multiply(scaled, cp.power(cp.abs(trades), 1 + phi, approx=False)))
    root = np.linalg.cholesky(COVARIANCE) * size[:, None]
    tau = np.diff(np.asarray(basket.grid.times))
    node = np.sqrt(3e-6 / 2 / unit * np.r_[tau[0] / 2, (tau[:-1] + tau[1:]) / 2, tau[-1] / 2])
    risk = cp.sum_squares(cp.multiply(node[:, None] * np.ones((1, 3)), left @ root))
    ends = [left[0] == SHARES / size, left[-1] == 0, left[:-1] - left[1:] == trades]
    program = cp.Problem(cp.Minimize(paid + risk), ends)
    program.solve(solver="CLARABEL")
    permanent = 1e-8 / 2 * np.sum(SHARES**2) / unit
    np.testing.assert_allclose(program.value + permanent, 1.0, atol=1e-6)
    np.testing.assert_allclose(left.value, np.asarray(s.inventory) / size, atol=2e-3)


def test_quadratic_costs_diagonalise():
    """x_k = H^{-1/2} Q diag(sinh κ_i(T − t_k)/sinh κ_i T) Qᵀ H^{1/2} X, for H = diag(η/V) + C and a flat day."""
    steps, gamma = 10, 2e-6
    impact = np.diag([2.5e-8, 4e-8, 3e-8]) + COUPLING
    market = jx.Market(jx.TimeGrid.uniform(1.0, steps), 0.0, 1.0)
    cost = [jx.QuadraticCost(h) for h in np.diag(impact)]
    s = solve_basket(Basket(SHARES, market, cost, COVARIANCE, COUPLING, gamma, convention="almgren-chriss"))
    tau = 1 / steps
    root = np.real(scipy.linalg.sqrtm(impact))
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(inverse @ COVARIANCE @ inverse * gamma / 2)
    kappa = np.arccosh(1 + values * tau**2 / 2) / tau
    t = np.linspace(0, 1, steps + 1)[:, None]
    modes = np.sinh(kappa * (1 - t)) / np.sinh(kappa) * (vectors.T @ root @ SHARES)
    np.testing.assert_allclose(s.inventory, modes @ (inverse @ vectors).T, rtol=1e-9, atol=1e-5)


@pytest.mark.parametrize("kind", ["", "spread drift"])
def test_uncorrelated_assets_are_single_orders(kind):
    """Relation 28."""
    s = solve_basket(one(kind, covariance=np.diag([0.36, 0.5, 0.3])), throw=True)
    total = 0.0
    for i, sigma in enumerate(np.sqrt([0.36, 0.5, 0.3])):
        basket = one(kind)
        market = jax.tree.map(lambda x, i=i: x[i] if x.ndim and x.shape[0] == 3 else x, basket.market)
        market = eqx.tree_at(lambda m: m.volatility, market, jnp.asarray(sigma))
        cost = jax.tree.map(lambda x, i=i: x[i], basket.cost)
        alone = jx.solve(jx.Liquidation(SHARES[i], market, cost, risk_aversion=3e-6), throw=True)
        np.testing.assert_allclose(s.inventory[:, i], alone.inventory, atol=1e-7 * 2e5)
        total += float(alone.objective)
    np.testing.assert_allclose(s.objective, total, rtol=1e-10)


def test_permutation_and_an_asset_that_is_not_there():
    """Relation 29."""
    kind, order = "spread drift", np.array([2, 0, 1])
    s, turned = solve_basket(one(kind)), solve_basket(one(kind, permute=order))
    np.testing.assert_allclose(turned.inventory, s.inventory[:, order], atol=1e-8 * 2e5)
    np.testing.assert_allclose(turned.objective, s.objective, rtol=1e-12)
    apart = COVARIANCE * np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    idle = solve_basket(one("", SHARES * [1, 1, 0], apart))
    pair = jax.tree.map(lambda x: x[:2, :2] if x.shape == (3, 3) else x[:2] if x.shape[:1] == (3,) else x, one(""))
    pair = eqx.tree_at(lambda b: b.covariance, pair, jnp.asarray(apart[:2, :2]))
    both = solve_basket(pair)
    np.testing.assert_allclose(idle.inventory[:, :2], both.inventory, atol=1e-9 * 2e5)
    np.testing.assert_allclose(idle.objective, both.objective, rtol=1e-12)
    assert np.all(np.abs(np.asarray(idle.inventory)[:, 2]) < 1e-9)


def plain(shares, covariance, phi, risk_aversion) -> Basket:
    """Equal assets."""
    cost = [jx.PowerLawCost(ETA, phi)] * 3
    return Basket(shares, jx.Market(grid(), 0.0, VOLUME), cost, covariance, risk_aversion=risk_aversion)


@pytest.mark.parametrize("phi", [1.0, 0.6])
def test_congruence_is_for_quadratic_costs_only(phi):
    """Relation 30: rotated assets, rotated schedule. It must fail for φ ≠ 1."""
    turn = scipy.linalg.expm(np.array([[0, -0.5, 0.2], [0.5, 0, 0.3], [-0.2, -0.3, 0]]))
    s = solve_basket(plain(SHARES, COVARIANCE, phi, 3e-6))
    turned = solve_basket(plain(turn @ SHARES, turn @ COVARIANCE @ turn.T, phi, 3e-6))
    off = np.max(np.abs(np.asarray(turned.inventory) - np.asarray(s.inventory) @ turn.T)) / 2e5
    assert off < 1e-10 if phi == 1 else off > 1e-3


@pytest.mark.parametrize("phi", [1.0, 0.6])
def test_perfect_hedge(phi):
    """Relation 31 and fault 10: the basket bears no risk, the covariance has rank one, all trade TWAP."""
    shares = np.array([1e5, -3e5, 2e5])
    s = solve_basket(plain(shares, 0.36 * np.ones((3, 3)), phi, 1e-4))
    assert s.status == jx.Status.OK
    twap = np.diff(np.asarray(grid().times))[:, None] / float(grid().times[-1]) * shares
    np.testing.assert_allclose(s.trades, twap, rtol=1e-9)
    assert float(s.variance) < 1e-6


def test_covariance_in_its_three_forms():
    rng = np.random.default_rng(2)
    loadings, specific = rng.normal(size=(3, 1)) * 0.4, np.array([0.1, 0.0, 0.2])
    market, cost = jx.Market(grid(), 0.6, VOLUME), jx.PowerLawCost(ETA, 0.6)
    factor = FactorCovariance(loadings, specific)
    s = solve_basket(Basket(SHARES, market, cost, factor, risk_aversion=3e-6), throw=True)
    dense = solve_basket(Basket(SHARES, market, cost, factor.dense(), risk_aversion=3e-6))
    np.testing.assert_allclose(s.inventory, dense.inventory, atol=1e-9 * 2e5)
    each = np.broadcast_to(factor.dense(), (STEPS, 3, 3))
    np.testing.assert_allclose(
        solve_basket(Basket(SHARES, market, cost, each, risk_aversion=3e-6)).inventory, s.inventory, atol=1e-6
    )
    correlation = np.array([[1, 0.5, 0], [0.5, 1, 0.2], [0, 0.2, 1]])
    named = Basket.from_correlation(SHARES, market, cost, correlation, risk_aversion=3e-6)
    np.testing.assert_allclose(named.covariance[0], 0.36 * correlation, rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e-3, 0.03])
def test_risk_from_none_to_all(shift):
    """No risk aversion is VWAP; risk that swamps the costs is still certified."""
    market, cost = jx.Market(grid(), 0.0, VOLUME), jx.PowerLawCost(ETA, 0.6)
    s = solve_basket(Basket(SHARES, market, cost, COVARIANCE, risk_aversion=shift))
    assert s.status == jx.Status.OK
    if shift == 0:
        vwap = np.diff(np.asarray(grid().times))[:, None] / float(grid().times[-1]) * SHARES
        np.testing.assert_allclose(s.trades, vwap, rtol=1e-12)


def mix(basket):
    s = solve_basket(basket)
    weights = jnp.asarray(np.random.default_rng(5).normal(size=(STEPS, 3)))
    return jnp.stack([s.objective, jnp.sum(weights * s.trades)])


@pytest.mark.parametrize("kind", ["spread target", "closed", "quadratic across closed"])
def test_derivatives(kind):
    """Forward = reverse = central difference, in a random direction of every leaf, covariance and shares too."""
    basket = one(kind)
    leaves, structure = jax.tree.flatten(basket)
    paths = [jax.tree_util.keystr(k) for k, _ in jax.tree_util.tree_leaves_with_path(basket)]
    function = jax.jit(lambda *leaves: mix(jax.tree.unflatten(structure, leaves)))
    reverse = jax.jit(jax.jacrev(lambda leaves: mix(jax.tree.unflatten(structure, leaves))))(leaves)
    forward = jax.jit(lambda *directions: jax.jvp(function, tuple(leaves), directions)[1])
    rng = np.random.default_rng(3)
    size = np.abs(np.asarray(function(*leaves)))
    scales = {"drift": 0.05, "target": 1e4}
    for i, (path, leaf) in enumerate(zip(paths, map(np.asarray, leaves), strict=True)):
        if ("quadratic" in kind and path.endswith("phi")) or (path.endswith("psi") and not leaf.any()):
            continue  # a step to one side is refused
        direction = rng.normal(size=leaf.shape) * (np.abs(leaf) + (leaf == 0) * scales.get(path.split(".")[-1], 0.0))
        if path.endswith(("covariance", "cross_impact")):
            direction = (direction + direction.T) / 2
        if path.endswith("times"):
            direction = 0.1 * rng.normal(size=leaf.shape) * np.diff(leaf).min()
        along = [jnp.asarray(direction if j == i else np.zeros(x.shape)) for j, x in enumerate(leaves)]

        def at(k, i=i, leaf=leaf, direction=direction):
            return np.asarray(function(*leaves[:i], jnp.asarray(leaf + k * 1e-3 * direction), *leaves[i + 1 :]))

        numeric = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / 12e-3
        f = np.asarray(forward(*along))
        r = np.sum(np.asarray(reverse[i]) * direction, axis=tuple(range(1, 1 + leaf.ndim)))
        for j in range(2):
            np.testing.assert_allclose(f[j], r[j], rtol=1e-8, atol=1e-9 * size[j], err_msg=path)
            np.testing.assert_allclose(f[j], numeric[j], rtol=1e-5, atol=1e-6 * size[j], err_msg=path)


def test_envelope():
    basket = one("across")
    slope = jax.grad(lambda b: solve_basket(b).objective)(basket)
    s = solve_basket(basket)
    np.testing.assert_allclose(slope.risk_aversion, s.variance / 2, rtol=1e-9)
    trades, length = np.asarray(s.trades), np.diff(np.asarray(basket.grid.times))
    np.testing.assert_allclose(slope.cross_impact, trades.T @ (trades / length[:, None]), rtol=1e-8, atol=1e-2)


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(lambda *x: jnp.stack(x), *[one("", SHARES * (1 + i)) for i in range(3)])


SPOILERS = {
    "shares": (lambda b: b.shares, jnp.nan, jx.Status.NONFINITE_INPUT),
    "not semidefinite": (lambda b: b.covariance, -0.5 * np.eye(3), jx.Status.NONCONVEX),
    "asymmetric": (lambda b: b.covariance, COVARIANCE + np.triu(np.ones((3, 3)), 1) * 1e-3, jx.Status.NONCONVEX),
    "eta": (lambda b: b.cost.eta, 0.0, jx.Status.NONCONVEX),
    "volume": (lambda b: b.market.volume, 0.0, jx.Status.INFEASIBLE),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_a_bad_lane_fails_alone(name, batch):
    """Faults 1, 9, 11 and 16 in traced values: a status, NaN in this lane, and not a bit elsewhere."""
    where, value, status = SPOILERS[name]
    solve = jax.jit(jax.vmap(solve_basket))
    clean, s = solve(batch), solve(eqx.tree_at(where, batch, where(batch).at[1].set(jnp.asarray(value))))
    assert list(np.asarray(s.status)) == [jx.Status.OK, status, jx.Status.OK]
    assert np.all(np.isnan(np.asarray(s.trades)[1]))
    assert np.isfinite(float(s.relative_gap[1]))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(s), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[::2], np.asarray(b)[::2])


def test_gradient_of_a_bad_lane_is_masked(batch):
    bad = eqx.tree_at(lambda b: b.shares, batch, batch.shares.at[1].set(jnp.nan))

    def loss(b, careless):
        s = jax.vmap(solve_basket)(b)
        usable = s.status <= jx.Status.LOCAL
        return jnp.sum(jnp.where(usable | careless, s.objective, 0))

    gradient = jax.jit(jax.grad(loss))
    masked, careless = gradient(bad, False), gradient(bad, True)
    assert all(np.all(np.isfinite(np.asarray(x))) for x in jax.tree.leaves(masked))
    assert np.all(np.isnan(np.asarray(careless.shares)[1]))
    assert np.all(np.isfinite(np.asarray(careless.shares)[0]))
    alone = jax.jit(jax.grad(lambda b: solve_basket(b).objective))(one("", SHARES))
    np.testing.assert_allclose(masked.shares[0], alone.shares, rtol=1e-9)


def test_batch_is_the_single_baskets(batch):
    together = jax.jit(jax.vmap(solve_basket))(batch)
    for i in range(3):
        alone = solve_basket(one("", SHARES * (1 + i)))
        np.testing.assert_allclose(together.inventory[i], alone.inventory, rtol=1e-9, atol=1e-6)


def test_random_baskets_converge():
    """Spreads, dead volume, drift, small and large φ, risk over six decades: certified, or said not to be."""
    rng = np.random.default_rng(0)
    lanes = 100
    spread = np.where(rng.random(lanes) < 0.5, 10 ** rng.uniform(-3, -1, lanes), 0)
    drift = rng.normal(size=(lanes, 3, STEPS)) * np.where(rng.random((lanes, 1, 1)) < 0.5, 0.01, 0)
    volume = VOLUME * np.exp(0.5 * rng.normal(size=(lanes, 3, STEPS))) * (rng.random((lanes, 3, STEPS)) > 0.1)
    factors = rng.normal(size=(lanes, 3, 3)) * 10 ** rng.uniform(-3, 0, (lanes, 1, 3))
    gamma = 10 ** rng.uniform(-8, -3, lanes)

    def build(x, v, drift, phi, psi, factor, gamma):
        market = jax.vmap(lambda v, d: jx.Market(grid(), 0.0, v, drift=d))(v, drift)
        return Basket(x, market, jx.PowerLawCost(ETA, phi, psi), factor @ factor.T, risk_aversion=gamma)

    shares, phi = rng.normal(size=(lanes, 3)) * 2e5, rng.uniform(0.2, 1.3, lanes)
    parts = (shares, volume, drift, phi, spread, factors, gamma)
    s = jax.jit(jax.vmap(lambda *p: solve_basket(build(*p))))(*map(jnp.asarray, parts))
    assert np.mean(np.asarray(s.status) <= jx.Status.OK_INACCURATE) >= 0.99


def test_float32():
    basket = one("")
    single = solve_basket(jax.tree.map(lambda x: x.astype(jnp.float32), basket), throw=True)
    assert single.trades.dtype == jnp.float32
    assert single.flags == jx.Flag.FLOAT32
    np.testing.assert_allclose(single.objective, solve_basket(basket).objective, rtol=1e-5)


def test_refusals():
    market, cost = jx.Market(grid(), 0.0, VOLUME), jx.PowerLawCost(ETA, 0.6)

    def build(shares=(1e5, 1e5), covariance=((1.0, 0.5), (0.5, 1.0)), **options):
        return Basket(np.array(shares), market, cost, np.array(covariance), **options)

    with pytest.raises(ValueError, match=r"semidefinite.*-1"):  # fault 9
        build(covariance=((1.0, 2.0), (2.0, 1.0)))
    with pytest.raises(ValueError, match=r"symmetric.*eigenvalue"):
        build(covariance=((1.0, 0.5), (0.4, 1.0)))
    with pytest.raises(ValueError, match="cross_impact must be symmetric"):
        build(cross_impact=np.array([[0.0, 1.0], [0.5, 0.0]]))
    with pytest.raises(ValueError, match="cross_impact and permanent_impact"):
        build(cross_impact=np.array([[0.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="shares"):
        build(shares=1e5)
    with pytest.raises(ValueError, match="covariance must have shape"):
        build(covariance=np.eye(3))
    with pytest.raises(ValueError, match="2 of them"):
        Basket(np.ones(2), market, [cost], np.eye(2))
    with pytest.raises(ValueError, match="loadings"):
        FactorCovariance(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="basket must be"):
        solve_basket(3.0)  # pyright: ignore
    with pytest.raises(RuntimeError, match="MAX_STEPS"):
        solve_basket(one("spread drift"), BlockLadderNewton(max_steps=1), throw=True)


def test_summary():
    text = solve_basket(one("")).summary()
    assert "OK" in text
    assert "asset 2" in text


@jax.jit
@jax.value_and_grad
def capped_objective(rho_max):
    return jx.solve(capped(rho_max)).objective


def capped(rho_max):
    cost = jx.ParticipationCap(jx.PowerLawCost(ETA, 0.6, 0.004), rho_max)
    return Basket(SHARES, jx.Market(grid(), 0.0, VOLUME), cost, COVARIANCE, risk_aversion=1e-5)


def test_caps_bind_and_have_their_price():
    s = jx.solve(capped(0.08), throw=True)
    rates = np.abs(np.asarray(s.trades)) / (VOLUME * np.diff(np.asarray(s.times)))[:, None]
    assert np.sum(rates > 0.08 * (1 - 1e-9)) > 2
    assert rates.max() <= 0.08 * (1 + 1e-9)
    value, slope = capped_objective(0.08)
    np.testing.assert_allclose(value, s.objective, rtol=1e-12)
    difference = (capped_objective(0.08 + 1e-6)[0] - capped_objective(0.08 - 1e-6)[0]) / 2e-6
    assert slope < 0
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_caps_that_are_too_tight():
    s = jx.solve(capped(0.01))
    assert s.status == jx.Status.INFEASIBLE
    assert np.all(np.isnan(np.asarray(s.trades)))
    assert np.isnan(capped_objective(0.01)[1])
