"""The examples, and the README's five lines, as their users run them."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(*arguments: str) -> str:
    """Run Python in a process of its own, where a warning is an error; its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_holds(path):
    assert run(str(path))


def test_readme_lines_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) == 5
    assert "OK" in run("-c", blocks[0])


def test_every_example_is_shown_in_the_docs():
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    missing = [path.name for path in EXAMPLES if f'\n--8<-- "examples/{path.name}"\n' not in page]
    assert not missing
