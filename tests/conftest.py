"""Strict numerics for every test: 64 bits, strict promotion of types and ranks, warnings as errors."""

import gc
import getpass
import importlib.metadata
import json
import os
import pathlib
import tempfile

# Compiled programmes are shared by the workers, by the commands and examples that tests start, and with the next run.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / f"jaxexec-tests-{getpass.getuser()}")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Nearly all the time of the tests is compiling, and this halves it. With JAX_DISABLE_MOST_OPTIMIZATIONS=0 and
# XLA_FLAGS= set, all is compiled as a user would.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if importlib.metadata.version("jaxlib") < "0.11":  # later ones know no such flag, and an unknown one ends the process
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


_MAPS = pathlib.Path("/proc/self/maps")
_MANY_MAPS = 20_000


@pytest.fixture(autouse=True)
def few_compiled_programmes():
    """Drop compiled programmes before the process runs out of memory maps: each holds hundreds, Linux allows 65,530."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def references() -> dict:
    """High-precision reference results; skips where they are not at hand."""
    path = SHARED / "math" / "references.json"
    if not path.exists():
        pytest.skip("reference results are not at hand")
    return json.loads(path.read_text())


@pytest.fixture(scope="session")
def taq_sample() -> pathlib.Path:
    """Folder of the real trades and quotes; skips where it is not at hand."""
    path = SHARED / "data" / "taq_sample"
    if not path.exists():
        pytest.skip("the real sample is not at hand")
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need one: without, they skip."""
    marked = [item for item in items if "gpu" in item.keywords]
    if marked and not any(device.platform == "gpu" for device in jax.devices()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))
