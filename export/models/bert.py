"""BERT (Devlin et al., 2019) as Geneformer and LangCell use it: post-norm layers, cross-attention on request.

Shapes use B sequences, S tokens, C cells, R texts of a cell, T tokens of a text, H heads, D head width; d and m are the
widths of a text's and a cell's states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellscribe.export.models.ops import Dense, attention

Activation = Literal["relu", "gelu"]


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT; `d_memory` is the width of what it attends to across, 0 where there is nothing."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    max_positions: int
    activation: Activation = "gelu"
    norm_eps: float = 1e-12
    d_memory: int = 0

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"the model width {self.d_model} is not a multiple of its {self.n_heads} heads")

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads


class BertCross(nn.Module):
    """Attention of a text to a cell, followed by a residual sum and a LayerNorm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        d = config.d_model
        self.n_heads, self.d_head = config.n_heads, config.d_head
        self.q = Dense(d, d, bias=True)
        self.kv = Dense(config.d_memory, 2 * d, bias=True)
        self.out = Dense(d, d, bias=True)
        self.norm = nn.LayerNorm(d, config.norm_eps)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Map states of cells [C, S, m] to keys and values, each [C, H, S, D]."""
        both = self.kv(memory).reshape(*memory.shape[:2], 2, self.n_heads, self.d_head)
        key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
        return key, value

    def forward(self, x: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """Map x [C, R, T, d] with keys and values [C, H, S, D] and their mask bool [C, 1, 1, S] to [C, R, T, d]."""
        cells, texts, tokens, d = x.shape
        # All texts of a cell are rows of one product with its keys.
        q = self.q(x).reshape(cells, texts * tokens, self.n_heads, self.d_head).transpose(1, 2)
        mask = seen.expand(-1, -1, q.shape[2], -1)
        mixed = attention(q, key, value, mask).transpose(1, 2).reshape(cells, texts, tokens, d)
        return self.norm(x + self.out(mixed))


class BertLayer(nn.Module):
    """Self-attention, cross-attention on request, and a feed-forward, each followed by a sum and a LayerNorm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        d, eps = config.d_model, config.norm_eps
        self.n_heads, self.d_head, self.activation = config.n_heads, config.d_head, config.activation
        self.qkv = Dense(d, 3 * d, bias=True)
        self.out = Dense(d, d, bias=True)
        self.norm1 = nn.LayerNorm(d, eps)
        self.cross = BertCross(config) if config.d_memory else None
        self.linear1 = Dense(d, config.d_ffn, bias=True)
        self.linear2 = Dense(config.d_ffn, d, bias=True)
        self.norm2 = nn.LayerNorm(d, eps)

    def attend(self, x: Tensor, mask: Tensor, num_queries: int | None = None) -> Tensor:
        """Map x [B, S, d] with the key mask bool [B, 1, 1, S] to [B, Q, d], Q its first tokens (None: all)."""
        batch, length, _ = x.shape
        heads = self.qkv(x).reshape(batch, length, 3, self.n_heads, self.d_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, S, D]
        if num_queries is not None:
            q, x = q[:, :, :num_queries], x[:, :num_queries]
        mixed = attention(q, k, v, mask.expand(-1, -1, q.shape[2], -1))
        return self.norm1(x + self.out(mixed.transpose(1, 2).reshape(x.shape)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Map [..., d] to [..., d]."""
        y = self.linear1(x)
        y = F.relu(y) if self.activation == "relu" else F.gelu(y)
        return self.norm2(x + self.linear2(y))


class Bert(nn.Module):
    """Tokens in, a state for each out.

    The row of token type 0 is part of `positions`, as no other type occurs.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.max_positions, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, config.norm_eps)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.n_layers))

    @property
    def blocks(self) -> list[BertLayer]:
        """The layers."""
        return cast("list[BertLayer]", list(self.layers))

    def embed(self, tokens: Tensor) -> Tensor:
        """Map int64 [B, S] to [B, S, d]."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.norm(self.embedding(tokens) + self.positions(places))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map tokens int64 [B, S] with bool [B, S], true for real ones, to [B, S, d], without cross-attention."""
        x, seen = self.embed(tokens), mask[:, None, None, :]
        for layer in self.blocks:
            x = layer.feed_forward(layer.attend(x, seen))
        return x
