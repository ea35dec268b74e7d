"""How every benchmark measures, and the one record that it leaves.

The compilation is timed apart from the run, the run is warmed up and waited for, and the median of several is kept.
Ratios are formed within one run only: the machine, its load and the versions are then the same on both sides.
"""

import dataclasses
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxexec

RESULTS = Path(__file__).parent / "results"
_VERSIONS = ("jax", "jaxlib", "numpy", "scipy", "casadi", "cvxpy", "clarabel", "diffrax", "statsmodels")
_VERSIONS += ("slippage-tca", "almgren-chriss", "tclf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement of jaxexec beside one of a peer.

    Attributes:
        case: What was done.
        size: How much of it, by name: orders, steps, trades.
        device: Device that jaxexec ran on.
        dtype: Precision of jaxexec.
        versions: Package to version, and the Python that ran them.
        compile_seconds: Tracing and compiling, once for all inputs of this shape.
        run_seconds: One unit of work (an order, a trade) by jaxexec; the note says of which clock.
        error: Error of jaxexec; the note says of what, against what.
        peer: What did the same work in the same process.
        peer_seconds: The same unit of work by the peer.
        peer_error: The same error of the peer.
        ratio: peer_seconds / run_seconds.
        note: What a careful reader must know.
        created: Date and time, UTC.
    """

    case: str
    size: dict[str, int]
    device: str
    dtype: str
    versions: dict[str, str]
    compile_seconds: float | None = None
    run_seconds: float | None = None
    error: float | None = None
    peer: str = ""
    peer_seconds: float | None = None
    peer_error: float | None = None
    ratio: float | None = None
    note: str = ""
    created: str = ""


class Program(NamedTuple):
    """A compiled function of given arguments, warmed up."""

    run: Callable[[], Any]
    result: Any
    compile_seconds: float


def compiled(function: Callable[..., Any], *arguments: Any) -> Program:
    """Compile `function` for these arguments and run it once; `run` waits for its result."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start

    def run() -> Any:
        return jax.block_until_ready(program(*arguments))

    return Program(run, run(), seconds)


def median_seconds(
    *works: Callable[[], Any], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, ...]:
    """Median seconds of each work, which must have finished when it returns.

    They take turns, so that what else the machine does falls on all of them.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, taken in zip(works, seconds, strict=True):
            start = clock()
            work()
            taken.append(clock() - start)
    return tuple(statistics.median(taken) for taken in seconds)


def clock() -> float:
    """Processor seconds; seconds by the wall where jaxexec runs on another device, whose work that clock misses."""
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()


def seconds_of(unit: str, peer_on_host: bool = True) -> str:
    """What `clock` counted, for a row's note."""
    if jax.default_backend() == "cpu":
        return f"processor seconds {unit}, one core"
    return f"seconds {unit} by the wall" + (", the peer on one core of the host" if peer_on_host else "")


def on_host(tree: Any) -> Any:
    """The arrays on the host's processor, where a peer works that solves one problem at a time."""
    return jax.device_put(tree, jax.devices("cpu")[0])


def row(case: str, *, size: dict[str, int], dtype: str = "float64", **fields: Any) -> Row:
    """A row with what every row has: device, versions, date, and the ratio where there are two times."""
    ours, theirs = fields.get("run_seconds"), fields.get("peer_seconds")
    ratio = theirs / ours if ours and theirs else None
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Row(
        case=case, size=size, device=device(), dtype=dtype, versions=versions(), ratio=ratio, created=created, **fields
    )


def device() -> str:
    """The default device in words."""
    first = jax.devices()[0]
    kind = platform.processor() or platform.machine() if first.platform == "cpu" else first.device_kind
    return f"{first.platform} ({kind})"


def versions() -> dict[str, str]:
    """Versions of what took part, where installed."""
    found = {"python": platform.python_version(), "jaxexec": jaxexec.__version__}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peer(name: str) -> Any:
    """The module of a peer, or None where it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def save(name: str, rows: Sequence[Row], folder: Path = RESULTS) -> Path:
    """Write the rows of one benchmark on one kind of device, in place of those of its last run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{jax.devices()[0].platform}.jsonl"
    path.write_text("".join(json.dumps(_plain(r), ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def load(name: str, folder: Path = RESULTS) -> list[Row]:
    """The rows of one benchmark on all kinds of devices, the CPU first."""
    lines = []
    for path in sorted(folder.glob(f"{name}-*.jsonl"), key=lambda p: ("-cpu" not in p.name, p.name)):
        lines += path.read_text(encoding="utf-8").splitlines()
    return [Row(**json.loads(line)) for line in lines]


def _plain(record: Row) -> dict[str, Any]:
    """Four significant digits are more than the noise leaves."""
    fields = dataclasses.asdict(record)
    rounded = {k: float(f"{v:.4g}") for k, v in fields.items() if isinstance(v, float) and math.isfinite(v)}
    unknown = {k: None for k, v in fields.items() if isinstance(v, float) and not math.isfinite(v)}
    return {**fields, **rounded, **unknown}
