"""Cross-attention over a shared latent memory, as a kernel must compute it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def latent_cross_attention(
    queries: Array, memory: Array, lengths: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Attend absorbed queries to the memory itself.

    Parameters
    ----------
    queries
        [B, H, m]: key weights and the softmax scale are folded in, so that a score is a plain dot product.
    memory
        [B, S, m]; rows from ``lengths[b]`` on are padding and may hold anything, NaN included.
    lengths
        Valid memory rows per slot, [B]; a slot with none gives zeros.

    Returns
    -------
    Mixed memory float64 [B, H, m] (value weights come after) and weights float64 [B, H, S], zero at padding.
    """
    batch, heads, width = queries.shape
    mixed = np.zeros((batch, heads, width))
    weights = np.zeros((batch, heads, memory.shape[1]))
    for b, length in enumerate(lengths):
        if not length:
            continue
        rows = memory[b, :length].astype(np.float64)
        scores = queries[b].astype(np.float64) @ rows.T
        exponent = np.exp(scores - scores.max(-1, keepdims=True))
        weights[b, :, :length] = exponent / exponent.sum(-1, keepdims=True)
        mixed[b] = weights[b, :, :length] @ rows
    return mixed, weights
