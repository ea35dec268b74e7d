"""`jaxexec doctor`: what is here, and what to do about what is wrong."""

import importlib.util
import os
from collections.abc import Iterator

from jaxexec import storage
from jaxexec.cli.options import DEFAULT, Common
from jaxexec.cli.run import print_result, print_tables
from jaxexec.presentation import Table

_OPTIONAL = {
    "polars": ("reading and writing tables", "app"),
    "pyarrow": ("reading Parquet and CSV", "app"),
    "matplotlib": ("figures", "app"),
    "jinja2": ("the report", "app"),
    "ray": ("more than one machine", "ray"),
}


def doctor(*, common: Common = DEFAULT) -> int:
    """Devices, precision, caches and versions, and what to do about what is wrong."""
    rows = [*_versions(), *_packages(), *_computing(common.precision)]
    title = "What is here"
    print_tables([Table(title, ["what", "found", "state", "what to do"], rows)], common)
    names = ("what", "found", "state", "remedy")
    checks = [dict(zip(names, row, strict=True)) for row in rows]
    print_result({"command": "doctor", "checks": checks}, common)
    return 0


def _versions() -> Iterator[tuple[str, str, str, str]]:
    for name, version in storage.versions().items():
        yield name, version, "ok", ""


def _packages() -> Iterator[tuple[str, str, str, str]]:
    for name, (use, extra) in _OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield name, "not installed", "missing", f"for {use}: pip install 'jaxexec[{extra}]'"


def _computing(precision: str) -> Iterator[tuple[str, str, str, str]]:
    """Devices, precision and cache, each tried rather than asked for."""
    from jaxexec.cli import runtime

    found = runtime.start(precision)
    import jax
    import jax.numpy as jnp

    devices = ", ".join(str(device) for device in jax.devices())
    yield "devices", devices, "ok", _accelerator_remedy(jax.default_backend())
    kept = jnp.asarray(1.0).dtype.name
    yield (
        "precision",
        kept,
        "ok" if kept == precision else "wrong",
        "" if kept == precision else "unset JAX_ENABLE_X64",
    )
    yield "processors", str(os.cpu_count()), "ok", ""
    if found.cache is None:
        remedy = f"make {str(runtime.cache_folder())!r} writable, or set XDG_CACHE_HOME"
        yield "compilation cache", "none", "slow", remedy
    else:
        programs = sum(1 for _ in found.cache.iterdir())
        yield "compilation cache", f"{found.cache} ({programs:,} files)", "ok", ""


def _accelerator_remedy(backend: str) -> str:
    """What to install where a GPU is there and JAX does not see it."""
    unseen = backend == "cpu" and os.path.exists("/dev/nvidiactl")  # noqa: PTH110
    return "a GPU is there and unused: pip install 'jaxexec[cuda13]'" if unseen else ""
