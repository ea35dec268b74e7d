"""Manifests, safe names, and the lock on a folder."""

import json
import os
import pickle
import re
import subprocess
import sys

import pytest

from jaxexec import storage
from jaxexec.storage import FileError, Manifest, safe_name
from jaxexec.storage.lock import LOCK_NAME

HOSTILE = [
    "",
    " ",
    "../../etc/x",
    "/abs",
    "con",
    "a\0b",
    "x" * 10_000,
    "<script>",
    "BRK.B",
    "brk.b",
    "é",
    "=cmd()",
]


def test_names_are_safe_and_never_shared():
    names = [safe_name(symbol) for symbol in HOSTILE]
    assert len({name.lower() for name in names}) == len(HOSTILE)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name) for name in names)
    assert safe_name("BRK.B") == "brk-b-" + safe_name("BRK.B")[-16:]
    assert safe_name("\ud800")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "in.csv").write_text("a\n1\n")
    storage.write_text(tmp_path / "out" / "result.txt", "result")
    manifest = Manifest.of(
        tmp_path / "out",
        ["result.txt"],
        command=["jaxexec", "solve"],
        settings={"risk": float("nan"), "path": tmp_path},
        inputs=[tmp_path / "in.csv"],
        device="cpu",
        precision="float64",
    )
    manifest.write(tmp_path / "out")
    return tmp_path / "out"


def test_a_manifest_is_read_back_and_verified(folder):
    manifest = Manifest.verify(folder)
    assert manifest == Manifest.read(folder)
    assert manifest.command == ("jaxexec", "solve")
    assert manifest.settings["risk"] is None
    assert {"python", "jax", "numpy", "jaxexec"} <= set(manifest.versions)
    assert manifest.outputs["result.txt"] == storage.sha256_file(folder / "result.txt")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest.created)


def test_a_changed_or_missing_output_is_found(folder):
    (folder / "result.txt").write_text("resulu")
    with pytest.raises(FileError, match="changed since"):
        Manifest.verify(folder)
    (folder / "result.txt").unlink()
    with pytest.raises(FileError, match="no such file"):
        Manifest.verify(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": 1, "command": 3}', "[" * 100_000])
def test_a_damaged_manifest_is_a_typed_error(text, folder):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FileError, match="not a manifest"):
        Manifest.read(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"outputs": {"../../etc/passwd": "0"}},
        {"outputs": {"/etc/passwd": "0"}},
        {"outputs": {"result.txt": 3}},
        {"settings": []},
        {"versions": None},
        {"extra": 1},
    ],
)
def test_a_foreign_manifest_is_refused(change, folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FileError):
        Manifest.verify(folder)


def test_an_output_outside_the_folder_cannot_be_listed(folder):
    with pytest.raises(FileError, match="not in the folder"):
        Manifest.of(folder, ["../in.csv"])


def test_a_folder_has_one_run_at_a_time(tmp_path):
    with storage.output_folder(tmp_path / "a" / "b") as held:
        assert (held / LOCK_NAME).read_text() == f"{os.getpid()}\n"
        with pytest.raises(FileError, match=f"process {os.getpid()}"), storage.output_folder(held):
            pass
        assert (held / LOCK_NAME).exists()
    assert list(held.iterdir()) == []
    with storage.output_folder(held):
        pass


def test_a_killed_run_leaves_no_lock_and_its_scraps_are_swept(tmp_path):
    script = (
        "import sys, os\nfrom jaxexec import storage\n"
        "with storage.output_folder(sys.argv[1]) as folder:\n"
        "    storage.write_atomic(folder / 'f', lambda sink: (sink.write(b'half'), os._exit(9)))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == 9
    assert len(list(tmp_path.glob(".jaxexec-*.part"))) == 1 and not (tmp_path / "f").exists()
    with storage.output_folder(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == [LOCK_NAME]


def test_a_folder_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match="choose another path"),
        storage.output_folder(tmp_path / "file" / "x"),
    ):
        pass


def test_errors_travel_between_processes():
    error = FileError("a", "b", "c")
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.reason, again.remedy) == (error.path, error.reason, error.remedy)
