"""The equilibrium from the command line."""

import json

import numpy as np
import polars as pl

import jaxexec as jx
from jaxexec.storage import Manifest


def test_equilibrium(cli, tmp_path):
    words = ("equilibrium", "--periods", "10", "--risk-aversion", "2", "--preference", "cara", "--noise-curve", "3")
    said = cli(*words, "--shares", "4", "--liquidator-risk-aversion", "5", "--out", "out")
    assert said.code == 0 and "price impact" in said.out and "taken for informed" in said.out
    manifest = Manifest.verify(tmp_path / "out")
    assert {"equilibrium.parquet", "equilibrium.svg", "liquidations.svg", "leakage.svg"} < set(manifest.outputs)
    table = pl.read_parquet(tmp_path / "out" / "equilibrium.parquet")
    noise = table["noise_variance"].to_numpy()
    assert abs(noise.mean() - 1) < 1e-12 and noise[0] > 3 * noise[4]
    exact = jx.kyle.solve(1.0, noise, 10, 2.0, "cara")
    np.testing.assert_allclose(table["price_impact"], exact.price_impact, rtol=1e-12)


def test_json_and_what_is_refused(cli):
    said = cli("equilibrium", "--periods", "3", "--json", "--out", "out")
    answer = json.loads(said.out)
    assert answer["status"] == "OK" and abs(answer["expected_profit"] - 1.1900992913516732) < 1e-12
    for words, message in (
        (("--periods", "0"), "periods must be between 1"),
        (("--prior-variance", "-1"), "prior_variance must be positive"),
        (("--insiders", "2", "--shares", "3"), "one insider"),
        (("--noise-curve", "-2"), "noise_curve must be finite"),
        (("--liquidator-risk-aversion", "-1"), "liquidator_risk_aversion must be finite and at least 0"),
    ):
        refused = cli("equilibrium", *words, "--out", "other")
        assert refused.code == 2 and message in refused.err


def test_manipulation_without_end_is_said(cli):
    """A liquidator who minds no risk against the steep rule before a CARA insider: a null cost needs its reason."""
    words = ("--periods", "50", "--risk-aversion", "2", "--preference", "cara", "--shares", "5", "--out", "out")
    said = cli("equilibrium", *words)
    assert said.code == 3 and "taken for informed: UNBOUNDED" in said.out + said.err
    assert "--liquidator-risk-aversion" in said.out + said.err
