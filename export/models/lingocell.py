"""The LingoCell decoder: a Llama whose last layers also attend to the genes of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellscribe.export.models.ops import Dense, RMSNorm, attention, rotary, rotary_tables, write_cache


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a Llama decoder (Touvron et al., 2023), named as in its Hugging Face configuration where they differ."""

    vocab_size: int
    d_model: int = 2048  # hidden_size
    n_layers: int = 22
    n_heads: int = 32
    n_kv_heads: int = 4
    d_ffn: int = 5632  # intermediate_size
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    tie_embeddings: bool = False
    max_positions: int = 2048

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads


@dataclass(frozen=True)
class CrossConfig:
    """Cross-attention to gene memory in the last `n_layers` decoder layers.

    Parameters
    ----------
    n_heads, n_kv_heads, d_head
        Query heads, key/value heads and head width. None takes the decoder's; for key/value heads it takes `n_heads`
        where that is given.
    d_memory
        Width of the memory.
    bias
        Whether the four projections have biases.
    gate
        Whether the block's output is multiplied by tanh of a learned scalar (Flamingo, Alayrac et al., 2022).
    norm
        RMS norm of the queries' input, and LayerNorm of the memory besides, per layer.
    """

    n_layers: int = 12
    n_heads: int | None = None
    n_kv_heads: int | None = None
    d_memory: int = 512
    bias: bool = False
    gate: bool = False
    norm: Literal["none", "query", "query+memory"] = "query"
    d_head: int | None = None


class SelfAttention(nn.Module):
    """Causal attention with grouped key/value heads and rotary positions over a static cache."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = config.n_heads, config.n_kv_heads, config.d_head
        self.q = Dense(config.d_model, self.n_heads * self.d_head)
        self.k = Dense(config.d_model, self.n_kv_heads * self.d_head)
        self.v = Dense(config.d_model, self.n_kv_heads * self.d_head)
        self.out = Dense(self.n_heads * self.d_head, config.d_model)

    def project(self, x: Tensor, tables: tuple[Tensor, Tensor], positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated q [B, H, T, D], rotated k and v [B, K, T, D] of x [B, T, d]."""
        batch, length, _ = x.shape
        q = self.q(x).reshape(batch, length, self.n_heads, self.d_head).transpose(1, 2)
        k = self.k(x).reshape(batch, length, self.n_kv_heads, self.d_head).transpose(1, 2)
        v = self.v(x).reshape(batch, length, self.n_kv_heads, self.d_head).transpose(1, 2)
        return rotary(q, *tables, positions), rotary(k, *tables, positions), v

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor], step: Step, cache: Cache) -> tuple[Tensor, Cache]:
        """Attend x [B, T, d] to the cache with x written into it -> [B, T, d] and the new cache."""
        q, k, v = self.project(x, tables, step.positions)
        keys, values = write_cache(cache[0], k, step.start), write_cache(cache[1], v, step.start)
        mixed = attention(q, keys, values, step.mask)
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1)), (keys, values)


class CrossAttention(nn.Module):
    """Attention of the text to the genes; :mod:`cellscribe.export.models.cross` holds the forms that run."""

    def __init__(self, decoder: DecoderConfig, config: CrossConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads or decoder.n_heads
        self.n_kv_heads = config.n_kv_heads or config.n_heads or decoder.n_kv_heads
        self.d_head = config.d_head or decoder.d_head
        d, memory, bias = decoder.d_model, config.d_memory, config.bias
        self.norm = None if config.norm == "none" else RMSNorm(d, decoder.rms_norm_eps)
        self.memory_norm = nn.LayerNorm(memory) if config.norm == "query+memory" else None
        self.q = Dense(d, self.n_heads * self.d_head, bias=bias)
        self.k = Dense(memory, self.n_kv_heads * self.d_head, bias=bias)
        self.v = Dense(memory, self.n_kv_heads * self.d_head, bias=bias)
        self.out = Dense(self.n_heads * self.d_head, d, bias=bias)
        self.gate = nn.Parameter(torch.zeros(1)) if config.gate else None

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project memory [B, S, m] to keys and values [B, K, S, D]."""
        if self.memory_norm is not None:
            memory = self.memory_norm(memory)
        shape = (memory.shape[0], memory.shape[1], self.n_kv_heads, self.d_head)
        return self.k(memory).reshape(shape).transpose(1, 2), self.v(memory).reshape(shape).transpose(1, 2)

    def queries(self, x: Tensor) -> Tensor:
        """Project x [B, T, d] to queries [B, K, G, T, D], grouped by the key/value head they share."""
        x = x if self.norm is None else self.norm(x)
        group = self.n_heads // self.n_kv_heads
        q = self.q(x).reshape(x.shape[0], x.shape[1], self.n_kv_heads, group, self.d_head)
        return q.permute(0, 2, 3, 1, 4)

    def finish(self, mixed: Tensor) -> Tensor:
        """Merge heads [B, K, G, T, D], project and gate -> [B, T, d]."""
        batch, _, _, length, _ = mixed.shape
        y = self.out(mixed.permute(0, 3, 1, 2, 4).reshape(batch, length, -1))
        return y if self.gate is None else y * torch.tanh(self.gate)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend x [B, T, d] to memory [B, S, m], bias [B, 1, 1, S] added -> [B, T, d], weights [B, H, T, S]."""
        keys, values = self.keys_values(memory)
        q = self.queries(x)
        scores = (q @ keys.unsqueeze(2).transpose(-1, -2)).float() * self.d_head**-0.5 + bias.unsqueeze(2)
        weights = scores.softmax(-1)  # [B, K, G, T, S]
        y = self.finish(weights.to(values.dtype) @ values.unsqueeze(2))
        return y, weights.flatten(1, 2)


class FeedForward(nn.Module):
    """The gated feed-forward of Llama."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate = Dense(config.d_model, config.d_ffn)
        self.up = Dense(config.d_model, config.d_ffn)
        self.down = Dense(config.d_ffn, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, d] to [B, T, d]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention where the layer has it, feed-forward; pre-norm residual blocks."""

    def __init__(self, config: DecoderConfig, cross: CrossConfig | None) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.d_model, config.rms_norm_eps)
        self.attention = SelfAttention(config)
        self.cross = None if cross is None else CrossAttention(config, cross)
        self.norm2 = RMSNorm(config.d_model, config.rms_norm_eps)
        self.feed_forward = FeedForward(config)


