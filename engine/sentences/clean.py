"""Generated sentences made usable: words that are no genes marked, repeated genes merged.

The rules are those that Cell2Sentence 1.2.0 shows by its outputs: words are parted by single spaces, so that two
spaces have an empty word between them, and compared in upper case; what is no gene keeps its place as ``NOT_A_GENE``;
of a gene that is named several times one mention is left, at the mean of its places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from cellscribe.engine.sentences import native
from cellscribe.engine.sentences.genes import SentenceGenes

NOT_A_GENE = "NOT_A_GENE"
_NONE = -1


@dataclass(frozen=True)
class Cleaned:
    """A sentence by genes: `genes` are columns, -1 for a word that is no gene, of which there were `num_replaced`."""

    genes: tuple[int, ...]
    num_replaced: int

    def words(self, genes: SentenceGenes) -> list[str]:
        """Return the words, ``NOT_A_GENE`` for what is none."""
        return [NOT_A_GENE if gene == _NONE else genes.words[gene] for gene in self.genes]


@dataclass(frozen=True)
class CleanedBatch:
    """B cleaned sentences: `indptr` int64 [B + 1], `genes` int32 [M] (-1: none), `num_replaced` int64 [B]."""

    indptr: npt.NDArray[np.int64]
    genes: npt.NDArray[np.int32]
    num_replaced: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Words of each sentence, int64 [B]."""
        return np.diff(self.indptr)


def clean_sentences(sentences: Sequence[str], genes: SentenceGenes) -> CleanedBatch:
    """Do what :func:`clean_sentence` does with many sentences at once."""
    compiled, table = native.find_native(), genes.table
    if compiled is not None and table is not None:
        return CleanedBatch(*compiled.clean(sentences, *genes.text, table))
    cleaned = [clean_sentence(one, genes) for one in sentences]
    lengths = np.fromiter((len(one.genes) for one in cleaned), np.int64, len(cleaned))
    found = np.fromiter(chain.from_iterable(one.genes for one in cleaned), np.int32, int(lengths.sum()))
    replaced = np.fromiter((one.num_replaced for one in cleaned), np.int64, len(cleaned))
    return CleanedBatch(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), found, replaced)


def clean_sentence(sentence: str, genes: SentenceGenes) -> Cleaned:
    """Find the genes of a sentence and merge those that are named several times.

    Genes are merged one after the other in the order of their first mention: all mentions are taken out of what the
    earlier merges left, and one is put in at the mean of their places there, rounded down.
    """
    find = genes.index.get
    found = [find(word, _NONE) for word in sentence.upper().split(" ")]
    num_replaced = found.count(_NONE)
    if len(set(found)) < len(found) - max(0, num_replaced - 1):
        _merge(found)
    return Cleaned(tuple(found), num_replaced)


def _merge(found: list[int]) -> None:
    first: dict[int, int] = {}
    repeated: dict[int, None] = {}
    for place, gene in enumerate(found):
        if gene != _NONE and first.setdefault(gene, place) != place:
            repeated[gene] = None
    for gene in sorted(repeated, key=first.__getitem__):
        places = []
        at = found.index(gene)
        while True:
            places.append(at)
            try:
                at = found.index(gene, at + 1)
            except ValueError:
                break
        for place in reversed(places):
            del found[place]
        found.insert(sum(places) // len(places), gene)
