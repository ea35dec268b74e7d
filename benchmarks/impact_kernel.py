"""The C kernel that impact estimates are compared with: built with gcc when it is asked for, called through ctypes."""

import ctypes
import math
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

SOURCE = Path(__file__).parent / "impact_kernel.c"
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp-simd", "-shared", "-fPIC")
ORDER, TERMS = 5, 4


class Tape(NamedTuple):
    """Trades of all stocks, one stock after the other."""

    flow: np.ndarray
    change: np.ndarray
    offsets: np.ndarray
    lags: np.ndarray


class Kernel:
    """`impact_kernel.c`, compiled."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="jaxexec-kernel-")
        library = Path(self._folder.name) / "impact.so"
        subprocess.run(["gcc", *FLAGS, str(SOURCE), "-o", str(library), "-lmvec", "-lm"], check=True)
        self._library = ctypes.CDLL(str(library))

    def estimate(self, tape: Tape, hac: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Estimates and, for `hac`, Newey–West standard errors of all stocks, (stocks, 4)."""
        stocks = len(tape.offsets) - 1
        products = self._call("flow_products", (stocks, 7, 7), tape.flow, tape.offsets, stocks)
        flow_fit = _flow_fit(products)
        gram = self._call("column_products", (stocks, 6, 6), tape.flow, tape.change, tape.offsets, stocks, flow_fit)
        count = gram[:, 0, 0]
        mean = gram[:, 0, 1:] / count[:, None]
        centred = gram[:, 1:, 1:] - count[:, None, None] * mean[:, :, None] * mean[:, None]
        inverse = np.linalg.inv(centred[:, :TERMS, :TERMS])
        slopes = (inverse @ centred[:, :TERMS, TERMS:])[..., 0]
        if not hac:
            return slopes, None
        line = np.ascontiguousarray(np.hstack([slopes, mean]))
        sums = self._call(
            "score_sums", (stocks, 22), tape.flow, tape.change, tape.offsets, stocks, flow_fit, line, tape.lags
        )
        slopes = slopes + (inverse @ sums[:, 16:20, None])[..., 0]
        meat = sums[:, :16].reshape(stocks, TERMS, TERMS) / (tape.lags + 1)[:, None, None]
        return slopes, np.sqrt(np.einsum("sii->si", inverse @ meat @ inverse))

    def _call(self, name: str, shape: tuple[int, ...], *arguments) -> np.ndarray:
        out = np.empty(shape)

        def passed(x):
            return x.ctypes.data_as(ctypes.c_void_p) if isinstance(x, np.ndarray) else ctypes.c_int64(x)

        getattr(self._library, name)(*map(passed, (*arguments, out)))
        return out


def _flow_fit(products: np.ndarray) -> np.ndarray:
    """Intercept, weights and 1/(σ√2) of each stock from Gram matrices of (1, lags, flow)."""
    k = ORDER + 1
    fit = np.linalg.solve(products[:, :k, :k], products[:, :k, k:])[..., 0]
    residual = products[:, k, k] - (fit * products[:, :k, k]).sum(1)
    deviation = np.sqrt(residual / (products[:, 0, 0] - k))
    return np.ascontiguousarray(np.column_stack([fit, 1 / (deviation * math.sqrt(2))]))


def available() -> bool:
    """Whether there is a compiler."""
    return shutil.which("gcc") is not None
