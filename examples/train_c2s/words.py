"""The tokenizer: every word of prompts and labels and every frequent gene is one token; other words are spelled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sets import CellSet
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cellscribe.engine.keyed import stream_keys
from cellscribe.engine.sentences.ranked import rank_genes
from cellscribe.engine.sentences.templates import Template
from cellscribe.engine.sentences.transform import TIES

END = "<|endoftext|>"
END_ID = 0
TASKS = ("cell_type_prediction", "conditional_cell_generation", "cell_generation")
WORDS = Regex(r" ?[\w+/\-.]*[\w+/\-]| ?[^\s\w]|\s")  # a word keeps its leading space; other signs stand alone
PIECES = 768  # of which words without a token of their own are spelled, the 256 bytes among them
_SPACE = "Ġ"  # what the byte-level alphabet writes for a space


def frequent_genes(sets: Iterable[CellSet], num_genes: int, least: int) -> list[str]:
    """Return the genes that are among the `num_genes` highest of at least `least` cells, in alphabetical order."""
    found: Counter[str] = Counter()
    for cells in sets:
        ranked = rank_genes(cells.part(), cells.genes, stream_keys(0, cells.keys, TIES), num_genes)
        found.update(cells.genes.words[i] for i in ranked.genes)
    return sorted(gene for gene, count in found.items() if count >= least)


def make_tokenizer(
    templates: Mapping[str, Template], labels: Sequence[str], genes: Sequence[str], others: Sequence[str]
) -> Tokenizer:
    """Build the tokenizer.

    Parameters
    ----------
    templates, labels, genes
        Whose words are tokens.
    others
        More genes; with the words they say which pieces are frequent.
    """
    words = [*_words_of(templates, labels), *(f" {gene}" for gene in genes)]
    pieces = _untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator([*words, *(f" {gene}" for gene in others)], trainer)
    made = json.loads(pieces.to_str())
    vocab = made["model"]["vocab"]
    for word in words:
        for one, _ in pieces.pre_tokenizer.pre_tokenize_str(word):
            vocab.setdefault(one, len(vocab))
    return Tokenizer.from_str(json.dumps(made))


def gene_ids(tokenizer: Tokenizer, genes: Sequence[str]) -> list[int]:
    """Return the token of every gene, -1 for one that is spelled."""
    vocab = tokenizer.get_vocab()
    return [vocab.get(_SPACE + gene, -1) for gene in genes]


def _untrained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))  # a word of the vocabulary is taken as it is
    split = pre_tokenizers.Split(WORDS, behavior="isolated")
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, spell])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _words_of(templates: Mapping[str, Template], labels: Sequence[str]) -> Iterator[str]:
    for task in TASKS:
        yield from templates[task].prompts
    yield from (f" {label}" for label in labels)
    yield from (f" {number}" for number in range(50, 101))
    yield from ("human", " human")
