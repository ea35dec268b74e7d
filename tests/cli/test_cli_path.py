"""The whole path: the demonstration, then the same day command by command."""

import datetime
import json
import math

import numpy as np
import polars as pl
import pytest

from jaxexec.storage import Manifest
from jaxexec.tape import synthetic


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """Files of a small synthetic day."""
    return synthetic.write(tmp_path_factory.mktemp("day"), stocks=4, trades=300, seed=1)


def test_command_by_command(day, cli, tmp_path):
    said = cli("clean", day["trades"], day["quotes"], "--midpoint", "keep", "--out", "signed", "--json")
    assert said.code == 0 and json.loads(said.out)["balanced"] and json.loads(said.out)["symbols"] == 4
    assert cli("impact", "signed", "--out", "impact", "--quiet").code == 0
    frame = pl.read_parquet(tmp_path / "impact" / "impact.parquet")
    assert frame.height == 16 and set(frame["status"]) == {"OK"}
    assert cli("calibrate", "signed", "--out", "markets", "--quiet").code == 0
    assert len(list((tmp_path / "markets").glob("*.toml"))) == 4
    (tmp_path / "o.csv").write_text("id,symbol,side,qty,start,end\n1,S00001,SELL,2000,09:30,12:00\n2,ZZZ,BUY,1,0,1\n")
    said = cli("solve", "o.csv", "--market", "markets", "--steps", "6", "--out", "solved", "--json")
    assert said.code == 3 and json.loads(said.out)["failed"] == 1
    market = next((tmp_path / "markets").glob("market-s00001*.toml"))
    said = cli("frontier", "-2000", "--market", market, "--points", "3", "--steps", "6", "--out", "frontier")
    assert said.code == 0 and (tmp_path / "frontier" / "frontier.svg").read_bytes().startswith(b"<?xml")
    assert cli("report", "signed", "impact", "markets", "solved", "frontier", "--out", "page").code == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("<section") == 5 and "data:image/svg+xml;base64," in page and "<script" not in page

    (tmp_path / "impact" / "impact.svg").write_text("<svg/>")
    said = cli("report", "impact", "--out", "page")
    assert said.code == 2 and "changed since" in said.err
    (tmp_path / "signed" / "ledger.json").write_text("{}")
    assert cli("impact", "signed", "--out", "again").code == 2


def test_a_day_in_parts_is_the_day(cli, tmp_path):
    """Signed part by part, cut short and taken up again: the same trades, ledger and estimates."""
    files = synthetic.write(tmp_path / "day", stocks=6, trades=200, seed=2, bucket=1)
    words = ("clean", files["trades"], files["quotes"], "--json")
    assert json.loads(cli(*words, "--out", "whole").out)["trades"] == 1200
    parts = (*words, "--memory", "9e-4", "--out", "parts")
    said = json.loads(cli(*parts).out)
    assert said["parts"] == 3 and said["resumed"] == 0 and said["balanced"] and said["symbols"] == 6
    whole, cut = ({f.name: f for f in (tmp_path / name).glob("signed-*")} for name in ("whole", "parts"))
    assert len(cut) == 3
    assert pl.concat([pl.read_parquet(cut[name]) for name in sorted(cut)]).equals(pl.read_parquet(*whole.values()))
    before = json.loads((tmp_path / "parts" / "ledger.json").read_text())["ledger"]
    assert before["read"] == {"trades": 1200, "quotes": 1200}

    (tmp_path / "parts" / "part-0001.json").unlink()
    sorted(cut.items())[2][1].unlink()
    said = json.loads(cli(*parts, "--resume").out)
    assert said["resumed"] == 1 and said["trades"] == 1200
    assert json.loads((tmp_path / "parts" / "ledger.json").read_text())["ledger"] == before
    assert json.loads(cli(*parts, "--resume", "--rule", "quote").out)["resumed"] == 0
    assert json.loads(cli(*parts, "--resume").out)["resumed"] == 0

    for name in ("whole", "parts"):
        assert cli("impact", name, "--out", f"impact-{name}", "--quiet").code == 0
    frames = [pl.read_parquet(tmp_path / f"impact-{name}" / "impact.parquet") for name in ("whole", "parts")]
    assert frames[0]["symbol"].equals(frames[1]["symbol"])
    np.testing.assert_allclose(frames[0]["estimate"], frames[1]["estimate"], rtol=1e-12)


