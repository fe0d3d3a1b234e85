"""Norms with the sum before them, as the kernels must compute them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


def added(x: Array, update: Array | None, update_bias: Array | None) -> Doubles:
    """Return x + update + update_bias, [rows, width]; a bias without an update is not looked at."""
    total = x.astype(np.float64)
    if update is not None:
        total = total + update + (0.0 if update_bias is None else update_bias)
    return total


def rms_norm(x: Array, weight: Array, eps: float) -> Doubles:
    """Divide rows [rows, width] by their root mean square, and multiply by weight [width]."""
    rows = x.astype(np.float64)
    result: Doubles = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + eps) * weight
    return result


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Doubles:
    """Give rows [rows, width] mean 0 and variance 1, then multiply by weight and add bias [width]."""
    rows = x.astype(np.float64)
    centred = rows - rows.mean(-1, keepdims=True)
    result: Doubles = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias
    return result
