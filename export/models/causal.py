"""A decoder without an encoder: GPT-2, GPT-NeoX (Pythia) and Gemma-2, told apart by a configuration.

GPT-2: Radford et al., 2019. GPT-NeoX: Black et al., 2022. Gemma-2: Gemma Team, 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellscribe.export.models.ops import Dense, RMSNorm, capped_attention, rotary, rotary_tables, write_cache

Cache = tuple[Tensor, Tensor]  # keys and values of one layer, each [B, K, C, D]


@dataclass(frozen=True)
class CausalConfig:
    """Sizes and habits of a decoder.

    Parameters
    ----------
    norm
        ``layer`` (with a shift) or ``rms``.
    activation, is_gated
        Of the feed-forward: ``gelu`` (exact), ``gelu_tanh`` or ``silu``; whether it multiplies a second product.
    is_parallel
        Attention and feed-forward read the same input and are added together (GPT-NeoX).
    has_post_norms
        Both are normed again before they are added (Gemma-2).
    has_biases
        The attention's and feed-forward's products have biases.
    rotary_width
        Leading numbers of a head that are rotated; 0 with `learned_positions`.
    embedding_scale, query_scale
        Factors of the embedded tokens and of the scores.
    attention_cap, logits_cap
        Scores and logits are squashed to cap * tanh(x / cap); 0 leaves them.
    window, window_every
        Every `window_every`-th layer, from the first on, sees only the last `window` positions; 0 for none.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ffn: int
    max_positions: int
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    activation: Literal["gelu", "gelu_tanh", "silu"] = "gelu"
    is_gated: bool = False
    is_parallel: bool = False
    has_post_norms: bool = False
    has_biases: bool = True
    rotary_width: int = 0
    rope_theta: float = 10000.0
    learned_positions: bool = False
    tie_embeddings: bool = False
    embedding_scale: float = 1.0
    query_scale: float = 0.0
    attention_cap: float = 0.0
    logits_cap: float = 0.0
    window: int = 0
    window_every: int = 2

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return self.query_scale or float(self.d_head**-0.5)

    def is_windowed(self, layer: int) -> bool:
        """Whether a layer sees only the last positions."""
        return self.window > 0 and layer % self.window_every == 0


class CausalAttention(nn.Module):
    """Attention over a static cache."""

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config = config
        d, narrow, wide = config.d_model, config.n_kv_heads * config.d_head, config.n_heads * config.d_head
        self.q = Dense(d, wide, bias=config.has_biases)
        self.k = Dense(d, narrow, bias=config.has_biases)
        self.v = Dense(d, narrow, bias=config.has_biases)
        self.out = Dense(wide, d, bias=config.has_biases)

    def project(self, x: Tensor, tables: tuple[Tensor, Tensor], positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q [B, H, T, D], k and v [B, K, T, D] of x [B, T, d], rotated where the model does that."""
        c = self.config
        q, k, v = (
            made(x).reshape(*x.shape[:2], heads, c.d_head).transpose(1, 2)
            for made, heads in ((self.q, c.n_heads), (self.k, c.n_kv_heads), (self.v, c.n_kv_heads))
        )
        if c.rotary_width:
            q, k = (rotary(part, *tables, positions, c.rotary_width) for part in (q, k))
        return q, k, v

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend q to k and v where the bool mask [B, 1, T, C] is true, and project -> [B, T, d]."""
        c = self.config
        y = capped_attention(q, k, v, mask, c.scale, c.attention_cap)
        return self.out(y.transpose(1, 2).reshape(q.shape[0], q.shape[2], -1))


class CausalFeedForward(nn.Module):
    """Two products with an activation between them, gated on request."""

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.gate = Dense(config.d_model, config.d_ffn, bias=config.has_biases) if config.is_gated else None
        self.up = Dense(config.d_model, config.d_ffn, bias=config.has_biases)
        self.down = Dense(config.d_ffn, config.d_model, bias=config.has_biases)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, d] to [B, T, d]."""
        if self.gate is None:
            return self.down(self._act(self.up(x)))
        return self.down(self._act(self.gate(x)) * self.up(x))

    def _act(self, x: Tensor) -> Tensor:
        if self.activation == "silu":
            return F.silu(x)
        return F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")


class CausalLayer(nn.Module):
    """One block."""

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.is_parallel = config.is_parallel
        self.norm1, self.norm2 = _norm(config), _norm(config)
        self.attention = CausalAttention(config)
        self.feed_forward = CausalFeedForward(config)
        self.post1 = _norm(config) if config.has_post_norms else None
        self.post2 = _norm(config) if config.has_post_norms else None

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what was attended to and the feed-forward to x."""
        if self.is_parallel:
            return x + attended + self.feed_forward(self.norm2(x))
        x = x + (attended if self.post1 is None else self.post1(attended))
        y = self.feed_forward(self.norm2(x))
        return x + (y if self.post2 is None else self.post2(y))


