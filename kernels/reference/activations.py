"""Element-wise steps between two products, as the kernels must compute them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


def gated_silu(x: Array) -> Doubles:
    """Map [rows, 2 f], gate first, to silu(gate) * up [rows, f]."""
    gate, up = np.split(x.astype(np.float64), 2, -1)
    with np.errstate(over="ignore"):
        return gate / (1.0 + np.exp(-gate)) * up


def relu(x: Array) -> Doubles:
    """Put 0 in the place of negative numbers; NaN stays."""
    return np.maximum(x.astype(np.float64), 0.0)


def value_expand(values: Array, weight: Array, bias: Array, max_value: float) -> Doubles:
    """Map values [rows] to relu(min(value, max_value) * weight + bias) [rows, width]."""
    return relu(np.minimum(values.astype(np.float64), max_value)[:, None] * weight + bias)
