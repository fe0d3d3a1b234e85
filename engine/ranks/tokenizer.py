"""Cells of a source as lists of tokens, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.gene_report import GeneReport
from cellscribe.engine.cells.genes import match_genes
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.vocabulary import EOS, GeneVocabulary
from cellscribe.engine.errors import BundleError
from cellscribe.engine.ranks.spec import RankInput
from cellscribe.engine.ranks.tokens import RankScale, rank_tokens

Int64 = npt.NDArray[np.int64]

_BLOCK_CELLS = 512
EMPTY = "it has no counts"
UNKNOWN = "none of the genes the model reads is expressed in it"


@dataclass(frozen=True)
class RankBatch:
    """Cells ready for an encoder.

    Parameters
    ----------
    rows
        Rows of the source, int64 [B].
    cell_ids
        Their names [B].
    indptr, tokens
        Cell b has the tokens int64 ``tokens[indptr[b] : indptr[b + 1]]``, `<cls>` first where the bundle has it.
    failures
        Rows that cannot be fed, and why; they are not among `rows`, so that B may be 0.
    """

    rows: Int64
    cell_ids: tuple[str, ...]
    indptr: Int64
    tokens: Int64
    failures: tuple[tuple[int, str], ...] = ()

    @property
    def lengths(self) -> Int64:
        """Tokens of every cell, int64 [B]."""
        return np.diff(self.indptr)

    def cell(self, at: int) -> Int64:
        """Return the tokens of one cell."""
        return self.tokens[self.indptr[at] : self.indptr[at + 1]]


class RankTokenizer:
    """Turns cells into tokens, which depend on nothing but the cell and the order in which equal genes are stored.

    Columns that stand for one gene are ranked each by itself, as upstream does.

    Parameters
    ----------
    spec, vocabulary
        What the bundle wants of a cell, and the genes it knows, with their medians.
    source
        The cells: counts, or their log-normalised form, which has the same ranks.

    Attributes
    ----------
    report
        What became of the file's genes.

    Raises
    ------
    InputError
        When too few genes match.
    BundleError
        When the vocabulary has no medians.
    """

    def __init__(self, spec: RankInput, vocabulary: GeneVocabulary, source: CellSource) -> None:
        if vocabulary.medians is None:
            raise BundleError("The gene vocabulary has no medians; export the bundle again.")
        self.spec, self.source = spec, source
        if spec.has_eos and EOS not in vocabulary.index:
            raise BundleError(f"The gene vocabulary has no {EOS} token; export the bundle again.")
        self._cls_id, self._eos_id = vocabulary.cls_id, vocabulary.index.get(EOS, -1)
        match = match_genes(
            source.var_names, vocabulary, ensembl=source.var_ensembl, symbols=source.var_symbols, adds_up=False
        )
        self.report: GeneReport = match.report
        self.report.check(source.name)
        medians = np.array((*vocabulary.medians, 0.0))[match.token_of_column]  # the last entry serves -1
        tokens = np.where(medians > 0, match.token_of_column, -1).astype(np.int32)
        self._scale = RankScale(
            tokens,
            np.where(medians > 0, medians, 1.0),
            spec.max_genes,
            spec.target_sum,
            is_logged=source.value_kind == "lognorm",
            is_single=source.value_dtype.kind == "f" and source.value_dtype.itemsize <= 4,
        )

    def batches(self, rows: npt.ArrayLike | None = None, block_cells: int = _BLOCK_CELLS) -> Iterator[RankBatch]:
        """Yield the cells of `rows` (None: all), in that order, `block_cells` at a time."""
        for block in self.source.blocks(rows, block_cells=block_cells):
            indptr, tokens = rank_tokens(block.part, self._scale)
            lengths, stored = np.diff(indptr), np.diff(block.part.indptr)
            good = np.flatnonzero(lengths)
            failures = tuple(
                (int(block.rows[i]), UNKNOWN if stored[i] else EMPTY) for i in np.flatnonzero(lengths == 0).tolist()
            )
            names = tuple(str(name) for name in self.source.obs_names[block.rows[good]])
            starts = np.concatenate(([0], np.cumsum(lengths[good]))).astype(np.int64)  # what is left out has no tokens
            for is_wanted, special, places in (
                (self.spec.has_cls, self._cls_id, slice(None, -1)),
                (self.spec.has_eos, self._eos_id, slice(1, None)),
            ):
                if is_wanted:
                    tokens = np.insert(tokens, starts[places], special)
                    starts = starts + np.arange(len(starts))
            yield RankBatch(block.rows[good], names, starts, tokens, failures)
