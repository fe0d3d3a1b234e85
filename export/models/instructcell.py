"""InstructCell (Fang et al., 2025): an expression MLP and a Q-Former into a T5, and a decoder of profiles."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellscribe.export.models.bert import BertConfig, BertLayer
from cellscribe.export.models.ops import Dense


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of the cell tower; the Q-Former's width is the T5's."""

    n_genes: int  # count_dim
    n_blocks: int  # num_blocks, of the MLP
    n_memory: int  # num_key_value_tokens
    n_queries: int  # num_query_tokens
    former: BertConfig
    cross_every: int = 2  # cross_attention_frequency


class CellTower(nn.Module):
    """Expression in, the embeddings that take the placeholder's place out."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.n_memory * config.former.d_model
        sizes = [config.n_genes, *[inner] * config.n_blocks]
        self.blocks = nn.ModuleList(Dense(a, b, bias=True) for a, b in itertools.pairwise(sizes))
        self.queries = nn.Parameter(torch.zeros(1, config.n_queries, config.former.d_model))
        self.norm = nn.LayerNorm(config.former.d_model, config.former.norm_eps)
        self.layers = nn.ModuleList(
            BertLayer(config.former if i % config.cross_every == 0 else _without_cross(config.former))
            for i in range(config.former.n_layers)
        )

    def memory(self, values: Tensor) -> Tensor:
        """Map log1p of counts per 10,000, [B, G], to [B, K, d]."""
        first, *others = cast("list[Dense]", list(self.blocks))
        return self.memory_of(F.gelu(first(values)), others)

    def memory_of(self, x: Tensor, others: list[Dense]) -> Tensor:
        """Map what the first map gives, after its activation, [B, K·d], to [B, K, d]."""
        for block in others:
            x = x + F.gelu(block(x))
        return x.reshape(x.shape[0], self.config.n_memory, -1)

    def forward(self, memory: Tensor) -> Tensor:
        """Map memory [B, K, d] to features [B, Q, d]."""
        x = self.norm(self.queries.expand(memory.shape[0], -1, -1))
        own = torch.ones(1, 1, 1, x.shape[1], dtype=torch.bool, device=x.device)
        other = torch.ones(memory.shape[0], 1, 1, memory.shape[1], dtype=torch.bool, device=x.device)
        for layer in cast("list[BertLayer]", list(self.layers)):
            x = layer.attend(x, own)
            if layer.cross is not None:
                key, value = layer.cross.keys_values(memory)
                x = layer.cross(x.unsqueeze(1), key, value, other).squeeze(1)
            x = layer.feed_forward(x)
        return x


class TowerGraph(nn.Module):
    """tower.onnx: the first map reads the weights of expressed genes alone, a few in a hundred."""

    def __init__(self, tower: CellTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, genes: Tensor, values: Tensor) -> Tensor:
        """Map genes int64 [B, N] and log1p of their counts per 10,000 [B, N] (0: padding) to features [B, Q, d]."""
        first, *others = cast("list[Dense]", list(self.tower.blocks))
        rows = F.embedding(genes, first.weight)  # [B, N, K·d]
        assert first.bias is not None
        x = (values.to(rows.dtype).unsqueeze(1) @ rows).squeeze(1) + first.bias
        return self.tower(self.tower.memory_of(F.gelu(x), others))


class ProfileDecoder(nn.Module):
    """Condition, latent vector and log library size in; the rates and parameters of a cell's counts out (scVI's)."""

    def __init__(
        self, d_condition: int, d_mapped: int, n_latent: int, n_hidden: int, n_layers: int, n_genes: int
    ) -> None:
        super().__init__()
        self.mapping = Dense(d_condition, d_mapped, bias=True)
        sizes = [n_latent + d_mapped, *[n_hidden] * n_layers]
        self.hidden = nn.ModuleList(Dense(a, b, bias=True) for a, b in itertools.pairwise(sizes))
        self.scale, self.dropout = (Dense(n_hidden, n_genes, bias=True) for _ in range(2))
        narrow = (1 + d_mapped) // 2
        self.library1, self.library2 = Dense(1 + d_mapped, narrow, bias=True), Dense(narrow, 1, bias=True)
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    def forward(self, condition: Tensor, latent: Tensor, library: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B, d], [B, z] and [B, 1] to rates [B, G], logits of dropout [B, G] and the log library size [B, 1].

        Rates are float32 whatever the precision is.
        """
        mapped = self.mapping(condition)
        size = self.library2(F.gelu(self.library1(torch.cat((library, mapped), -1))))
        x = torch.cat((latent, mapped), -1)
        for layer in self.hidden:
            x = layer(x)
            x = F.gelu(F.layer_norm(x, x.shape[-1:]))
        # In half precision e^11.09 would overflow, and shares below 6e-8 vanish.
        return size.float().exp() * self.scale(x).float().softmax(-1), self.dropout(x), size


def _without_cross(config: BertConfig) -> BertConfig:
    return replace(config, d_memory=0)