def test_days_that_were_signed_apart_are_measured_together(cli, tmp_path):
    from jaxexec import impact, tape

    for day in (1, 2):
        date = datetime.date(2024, 7, day)
        files = synthetic.write(tmp_path / f"raw{day}", stocks=3, trades=150 * day, seed=day, date=date)
        words = ("clean", files["trades"], files["quotes"], "--midpoint", "keep", "--quiet", "--out", f"day{day}")
        assert cli(*words).code == 0
    signed = [pl.read_parquet(tmp_path / f"day{day}" / f"signed-2024-07-0{day}.parquet") for day in (1, 2)]
    pooled = tape.SignedTape.from_frames(pl.concat(signed))

    assert cli("impact", "day1", "day2", "--out", "impact", "--quiet").code == 0
    found, whole = pl.read_parquet("impact/impact.parquet"), impact.glosten_harris(pooled).table()
    assert found["symbol"].equals(whole["symbol"]) and found["n"].equals(whole["n"])
    np.testing.assert_allclose(found["std_error"], whole["std_error"], rtol=1e-9)
    assert (tmp_path / "impact" / "pairs.svg").exists()

    said = cli("measures", "day1", "day2", "--out", "measures", "--only", "spreads", "--only", "roll", "--json")
    assert said.code == 0 and json.loads(said.out)["measures"] == ["spreads", "roll"]
    found = pl.read_parquet("measures/measures.parquet")
    parts = [impact.spread_measures(pooled).table(), impact.roll_spread(pooled).table()]
    np.testing.assert_allclose(found["estimate"], pl.concat(parts)["estimate"], rtol=1e-12)
    assert (tmp_path / "measures" / "roll.svg").read_bytes().startswith(b"<?xml")

    for command in ("impact", "measures"):
        said = cli(command, "day1", "day1", "--out", "twice")
        assert said.code == 2 and "2024-07-01 in two tapes" in said.err


def test_measures_of_a_tape_without_quotes(day, cli, tmp_path):
    """What needs quotes is left out and said; parts of a stream are joined; a stock that fails is exit code 3."""
    assert cli("clean", day["trades"], "--rule", "tick", "--out", "ticks", "--quiet").code == 0
    said = cli("measures", "ticks", "--only", "spreads", "--only", "hasbrouck", "--out", "m", "--json")
    result = json.loads(said.out)
    assert said.code == 0 and result["measures"] == ["hasbrouck"] and "no quotes" in said.err
    assert set(pl.read_parquet("m/measures.parquet")["kind"]) == {"hasbrouck"}
    frame = pl.read_parquet(next((tmp_path / "ticks").glob("signed-*")))
    few = pl.concat([frame, frame.head(2).with_columns(symbol=pl.lit("Z"))])
    few.write_parquet("few.parquet")
    said = cli("measures", "few.parquet", "--only", "roll", "--out", "m", "--json")
    assert said.code == 3 and json.loads(said.out)["failed"] == {"roll": 1} and json.loads(said.out)["stocks"] == 5
    assert cli("measures", "few.parquet", "--winsorise", "0.7").code == 2


