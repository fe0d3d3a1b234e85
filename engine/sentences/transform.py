"""Sentences of all cells of a source, block by block, and the line through ranks that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import native_binning
from cellscribe.engine.cells.parts import Part, take
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.errors import InputError
from cellscribe.engine.keyed import UInt64, stream_keys, uniforms
from cellscribe.engine.output.run import count
from cellscribe.engine.sentences import native
from cellscribe.engine.sentences.fit import RankFit, fit_ranks, log_ranks
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.ranked import Ranked, rank_genes, to_sentences
from cellscribe.engine.types import check_seed

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
OnCells = Callable[[int, int], None]

TIES, SAMPLE = 11, 12  # streams of the draws that order equal values, and that choose the cells of the fit
_BLOCK = 2048
_LN10 = float(np.log(10.0))


@dataclass(frozen=True)
class TransformOptions:
    """How cells become sentences.

    Parameters
    ----------
    num_genes
        Words of a sentence at most; None takes every expressed gene.
    seed
        Key of the draws that order equal values and choose the cells of the fit, from 0 to 2**63 - 1 (UsageError).
    min_genes, min_cells
        Cells that express fewer genes are left out, then genes that fewer of the other cells express.
    fit_cells
        Cells, drawn by key, that the line through ranks is fitted on.
    """

    num_genes: int | None = None
    seed: int = 0
    min_genes: int = 0
    min_cells: int = 0
    fit_cells: int = 1024

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True)
class Sentences:
    """Sentences of B cells: `rows` int64 [B] of the source, their names, texts, and how many genes each names."""

    rows: Int64
    names: tuple[str, ...]
    texts: list[str]
    num_words: Int64


@dataclass(frozen=True)
class Census:
    """What is kept of a source: rows int64 [N], columns int64 [G]; and how many cells were left out."""

    rows: Int64
    columns: Int64
    num_left_out: int


class Transform:
    """Turns the cells of a source into sentences.

    Parameters
    ----------
    source
        Opened cells.
    rows
        Rows to use, int64 [N]; None for all of them.
    progress
        Called with (cells done, cells in all) of the present pass.

    Raises
    ------
    InputError
        When a gene name cannot be a word, or two are alike in upper case; when a cell expresses no gene; or when
        nothing is left of the cells or the genes.
    """

    def __init__(
        self,
        source: CellSource,
        options: TransformOptions = TransformOptions(),
        *,
        rows: npt.ArrayLike | None = None,
        progress: OnCells | None = None,
    ) -> None:
        self.source, self.options = source, options
        self._progress = progress or (lambda done, total: None)
        wanted = np.arange(source.n_cells) if rows is None else np.asarray(rows, np.int64).ravel()
        whole = SentenceGenes.of_cells(source)
        self.census = self._count(wanted)
        is_whole = len(self.census.columns) == source.n_genes
        self.genes = whole if is_whole else whole.at(self.census.columns.tolist())
        self._slot = np.full(source.n_genes, -1, np.int32)
        self._slot[self.census.columns] = np.arange(len(self.census.columns), dtype=np.int32)
        self._sampled: list[tuple[Ranked, Floats]] = []
        self._totals: list[Floats] = []
        self.num_cells = np.zeros(len(self.census.columns), np.int64)  # that express each gene, after all blocks

    def blocks(self) -> Iterator[Sentences]:
        """Give the sentences, in the order of the rows; at the end the line can be fitted."""
        keys = native_binning.name_keys([*map(str, self.source.obs_names[self.census.rows].tolist())])
        is_sampled = self._sample(keys)
        self._sampled, self._totals = [], []
        self.num_cells[:] = 0
        done = 0
        for rows, part in self._parts(self.census.rows):
            names = tuple(map(str, self.source.obs_names[rows].tolist()))
            mine = stream_keys(self.options.seed, keys[done : done + len(rows)], TIES)
            ranked = rank_genes(part, self.genes, mine, self.options.num_genes)
            self._refuse_empty(ranked, names)
            totals = _tally(part, self.num_cells)
            self._totals.append(totals)
            chosen = np.flatnonzero(is_sampled[done : done + len(rows)])
            if len(chosen):  # every gene of a cell has a rank, whatever a sentence keeps
                self._sampled.append((rank_genes(take(part, chosen), self.genes, mine[chosen]), totals[chosen]))
            yield Sentences(rows, names, to_sentences(ranked, self.genes), ranked.lengths)
            done += len(rows)
            self._progress(done, len(self.census.rows))

    def points(self) -> tuple[Floats, Floats]:
        """Return log10(1 + rank) and log10(1 + normalised counts) of the cells of the fit, after all blocks."""
        ranks, values = self._points()
        return log_ranks(ranks), values

    def fit(self) -> RankFit:
        """Fit the line, after all blocks."""
        return fit_ranks(*self._points(), num_cells=sum(len(totals) for _, totals in self._sampled))

    def _points(self) -> tuple[Int64, Floats]:
        """Ranks, and log10(1 + normalised counts); genes of one value stand side by side and share its logarithm."""
        scale = float(np.median(np.concatenate(self._totals)))
        values = []
        for ranked, totals in self._sampled:
            is_first = np.append(True, ranked.values[1:] != ranked.values[:-1])
            is_first[ranked.indptr[:-1]] = True
            starts = np.flatnonzero(is_first)
            found = ranked.values[starts]
            if self.source.value_kind == "lognorm":
                logs = (found / _LN10).astype(np.float64)
            else:
                row = np.searchsorted(ranked.indptr, starts, side="right") - 1
                logs = np.log10(1.0 + found * (scale / totals)[row])
            values.append(logs.repeat(np.diff(np.append(starts, len(ranked.values)))))
        return np.concatenate([ranked.ranks for ranked, _ in self._sampled]), np.concatenate(values)

    def _count(self, wanted: Int64) -> Census:
        """Look through all cells once: how many genes each has, and how many kept cells each gene."""
        options, source = self.options, self.source
        kept, num_cells, done = [], np.zeros(source.n_genes, np.int64), 0
        if not options.min_genes and not options.min_cells:
            return Census(wanted, np.arange(source.n_genes), 0)
        for block in source.blocks(wanted, _BLOCK):
            is_kept = np.diff(block.part.indptr) >= options.min_genes
            kept.append(block.rows[is_kept])
            num_cells += np.bincount(block.part.indices[is_kept[block.part.row_of]], minlength=source.n_genes)
            done += len(block.rows)
            self._progress(done, len(wanted))
        rows = np.concatenate(kept) if kept else wanted[:0]
        columns = (
            np.flatnonzero(num_cells >= max(1, options.min_cells)) if options.min_cells else np.arange(len(num_cells))
        )
        if not len(rows) and options.min_genes <= 1:
            raise InputError(f"no cell of {source.name} expresses a gene; give cells with counts.")
        if not len(rows):
            raise InputError(
                f"no cell of {source.name} expresses {count(options.min_genes, 'gene')}; choose a smaller --min-genes."
            )
        if not len(columns):
            raise InputError(
                f"no gene of {source.name} is expressed by {options.min_cells:,} of the {count(len(rows), 'cell')} "
                "kept; choose a smaller --min-cells."
            )
        return Census(rows, columns, len(wanted) - len(rows))

    def _parts(self, rows: Int64) -> Iterator[tuple[Int64, Part]]:
        for block in self.source.blocks(rows, _BLOCK):
            part = block.part
            if len(self.census.columns) < self.source.n_genes:
                slots = self._slot[part.indices]
                kept = np.flatnonzero(slots >= 0)
                part = Part(np.searchsorted(kept, part.indptr).astype(np.int64), slots[kept], part.data[kept])
            yield block.rows, part

    def _sample(self, keys: UInt64) -> npt.NDArray[np.bool_]:
        """Say which cells the line is fitted on: those with the smallest draws."""
        drawn = uniforms(stream_keys(0, keys, SAMPLE), np.zeros(len(keys), np.int64))
        chosen = np.zeros(len(keys), dtype=bool)
        chosen[np.argsort(drawn, kind="stable")[: self.options.fit_cells]] = True
        return chosen

    def _refuse_empty(self, ranked: Ranked, names: tuple[str, ...]) -> None:
        empty = np.flatnonzero(ranked.lengths == 0)
        if len(empty):
            raise InputError(
                f"the cell {names[empty[0]]!r} of {self.source.name} expresses no gene, so that it has no sentence; "
                "leave such cells out with --min-genes 1."
            )


def _tally(part: Part, num_cells: Int64) -> Floats:
    """Return totals of cells, float64 [B], and count up in `num_cells` the cells that express each gene."""
    compiled = native.find_native()
    found = None if compiled is None else compiled.tally(part, num_cells)
    if found is not None:
        return found
    num_cells += np.bincount(part.indices, minlength=len(num_cells))
    return np.add.reduceat(np.append(part.data, 0.0).astype(np.float64), part.indptr[:-1])
