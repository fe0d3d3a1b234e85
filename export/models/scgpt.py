"""The scGPT encoder (Cui et al., Nature Methods 2024): gene and value embeddings, then a post-norm transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellscribe.export.models.ops import Dense, attention

MAX_VALUE = 512.0  # values beyond it are clipped before the value MLP, as scGPT does


@dataclass(frozen=True)
class ScgptConfig:
    """Sizes of an encoder; `n_value_tokens` is the height of the value table of the ``category`` style."""

    vocab_size: int
    d_model: int = 512
    n_layers: int = 12
    n_heads: int = 8
    d_ffn: int = 512
    value_style: Literal["continuous", "category", "scaling"] = "continuous"
    n_value_tokens: int = 0
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"the model width {self.d_model} is not a multiple of its {self.n_heads} heads")


class NormedEmbedding(nn.Module):
    """A token table followed by a LayerNorm."""

    def __init__(self, count: int, width: int, eps: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width)
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Map int64 [B, S] to [B, S, d]."""
        return self.norm(self.embedding(ids))


class ContinuousValues(nn.Module):
    """A number becomes a vector through a two-layer MLP and a LayerNorm."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.linear1 = Dense(1, width, bias=True)
        self.linear2 = Dense(width, width, bias=True)
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, values: Tensor) -> Tensor:
        """Map [B, S] to [B, S, d]."""
        x = values.clamp(max=MAX_VALUE).unsqueeze(-1)
        x = F.relu(self.linear1(x))
        return self.norm(self.linear2(x))


class CategoryValues(NormedEmbedding):
    """A bin becomes a vector through a table."""

    def forward(self, values: Tensor) -> Tensor:
        """Map [B, S] (whole numbers stored as floats) to [B, S, d]."""
        return super().forward(values.to(torch.int64).clamp(min=0))  # padding may carry a negative value; it is masked


class EncoderLayer(nn.Module):
    """Self-attention over genes and a ReLU feed-forward, each followed by a residual sum and a LayerNorm."""

    def __init__(self, config: ScgptConfig) -> None:
        super().__init__()
        d, eps = config.d_model, config.layer_norm_eps
        self.n_heads = config.n_heads
        self.qkv = Dense(d, 3 * d, bias=True)
        self.out = Dense(d, d, bias=True)
        self.linear1 = Dense(d, config.d_ffn, bias=True)
        self.linear2 = Dense(config.d_ffn, d, bias=True)
        self.norm1 = nn.LayerNorm(d, eps)
        self.norm2 = nn.LayerNorm(d, eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, S, d] with the key mask bool [B, 1, S, S] to [B, S, d]."""
        batch, length, width = x.shape
        heads = self.qkv(x).reshape(batch, length, 3, self.n_heads, width // self.n_heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, S, D]
        mixed = attention(q, k, v, mask).transpose(1, 2).reshape(batch, length, width)
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class ScgptEncoder(nn.Module):
    """Genes and their values in, one vector per gene and one per cell out.

    There are no positions: the order of the tokens does not matter, except that the first is `<cls>`.
    """

    def __init__(self, config: ScgptConfig) -> None:
        super().__init__()
        self.config = config
        d, eps = config.d_model, config.layer_norm_eps
        self.genes = NormedEmbedding(config.vocab_size, d, eps)
        self.values: nn.Module | None
        if config.value_style == "continuous":
            self.values = ContinuousValues(d, eps)
        elif config.value_style == "category":
            self.values = CategoryValues(config.n_value_tokens, d, eps)
        else:
            self.values = None
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))

    def forward(self, genes: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode cells.

        Parameters
        ----------
        genes, values, mask
            Token ids int64 [B, S], values [B, S] and bool [B, S], true for real tokens.

        Returns
        -------
        memory [B, S, d] and the cell embedding [B, d], which is the memory of token 0.
        """
        x = self.genes(genes)
        values = values.to(x.dtype)
        x = x * values.unsqueeze(-1) if self.values is None else x + self.values(values)
        seen = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)  # [B, 1, S, S]
        for layer in self.layers:
            x = layer(x, seen)
        return x, x[:, 0]
