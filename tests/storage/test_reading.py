"""Damaged and hostile files give a `FileError` that names the path and the remedy."""

import gzip
import os
import random

import numpy as np
import polars as pl
import pytest

from jaxexec import storage
from jaxexec.storage import FileError


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.parquet"
    random_numbers = np.random.default_rng(0).normal(size=4000)
    storage.write_parquet(path, pl.DataFrame({"x": random_numbers, "y": random_numbers[::-1]}))
    return path.read_bytes()


def damaged(good):
    footer = int.from_bytes(good[-8:-4], "little")
    yield "empty", b""
    yield "magic only", b"PAR1"
    yield "two magics", b"PAR1PAR1"
    yield "text", b"symbol,price\nA,1\n"
    yield "huge footer length", good[:-8] + b"\xff\xff\xff\x7fPAR1"
    yield "footer of zeros", good[: -8 - footer] + bytes(footer) + good[-8:]
    for share in (0.1, 0.5, 0.9, 0.999):
        yield f"cut at {share}", good[: int(len(good) * share)]


def test_damaged_parquet_is_a_typed_error(parquet, tmp_path):
    for name, data in damaged(parquet):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(data)
        with pytest.raises(FileError, match=r"again") as caught:
            storage.read_parquet(path)
        assert caught.value.path == path, name


def test_a_flipped_bit_in_a_page_is_found_by_its_checksum(parquet, tmp_path):
    path = tmp_path / "flipped.parquet"
    position = random.Random(1)
    for _ in range(20):
        data = bytearray(parquet)
        data[position.randrange(200, len(data) // 2)] ^= 1 << position.randrange(8)
        path.write_bytes(data)
        with pytest.raises(FileError):
            storage.read_parquet(path)


def test_columns_are_checked_and_selected(parquet, tmp_path):
    path = tmp_path / "f.parquet"
    path.write_bytes(parquet)
    assert storage.read_parquet(path, columns=["y"]).columns == ["y"]
    with pytest.raises(FileError, match="no column 'price'"):
        storage.read_parquet(path, columns=["x", "price"])


def test_a_bomb_is_refused_by_its_metadata(tmp_path):
    path = tmp_path / "zeros.parquet"
    storage.write_parquet(path, pl.DataFrame({"x": np.random.default_rng(0).integers(0, 2**60, 100_000)}))
    with pytest.raises(FileError, match="more than the 1,000 allowed"):
        storage.read_parquet(path, max_bytes=1000)
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"x\n" + b"0\n" * 1_000_000))
    with pytest.raises(FileError, match="decompressed"):
        storage.read_csv(bomb, max_bytes=10_000)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(FileError, match="regular"):
            storage.open_regular(name)
    for name in (tmp_path / "missing", tmp_path / "loop", "a\0b"):
        with pytest.raises(FileError):
            storage.sha256_file(name)


def test_csv_is_read_as_text_and_nothing_is_guessed(tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes('\ufeffsymbol,quantity,note\r\nTRUE,007,\r\n"=1+1","1e999","a\nb"\r\n'.encode())
    frame = storage.read_csv(path)
    assert frame.schema == {"symbol": pl.String, "quantity": pl.String, "note": pl.String}
    assert frame.rows() == [("TRUE", "007", None), ("=1+1", "1e999", "a\nb")]
    zipped = tmp_path / "f.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert storage.read_csv(zipped).equals(frame)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n1,2\n", "no header"),
        (b"a,a\n1,2\n", "repeats 'a'"),
        (b"a,b\n1\n", "not a CSV table"),
        (b"a\xff,b\n1,2\n", "not UTF-8"),
        (b"a,b\n\xff,2\n", "not a CSV table"),
        (b"\x1f\x8b\x08\x00garbage", "gzip"),
    ],
)
def test_bad_csv_says_what_is_wrong(data, reason, tmp_path):
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    with pytest.raises(FileError, match=reason):
        storage.read_csv(path)


def test_text_is_bounded_and_utf8(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    assert storage.read_text(path) == "x" * 100
    with pytest.raises(FileError, match="larger than 10 bytes"):
        storage.read_text(path, max_bytes=10)
    path.write_bytes(b"ab\xff")
    with pytest.raises(FileError, match="byte 2"):
        storage.read_text(path)