def test_clean_takes_vendors_files_and_every_rule(day, cli, tmp_path):
    messages = "34200.5,4,1,18,5853300,1\n34201,4,2,7,5853400,-1\n34202,1,3,7,5853300,1\n"
    (tmp_path / "AAPL_2012-06-21_34200000_57600000_message_1.csv").write_text(messages)
    (source,) = tmp_path.glob("AAPL*")
    assert cli("clean", source, "--rule", "given", "--out", "given", "--quiet").code == 0
    signed = pl.read_parquet(tmp_path / "given" / "signed-2012-06-21.parquet")
    assert signed["sign"].to_list() == [-1, 1] and set(signed["symbol"]) == {"AAPL"}
    assert cli("clean", day["trades"], day["quotes"], "--rule", "clnv", "--out", "clnv", "--quiet").code == 0
    said = cli("clean", day["trades"], day["quotes"], "--interpolate", "1s", "--out", "spread")
    assert said.code == 2 and "times finer than '1s'" in said.err


def test_the_demonstration(cli, tmp_path):
    said = cli("demo", "--stocks", "4", "--orders", "10", "--out", "demo")
    assert said.code == 0, said.err
    for words in ("Synthetic stock S00000: truth and estimate", "orders a second", "worst relative duality gap"):
        assert words in said.out
    assert "0.6071" in said.out and "911,227" in said.out and "device cpu, precision float64" in said.err
    assert "report.html" in said.err
    Manifest.verify(tmp_path / "demo")
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<section") == 7 and page.count("<svg") == 6 and "Synthetic" in page
    facts = {row[0]: row[1] for table in _tables(tmp_path, "Schedules") for row in table["rows"]}
    assert facts["scheduled"] == 10 and 0 <= facts["worst relative duality gap"] < 1e-8
    for row in _tables(tmp_path, "Sensitivities")[0]["rows"]:
        assert math.isclose(row[1], row[2], rel_tol=1e-3), row
    for row in _tables(tmp_path, "Almgren and Chriss (2000)")[0]["rows"][2:]:
        assert math.isclose(row[2], row[3], rel_tol=1e-6, abs_tol=1e-3), row


def _tables(folder, title):
    document = json.loads((folder / "demo" / "presentation.json").read_text())
    return [table for table in document["tables"] if table["title"] == title]


def test_the_demonstration_on_given_files(day, cli, tmp_path):
    words = ("--trades", day["trades"], "--quotes", day["quotes"], "--orders", "5", "--midpoint", "keep")
    said = cli("demo", *words, "--out", "demo", "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result["trades signed"] == 1200 and "synthetic-trades.parquet" not in result["files"]
    assert "Your trades and quotes" in (tmp_path / "demo" / "report.html").read_text()
    assert set(Manifest.read(tmp_path / "demo").inputs) == {str(day["trades"]), str(day["quotes"])}


def test_a_clean_that_fails_leaves_no_empty_folder(day, cli, tmp_path):
    """Where there was a folder before, or something was written, it stays."""
    assert cli("clean", day["trades"], day["quotes"], "--lag", "soon", "--out", "new").code == 2
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert cli("clean", day["trades"], day["quotes"], "--lag", "soon", "--out", "old").code == 2
    assert list((tmp_path / "old").iterdir()) == []


def test_clean_takes_the_nbbo_in_two_files(day, cli, tmp_path):
    quotes = pl.read_parquet(day["quotes"])
    lone = quotes.with_columns(natbbo_ind=pl.lit("1"), qu_source=pl.lit("C")).filter(pl.col("qu_seqnum") % 2 == 0)
    rest = quotes.filter(pl.col("qu_seqnum") % 2 == 1).rename({"bid": "best_bid", "ask": "best_ask"})
    lone.write_parquet(tmp_path / "cqm.parquet")
    rest.drop("bidsiz", "asksiz", "ex").write_parquet(tmp_path / "nbbom.parquet")
    whole = ("clean", day["trades"], day["quotes"], "--out", "whole", "--quiet")
    pair = ("clean", day["trades"], tmp_path / "cqm.parquet", "--nbbo", tmp_path / "nbbom.parquet", "--out", "pair")
    assert cli(*whole).code == 0 and cli(*pair, "--quiet").code == 0
    frames = [pl.read_parquet(*(tmp_path / name).glob("signed-*")) for name in ("whole", "pair")]
    assert frames[0].equals(frames[1])
