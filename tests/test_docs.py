"""The documentation names everything public, and the stub file says what the package has."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest

import jaxexec as jx

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROOMS = ("tape", "impact", "kyle", "intention", "storage", "presentation", "report", "calibration")
ROOMS += ("sensitivity", "layer")
REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.md")))
DIRECTIVES = re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE)


def _public() -> list[str]:
    names = [f"jaxexec.{name}" for name in jx.__all__]
    for room in ROOMS:
        names += [f"jaxexec.{room}.{name}" for name in getattr(getattr(jx, room), "__all__", ())]
    return names


def _value(path: str):
    """What a dotted path names."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise AttributeError(path)


@pytest.mark.parametrize("path", _public())
def test_public_name_is_documented(path):
    value = _value(path)
    if inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value):
        assert value.__doc__ and value.__doc__.strip(), "no docstring"
    name = path.rsplit(".", 1)[-1]
    described = any(directive.rsplit(".", 1)[-1] == name for directive in DIRECTIVES)
    mentioned = inspect.ismodule(value) or name == "__version__"
    assert described or (mentioned and f"{name}`" in REFERENCE), "not in docs/reference"


@pytest.mark.parametrize("path", DIRECTIVES)
def test_reference_names_what_exists(path):
    assert _value(path) is not None


def test_stub_agrees_with_the_package():
    tree = ast.parse((ROOT / "jaxexec" / "__init__.pyi").read_text(encoding="utf-8"))
    stub = {}
    for node in tree.body:
        assert isinstance(node, ast.ImportFrom)
        stub |= {alias.asname: (node.module, alias.name) for alias in node.names}
    assert sorted(stub) == sorted(jx.__all__)
    for name, (home, original) in stub.items():
        assert getattr(jx, name) is getattr(importlib.import_module(home), original, getattr(jx, name)), name


def test_links_between_pages_hold():
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_included_files_exist():
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r'^--8<-- "(.+)"$', page.read_text(encoding="utf-8"), re.MULTILINE):
            assert (ROOT / target).exists(), f"{page.name} includes {target}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md") if "generated" not in p.parts]
    assert not [page for page in pages if page not in navigation]


def test_every_command_is_described():
    from jaxexec.cli.app import _COMMANDS

    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"`jaxexec (\w+)[^`]*` \|", page))) == sorted(_COMMANDS)


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 60
