"""The seed's decoder: a Llama with cross-attention in plain torch modules, caches and a greedy loop.

What a researcher would write with care: torch's own Linear, RMSNorm and attention, a static cache written in place, and
cross keys and values projected once per cell and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peers.seed_parts import linear
from torch import Tensor, nn

from cellscribe.export.models.lingocell import CrossAttention, DecoderLayer, LingoDecoder
from cellscribe.export.models.ops import RMSNorm

KeysValues = tuple[Tensor, Tensor]  # each [B, K, C, D]


@dataclass
class Texts:
    """Texts in progress: caches [B, K, C, D] of every layer, cross keys and values, and the mask of the genes."""

    caches: list[KeysValues]
    crosses: list[KeysValues | None]
    genes: Tensor | None  # bool [B, 1, 1, S]; None where all are real


class CrossBlock(nn.Module):
    """Cross-attention to keys and values that are kept."""

    def __init__(self, ours: CrossAttention) -> None:
        super().__init__()
        if ours.memory_norm is not None or ours.gate is not None:
            raise ValueError("norms of the memory and gates are not known to the seed's decoder")
        self.n_heads, self.n_kv_heads, self.d_head = ours.n_heads, ours.n_kv_heads, ours.d_head
        self.norm = nn.Identity() if ours.norm is None else norm(ours.norm)
        self.q, self.k, self.v, self.out = (linear(one) for one in (ours.q, ours.k, ours.v, ours.out))

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Project memory [B, S, m]."""
        shape = (*memory.shape[:2], self.n_kv_heads, self.d_head)
        keys, values = self.k(memory).view(shape).transpose(1, 2), self.v(memory).view(shape).transpose(1, 2)
        return keys.contiguous(), values.contiguous()

    def forward(self, x: Tensor, kept: KeysValues, genes: Tensor | None) -> Tensor:
        """Attend x [B, T, d] to the genes."""
        q = self.q(self.norm(x)).view(*x.shape[:2], self.n_heads, self.d_head).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, *kept, attn_mask=genes, enable_gqa=self.n_heads != self.n_kv_heads)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y


class Layer(nn.Module):
    """A decoder layer."""

    def __init__(self, ours: DecoderLayer) -> None:
        super().__init__()
        a, f = ours.attention, ours.feed_forward
        self.n_heads, self.n_kv_heads, self.d_head = a.n_heads, a.n_kv_heads, a.d_head
        self.norm1, self.norm2 = norm(ours.norm1), norm(ours.norm2)
        self.q, self.k, self.v, self.out = (linear(one) for one in (a.q, a.k, a.v, a.out))
        self.gate, self.up, self.down = (linear(one) for one in (f.gate, f.up, f.down))
        self.cross = None if ours.cross is None else CrossBlock(ours.cross)

    def forward(
        self, x: Tensor, tables: KeysValues, at: Tensor, end: int, seen: Tensor | None, texts: Texts, i: int
    ) -> Tensor:
        """Run x [B, T, d] at positions `at` [T]; the cache is read up to `end`, where `seen` [T, C] allows."""
        shape = (*x.shape[:2], -1, self.d_head)
        y = self.norm1(x)
        q, k = (rotate(one(y).view(shape).transpose(1, 2), tables) for one in (self.q, self.k))
        keys, values = texts.caches[i]
        keys.index_copy_(2, at, k)
        values.index_copy_(2, at, self.v(y).view(shape).transpose(1, 2))
        mixed = F.scaled_dot_product_attention(
            q, keys[:, :, :end], values[:, :, :end], attn_mask=seen, is_causal=seen is None and x.shape[1] > 1,
            enable_gqa=self.n_heads != self.n_kv_heads,
        )  # fmt: skip
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        kept = texts.crosses[i]
        if self.cross is not None and kept is not None:
            x = x + self.cross(x, kept, texts.genes)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class SeedDecoder(nn.Module):
    """The decoder, with the weights of ours, which it takes over."""

    def __init__(self, ours: LingoDecoder) -> None:
        super().__init__()
        if ours.head is None:
            raise ValueError("a tied head is not known to the seed's decoder")
        self.config = ours.config
        self.embedding, self.norm, self.head = ours.embedding, norm(ours.norm), linear(ours.head)
        self.layers = nn.ModuleList(Layer(one) for one in ours.blocks)
        self.cos, self.sin = (torch.cat((one, one), -1) for one in (ours.cos, ours.sin))
        self.eval().requires_grad_(False)

    def begin(self, memory: Tensor, mask: Tensor, capacity: int) -> Texts:
        """Project the memory [B, S, m] for every layer, and allocate the caches."""
        c = self.config
        shape = (len(memory), c.n_kv_heads, capacity, c.d_head)
        layers: list[Any] = list(self.layers)
        return Texts(
            [(torch.zeros(shape), torch.zeros(shape)) for _ in layers],
            [None if one.cross is None else one.cross.keys_values(memory) for one in layers],
            None if bool(mask.all()) else mask[:, None, None, :],
        )

    def forward(self, tokens: Tensor, at: Tensor, end: int, seen: Tensor | None, texts: Texts) -> Tensor:
        """Run tokens [B, T] at positions [T] and return the last one's logits [B, V]."""
        x, tables = self.embedding(tokens), (self.cos[at], self.sin[at])
        for i, layer in enumerate(self.layers):
            x = layer(x, tables, at, end, seen, texts, i)
        logits: Tensor = self.head(self.norm(x[:, -1]))
        return logits


def norm(ours: RMSNorm) -> nn.RMSNorm:
    """Turn our RMS norm into torch's."""
    made = nn.RMSNorm(len(ours.weight), ours.eps)
    made.weight = nn.Parameter(ours.weight.data, requires_grad=False)
    return made


def rotate(x: Tensor, tables: KeysValues) -> Tensor:
    """Rotate x [B, H, T, D] by tables [T, D]."""
    cos, sin = tables
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin
