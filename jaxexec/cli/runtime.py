"""JAX as a command needs it: precision, device and compilation cache, settled before the first array."""

import dataclasses
import os
import sys
from pathlib import Path

_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Runtime:
    """What computes.

    Attributes:
        device: Platform and kind of the device, such as `cpu` or `gpu (NVIDIA H100)`.
        precision: `float64` or `float32`.
        cache: Folder of compiled programs; None where there is none.
        compile_seconds: Time spent compiling so far.
    """

    device: str
    precision: str
    cache: Path | None
    compile_seconds: float = 0.0


def start(precision: str = "float64") -> Runtime:
    """Set JAX up for this process; call it before the first array.

    Where the accelerator cannot be used the CPU is, and where the cache cannot be written there is none;
    both are said once, on stderr.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.monitoring

    jax.config.update("jax_enable_x64", precision == "float64")
    runtime = Runtime(_device(), precision, enable_cache())

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            runtime.compile_seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    return runtime


def enable_cache() -> Path | None:
    """Keep compiled programs for the next start; their folder, or None where it cannot be written."""
    import jax

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK) or not _is_own(folder):
            raise PermissionError(f"{str(folder)!r} is not yours to write")
    except OSError as error:
        print(f"no compilation cache: {error}; every start will compile again", file=sys.stderr)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def cache_folder() -> Path:
    """The user's own folder for compiled programs, as JAX or the desktop's rules (XDG) name it."""
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxexec" / "compiled"


def _is_own(folder: Path) -> bool:
    """Whether the folder belongs to this user: programs compiled by another are not to be run."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _device() -> str:
    """The default device in words; the CPU where the accelerator refuses."""
    import jax

    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        print(f"the accelerator cannot be used ({reason}); going on with the CPU", file=sys.stderr)
        jax.config.update("jax_platforms", "cpu")
        device = jax.devices()[0]
    kind = device.device_kind
    return device.platform if kind.lower() == device.platform else f"{device.platform} ({kind})"
