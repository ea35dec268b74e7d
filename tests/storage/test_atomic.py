"""Whole files or none, whatever call fails."""

import errno
import io
import json
import os

import numpy as np
import polars as pl
import pytest

from jaxexec import storage
from jaxexec.storage import FileError, backend

CALLS = ("create", "write", "fsync", "close", "replace", "fsync_folder")


class FailAt:
    """Makes the k-th call of the backend fail; counts the calls."""

    def __init__(self, monkeypatch, k, code=errno.ENOSPC, from_then_on=False):
        self.count = 0
        for name in (*CALLS, "remove"):
            monkeypatch.setattr(backend, name, self.wrap(name, getattr(backend, name), k, code, from_then_on))

    def wrap(self, name, real, k, code, from_then_on):
        def call(*arguments):
            self.count += 1
            if self.count == k or (from_then_on and self.count > k and name != "remove"):
                if name == "close":  # as on Linux: the descriptor is gone, and the error is told
                    real(*arguments)
                raise OSError(code, os.strerror(code))
            return real(*arguments)

        return call


WRITERS = {
    "bytes": lambda path: storage.write_atomic(path, b"new" * 1000),
    "pieces": lambda path: storage.write_atomic(path, lambda sink: [sink.write(b"new") for _ in range(3)]),
    "text": lambda path: storage.write_text(path, "new"),
    "json": lambda path: storage.write_json(path, {"new": 1}),
    "parquet": lambda path: storage.write_parquet(path, pl.DataFrame({"new": [1, 2]})),
}


def calls_needed(write, path, monkeypatch):
    with monkeypatch.context() as patch:
        counter = FailAt(patch, k=0)
        write(path)
    return counter.count


@pytest.mark.parametrize("from_then_on", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_failure_at_any_call_leaves_the_old_file_or_the_new_one(writer, from_then_on, tmp_path, monkeypatch):
    write = WRITERS[writer]
    whole = write(tmp_path / "whole").read_bytes()
    total = calls_needed(write, tmp_path / "whole", monkeypatch)
    assert total >= 6
    target = tmp_path / "target"
    for k in range(1, total + 1):
        target.write_bytes(b"old")
        with monkeypatch.context() as patch:
            FailAt(patch, k, from_then_on=from_then_on)
            with pytest.raises(FileError, match="no space left on device") as caught:
                write(target)
        assert caught.value.path == target
        assert "space" in caught.value.remedy
        seen = target.read_bytes()
        assert seen == (whole if k == total else b"old")  # the last call flushes the folder, after the rename
        assert sorted(p.name for p in tmp_path.iterdir()) == ["target", "whole"]


def test_short_writes_are_completed(tmp_path, monkeypatch):
    real = backend.write
    monkeypatch.setattr(backend, "write", lambda descriptor, data: real(descriptor, data[:7]))
    data = bytes(range(256))
    assert storage.write_atomic(tmp_path / "f", data).read_bytes() == data


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted(sink):
        sink.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_atomic(tmp_path / "f", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    link = tmp_path / "link"
    link.symlink_to(outside)
    storage.write_text(link, "new")
    assert outside.read_text() == "untouched"
    assert not link.is_symlink()
    with pytest.raises(FileExistsError):
        backend.create(outside)


def test_writing_where_it_cannot_be_names_the_remedy(tmp_path):
    with pytest.raises(FileError, match="Check the path"):
        storage.write_text(tmp_path / "missing" / "f", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="folder"):
        storage.write_text(tmp_path / "folder", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_json_is_strict_sorted_and_deterministic(tmp_path):
    value = {
        "b": np.float64(np.nan),
        "a": [np.int64(3), 1.5, float("inf")],
        "x": np.arange(2),
        "t": True,
        1: None,
    }
    text = storage.write_json(tmp_path / "f.json", value).read_text()
    assert json.loads(text) == {"b": None, "a": [3, 1.5, None], "x": [0, 1], "t": True, "1": None}
    assert "NaN" not in text and text.index('"a"') < text.index('"b"')
    with pytest.raises(TypeError, match="object"):
        storage.to_json({"a": object()})


def test_text_is_utf8_whatever_it_holds(tmp_path):
    assert storage.write_text(tmp_path / "f", "η\n\ud800").read_bytes() == b"\xce\xb7\n\\ud800"


def test_parquet_survives_the_round_trip(tmp_path):
    frame = pl.DataFrame({"symbol": ["A", "=1+1", ""], "x": [1.5, None, float("nan")], "n": [1, 2, 3]})
    storage.write_parquet(tmp_path / "f.parquet", frame)
    assert storage.read_parquet(tmp_path / "f.parquet").equals(frame)
    assert storage.write_parquet(tmp_path / "g.parquet", frame).read_bytes() == (tmp_path / "f.parquet").read_bytes()


def test_the_sink_is_a_file_that_can_only_be_written(tmp_path):
    def write(sink):
        assert isinstance(sink, io.RawIOBase) and sink.writable() and not sink.readable()
        assert sink.write(memoryview(b"abc")) == 3 and sink.tell() == 3

    storage.write_atomic(tmp_path / "f", write)
