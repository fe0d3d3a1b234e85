"""Cross-attention over a shared latent memory, as the kernel must compute it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def latent_cross_attention(
    queries: Array, memory: Array, attended: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Attend absorbed queries to the memory itself.

    Parameters
    ----------
    queries
        [B, H, T, m]: key weights and the softmax scale are folded in, so that a score is a plain dot product.
    memory
        [B, S, m].
    attended
        Which rows of the memory count, [B, S]; the others may hold anything, NaN included. A slot with none gives
        zeros.

    Returns
    -------
    Mixed memory float64 [B, H, T, m] (value weights come after) and weights float64 [B, H, T, S], zero where not
    attended.
    """
    mixed = np.zeros(queries.shape)
    weights = np.zeros((*queries.shape[:3], memory.shape[1]))
    for b, seen in enumerate(attended):
        if not seen.any():
            continue
        rows = memory[b, seen].astype(np.float64)
        scores = queries[b].astype(np.float64) @ rows.T
        exponent = np.exp(scores - scores.max(-1, keepdims=True))
        weights[b][..., seen] = exponent / exponent.sum(-1, keepdims=True)
        mixed[b] = weights[b][..., seen] @ rows
    return mixed, weights
