"""Choosing the next token: greedy or top-p, with the log-probability of the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cellscribe.engine.keyed import UInt64, stream_keys, uniforms
from cellscribe.engine.types import Sampling

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Greedy = Callable[[Floats], tuple[Ints, Floats]]  # logits [n, V] -> tokens [n], log-probabilities [n]

_GREEDY = Sampling()  # whatever the seed
TOKEN_STREAM = 0  # the stream of token draws; value binning has a stream of its own


def log_softmax(logits: Floats) -> Floats:
    """Return natural log-probabilities [B, V]."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def choose(
    logits: Floats, sampling: Sampling, cells: UInt64, positions: Ints, greedy: Greedy | None = None
) -> tuple[Ints, Floats]:
    """Choose one token per row.

    Parameters
    ----------
    logits
        float32 [B, V].
    cells
        Keys of the cells, uint64 [B] (:func:`cellscribe.engine.keyed.cell_keys`).
    positions
        How many tokens each text has already, int64 [B]: the index of the random draw.
    greedy
        A backend's own way of choosing the most probable token of each row.

    Returns
    -------
    Token ids int64 [B], and their log-probabilities under the model before temperature and top-p, float32 [B].
    """
    if greedy is not None and sampling.is_greedy:
        return greedy(logits)
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


def choose_each(
    logits: Floats, samplings: Sequence[Sampling], cells: UInt64, positions: Ints, greedy: Greedy | None = None
) -> tuple[Ints, Floats]:
    """Choose one token per row, each by a sampling of its own [B]; further as :func:`choose`.

    Rows of one sampling are chosen together, and as if there were no others.
    """
    rows: dict[Sampling, list[int]] = {}
    for row, sampling in enumerate(samplings):
        rows.setdefault(_GREEDY if sampling.is_greedy else sampling, []).append(row)
    if len(rows) == 1:
        return choose(logits, next(iter(rows)), cells, positions, greedy)
    tokens, logprobs = np.zeros(len(logits), np.int64), np.zeros(len(logits), np.float32)
    for sampling, mine in rows.items():
        tokens[mine], logprobs[mine] = choose(logits[mine], sampling, cells[mine], positions[mine], greedy)
    return tokens, logprobs


def _top_p(logits: Floats, top_p: float, draw: np.float32) -> int:
    """Draw from the smallest set of most probable tokens whose mass reaches top_p; ties go to the lower id."""
    weights = np.exp((logits - logits.max()).astype(np.float64))
    order = np.argsort(-weights, kind="stable")
    mass = np.cumsum(weights[order])
    kept = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    kept = min(kept, len(mass))
    at = int(np.searchsorted(mass[:kept], float(draw) * mass[kept - 1], side="right"))
    return int(order[min(at, kept - 1)])
