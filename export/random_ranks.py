"""LangCells of known shapes with random weights: for benchmarks and tests, where only sizes matter."""

from __future__ import annotations

import string
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import nn

from cellscribe.engine.ranks import RankInput
from cellscribe.engine.ranks.genes import packaged_dictionaries, rank_vocabulary
from cellscribe.export.checkpoint.langcell import RankParts, TextParts
from cellscribe.export.checkpoint.wordpiece import wordpiece
from cellscribe.export.models.bert import Bert, BertConfig
from cellscribe.export.models.ops import Dense

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SPREAD = 3.0  # of the matching head: or all texts would match alike


@dataclass(frozen=True)
class RankSizes:
    """Sizes of the two encoders and of their vectors."""

    cell: BertConfig
    text: BertConfig
    d_vector: int


SIZES = {
    # As published (Zhao et al., 2024): Geneformer's 12 layers, PubMedBERT with cross-attention.
    "langcell": RankSizes(
        BertConfig(25427, 512, 12, 8, 1024, 2048, "relu"), BertConfig(30524, 768, 12, 12, 3072, 512, d_memory=512), 256
    ),
    "langcell-tiny": RankSizes(
        BertConfig(25427, 32, 2, 2, 64, 2048, "relu"), BertConfig(256, 48, 2, 3, 96, 512, d_memory=32), 16
    ),
}


def random_ranks(shape: str, seed: int) -> RankParts:
    """Draw a LangCell of a known shape, with the packaged genes and a tokenizer of single characters."""
    sizes = SIZES[shape]
    generator = torch.Generator().manual_seed(seed)
    cell, text = Bert(sizes.cell), Bert(sizes.text)
    projection = Dense(sizes.cell.d_model, sizes.d_vector, bias=True)
    text_projection = Dense(sizes.text.d_model, sizes.d_vector, bias=True)
    head = Dense(sizes.text.d_model, 2, bias=True)
    for module, spread in ((cell, 1.0), (text, 1.0), (projection, 1.0), (text_projection, 1.0), (head, _SPREAD)):
        _draw(module, spread, generator)
    vocabulary = rank_vocabulary(*packaged_dictionaries())
    texts = TextParts(text.eval(), _characters(sizes.text.vocab_size), text_projection, head)
    notes = f"random weights (shape {shape}, seed {seed}): for measuring speed, its labels mean nothing"
    return RankParts("langcell", cell.eval(), vocabulary, RankInput(), projection, texts, notes)


def _draw(module: nn.Module, spread: float, generator: torch.Generator) -> None:
    """Draw every weight so that `spread` is the factor by which numbers grow; norms and biases stay."""
    module.requires_grad_(False)
    for one in module.modules():
        if isinstance(one, nn.Embedding):
            one.weight.normal_(generator=generator)
        elif isinstance(one, Dense):
            one.weight.normal_(std=spread * len(one.weight) ** -0.5, generator=generator)


def _characters(size: int) -> Tokenizer:
    letters = [one for one in string.printable if not one.isspace() and not one.isupper()]
    words = [*_SPECIALS, *letters, *(f"##{one}" for one in letters)]
    words += [f"[unused{i}]" for i in range(size - len(words))]
    return wordpiece({word: i for i, word in enumerate(words[:size])})
