"""The C kernel that schedules are compared with: built with gcc when it is asked for, called through ctypes."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).parent / "ladder_kernel.c"
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp-simd", "-shared", "-fPIC")
LANES = 8


class Kernel:
    """`ladder_kernel.c`, compiled for one precision."""

    def __init__(self, dtype: type = np.float64):
        self.dtype = np.dtype(dtype)
        real = "double" if self.dtype == np.float64 else "float"
        self._folder = tempfile.TemporaryDirectory(prefix="jaxexec-kernel-")
        library = Path(self._folder.name) / "ladder.so"
        subprocess.run(["gcc", *FLAGS, f"-DREAL={real}", str(SOURCE), "-o", str(library), "-lmvec", "-lm"], check=True)
        self._solve = ctypes.CDLL(str(library)).solve
        self._solve.restype = ctypes.c_long
        self._real = ctypes.c_double if self.dtype == np.float64 else ctypes.c_float

    def pack(
        self, volume: np.ndarray, weight: np.ndarray, phi: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(orders, steps) arrays as packs of lanes, orders of like stiffness together."""
        order = np.argsort(weight.sum(1), kind="stable")
        if len(order) % LANES:
            raise ValueError(f"the number of orders must be a multiple of {LANES}, got {len(order)}")

        def packed(curves: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(curves[order].reshape(-1, LANES, curves.shape[1]).swapaxes(1, 2), self.dtype)

        return packed(volume), packed(weight), np.ascontiguousarray(phi[order], self.dtype), order

    def run(self, volume: np.ndarray, weight: np.ndarray, phi: np.ndarray, tolerance: float, most: int = 60):
        """Interior inventories of packs, as fractions of the order, and the iterations of all packs."""
        packs, steps = volume.shape[:2]
        found = np.empty((packs, steps - 1, LANES), self.dtype)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (volume, weight, phi)]
        total = self._solve(
            ctypes.c_long(packs),
            ctypes.c_int(steps),
            *pointers,
            self._real(tolerance),
            ctypes.c_int(most),
            found.ctypes.data_as(ctypes.c_void_p),
        )
        return found, total

    def unpack(self, found: np.ndarray, order: np.ndarray) -> np.ndarray:
        """(orders, nodes) inventories, as fractions of the order."""
        inner = np.empty((len(order), found.shape[1]))
        inner[order] = found.swapaxes(1, 2).reshape(len(order), -1)
        return np.hstack([np.ones((len(order), 1)), inner, np.zeros((len(order), 1))])


def available() -> bool:
    """Whether there is a compiler."""
    return shutil.which("gcc") is not None
