"""The demonstration's LingoCell: its sizes, its start, and what it is trained for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from cells import Cells
from tokens import Ids
from torch import Tensor, nn

from cellscribe.export.models.lingocell import CrossConfig, DecoderConfig, LingoDecoder
from cellscribe.export.models.scgpt import ContinuousValues, ScgptConfig, ScgptEncoder

MAX_POSITIONS = 512
SHARED = 24  # of the gene vector's numbers that start from the decomposition


@dataclass(frozen=True)
class Sizes:
    """Widths and depths; small enough for a bundle of a few megabytes."""

    d_encoder: int = 64
    encoder_layers: int = 3
    encoder_heads: int = 4
    encoder_ffn: int = 128
    d_decoder: int = 96
    decoder_layers: int = 4
    cross_layers: int = 2
    decoder_heads: int = 4
    kv_heads: int = 2
    decoder_ffn: int = 256


@dataclass(frozen=True)
class Weights:
    """How much each part of the loss counts, and how hard training is regularised."""

    type_token: float = 5.0  # the token that decides the type, against 1 for any other
    gene_token: float = 3.0
    attention: float = 0.3
    repeats: float = 2.0
    type_head: float = 0.5
    state_head: float = 0.15
    salience: float = 0.5
    smoothing: float = 0.05
    dropout: float = 0.1


class DemoModel(nn.Module):
    """Encoder and decoder, with three heads that only training uses."""

    def __init__(self, sizes: Sizes, n_tokens: int, n_words: int, n_types: int, n_states: int, dropout: float) -> None:
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
        cross = CrossConfig(sizes.cross_layers, d_memory=m, n_kv_heads=sizes.decoder_heads)
        self.decoder = LingoDecoder(decoder, cross)
        self.type_head = nn.Linear(m, n_types)
        self.state_head = nn.Linear(m, n_states)
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
        """Return logits [B, T, V], mean cross-attention [B, T, S], memory [B, S, m] and the cell embedding [B, m]."""
        mask = torch.ones_like(ids, dtype=torch.bool)
        memory, cell = self.encoder(ids, values, mask)
        logits, attention = self.decoder.forward_train(tokens, self.dropout(memory), mask, return_attention=True)
        assert attention is not None
        return logits, attention[:, :, :, -logits.shape[1] :].mean((1, 2)), memory, self.dropout(cell)


def initialise(model: DemoModel, train: Cells, gene_of: Ids, seed: int) -> None:
    """Start well: in particular, what the encoder and the decoder call a gene is related from the start.

    Parameters
    ----------
    model
        Overwritten, less its norms, biases and training heads.
    train
        The training cells; gene vectors start from a decomposition of their expression.
    gene_of
        For each token of the text the memory position of the gene it names, 0 for none [V].
    seed
        Of all random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and name.startswith("encoder.layers"):
            nn.init.xavier_uniform_(weight, generator=generator)
        elif weight.dim() == 2 and name.startswith("decoder.layers"):
            shrink = 0.5 if "out" in name or "down" in name else 1.0  # what adds to the residual stream
            nn.init.normal_(weight, std=shrink * weight.shape[0] ** -0.5, generator=generator)
    assert isinstance(model.encoder.values, ContinuousValues)
    with torch.no_grad():
        _spread_kinks(model.encoder.values, generator)
        _relate_genes(model, train, torch.from_numpy(gene_of), generator)


def _spread_kinks(values: ContinuousValues, generator: torch.Generator) -> None:
    """Let the hidden units of the value MLP switch on at different digits."""
    slopes = values.linear1.weight.uniform_(0.05, 0.15, generator=generator)  # [1, d]
    kinks = torch.rand(slopes.shape[1], generator=generator) * 50
    values.linear1.bias.copy_(-slopes[0] * (kinks - 2))
    nn.init.xavier_uniform_(values.linear2.weight, generator=generator)


def _relate_genes(model: DemoModel, train: Cells, gene_of: Tensor, generator: torch.Generator) -> None:
    """Start gene vectors from the training cells, and the tokens that name genes from a projection of those."""
    table = model.encoder.genes.embedding.weight.normal_(std=1.0, generator=generator)  # [S + 2, m]
    z = (train.expression - train.expression.mean(0)) / (train.expression.std(0) + 0.1)
    loadings = np.linalg.svd(z, full_matrices=False)[2][:SHARED].T * np.sqrt(z.shape[1])  # [G, SHARED]
    table[1 : len(loadings) + 1, :SHARED] = torch.from_numpy(loadings).float()
    words = model.decoder.embedding.weight
    bridge = torch.randn(table.shape[1], words.shape[1], generator=generator) * table.shape[1] ** -0.5
    words[gene_of > 0] = 0.02 * table[gene_of[gene_of > 0]] @ bridge


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
    state: Tensor  # [B], index of the state
    salience: Tensor  # [B, S, types]


@dataclass(frozen=True)
class Words:
    """Tokens with a role: the first of each type name [types], and the one that names each memory position [S]."""

    types: Tensor
    genes: Tensor


def loss_parts(model: DemoModel, batch: Batch, words: Words, weights: Weights) -> dict[str, Tensor]:
    """Return the parts of the loss, weighted."""
    logits, attention, memory, cell = model(batch.ids, batch.values, batch.tokens)
    rows, places = batch.wanted.nonzero(as_tuple=True)
    logits, attention, attend = logits[rows, places], attention[rows, places], batch.attend[rows, places]  # [n, ...]
    plain = F.cross_entropy(logits, batch.target[rows, places], label_smoothing=weights.smoothing, reduction="none")
    decides, names = batch.kind[rows, places] >= 0, attend > 0
    typed = -(logits[decides].log_softmax(-1)[:, words.types] * batch.soft[rows[decides]]).sum(-1)
    weight = torch.where(names, weights.gene_token, 1.0)
    mass = attention.gather(-1, attend[:, None]).squeeze(-1).clamp_min(1e-6)
    said = already_named(batch.attend, attention.shape[-1])[rows, places][names]  # [genes named, S]
    chance = logits[names].softmax(-1)[:, words.genes]
    again = [-torch.log1p(-(p * said).sum(-1).clamp(max=0.999)).mean() for p in (chance, attention[names])]
    return {
        "text": ((plain * weight)[~decides].sum() + weights.type_token * typed.sum()) / len(rows),
        "attention": weights.attention * -(mass[names].log().mean() + mass[~names].log().mean()),
        "repeats": weights.repeats * sum(again, torch.zeros(())),
        "types": weights.type_head * F.cross_entropy(model.type_head(cell), batch.soft),
        "states": weights.state_head * F.cross_entropy(model.state_head(cell), batch.state, label_smoothing=0.1),
        "salience": weights.salience * F.mse_loss(model.salience_head(memory), batch.salience),
    }


def already_named(attend: Tensor, n_genes: int) -> Tensor:
    """Say for each prediction which memory positions the text has named before, bool [B, T, S]."""
    named = F.one_hot(attend, n_genes)
    before = (named.cumsum(1) - named) > 0
    before[..., 0] = False
    return before
