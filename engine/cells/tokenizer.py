"""Cells as the token batches an encoder takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import native_binning
from cellscribe.engine.cells.block import CsrBlock
from cellscribe.engine.cells.feed import Fed, Feeder, first_columns
from cellscribe.engine.cells.gene_report import GeneReport
from cellscribe.engine.cells.genes import GeneMatch, match_genes
from cellscribe.engine.cells.hvg import MAX_CELLS, choose_hvgs
from cellscribe.engine.cells.layout import batches, padded, shared, thinned
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.spec import CellInput, HvgFlavor
from cellscribe.engine.cells.token_batch import TokenBatch
from cellscribe.engine.cells.vocabulary import GeneVocabulary
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.keyed import UInt64, cell_keys, stream_keys

Watch: TypeAlias = Callable[[Iterator[CsrBlock]], Iterator[CsrBlock]]

_TIES, _THINNING = 1, 2  # streams of random numbers
_BLOCK_CELLS = 512


class CellTokenizer:
    """Turns cells into token batches; a cell's tokens depend on nothing but the cell, the spec and the seed.

    Parameters
    ----------
    spec, vocabulary
        What the bundle wants of a cell, and the genes it knows.
    source
        The cells.
    seed
        Key of the draws (tied bins, thinning), together with the cell's name.
    hvg
        Genes to feed (tokens, symbols or Ensembl ids) for ``selection="hvg"``; None lets scanpy choose them.
    hvg_flavor, hvg_min_counts
        Settings of that choice; the flavour defaults to the spec's.
    match
        What :func:`match_source` gave for a source of the same genes; None asks it.

    Attributes
    ----------
    report
        What became of the file's genes.
    genes
        Symbols (tokens) that can be fed, in vocabulary order.
    notes
        Sentences about the choice of genes worth showing to the user.

    Raises
    ------
    InputError
        When too few genes match, or the genes cannot be chosen.
    """

    def __init__(
        self,
        spec: CellInput,
        vocabulary: GeneVocabulary,
        source: CellSource,
        *,
        seed: int = 0,
        hvg: Sequence[str] | None = None,
        hvg_flavor: HvgFlavor | None = None,
        hvg_min_counts: float = 3,
        match: GeneMatch | None = None,
    ) -> None:
        self.spec, self.vocabulary, self.source, self.seed = spec, vocabulary, source, seed
        match = match or match_source(source, vocabulary, spec)
        self.report: GeneReport = match.report
        self.report.check(source.name)
        flavor = hvg_flavor or spec.hvg_flavor
        self._tokens = self._fed_tokens(match, hvg, flavor, hvg_min_counts)  # [G], rising
        slot_of_token = np.full(len(vocabulary.tokens) + 1, -1, dtype=np.int64)
        slot_of_token[self._tokens] = np.arange(len(self._tokens))
        slots = slot_of_token[match.token_of_column]  # the last entry serves -1
        self.genes = tuple(vocabulary.tokens[token] for token in self._tokens)
        self.notes = self._gene_notes(chosen=hvg is None, flavor=flavor)
        self._feeder = Feeder(spec, source, slots, self._tokens)
        self._columns = first_columns(slots, len(self._tokens))
        self._shared: tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]] | None = None

    def batches(
        self,
        rows: npt.ArrayLike | None = None,
        batch_cells: int = 32,
        watch: Watch | None = None,
        seed: int | None = None,
    ) -> Iterator[TokenBatch]:
        """Yield the cells of `rows` (None: all), in that order, `batch_cells` at a time.

        `watch` is given the blocks as they are read, and hands them on: it can tell how long they take to come. `seed`
        stands in for the tokenizer's.
        """
        block_cells = max(1, _BLOCK_CELLS // batch_cells) * batch_cells
        blocks = self.source.blocks(rows, block_cells=block_cells)
        for block in blocks if watch is None else watch(blocks):
            names: list[str] = self.source.obs_names[block.rows].tolist()
            yield from self.block_batches(block, names, batch_cells, seed)

    def block_batches(
        self, block: CsrBlock, names: list[str], batch_cells: int, seed: int | None = None
    ) -> Iterator[TokenBatch]:
        """Yield the cells of a block with the columns of the source, which may come from elsewhere; `names` [B]."""
        make = self._fixed if self.spec.layout == "fixed" else self._ragged
        return make(block, names, batch_cells, self.seed if seed is None else seed)

    def _fed_tokens(
        self, match: GeneMatch, hvg: Sequence[str] | None, flavor: HvgFlavor, min_counts: float
    ) -> npt.NDArray[np.int64]:
        found = np.unique(match.token_of_column[match.token_of_column >= 0])
        if self.spec.selection == "all":
            return found
        if self.spec.selection == "list":
            names: Sequence[str] = _input_genes(self.vocabulary)
            return np.sort(np.array([self.vocabulary.index[name] for name in names], dtype=np.int64))
        if hvg is None:
            names = choose_hvgs(
                self.source,
                match.token_of_column,
                self.vocabulary.tokens,
                n_top=self.spec.num_genes,
                flavor=flavor,
                min_counts=min_counts,
            )
            return np.sort(np.array([self.vocabulary.index[name] for name in names], dtype=np.int64))
        return self._listed(hvg)

    def _gene_notes(self, *, chosen: bool, flavor: HvgFlavor) -> tuple[str, ...]:
        if self.spec.selection != "hvg" or not chosen:
            return ()
        notes = [f"Genes fed: {len(self.genes):,} highly variable ones, chosen from these cells."]
        if self.source.value_kind == "lognorm" and flavor != "cell_ranger":
            notes.append(f"They are chosen with cell_ranger, because {flavor} needs counts.")
        if self.source.n_cells > MAX_CELLS:
            notes.append(f"They are chosen on {MAX_CELLS:,} cells spread evenly over the file.")
        if len(self.genes) < self.spec.num_genes:
            notes.append(f"The model expects {self.spec.num_genes:,}; the file has no more.")
        return tuple(notes)

    def _listed(self, hvg: Sequence[str]) -> npt.NDArray[np.int64]:
        tokens = match_genes(hvg, self.vocabulary).token_of_column
        if (tokens < 0).any():
            unknown = [name for name, token in zip(hvg, tokens, strict=True) if token < 0]
            raise InputError(f"The bundle does not know the gene {unknown[0]!r} of the list; remove or rename it.")
        return np.unique(tokens)

    def _fixed(self, block: CsrBlock, names: list[str], batch_cells: int, seed: int) -> Iterator[TokenBatch]:
        fed = self._fed(block, names, seed)
        values = fed.dense(len(self._tokens) + 1, self.spec.cls_value)
        common = self._shared
        if common is None or len(common[0]) < batch_cells:
            common = self._shared = shared(self.vocabulary.cls_id, self._tokens, self._columns, batch_cells)
        genes, mask, columns = common
        for batch, good in batches(fed, batch_cells):
            rows = block.rows[batch].copy() if good is None else block.rows[good]
            B, ids = len(rows), _names_of(names, batch, good)
            chosen = values[batch] if good is None else values[good]
            failures = () if good is None else self._failures(block, fed, batch)
            yield TokenBatch(rows, ids, genes[:B], chosen, mask[:B], columns[:B], failures)

    def _ragged(self, block: CsrBlock, names: list[str], batch_cells: int, seed: int) -> Iterator[TokenBatch]:
        fed = self._fed(block, names, seed)
        specials = self.vocabulary.cls_id, self.vocabulary.pad_id
        if len(names) and fed.lengths.max() > self.spec.num_genes:
            keys = stream_keys(seed, _cell_keys(names), _THINNING)
            fed = thinned(fed, self._tokens, keys, self.spec.num_genes)
        for batch, good in batches(fed, batch_cells):
            cells = np.arange(len(names))[batch] if good is None else good
            laid = padded(fed, cells, self.spec, specials, self._tokens, self._columns)
            failures = () if good is None else self._failures(block, fed, batch)
            yield TokenBatch(block.rows[cells], _names_of(names, batch, good), *laid, failures)

    def _fed(self, block: CsrBlock, names: list[str], seed: int) -> Fed:
        return self._feeder.feed(block, stream_keys(seed, _cell_keys(names), _TIES))

    def _failures(self, block: CsrBlock, fed: Fed, batch: slice) -> tuple[tuple[int, str], ...]:
        lengths = np.diff(block.part.indptr)[batch]
        empty = np.flatnonzero(fed.lengths[batch] == 0)
        return tuple((int(block.rows[batch][row]), _why(int(lengths[row]))) for row in empty)


def match_source(source: CellSource, vocabulary: GeneVocabulary, spec: CellInput) -> GeneMatch:
    """Match the genes of a source as :class:`CellTokenizer` does, without judging the outcome."""
    wanted = _input_genes(vocabulary) if spec.selection == "list" else None
    return match_genes(
        source.var_names, vocabulary, ensembl=source.var_ensembl, symbols=source.var_symbols, wanted=wanted
    )


def _input_genes(vocabulary: GeneVocabulary) -> tuple[str, ...]:
    if not vocabulary.input_genes:
        raise BundleError("This bundle feeds a gene list of its own but its genes.json has none; export it again.")
    return vocabulary.input_genes


def _cell_keys(names: list[str]) -> UInt64:
    native = native_binning.find_native()
    keys = native.cell_keys(names) if native is not None else None
    return cell_keys(names) if keys is None else keys


def _names_of(names: list[str], batch: slice, good: npt.NDArray[np.int64] | None) -> tuple[str, ...]:
    return tuple(names[batch]) if good is None else tuple(names[row] for row in good)


def _why(n_stored: int) -> str:
    return "it has no counts" if n_stored == 0 else "none of the genes the model reads is expressed in it"
