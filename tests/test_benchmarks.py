"""The benchmarks run, their rows survive the file, and the README shows what the rows say."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import evidence, harness

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*words: str) -> str:
    """One benchmark command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["almgren_chriss", "gradients", "tape_stage"])
def test_quick_run(name):
    before = {path: path.read_bytes() for path in harness.RESULTS.glob("*")}
    out = run(name, "--quick")
    assert "ratio" in out
    assert "saved" not in out
    assert before == {path: path.read_bytes() for path in harness.RESULTS.glob("*")}


def test_rows_survive_the_file(tmp_path):
    made = [
        harness.row("case", size={"orders": 3}, run_seconds=2.0, peer="peer", peer_seconds=5.0, note="η"),
        harness.row("case", size={"orders": 3}, error=float("nan")),
    ]
    path = harness.save("name", made, tmp_path)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    back = harness.load("name", tmp_path)
    assert back[0] == made[0]
    assert back[0].ratio == 2.5
    assert back[1].error is None


def test_saved_rows_have_the_schema():
    for path in harness.RESULTS.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = harness.Row(**json.loads(line))
            assert row.versions["jax"]
            assert row.created
            if row.ratio is not None and row.run_seconds and row.peer_seconds:
                assert row.ratio == pytest.approx(row.peer_seconds / row.run_seconds, rel=1e-3)


def test_documents_are_in_step_with_the_rows():
    assert evidence.main(check=True) == 0


def test_a_changed_row_is_noticed(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(evidence.README.read_text(encoding="utf-8").replace("| ", "|  ", 3), encoding="utf-8")
    monkeypatch.setattr(evidence, "README", readme)
    assert evidence.main(check=True) == 1
    assert evidence.main() == 0
    assert evidence.main(check=True) == 0


def test_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        evidence.replaced("no markers", "table")
