"""Genes of a cell by falling expression."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.parts import Part
from cellscribe.engine.keyed import UInt64, draws
from cellscribe.engine.sentences import native
from cellscribe.engine.sentences.genes import SentenceGenes

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranked:
    """The genes of B cells by falling value: `indptr` int64 [B + 1], `genes` int32 [M], `values` float32 [M]."""

    indptr: Int64
    genes: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]

    @property
    def lengths(self) -> Int64:
        """Genes per cell, int64 [B]."""
        return np.diff(self.indptr)

    @property
    def ranks(self) -> Int64:
        """Place of every gene in its cell, from 0, int64 [M]."""
        return np.arange(len(self.genes)) - np.repeat(self.indptr[:-1], self.lengths)


def rank_genes(part: Part, genes: SentenceGenes, row_keys: UInt64, num_genes: int | None = None) -> Ranked:
    """Order the genes of every cell by falling value.

    Equal values are ordered by a draw keyed by (seed, cell, gene name): neither the other cells nor the order of the
    columns play a part. A gene that is zero, stored or not, is left out.

    Parameters
    ----------
    part
        Values of B cells, none negative.
    genes
        Words of the columns.
    row_keys
        Stream keys of the cells, uint64 [B] (:func:`cellscribe.engine.keyed.stream_keys`).
    num_genes
        Genes to keep of a cell, the highest; None keeps all.
    """
    lengths = np.diff(part.indptr)
    most = max(1, int(lengths.max(initial=1)) if num_genes is None else num_genes)
    if (compiled := native.find_native()) is not None:
        kept = _pointers(np.minimum(lengths, most))
        found = compiled.rank(part, genes.keys, row_keys, kept)
        if found is not None:
            return Ranked(kept, *found)
    return _rank(part, genes.keys, row_keys, most)


def _rank(part: Part, gene_keys: UInt64, row_keys: UInt64, most: int) -> Ranked:
    """The same with NumPy."""
    stored = np.flatnonzero(part.data)
    rows, genes, values = part.row_of[stored], part.indices[stored], part.data[stored]
    tie = draws(row_keys[rows], gene_keys[genes])
    order = np.lexsort((genes, tie, -values, rows))
    lengths = np.bincount(rows, minlength=part.n_rows)
    place = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = order[place < most]
    return Ranked(_pointers(np.minimum(lengths, most)), genes[order], values[order])


def to_sentences(ranked: Ranked, genes: SentenceGenes) -> list[str]:
    """Join the words of every cell by single spaces; a cell without genes gives an empty sentence."""
    if (compiled := native.find_native()) is not None:
        text, ends = compiled.join(ranked.indptr, ranked.genes, *genes.text)
        edges, whole = ends.tolist(), str(text.data, "utf-8")
        if len(whole) == len(text):  # a character a byte
            return [whole[a:b] for a, b in pairwise(edges)]
        return [str(text[a:b].data, "utf-8") for a, b in pairwise(edges)]
    words, edges = np.array(genes.words, dtype=object)[ranked.genes], ranked.indptr.tolist()
    return [" ".join(words[a:b]) for a, b in pairwise(edges)]


def _pointers(lengths: npt.NDArray[np.integer]) -> Int64:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
