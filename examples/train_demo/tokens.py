"""The tokenizer: a byte-level BPE in which every gene the model reads is one token, and the fixed prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cellscribe.export.prompt import Prompt

PROMPT = Prompt.chat()  # the one LingoCell is trained with; a start token stands before it
SPECIALS = ["<unk>", "<s>", "</s>"]
UNKNOWN, START, END = range(3)
WORDS = Regex(r" ?[^\s,.;:()]+|[,.;:()]|\s+")  # a word keeps its leading space; punctuation stands alone
GENE_REPEATS = 50  # makes each symbol frequent enough to become one token

Ids = npt.NDArray[np.int64]


def train_tokenizer(texts: Iterable[str], genes: Sequence[str], size: int) -> Tokenizer:
    """Train on the texts, the prompt and the gene symbols; any other text falls back to bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    split = pre_tokenizers.Split(WORDS, behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    symbols = "".join(f" {gene}" for gene in genes)
    prompt = PROMPT.text.replace("</s>", "")
    tokenizer.train_from_iterator([*texts, *[prompt] * GENE_REPEATS, *[symbols] * GENE_REPEATS], trainer)
    return tokenizer


@dataclass(frozen=True)
class Encoder:
    """Turns texts into token ids with what each token should attend to."""

    tokenizer: Tokenizer
    gene_of: Ids  # [V], the memory position of the gene a token names, 0 (`<cls>`) for all other tokens
    label_of: Ids  # [V], the index of the label whose name starts with the token, -1 for all other tokens
    prompt: Ids  # [P]

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, genes: Sequence[str], nameable: npt.NDArray[np.float32], type_names: Sequence[str]
    ) -> Encoder:
        """Look up the tokens of genes and of the first words of type names.

        Raises
        ------
        ValueError
            If a gene or the first word of a type name is not one token of its own.
        """
        size = tokenizer.get_vocab_size()
        gene_of, label_of = np.zeros(size, np.int64), np.full(size, -1, np.int64)
        for place, gene in enumerate(genes):
            if nameable[place]:
                gene_of[_single(tokenizer, gene)] = place + 1
        for place, name in enumerate(type_names):
            label_of[_single(tokenizer, name.split()[0])] = place
        if (label_of >= 0).sum() != len(type_names):
            raise ValueError("two types begin with the same token")
        prompt = np.array(PROMPT.token_ids(tokenizer, START))
        return cls(tokenizer, gene_of, label_of, prompt)

    def encode(self, text: str) -> Ids:
        """Return prompt, text and the end token."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return np.concatenate([self.prompt, ids, [END]])

    def batch(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Return tokens [B, T], padded with 0, and the lengths [B]."""
        rows = [self.encode(text) for text in texts]
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens, np.array([len(ids) for ids in rows])


def _single(tokenizer: Tokenizer, word: str) -> int:
    ids = tokenizer.encode(f" {word}", add_special_tokens=False).ids
    if len(ids) != 1:
        raise ValueError(f"{word} is {len(ids)} tokens; train a larger vocabulary")
    return int(ids[0])
