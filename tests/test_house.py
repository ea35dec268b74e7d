"""The floors of the house, read from its imports; and that its front door is light."""

import ast
import json
import pathlib
import subprocess
import sys

import pytest

import jaxexec

PACKAGE = pathlib.Path(jaxexec.__file__).parent
FLOORS = [
    {"_version", "numerics", "storage", "presentation"},
    {"market", "costs", "tape", "risk"},
    {"liquidation", "impact", "kyle"},
    {"basket"},
    {"schedules", "solvers", "transient"},
    {"frontier", "intention", "post_trade", "pricing", "simulation"},
    {"sensitivity", "layer"},
    {"calibration", "scale"},
    {"report"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Closed forms check solvers and solvers check closed forms.
STRANGERS = {("schedules", "solvers"), ("solvers", "schedules")}
HEAVY = {"polars", "pyarrow", "matplotlib", "pandas", "rich", "jinja2", "cyclopts", "scipy", "statsmodels"}


def room_of(module: str) -> str:
    return module.split(".")[1]


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "jaxexec":
            yield name, path


def imports(path: pathlib.Path):
    """(module, whether at the top of the file) of every import of the file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from jaxexec import storage` names a room by its second part.
            whole = node.module == "jaxexec"
            names = [f"jaxexec.{a.name}" for a in node.names] if whole else [node.module or ""]
        else:
            continue
        for name in names:
            yield name, id(node) in top


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_a_room_imports_lower_floors_only(name, path):
    room = room_of(name)
    assert room in FLOOR, f"{room} has no floor: give it one in FLOORS"
    for target, _ in imports(path):
        if not target.startswith("jaxexec.") or room_of(target) == room:
            continue
        other = room_of(target)
        if room == "cli" and other not in FLOOR:
            continue  # the command line uses the public face
        assert (room, other) not in STRANGERS
        same_floor = FLOOR[other] == FLOOR[room]
        assert FLOOR[other] < FLOOR[room] or (same_floor and FLOOR[room] == 0), f"{name} imports {target}"


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_heavy_libraries_are_imported_when_used(name, path):
    if room_of(name) == "cli":
        return
    for target, at_top in imports(path):
        assert not (at_top and target.split(".")[0] in HEAVY), f"{name} imports {target} at its top"


def test_no_rooms_without_a_name():
    forbidden = {"utils", "core", "base", "helpers", "common", "misc"}
    assert not [n for n, _ in modules() if set(n.split(".")) & forbidden]


def test_files_stay_small():
    long = {n: lines for n, p in modules() if (lines := len(p.read_text().splitlines())) > 500}
    assert not long


def run(code: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_import_is_lazy_and_makes_no_backend():
    code = """
import json, sys
import jaxexec
light = sorted(m for m in ('jax', 'numpy', 'polars', 'equinox') if m in sys.modules)
for name in ('Market', 'PowerLawCost', 'Liquidation', 'solve', 'almgren_chriss', 'efficient_frontier', 'Status',
             'calibrate', 'tape', 'impact'):
    getattr(jaxexec, name)
from jax._src import xla_bridge
heavy = sorted(m for m in ('polars', 'matplotlib', 'pyarrow', 'rich', 'jinja2', 'pandas', 'scipy') if m in sys.modules)
print(json.dumps({'light': light, 'heavy': heavy, 'backends': sorted(xla_bridge._backends)}))
"""
    assert run(code) == {"light": [], "heavy": [], "backends": []}


def test_names():
    assert set(jaxexec.__all__) == set(dir(jaxexec))
    for name in jaxexec.__all__:
        assert getattr(jaxexec, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = jaxexec.nothing_of_the_kind
