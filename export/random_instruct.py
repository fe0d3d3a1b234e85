"""InstructCells of known shapes with random weights: for benchmarks and tests, where only sizes matter."""

from __future__ import annotations

import string
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import nn

from cellscribe.engine.cells.gene_names import symbol_by_id
from cellscribe.engine.ranks.genes import packaged_dictionaries
from cellscribe.export.checkpoint.added_tokens import TokenFiles
from cellscribe.export.checkpoint.instructcell import InstructParts, SpecialTokens
from cellscribe.export.checkpoint.sentencepiece import tokenizer_of
from cellscribe.export.checkpoint.spiece import Pieces
from cellscribe.export.models.bert import BertConfig
from cellscribe.export.models.instructcell import CellTower, ProfileDecoder, TowerConfig
from cellscribe.export.models.t5 import T5, Attention, Bias, T5Config

NUM_GENES = 18_961
_CELL_TOKENS = ("<CELL>", "</CELL>", "<CELL0>", "<CELL1>")  # start, end, placeholder, signal
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"

_EXPRESSED = 4_000  # what the squared values of a cell add up to, more or less
_SPREAD = 2.0  # standard deviation of the logits: near-ties would make greedy comparisons meaningless
_EMBEDDING = 0.25  # of tokens: or the tied head would choose the token it was given again
_SHARP = 3.0  # standard deviation of scores: flat attention would make all cells alike
_REPELS = 2.0  # how strongly the tokens before are taken away from what comes next: or texts would repeat one
_BIAS = 0.1
_LIBRARY = (8.0, 0.25)  # mean and variance of the log library size


@dataclass(frozen=True)
class ProfileSizes:
    """Sizes of the decoder of profiles."""

    d_mapped: int
    n_latent: int
    n_hidden: int
    n_layers: int


@dataclass(frozen=True)
class InstructSizes:
    """Sizes of an InstructCell."""

    t5: T5Config
    tower: TowerConfig
    profile: ProfileSizes

    @property
    def tokens(self) -> SpecialTokens:
        """The last tokens of the vocabulary."""
        return SpecialTokens(*range(self.t5.vocab_size - len(_CELL_TOKENS), self.t5.vocab_size))


def _sizes(t5: T5Config, n_memory: int, n_layers: int, profile: ProfileSizes) -> InstructSizes:
    former = BertConfig(0, t5.d_model, n_layers, t5.n_heads, 4 * t5.d_model, 0, "gelu", 1e-12, d_memory=t5.d_model)
    return InstructSizes(t5, TowerConfig(NUM_GENES, 3, n_memory, 8, former, cross_every=1), profile)


SIZES = {
    # As published (Fang et al., 2025): T5-base, 32,100 tokens of its own and four of cells.
    "instructcell": _sizes(T5Config(32104, 768, 64, 12, 3072, 12, 12), 6, 4, ProfileSizes(256, 256, 1024, 4)),
    "instructcell-tiny": _sizes(T5Config(128, 48, 12, 4, 96, 2, 2), 3, 2, ProfileSizes(12, 8, 32, 2)),
}


def random_instruct(shape: str, seed: int) -> InstructParts:
    """Draw an InstructCell of a known shape.

    Numbers stay of order one through the depth, and texts neither end at once nor repeat one token.
    """
    sizes, generator = SIZES[shape], torch.Generator().manual_seed(seed)
    p = sizes.profile
    with torch.device("meta"):
        t5, tower = T5(sizes.t5), CellTower(sizes.tower)
        decoder = ProfileDecoder(sizes.t5.d_model, p.d_mapped, p.n_latent, p.n_hidden, p.n_layers, NUM_GENES)
    for module in (t5, tower, decoder):
        module.to_empty(device="cpu").requires_grad_(False)
        _fill(module, generator)
    _balance_t5(t5, generator)
    tower.get_parameter("blocks.0.weight").mul_((NUM_GENES / _EXPRESSED) ** 0.5)
    decoder.mapping.weight.mul_(_EMBEDDING / _SPREAD)
    decoder.get_parameter("library2.bias").fill_(_LIBRARY[0])
    decoder.log_theta.normal_(generator=generator)
    notes = f"random weights (shape {shape}, seed {seed}): for measuring speed, its answers mean nothing"
    return InstructParts(t5.eval(), tower.eval(), decoder.eval(), _LIBRARY, p.n_latent, sizes.tokens, notes)


def random_words(shape: str) -> Tokenizer:
    """Return a T5's tokenizer of the shape's size, made of single characters; the tokens of cells come last."""
    size = SIZES[shape].t5.vocab_size - len(_CELL_TOKENS)
    letters = ["▁", "\n", *(one for one in string.printable if not one.isspace())]
    words = [_PAD, _END, _UNKNOWN, *letters]
    words += [f"<unused{i}>" for i in range(size - len(words))]
    pieces = Pieces(tuple((word, -1.0) for word in words[:size]), 2, (_PAD, _END), b"", True, True)
    listed: list[str] = list(_CELL_TOKENS)
    return tokenizer_of(pieces, TokenFiles({"extra_ids": 0}, {"additional_special_tokens": listed}, {}))


def random_genes() -> tuple[str, ...]:
    """Return the symbols of `NUM_GENES` well-known genes."""
    symbols, (tokens, _) = symbol_by_id(), packaged_dictionaries()
    return tuple([symbols[one] for one in tokens if one in symbols][:NUM_GENES])


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Draw maps so that they keep the size of numbers."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            is_table = "embedding" in name or name == "queries"
            parameter.normal_(std=1.0 if is_table else parameter.shape[-2] ** -0.5, generator=generator)
        elif name.endswith("bias"):
            parameter.normal_(std=_BIAS, generator=generator)
        else:
            parameter.fill_(1.0)


def _balance_t5(t5: T5, generator: torch.Generator) -> None:
    c = t5.config
    t5.embedding.weight.mul_(_EMBEDDING)
    t5.decoder.norm.weight.fill_(_SPREAD / _EMBEDDING)
    for one in t5.modules():
        if isinstance(one, Attention):  # whose scores are not scaled
            one.q.weight.mul_(_SHARP * c.d_head**-0.5)
        elif isinstance(one, Bias):
            one.table.copy_(one.rows_of(torch.randn(c.buckets, c.n_heads, generator=generator)))
    first = t5.decoder.blocks[0].attention
    first.out.weight.copy_(-_REPELS * first.v.weight.t())
