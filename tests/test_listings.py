"""The listings of every page of the documentation run, in their order, as one script, and what they assert holds."""

import pathlib
import re

import pytest

from tests.test_examples import run

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def listing(page: pathlib.Path) -> str:
    """The page with all but its Python blanked, so that an error names the page's own line."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        inside = line.startswith("```python") if fence else inside
        lines.append(line if inside and not fence and not line.startswith("--8<--") else "")
    return "\n".join(lines)


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if listing(page).strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_listings_hold(page, tmp_path):
    """`run` asserts that the process ends well, and a warning ends it."""
    script = tmp_path / f"{page.stem}.py"
    script.write_text(listing(page), encoding="utf-8")
    run(str(script))


def test_errata_of_the_page_are_those_that_are_tested():
    """Every erratum of the tests has its place on the page, and the page names no other."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "tests" / "errata").glob("test_*.py"))
    page = (DOCS / "errata.md").read_text(encoding="utf-8")
    assert set(re.findall(r"def test_(E\d\d)_", tests)) == set(re.findall(r"\bE\d\d\b", page))
