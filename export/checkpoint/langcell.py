"""LangCell's and Geneformer's checkpoint folders.

LangCell: ``cell_bert/`` and ``text_bert/`` (of Hugging Face); ``cell_proj``, ``text_proj`` and ``ctm_head``, each
``.bin``, ``.pt`` or ``.safetensors`` with a weight and a bias; the text encoder's tokenizer in ``tokenizer/``, in
``text_bert/`` or elsewhere. Geneformer: one folder of Hugging Face. Either may hold dictionaries of its own
(:mod:`cellscribe.export.checkpoint.dictionaries`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from cellscribe.engine.cells.vocabulary import CLS, EOS, GeneVocabulary
from cellscribe.engine.errors import CheckpointError
from cellscribe.engine.ranks.spec import RankInput
from cellscribe.export.checkpoint.bert import read_bert
from cellscribe.export.checkpoint.dictionaries import read_rank_vocabulary
from cellscribe.export.checkpoint.weights import (
    Taker,
    as_weights,
    load_strict,
    read_json,
    read_pickled_tensors,
    read_safetensors,
)
from cellscribe.export.checkpoint.wordpiece import read_wordpiece
from cellscribe.export.models.bert import Bert
from cellscribe.export.models.ops import Dense

_MOST_TOKENS = 2048  # of a cell, in Geneformer's first release and LangCell


@dataclass(frozen=True)
class TextParts:
    """What matches texts: the encoder that also looks at cells, its tokenizer, the projection and the head."""

    bert: Bert
    tokenizer: Tokenizer
    projection: Dense
    head: Dense


@dataclass(frozen=True)
class RankParts:
    """What a bundle that reads ranks is made of; `projection` and `texts` are LangCell's."""

    family: str
    cell: Bert
    vocabulary: GeneVocabulary
    input: RankInput
    projection: Dense | None = None
    texts: TextParts | None = None
    notes: str = ""


def read_langcell(folder: Path, tokenizer: Path | None = None) -> RankParts:
    """Read a LangCell checkpoint.

    Parameters
    ----------
    tokenizer
        Folder of the text encoder's tokenizer; None looks into the checkpoint.

    Raises
    ------
    CheckpointError
        When a part is missing or damaged, or the parts do not fit each other.
    """
    cell, text = read_bert(folder / "cell_bert"), read_bert(folder / "text_bert", is_cross=True)
    if text.config.d_memory != cell.config.d_model:
        raise CheckpointError(
            f"{folder / 'text_bert'} attends to states of {text.config.d_memory} numbers, and those of cell_bert have "
            f"{cell.config.d_model}; take both from one checkpoint."
        )
    vocabulary = read_rank_vocabulary(folder)
    _check_vocabulary(vocabulary, cell, folder)
    places = [tokenizer] if tokenizer is not None else [folder / "tokenizer", folder / "text_bert"]
    found = read_wordpiece(next((one for one in places if _has_words(one)), places[0]))
    if found.get_vocab_size() > text.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {found.get_vocab_size()} tokens where {folder / 'text_bert'} has "
            f"{text.config.vocab_size}; take the tokenizer it was trained with."
        )
    projection = _linear(folder, "cell_proj", cell.config.d_model)
    text_projection = _linear(folder, "text_proj", text.config.d_model)
    if projection.weight.shape[1] != text_projection.weight.shape[1]:
        raise CheckpointError(f"{folder}: cell_proj and text_proj give vectors of different length.")
    head = _linear(folder, "ctm_head", text.config.d_model)
    if head.weight.shape[1] != 2:
        raise CheckpointError(f"{folder / 'ctm_head'} gives {head.weight.shape[1]} numbers; a matching head gives two.")
    most = min(_MOST_TOKENS, cell.config.max_positions)
    texts = TextParts(text, found, text_projection, head)
    return RankParts("langcell", cell, vocabulary, RankInput(most), projection, texts)


def read_geneformer(folder: Path, layer: int = -1) -> RankParts:
    """Read a Geneformer checkpoint, for embeddings.

    Parameters
    ----------
    layer
        Which states are averaged: 0 for those of the last layer, -1 for the one before it, as Geneformer does by
        default.

    Raises
    ------
    CheckpointError
        When it is missing or damaged, or has not so many layers.
    """
    raw = read_json(folder / "config.json")
    layers = raw.get("num_hidden_layers") if isinstance(raw, dict) else None
    if not isinstance(layers, int) or layer > 0 or layers + layer < 1:
        raise CheckpointError(f"{folder} has {layers} layers; choose 0 for the last one, -1 for the one before it.")
    cell = read_bert(folder, num_layers=layers + layer)
    vocabulary = read_rank_vocabulary(folder)
    has_cls = cell.config.vocab_size == len(vocabulary.tokens)
    if not has_cls and cell.config.vocab_size != len(vocabulary.tokens) - 1:
        _check_vocabulary(vocabulary, cell, folder)
    most = cell.config.max_positions if EOS in vocabulary.index else min(_MOST_TOKENS, cell.config.max_positions)
    spec = RankInput(most, has_cls, has_cls and EOS in vocabulary.index, "cls" if has_cls else "mean")
    return RankParts("geneformer", cell, vocabulary, spec, notes=f"states of layer {layers + layer} of {layers}")


def _check_vocabulary(vocabulary: GeneVocabulary, cell: Bert, folder: Path) -> None:
    if len(vocabulary.tokens) != cell.config.vocab_size:
        raise CheckpointError(
            f"{folder} has a cell encoder of {cell.config.vocab_size} tokens and dictionaries of "
            f"{len(vocabulary.tokens)} with {CLS}; put its own token_dictionary and gene_median_dictionary (.json or "
            ".pkl) beside it."
        )


def _has_words(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))


def _linear(folder: Path, name: str, d_in: int) -> Dense:
    """Read a linear layer that stands alone in a file."""
    paths = [folder / f"{name}{end}" for end in (".safetensors", ".bin", ".pt")]
    path = next((one for one in paths if one.is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder / name}.bin is missing; the checkpoint folder must hold it.")
    stored = read_safetensors(path) if path.suffix == ".safetensors" else as_weights(read_pickled_tensors(path), path)
    taker = Taker(stored, str(path))
    state = {"weight": taker.take_linear("weight"), "bias": taker.take("bias")}
    taker.finish(())
    if state["weight"].dim() != 2 or state["weight"].shape[0] != d_in:
        raise CheckpointError(f"{path} does not map {d_in} numbers; take the file that belongs to the encoder.")
    with torch.device("meta"):
        made = Dense(d_in, state["weight"].shape[1], bias=True)
    load_strict(made, state, str(path))
    return made.eval()
