"""The nearest of many vectors, exactly, in one pass over them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_BLOCK = 32_768  # vectors that are compared at once


def nearest(vectors: Floats, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """Find the vectors with the largest inner products.

    Parameters
    ----------
    vectors, queries
        float32 [N, d], which may lie on disk and is read once, in order; [Q, d].
    k
        How many; N where there are fewer.

    Returns
    -------
    Places int64 and products float32, [Q, k], the largest first; equal ones in the order of their places.
    """
    k = min(k, len(vectors))
    places, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        found = queries @ np.asarray(vectors[start : start + _BLOCK]).T
        here = np.broadcast_to(np.arange(start, start + found.shape[1]), found.shape)
        places, scores = np.concatenate([places, here], axis=1), np.concatenate([scores, found], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k] if scores.shape[1] <= 4 * k else _best(scores, k)
        places, scores = np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)
    return places, scores


def _best(scores: Floats, k: int) -> Ints:
    """Places of the k largest of each row, sorted; of equal ones the first, as sorting all of them would give."""
    least = np.partition(scores, -k, axis=1)[:, -k]
    chosen = np.empty((len(scores), k), np.int64)
    for row, (values, bound) in enumerate(zip(scores, least, strict=True)):
        candidates = np.flatnonzero(values >= bound)
        chosen[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return chosen
