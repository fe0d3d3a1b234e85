"""Cells that come as names of genes and values, made ready for the encoder without a file in between."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellTokenizer, open_cells
from cellscribe.engine.cells.block import CsrBlock
from cellscribe.engine.cells.genes import WEAK, GeneLookup, match_genes
from cellscribe.engine.cells.parts import Part
from cellscribe.engine.cells.values import ValueChoice, ValueKind
from cellscribe.engine.service.feeding import fed_cells
from cellscribe.engine.service.map_values import GeneMap, Ints, kind_of, row_of, twice
from cellscribe.engine.service.orders import FedCell
from cellscribe.engine.service.problems import RequestError

_OTHER = "a gene that the vocabulary lacks"
_MOST_NAMES = 1_000_000  # remembered
_EXAMPLES = 10
_UNDECIDED = -2  # depends on the other names of the request


@dataclass(frozen=True)
class GenesFound:
    """How many of the names given are genes that the model knows, some that are not, and what the values are."""

    known: int
    unknown: int
    examples: tuple[str, ...] = ()
    kinds: tuple[ValueKind, ...] = ()  # of every cell
    twice: tuple[str, str] | None = None  # two names of one gene, whose counts were added up

    def as_dict(self) -> dict[str, object]:
        """Return it for an answer."""
        total = self.known + self.unknown
        said = f"Genes: {self.known:,} of {total:,} names are known."
        if self.twice is not None:
            one, other = self.twice
            said += f" {one!r} and {other!r} are one gene (and so may be others); their counts were added up."
        taken = {kind: self.kinds.count(kind) for kind in dict.fromkeys(self.kinds)}
        return {
            "known": self.known, "unknown": self.unknown, "examples": list(self.examples), "sentence": said,
            "values": taken,
        }  # fmt: skip


class GeneMapReader:
    """Turns gene maps into what the encoder takes; safe to use from several threads.

    Every cell is read by itself: whether its values are counts or logarithms is not decided by its neighbours. A name
    is known as a column of a file would be (:func:`cellscribe.engine.cells.genes.match_genes`). What the names of
    unknown genes hold counts towards a cell's total, as it does in a file.

    Parameters
    ----------
    bundle
        What the cells are read for.
    hvg
        Genes to feed a bundle that wants highly variable genes; without them it takes no gene maps.
    """

    def __init__(self, bundle: Bundle, hvg: Sequence[str] | None = None) -> None:
        self._bundle, self._hvg = bundle, hvg
        self._vocabulary, self._spec = bundle.vocabulary, bundle.manifest.cell_input
        self._lookup = GeneLookup(self._vocabulary)
        tokens = self._lookup.tokens
        self._genes = tuple(tokens)  # columns
        self._column_of_token = {token: column for column, token in enumerate(tokens.values())}
        self._columns: dict[str, int] = {}
        self._tokenizers: dict[ValueKind, CellTokenizer] = {}
        self._lock = threading.Lock()

    def read(self, maps: Sequence[GeneMap], values: ValueChoice, seed: int = 0) -> tuple[list[FedCell], GenesFound]:
        """Return cells in the order given, and what became of the names.

        `seed` keys the draws between equal values, together with the cell's id.

        Raises
        ------
        RequestError
            422 for values that are no counts and no logarithms, names of which none is a gene, or an unusable bundle.
        """
        columns = self._columns_of([one.names for one in maps])
        kinds = [kind_of(one, i, values) for i, one in enumerate(maps)]
        genes = _found(maps, columns, kinds, len(self._genes))
        found: dict[int, FedCell] = {}
        for kind in dict.fromkeys(kinds):
            rows = [i for i, one in enumerate(kinds) if one == kind]
            found |= self._fed(kind, rows, [maps[i] for i in rows], [columns[i] for i in rows], seed)
        return [found[i] for i in range(len(maps))], genes

    def _fed(
        self, kind: ValueKind, rows: list[int], maps: Sequence[GeneMap], columns: Sequence[Ints], seed: int
    ) -> dict[int, FedCell]:
        """Return cells of one kind by their place in the request."""
        parts = [row_of(one, mine, i, len(self._genes), kind) for i, one, mine in zip(rows, maps, columns, strict=True)]
        indptr = np.cumsum([0, *(len(data) for _, data in parts)], dtype=np.int64)
        part = Part(indptr, np.concatenate([at for at, _ in parts]), np.concatenate([data for _, data in parts]))
        names = [one.cell_id for one in maps]
        block = CsrBlock(np.array(rows), part, len(self._genes) + 1)
        batches = self._tokenizer(kind).block_batches(block, names, len(maps), seed)
        return fed_cells(batches, dict(zip(rows, names, strict=True)), self._vocabulary.tokens)

    def _tokenizer(self, kind: ValueKind) -> CellTokenizer:
        with self._lock:
            if kind not in self._tokenizers:
                self._tokenizers[kind] = self._opened(kind)
            return self._tokenizers[kind]

    def _opened(self, kind: ValueKind) -> CellTokenizer:
        """Open one cell that has every gene of the vocabulary, as the pattern of those to come."""
        name = self._bundle.name
        if self._spec.selection == "hvg" and self._hvg is None:
            raise RequestError(
                422, f"the bundle {name} reads highly variable genes, and a gene map does not say which; start "
                "the service with --genes, or upload a file.", "cells",
            )  # fmt: skip
        if kind == "lognorm" and not self._spec.log1p and self._spec.n_bins == 0:
            raise RequestError(422, f"the bundle {name} reads counts; send counts.", "values")
        pattern = AnnData(
            sp.csr_matrix(np.full((1, len(self._genes) + 1), 1.0 if kind == "counts" else 0.5, np.float32))
        )
        pattern.var_names = [*self._genes, _OTHER]
        source = open_cells(pattern, values=kind)
        return CellTokenizer(self._spec, self._vocabulary, source, hvg=self._hvg)

    def _columns_of(self, lists: Sequence[Sequence[str]]) -> list[Ints]:
        """Return the column of every name of every cell; names without a gene share the last."""
        known = self._columns
        if len(known) > _MOST_NAMES:
            known.clear()
        return [self._columns_of_cell(names, known) for names in lists]

    def _columns_of_cell(self, names: Sequence[str], known: dict[str, int]) -> Ints:
        try:
            columns = np.fromiter(map(known.__getitem__, names), np.int64, len(names))
        except KeyError:
            mine = [self._learn(name) if (at := known.get(name)) is None else at for name in names]
            columns = np.array(mine, np.int64)
        if columns.min(initial=0) >= 0:
            return columns
        matched = match_genes(names, self._vocabulary, lookup=self._lookup).token_of_column
        return np.array([self._column_of_token.get(token, len(self._genes)) for token in matched.tolist()])

    def _learn(self, name: str) -> int:
        token, _ = self._lookup.strong(name, None, None)
        column = self._column_of_token.get(token, len(self._genes))
        if token < 0 and any(self._lookup.weak(name, None, kind) >= 0 for kind in WEAK):
            column = _UNDECIDED
        self._columns[name] = column
        return column


def _found(maps: Sequence[GeneMap], columns: Sequence[Ints], kinds: Sequence[ValueKind], n_genes: int) -> GenesFound:
    places = [np.flatnonzero(mine == n_genes).tolist() for mine in columns]
    if len(maps) == 1:  # whose names differ
        n_unknown = len(places[0])
        known, examples = len(columns[0]) - n_unknown, [maps[0].names[i] for i in places[0][:_EXAMPLES]]
    else:
        unknown = dict.fromkeys(one.names[i] for one, mine in zip(maps, places, strict=True) for i in mine)
        known, examples = len({name for one in maps for name in one.names} - unknown.keys()), list(unknown)[:_EXAMPLES]
        n_unknown = len(unknown)
    if n_unknown and not known:
        raise RequestError(
            422,
            f"none of the {n_unknown} names is a gene that the model knows (unknown: "
            f"{', '.join(examples[:4])}); give human gene symbols or Ensembl ids.",
            "cells",
        )
    pairs = (twice(one, mine, n_genes) for one, mine in zip(maps, columns, strict=True) if _repeats(mine, n_genes))
    return GenesFound(known, n_unknown, tuple(examples), tuple(kinds), next(pairs, None))


def _repeats(columns: Ints, n_genes: int) -> bool:
    known = columns[columns < n_genes]
    return len(set(known.tolist())) < len(known)
