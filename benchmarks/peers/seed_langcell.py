"""LangCell as upstream runs it, in torch: a forward of the matching tower for every text, over a batch of cells.

Cells are padded to the longest of their batch, and keys and values of the cells are projected again for every text, as
the original's text encoder does when it is called; texts are tokenised again for every batch. Attention is torch's own
fused one, which is kinder than the original's. The cell encoder is transformers' BertModel.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peers.langcell_cells import TEMPERATURE, rank_tokens
from peers.protocol import Answer, Engine, serve, versions
from peers.seed_parts import WEIGHTS_SEED, linear
from torch import Tensor, nn

from cellscribe.engine.labels import Labels
from cellscribe.engine.rank_model import label_texts
from cellscribe.export.checkpoint.langcell import RankParts
from cellscribe.export.models.bert import Bert, BertCross, BertLayer
from cellscribe.export.models.langcell import unit
from cellscribe.export.random_ranks import random_ranks

ALPHA = 0.1


class UpstreamLayer(nn.Module):
    """Self-attention, attention to a cell on request, and a feed-forward, in torch's modules."""

    def __init__(self, ours: BertLayer) -> None:
        super().__init__()
        self.heads, self.activation = ours.n_heads, F.relu if ours.activation == "relu" else F.gelu
        self.qkv, self.out, self.norm1 = linear(ours.qkv), linear(ours.out), ours.norm1
        self.linear1, self.linear2, self.norm2 = linear(ours.linear1), linear(ours.linear2), ours.norm2
        self.cross = None if ours.cross is None else UpstreamCross(ours.cross)

    def forward(self, x: Tensor, cells: Tensor | None, cells_seen: Tensor | None) -> Tensor:
        """Map x [B, T, d] to [B, T, d]; `cells` [B, S, m] where it attends to them."""
        q, k, v = (_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        x = self.norm1(x + self.out(_joined(F.scaled_dot_product_attention(q, k, v))))
        if self.cross is not None and cells is not None:
            x = self.cross(x, cells, cells_seen)
        found: Tensor = self.norm2(x + self.linear2(self.activation(self.linear1(x))))
        return found


class UpstreamCross(nn.Module):
    """Attention of texts to cells, whose keys and values it projects each time."""

    def __init__(self, ours: BertCross) -> None:
        super().__init__()
        self.heads = ours.n_heads
        self.q, self.kv, self.out, self.norm = linear(ours.q), linear(ours.kv), linear(ours.out), ours.norm

    def forward(self, x: Tensor, cells: Tensor, seen: Tensor | None) -> Tensor:
        """Map x [B, T, d] with cells [B, S, m] to [B, T, d]."""
        q, (k, v) = _heads(self.q(x), self.heads), (_heads(part, self.heads) for part in self.kv(cells).chunk(2, -1))
        found: Tensor = self.norm(x + self.out(_joined(F.scaled_dot_product_attention(q, k, v, seen))))
        return found


class UpstreamText(nn.Module):
    """The text encoder, with a cell or without."""

    def __init__(self, ours: Bert) -> None:
        super().__init__()
        self.embedding, self.positions, self.norm = ours.embedding, ours.positions, ours.norm
        self.layers = nn.ModuleList(map(UpstreamLayer, ours.blocks))

    def forward(self, tokens: Tensor, cells: Tensor | None = None, cells_seen: Tensor | None = None) -> Tensor:
        """Map tokens int64 [B, T] without padding to states [B, T, d]."""
        x = self.norm(self.embedding(tokens) + self.positions.weight[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x, cells, cells_seen)
        return x


def cell_bert(ours: Bert) -> Any:
    """Make transformers' BertModel with the weights of ours."""
    from transformers import BertConfig, BertModel

    c = ours.config
    made = BertModel(
        BertConfig(
            vocab_size=c.vocab_size, hidden_size=c.d_model, num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads,
            intermediate_size=c.d_ffn, hidden_act=c.activation, max_position_embeddings=c.max_positions,
            layer_norm_eps=c.norm_eps, pad_token_id=0,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    state = {
        "embeddings.word_embeddings.weight": ours.embedding.weight,
        "embeddings.position_embeddings.weight": ours.positions.weight,
        "embeddings.token_type_embeddings.weight": torch.zeros(2, c.d_model),
        **_norm("embeddings.LayerNorm", ours.norm),
    }
    for i, layer in enumerate(ours.blocks):
        at = f"encoder.layer.{i}"
        parts = zip(layer.qkv.weight.chunk(3, 1), layer.qkv.bias.chunk(3), ("query", "key", "value"), strict=True)
        for weight, bias, name in parts:
            state |= {f"{at}.attention.self.{name}.weight": weight.t(), f"{at}.attention.self.{name}.bias": bias}
        for name, dense in (
            ("attention.output", layer.out),
            ("intermediate", layer.linear1),
            ("output", layer.linear2),
        ):
            state |= {f"{at}.{name}.dense.weight": dense.weight.t(), f"{at}.{name}.dense.bias": dense.bias}
        state |= _norm(f"{at}.attention.output.LayerNorm", layer.norm1) | _norm(f"{at}.output.LayerNorm", layer.norm2)
    missing, unknown = made.load_state_dict(state, strict=False)
    left = [name for name in missing if not name.endswith(("position_ids", "token_type_ids"))]
    if left or unknown:
        raise ValueError(f"transformers' BertModel has other weights: {[*left, *unknown][:3]}")
    return made.eval()


class SeedLangCell(Engine):
    """Labels cells, or embeds them."""

    def do_open(self, shape: str = "langcell", threads: int = 2) -> Answer:
        """Draw the weights."""
        torch.set_num_threads(threads)
        self._parts: RankParts = random_ranks(shape, WEIGHTS_SEED)
        assert self._parts.texts is not None
        self._cell = cell_bert(self._parts.cell)
        self._text = UpstreamText(self._parts.texts.bert)
        return {
            "versions": versions("torch", "transformers"),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "notes": f"cells by BertModel ({self._cell.config._attn_implementation}), texts by torch's fused attention",
        }

    @torch.inference_mode()
    def do_label(self, cells_file: str, cells: int, labels: list[str], batch: int = 8) -> Answer:
        """Label the first cells of a file."""
        tokens, texts = rank_tokens(cells_file, cells), label_texts(Labels(tuple(labels), ("",) * len(labels)))
        heads = self._parts.texts
        assert heads is not None
        started = time.perf_counter()
        text_vectors = torch.cat([unit(heads.projection, self._text(one)[:, 0]) for one in self._tokenised(texts)])
        encode_seconds, found, leads, sure = 0.0, [], [], []
        for at in range(0, cells, batch):
            encoding = time.perf_counter()
            states, mask = self._encoded(tokens[at : at + batch])
            encode_seconds += time.perf_counter() - encoding
            similar = F.softmax(self._vectors(states) @ text_vectors.T / TEMPERATURE, -1)
            matched = [
                F.softmax(
                    heads.head(self._text(one.expand(len(states), -1), states, mask[:, None, None])[:, 0]).float(), -1
                )[:, 1]
                for one in self._tokenised(texts)
            ]
            scores = ALPHA * similar + (1 - ALPHA) * F.softmax(torch.stack(matched, -1), -1)
            best = scores.topk(2, -1)
            found += best.indices[:, :1].tolist()
            sure += best.values[:, 0].tolist()
            leads += (best.values[:, :1] - best.values[:, 1:]).tolist()
        total = time.perf_counter() - started
        return {
            "tokens": found, "margins": leads, "scores": sure, "seconds": total, "encode_seconds": encode_seconds,
            "match_seconds": total - encode_seconds,
        }  # fmt: skip

    @torch.inference_mode()
    def do_embed(self, cells_file: str, cells: int, batch: int = 8, save: str = "") -> Answer:
        """Embed the first cells of a file; `save` keeps the vectors as .npy."""
        tokens = rank_tokens(cells_file, cells)
        started = time.perf_counter()
        vectors = torch.cat([self._vectors(self._encoded(tokens[at : at + batch])[0]) for at in range(0, cells, batch)])
        seconds = time.perf_counter() - started
        if save:
            np.save(save, vectors.numpy())
        return {"seconds": seconds}

    def _encoded(self, tokens: list[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, tokens))
        ids, mask = torch.zeros(len(tokens), longest, dtype=torch.int64), torch.zeros(len(tokens), longest).bool()
        for row, one in enumerate(tokens):
            ids[row, : len(one)], mask[row, : len(one)] = torch.from_numpy(one), True
        return self._cell(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask

    def _vectors(self, states: Tensor) -> Tensor:
        projection = self._parts.projection
        assert projection is not None
        return unit(projection, states[:, 0])

    def _tokenised(self, texts: list[str]) -> list[Tensor]:
        assert self._parts.texts is not None
        return [torch.tensor([one.ids]) for one in self._parts.texts.tokenizer.encode_batch(texts)]


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _norm(name: str, norm: nn.LayerNorm) -> dict[str, Tensor]:
    return {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}


if __name__ == "__main__":
    serve(SeedLangCell())
