"""Rotary embeddings and the cache write, as the kernel must do them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def turn(x: Array, cos: Array, sin: Array, positions: Ints) -> Doubles:
    """Turn x [B, T, heads, D] by positions [B, T]; tables are [rows, D/2], positions beyond take the nearest row."""
    at = np.clip(positions, 0, len(cos) - 1)
    c, s = (table[at][:, :, None].astype(np.float64) for table in (cos, sin))
    a, b = np.split(x.astype(np.float64), 2, -1)
    return np.concatenate((a * c - b * s, b * c + a * s), -1)


def write_cache(cache: Array, update: Array, positions: Ints) -> None:
    """Write update [B, T, K, D] into cache [B, K, C, D] at positions [B, T]; those beyond the cache are left out."""
    for b, t in np.ndindex(*positions.shape):
        if 0 <= positions[b, t] < cache.shape[2]:
            cache[b, :, positions[b, t]] = update[b, t]
