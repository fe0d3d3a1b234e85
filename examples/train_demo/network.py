"""The demonstration's LingoCell: its sizes, its start, and what it is trained for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from cells import Cells
from torch import Tensor, nn

from cellscribe.export.models.lingocell import CrossConfig, DecoderConfig, LingoDecoder
from cellscribe.export.models.scgpt import ContinuousValues, ScgptConfig, ScgptEncoder

MAX_POSITIONS = 512


@dataclass(frozen=True)
class Sizes:
    """Widths and depths; small enough for a bundle of a few megabytes."""

    d_encoder: int = 64
    encoder_layers: int = 3
    encoder_heads: int = 4
    encoder_ffn: int = 128
    d_decoder: int = 96
    decoder_layers: int = 4
    cross_layers: int = 3
    decoder_heads: int = 4
    kv_heads: int = 2
    decoder_ffn: int = 256


@dataclass(frozen=True)
class Weights:
    """How much each part of the loss counts, and how hard training is regularised."""

    type_token: float = 4.0  # the token that decides the type, against 1 for any other
    gene_token: float = 3.0
    attention: float = 0.3
    type_head: float = 0.5
    salience: float = 0.5
    smoothing: float = 0.05
    dropout: float = 0.1


class DemoModel(nn.Module):
    """Encoder and decoder, with two heads that only training uses."""

    def __init__(self, sizes: Sizes, n_tokens: int, n_words: int, n_types: int, dropout: float) -> None:
        super().__init__()
        d, m = sizes.d_decoder, sizes.d_encoder
        encoder = ScgptConfig(n_tokens, m, sizes.encoder_layers, sizes.encoder_heads, sizes.encoder_ffn)
        decoder = DecoderConfig(
            n_words,
            d,
            sizes.decoder_layers,
            sizes.decoder_heads,
            sizes.kv_heads,
            sizes.decoder_ffn,
            tie_embeddings=True,
            max_positions=MAX_POSITIONS,
        )
        self.encoder = ScgptEncoder(encoder)
        self.decoder = LingoDecoder(decoder, CrossConfig(sizes.cross_layers, d_memory=m, n_kv_heads=sizes.decoder_heads))
        self.type_head = nn.Linear(m, n_types)
        self.salience_head = nn.Linear(m, n_types)
        self.dropout = nn.Dropout(dropout)

    def prepare(self, prompt_len: int) -> None:
        """Drop features after every block while training, and predict nothing inside the prompt."""
        self.decoder.norm.register_forward_pre_hook(lambda _, args: args[0][:, prompt_len - 1 :])
        blocks = [*self.encoder.layers, self.encoder.genes]
        for layer in self.decoder.layers:
            blocks += [layer.attention.out, layer.feed_forward] + ([layer.cross.out] if layer.cross else [])
        for block in blocks:
            block.register_forward_hook(lambda _, __, out: self.dropout(out))

    def forward(self, ids: Tensor, values: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits [B, T, V], mean cross-attention [B, T, S], type logits [B, types], salience [B, S, types]."""
        mask = torch.ones_like(ids, dtype=torch.bool)
        memory, cell = self.encoder(ids, values, mask)
        logits, attention = self.decoder.forward_train(tokens, self.dropout(memory), mask, return_attention=True)
        assert attention is not None
        return logits, attention[:, :, :, -logits.shape[1] :].mean((1, 2)), self.type_head(self.dropout(cell)), self.salience_head(memory)


def initialise(model: DemoModel, train: Cells, words: np.ndarray, seed: int) -> None:
    """Start well: gene vectors from a decomposition of the training cells, value kinks spread over the digits."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.encoder.layers.modules():
        if hasattr(module, "bias") and hasattr(module, "weight") and module.weight.dim() == 2:
            nn.init.xavier_uniform_(module.weight, generator=generator)
    for name, p in model.decoder.named_parameters():
        if p.dim() == 2 and "embedding" not in name:
            nn.init.normal_(p, std=p.shape[0] ** -0.5 * (0.5 if "out" in name or "down" in name else 1), generator=generator)
    values = model.encoder.values
    assert isinstance(values, ContinuousValues)
    with torch.no_grad():
        values.linear1.weight.uniform_(0.05, 0.15, generator=generator)
        kinks = torch.rand(values.linear1.weight.shape[1], generator=generator) * 50
        values.linear1.bias.copy_(-values.linear1.weight[0] * (kinks - 2))
        nn.init.xavier_uniform_(values.linear2.weight, generator=generator)
        table = model.encoder.genes.embedding.weight.normal_(std=1.0, generator=generator)
        z = (train.expression - train.expression.mean(0)) / (train.expression.std(0) + 0.1)
        loadings = np.linalg.svd(z, full_matrices=False)[2][:24].T * np.sqrt(z.shape[1])  # [G, 24]
        table[1 : len(loadings) + 1, :24] = torch.from_numpy(loadings).float()
        spoken = torch.from_numpy(words > 0)
        bridge = torch.randn(table.shape[1], sizes_of(model), generator=generator) * table.shape[1] ** -0.5
        model.decoder.embedding.weight[spoken] = 0.02 * table[torch.from_numpy(words)[spoken]] @ bridge


def sizes_of(model: DemoModel) -> int:
    """Width of the decoder."""
    return model.decoder.config.d_model


@dataclass(frozen=True)
class Batch:
    """One training step's cells and texts; `kind` [B, T] is the label index of type tokens, else -1."""

    ids: Tensor  # [B, S]
    values: Tensor  # [B, S]
    tokens: Tensor  # [B, P + T - 1], prompt and text
    target: Tensor  # [B, T], the token that follows each of the last T tokens
    wanted: Tensor  # [B, T], bool: not padding
    attend: Tensor  # [B, T], memory position each prediction should attend to
    kind: Tensor  # [B, T]
    soft: Tensor  # [B, types], target distribution over types
    salience: Tensor  # [B, S, types]
    type_words: Tensor  # [types], first token of each type name


def loss_parts(model: DemoModel, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    """Return the parts of the loss, weighted."""
    logits, attention, types, salience = model(batch.ids, batch.values, batch.tokens)
    rows, places = batch.wanted.nonzero(as_tuple=True)
    target, kind = batch.target[rows, places], batch.kind[rows, places]
    logits = logits[rows, places]  # [n, V]
    plain = F.cross_entropy(logits, target, label_smoothing=weights.smoothing, reduction="none")
    decide = kind >= 0
    typed = -(logits[decide].log_softmax(-1)[:, batch.type_words] * batch.soft[rows[decide]]).sum(-1)
    mass = attention[rows, places, batch.attend[rows, places]].clamp_min(1e-6)
    n, attend = len(rows), batch.attend[rows, places]
    weight = torch.where(attend > 0, weights.gene_token, 1.0)
    return {
        "text": ((plain * weight)[~decide].sum() + weights.type_token * typed.sum()) / n,
        "genes": plain[attend > 0].mean().detach(),
        "attention": weights.attention * -(mass[attend > 0].log().mean() + mass[attend == 0].log().mean()),
        "types": weights.type_head * F.cross_entropy(types, batch.soft),
        "salience": weights.salience * F.mse_loss(salience, batch.salience),
    }