class CausalDecoder(nn.Module):
    """The decoder: its weights, and its plain forward pass."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.positions = nn.Embedding(config.max_positions, config.d_model) if config.learned_positions else None
        self.layers = nn.ModuleList(CausalLayer(config) for _ in range(config.n_layers))
        self.norm = _norm(config)
        self.head = None if config.tie_embeddings else Dense(config.d_model, config.vocab_size)
        self.restore_tables()

    def restore_tables(self) -> None:
        """Compute the rotary tables (again, after building on the meta device)."""
        width = self.config.rotary_width or 2
        with torch.device("cpu"):
            cos, sin = rotary_tables(width, self.config.max_positions, self.config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def blocks(self) -> list[CausalLayer]:
        """The layers, typed."""
        return cast("list[CausalLayer]", list(self.layers))

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the states [B, T, d] that enter the first layer."""
        x = self.embedding(tokens)
        if self.config.embedding_scale != 1.0:
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype)
        return x if self.positions is None else x + self.positions(positions)

    def logits(self, x: Tensor) -> Tensor:
        """Map normed states [B, T, d] to float32 logits [B, T, V]."""
        y = (x @ self.embedding.weight.t() if self.head is None else self.head(x)).float()
        cap = self.config.logits_cap
        return torch.tanh(y / cap) * cap if cap else y

    def forward_train(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run whole sequences int64 [B, T] without a cache -> float32 logits [B, T, V], last states [B, T, d]."""
        batch, length = tokens.shape
        positions = torch.arange(length, device=tokens.device).expand(batch, length)
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None, None]
        near = causal & ~causal.tril(-self.config.window) if self.config.window else causal
        x = self.embed(tokens, positions)
        tables = (self.cos.to(x.dtype), self.sin.to(x.dtype))
        for i, layer in enumerate(self.blocks):
            q, k, v = layer.attention.project(layer.norm1(x), tables, positions)
            mask = near if self.config.is_windowed(i) else causal
            x = layer.finish(x, layer.attention.mixed(q, k, v, mask))
        x = self.norm(x)
        return self.logits(x), x


class CausalGraph(nn.Module):
    """decoder.onnx of a family without an encoder: one graph for prompts, pieces of prompts, and steps."""

    def __init__(self, decoder: CausalDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        near: Tensor | None,
        chosen: Tensor,
        caches: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Run new tokens.

        Parameters
        ----------
        tokens, positions
            int64 [B, T]; positions are consecutive in each row.
        mask, near
            bool [B, T, C], which cache positions each token may see, in all layers and in those with a window; None
            where no layer has one.
        chosen
            int64 [B, O], which of the tokens give logits.
        caches
            Keys and values [B, K, C, D] of every layer in turn.

        Returns
        -------
        float32 logits [B, O, V], float32 last states [B, T, d] (normed), and the caches.
        """
        config = self.decoder.config
        start, full = positions[:, 0], mask.unsqueeze(1)
        x = self.decoder.embed(tokens, positions)
        tables = (self.decoder.cos.to(x.dtype), self.decoder.sin.to(x.dtype))
        new_caches: list[Tensor] = []
        for i, layer in enumerate(self.decoder.blocks):
            q, k, v = layer.attention.project(layer.norm1(x), tables, positions)
            keys, values = write_cache(caches[2 * i], k, start), write_cache(caches[2 * i + 1], v, start)
            seen = near.unsqueeze(1) if near is not None and config.is_windowed(i) else full
            x = layer.finish(x, layer.attention.mixed(q, keys, values, seen))
            new_caches += [keys, values]
        x = self.decoder.norm(x)
        rows = torch.gather(x, 1, chosen.unsqueeze(-1).expand(-1, -1, config.d_model))
        return (self.decoder.logits(rows), x.float(), *new_caches)


def _norm(config: CausalConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.d_model, config.norm_eps)
    return nn.LayerNorm(config.d_model, config.norm_eps)
