"""A product of a few rows with a matrix of weights, as the kernel must compute it, and 8-bit weights for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


def quantised(weight: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round weight [K, N] to 8 bits, symmetric, one scale per column: weight is about int8 [K, N] * float32 [N]."""
    largest = np.abs(weight).max(0).astype(np.float32)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weight / scales), -127, 127).astype(np.int8), scales


def product(
    x: Array, weight: npt.NDArray[np.generic], scales: Array | None = None, bias: Array | None = None
) -> Doubles:
    """Return half(x) @ (weight * scales) + bias for x [R, K], weight [K, N], scales and bias [N]."""
    total = x.astype(np.float16).astype(np.float64) @ weight.astype(np.float64)
    total = total if scales is None else total * scales
    return total if bias is None else total + bias