@dataclass(frozen=True)
class Step:
    """Where new tokens stand: positions int64 [B, T], first cache position [B], bool mask [B, 1, T, C]."""

    positions: Tensor
    start: Tensor
    mask: Tensor


Cache = tuple[Tensor, Tensor]  # keys and values of one layer, each [B, K, C, D]


class LingoDecoder(nn.Module):
    """A Llama decoder with cross-attention in its last layers; `cross` None makes it a plain Llama."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: DecoderConfig, cross: CrossConfig | None = None) -> None:
        super().__init__()
        self.config, self.cross_config = config, cross
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(
            DecoderLayer(config, cross if cross and i >= config.n_layers - cross.n_layers else None)
            for i in range(config.n_layers)
        )
        self.norm = RMSNorm(config.d_model, config.rms_norm_eps)
        self.head = None if config.tie_embeddings else Dense(config.d_model, config.vocab_size)
        self.restore_tables()

    def restore_tables(self) -> None:
        """Compute the rotary tables (again, after building on the meta device)."""
        with torch.device("cpu"):
            cos, sin = rotary_tables(self.config.d_head, self.config.max_positions, self.config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def blocks(self) -> list[DecoderLayer]:
        """The layers, typed."""
        return cast("list[DecoderLayer]", list(self.layers))

    @property
    def n_lower(self) -> int:
        """Number of layers below the first cross-attention layer."""
        return self.config.n_layers - (self.cross_config.n_layers if self.cross_config else 0)

    def logits(self, x: Tensor) -> Tensor:
        """Map the last hidden state [B, T, d] to float32 logits [B, T, V]."""
        x = self.norm(x)
        return (x @ self.embedding.weight.t() if self.head is None else self.head(x)).float()

    def forward_train(
        self,
        tokens: Tensor,
        memory: Tensor | None,
        memory_mask: Tensor | None,
        *,
        return_attention: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Run whole sequences without a cache.

        Parameters
        ----------
        tokens
            int64 [B, T], right-padded if lengths differ (causality keeps padding out of the rest).
        memory, memory_mask
            Gene memory [B, S, m] and bool [B, S]; None where there is no cross-attention.

        Returns
        -------
        float32 logits [B, T, V] and, on request, cross-attention weights [B, L, H, T, S].
        """
        batch, length = tokens.shape
        positions = torch.arange(length, device=tokens.device).expand(batch, length)
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None, None]
        bias = None if memory_mask is None else memory_bias(memory_mask)
        x = self.embedding(tokens)
        seen: list[Tensor] = []
        tables = (self.cos.to(x.dtype), self.sin.to(x.dtype))
        for layer in self.blocks:
            q, k, v = layer.attention.project(layer.norm1(x), tables, positions)
            mixed = attention(q, k, v, causal).transpose(1, 2).reshape(batch, length, -1)
            x = x + layer.attention.out(mixed)
            if layer.cross is not None:
                update, weights = layer.cross(x, memory, bias)
                x, seen = x + update, [*seen, weights] if return_attention else seen
            x = x + layer.feed_forward(layer.norm2(x))
        return self.logits(x), torch.stack(seen, 1) if seen else None


def memory_bias(mask: Tensor) -> Tensor:
    """Turn a bool mask [B, S] into an additive float32 bias [B, 1, 1, S]; finite, so that an empty row stays finite."""
    return torch.where(mask, 0.0, -1e30)[:, None, None, :]
