"""Choosing the next token: greedy or top-p, with the log-probability of the choice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cellscribe.engine.keyed import UInt64, stream_keys, uniforms
from cellscribe.engine.types import Sampling

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

TOKEN_STREAM = 0  # the stream of token draws; value binning has a stream of its own


def log_softmax(logits: Floats) -> Floats:
    """Return natural log-probabilities [B, V]."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def choose(logits: Floats, sampling: Sampling, cells: UInt64, positions: Ints) -> tuple[Ints, Floats]:
    """Choose one token per row.

    Parameters
    ----------
    logits
        float32 [B, V].
    cells
        Keys of the cells, uint64 [B] (:func:`cellscribe.engine.keyed.cell_keys`).
    positions
        How many tokens each text has already, int64 [B]: the index of the random draw.

    Returns
    -------
    Token ids int64 [B], and their log-probabilities under the model before temperature and top-p, float32 [B].
    """
    logprobs = log_softmax(logits)
    if sampling.is_greedy:
        tokens = logits.argmax(-1)  # the lowest id among equals
    else:
        draws = uniforms(stream_keys(sampling.seed, cells, TOKEN_STREAM), positions)
        scaled = (logits - logits.max(-1, keepdims=True)) / np.float32(sampling.temperature)
        tokens = np.array(
            [_top_p(row, sampling.top_p, u) for row, u in zip(scaled, draws, strict=True)], dtype=np.int64
        )
    return tokens, np.take_along_axis(logprobs, tokens[:, None], -1)[:, 0]


def _top_p(logits: Floats, top_p: float, draw: np.float32) -> int:
    """Draw from the smallest set of most probable tokens whose mass reaches top_p; ties go to the lower id."""
    weights = np.exp((logits - logits.max()).astype(np.float64))
    order = np.argsort(-weights, kind="stable")
    mass = np.cumsum(weights[order])
    kept = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    kept = min(kept, len(mass))
    at = int(np.searchsorted(mass[:kept], float(draw) * mass[kept - 1], side="right"))
    return int(order[min(at, kept - 1)])
