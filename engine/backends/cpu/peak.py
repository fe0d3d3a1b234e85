"""What the native library reaches on this machine: the roofs that benchmarks judge it by."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from cellscribe.engine.backends.cpu.backend import cpu_problem
from cellscribe.engine.bundle.onnx_weights import WIDE_BLOCK
from cellscribe.kernels.cpu_library import CpuLibrary, Kind, PackedWeight

_SECONDS = 0.2
_SIZE, _PASSES = 2048, 3
_KINDS = {"fp32": (Kind.FLOAT, "float"), "bf16": (Kind.BRAIN, "brain"), "int8": (Kind.INT8, "bytes")}


def peak(threads: int) -> Mapping[str, float]:
    """Measure operations a second, "fp32", "bf16" and "int8"; empty where the library does not run.

    Under these names a large product of matrices, and under "<name> registers" multiplying and adding on registers,
    which no product reaches as it must also read.
    """
    if cpu_problem():
        return {}
    library = CpuLibrary(threads)
    products = {name: _product(library, kind) for name, (kind, _) in _KINDS.items()}
    return products | {f"{name} registers": library.peak(word, _SECONDS) for name, (_, word) in _KINDS.items()}


def _product(library: CpuLibrary, kind: Kind) -> float:
    weight = PackedWeight(library, kind, _SIZE, _SIZE, group=WIDE_BLOCK)
    if kind == Kind.INT8:
        shape = (_SIZE, _SIZE // WIDE_BLOCK, WIDE_BLOCK)
        weight.put_blocks(0, np.full(shape, 130, np.uint8), np.full(shape[:2], 0.5, np.float32))
    else:
        weight.put(0, np.ones((_SIZE, _SIZE), np.float32))
    rows = np.ones((_SIZE, _SIZE), np.float32)
    fastest = float("inf")
    for _ in range(_PASSES):
        started = time.perf_counter()
        weight(rows)
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * _SIZE**3 / fastest
