"""The shared prompt: what the layers below the first cross-attention compute for it, once per bundle."""

from __future__ import annotations

import torch
from torch import Tensor

from cellscribe.export.models.lingocell import LingoDecoder
from cellscribe.export.models.ops import attention


def compute_prefix(decoder: LingoDecoder, token_ids: list[int]) -> dict[str, Tensor]:
    """Run all prompt tokens but the last through the lower layers.

    Returns
    -------
    ``key.<i>`` and ``value.<i>`` [K, P - 1, D] of every lower layer, rotated as the cache holds them, and ``hidden``
    [P - 1, d], the states that enter the first cross-attention layer.
    """
    ids = torch.tensor([token_ids[:-1]], dtype=torch.int64)
    length = ids.shape[1]
    positions = torch.arange(length)[None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    tensors: dict[str, Tensor] = {}
    with torch.no_grad():
        x = decoder.embedding(ids)
        tables = (decoder.cos.to(x.dtype), decoder.sin.to(x.dtype))
        for i, layer in enumerate(decoder.blocks[: decoder.n_lower]):
            q, k, v = layer.attention.project(layer.norm1(x), tables, positions)
            mixed = attention(q, k, v, causal) if length else torch.zeros_like(q)
            x = x + layer.attention.out(mixed.transpose(1, 2).reshape(1, length, -1))
            x = x + layer.feed_forward(layer.norm2(x))
            tensors[f"key.{i}"], tensors[f"value.{i}"] = k[0].contiguous(), v[0].contiguous()
    tensors["hidden"] = x[0].contiguous()
    return tensors
