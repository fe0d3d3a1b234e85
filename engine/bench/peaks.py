"""The best rates that this machine reaches, for a child process: ``python -m cellscribe.engine.bench.peaks``.

NumPy's BLAS takes its number of threads from the environment when it is loaded, hence the process of its own. Each
rate is the best of several passes and, for reading, of two ways to do it: a ceiling must not be too low.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt

ARRAY_BYTES = 512 * 2**20
MATRIX_SIZES = (1024, 2048, 3072)
_PASSES, _QUICK_SIZE = 5, 2048
Floats = npt.NDArray[np.float32]


def measure_peaks(threads: int, *, is_quick: bool = False, array_bytes: int = ARRAY_BYTES) -> dict[str, float]:
    """Return ``read`` and ``copy`` in bytes a second, ``fp32`` (and ``int8``) in operations a second.

    ``busy`` is the share of its cores that the product had, near 1 where nothing else ran. A quick measurement leaves
    out the smaller and larger matrices.
    """
    passes = 3 if is_quick else _PASSES
    found = _memory_rates(threads, passes, array_bytes)
    sizes = (_QUICK_SIZE,) if is_quick else MATRIX_SIZES
    started, spent = time.perf_counter(), time.process_time()
    found["fp32"] = max(_matrix_rate(size, passes) for size in sizes)
    had = (time.process_time() - spent) / (time.perf_counter() - started)
    found["busy"] = had / min(threads, _num_cores())
    for name, rate in native_peaks(threads).items():
        found[name] = max(rate, found.get(name, 0.0))
    return found


def _memory_rates(threads: int, passes: int, array_bytes: int) -> dict[str, float]:
    with ThreadPoolExecutor(threads) as pool:
        source, target = _ones(array_bytes, threads, pool), _ones(array_bytes, threads, pool)

        def read() -> None:
            _on_slices(pool, threads, lambda part: source[part].max(), len(source))

        def copy() -> None:
            _on_slices(pool, threads, lambda part: np.copyto(target[part], source[part]), len(source))

        reads = max(_best(read, passes), _best(lambda: np.dot(source, source), passes))
        return {"read": reads * array_bytes, "copy": _best(copy, passes) * 2 * array_bytes}


def native_peaks(threads: int) -> dict[str, float]:
    """Return what the native library measures of itself, where there is one that offers it; names as above."""
    try:
        module = importlib.import_module("cellscribe.engine.backends.cpu.peak")
        peak: Callable[[int], Mapping[str, float]] = module.peak
    except (ImportError, AttributeError, OSError):
        return {}
    return {str(name): float(rate) for name, rate in peak(threads).items()}


def _ones(array_bytes: int, threads: int, pool: ThreadPoolExecutor) -> Floats:
    """Make an array whose pages are there, written by the threads that will read them."""
    made = np.empty(array_bytes // 4, np.float32)
    _on_slices(pool, threads, lambda part: made[part].fill(1.0), len(made))
    return made


def _on_slices(pool: ThreadPoolExecutor, threads: int, work: Callable[[slice], object], length: int) -> None:
    """Run `work` on a disjoint slice per thread; NumPy lets go of the interpreter meanwhile."""
    edges = [length * i // threads for i in range(threads + 1)]
    list(pool.map(work, [slice(a, b) for a, b in pairwise(edges)]))


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _best(call: Callable[[], object], passes: int) -> float:
    """Calls a second, in the fastest pass."""
    fastest = float("inf")
    for _ in range(passes):
        started = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - started)
    return 1 / fastest


def _matrix_rate(size: int, passes: int) -> float:
    a, b = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    out = np.empty((size, size), np.float32)
    return _best(lambda: np.matmul(a, b, out=out), passes) * 2 * size**3


if __name__ == "__main__":
    print(json.dumps(measure_peaks(int(sys.argv[1]), is_quick=sys.argv[2] == "quick")))  # noqa: T201
