"""Attention of grouped query heads, as a kernel must compute it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


def visible_keys(
    num_slots: int,
    num_tokens: int,
    num_keys: int,
    mask: Bools | None = None,
    lengths: Integers | None = None,
    positions: Integers | None = None,
) -> Bools:
    """Which keys each token may attend to, [B, T, C].

    Parameters
    ----------
    mask
        [B, C], true: attend.
    lengths
        [B], keys from there on are padding.
    positions
        [B], of a slot's first token among its keys: token t sees the keys up to and with ``positions[b] + t``.
    """
    key = np.arange(num_keys)
    visible = np.ones((num_slots, num_tokens, num_keys), bool)
    if mask is not None:
        visible &= mask[:, None]
    if lengths is not None:
        visible &= key < lengths[:, None, None]
    if positions is not None:
        visible &= key <= positions[:, None, None] + np.arange(num_tokens)[:, None]
    return visible


def grouped_attention(
    queries: Array, keys: Array, values: Array, visible: Bools, scale: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Attend with H query heads to K kv heads; head h reads kv head ``h // (H // K)``.

    Parameters
    ----------
    queries
        [B, H, T, D].
    keys, values
        [B, K, C, D]; rows that no token sees may hold anything, NaN included.
    visible
        [B, T, C]; a token that sees no key gives zeros.
    scale
        Of the scores.

    Returns
    -------
    The mixed values float64 [B, H, T, D] and the weights float64 [B, H, T, C], zero where nothing is seen.
    """
    group = queries.shape[1] // keys.shape[1]
    seen_by_any: Bools = np.asarray(visible.any(1))[:, None, :, None]  # [B, 1, C, 1]
    k = np.where(seen_by_any, keys, 0).astype(np.float64).repeat(group, 1)
    v = np.where(seen_by_any, values, 0).astype(np.float64).repeat(group, 1)
    scores = np.where(visible[:, None], scale * (queries.astype(np.float64) @ k.swapaxes(-1, -2)), -np.inf)
    highest = scores.max(-1, keepdims=True)
    exponent = np.exp(scores - np.where(np.isinf(highest), 0, highest))
    total = exponent.sum(-1, keepdims=True)
    weights = exponent / np.where(total == 0, 1, total)
    return weights @ v, weights
