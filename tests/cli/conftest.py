"""Command lines are run in an empty folder, with a compilation cache of their own."""

import contextlib
import io
from typing import NamedTuple

import jax
import pytest

from jaxexec.cli import main

_CHANGED = (
    "jax_enable_x64",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


class Said(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def clean_place(tmp_path, monkeypatch, cache_home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAXEXEC_DEBUG", raising=False)
    before = {name: getattr(jax.config, name) for name in _CHANGED}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def cli():
    """Runs a command line in this process."""

    def run(*words):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
        return Said(code, out.getvalue(), err.getvalue())

    return run
