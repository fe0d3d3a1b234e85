"""Cells as InstructCell's tower reads them: log1p of the scaled counts of its own genes, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.backends.instruct import ExpressedCell
from cellscribe.engine.cells.logarithm import log_base_of
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.instruct.genes import gene_columns, in_gene_order, num_in_other_case

Ints = npt.NDArray[np.int64]

EMPTY = "it has no counts"
UNKNOWN = "none of the genes the model reads is expressed in it"
_BLOCK_CELLS = 256
_FEW = 0.5  # share of the model's genes below which a user is warned


@dataclass(frozen=True)
class InstructBatch:
    """Cells ready for the tower: `rows` of the source int64 [B], and the cells; `failures` are rows, and why."""

    rows: Ints
    cells: tuple[ExpressedCell, ...]
    failures: tuple[tuple[int, str], ...] = ()


class InstructCells:
    """Puts a source's genes in the model's order and scales cells.

    Counts of the model's genes alone make up a cell's total, as in upstream's preparation. Log-normalised values are
    taken back to a multiple of the counts first, whatever their base, which gives the same numbers.

    Parameters
    ----------
    source
        The cells.
    genes
        The model's genes in its order.
    target_sum
        Total of a cell's scaled counts.

    Attributes
    ----------
    num_found
        Genes of the model that the source has.

    Raises
    ------
    InputError
        When none is.
    """

    def __init__(self, source: CellSource, genes: tuple[str, ...], target_sum: float = 1e4) -> None:
        self.source, self._num_genes, self._target_sum = source, len(genes), target_sum
        symbols = source.var_names if source.var_symbols is None else source.var_symbols
        names, own = [str(one) for one in source.var_names], [str(one) for one in symbols]
        known = set(genes)
        better = own if sum(one in known for one in own) > sum(one in known for one in names) else names
        self._place_of = gene_columns(better, genes)
        self.num_found = int((self._place_of >= 0).sum())
        self._num_near = num_in_other_case(better, genes) if self._are_few else 0
        self._base = 1.0 if source.value_kind == "counts" else log_base_of(source)

    def sentence(self) -> str:
        """Say how the genes match, in words."""
        return f"{self.num_found:,} of the {self._num_genes:,} genes the model reads are in {self.source.name}"

    @property
    def warning(self) -> str:
        """A sentence where so few genes match that answers mean little; empty otherwise."""
        if not self._are_few:
            return ""
        near = f"{self._num_near:,} more are there in another case, as of other species" if self._num_near else ""
        return f"Only {self.sentence()}{f' ({near})' if near else ''}, so that answers may mean little."

    @property
    def _are_few(self) -> bool:
        return self.num_found < _FEW * self._num_genes

    def batches(self, rows: npt.ArrayLike | None = None) -> Iterator[InstructBatch]:
        """Yield the cells of `rows` (None: all), in that order."""
        for block in self.source.blocks(rows, block_cells=_BLOCK_CELLS):
            matrix = in_gene_order(block.matrix, self._place_of, self._num_genes)
            stored, found = np.diff(block.matrix.indptr), np.diff(matrix.indptr)
            good = np.flatnonzero(found)
            failures = tuple(
                (int(block.rows[i]), UNKNOWN if stored[i] else EMPTY) for i in np.flatnonzero(found == 0).tolist()
            )
            yield InstructBatch(block.rows[good], tuple(self._cell(matrix, i) for i in good.tolist()), failures)

    def _cell(self, matrix: sp.csr_matrix, row: int) -> ExpressedCell:
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        counts = matrix.data[part].astype(np.float64)
        if self._base != 1.0:
            counts = np.expm1(counts * np.log(self._base))
        values = np.log1p(counts / counts.sum() * self._target_sum)
        return ExpressedCell(matrix.indices[part].astype(np.int64), values.astype(np.float32))
