"""Cells that come as names of genes and values, made ready for the encoder without a file in between."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellTokenizer, open_cells
from cellscribe.engine.cells.block import CsrBlock
from cellscribe.engine.cells.genes import WEAK, GeneLookup, match_genes
from cellscribe.engine.cells.parts import Part
from cellscribe.engine.cells.values import MAX_LOGGED, ValueChoice, ValueKind, ValueStats
from cellscribe.engine.service.feeding import fed_cells
from cellscribe.engine.service.orders import FedCell
from cellscribe.engine.service.problems import RequestError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_OTHER = "a gene that the vocabulary lacks"
_MOST_NAMES = 1_000_000  # remembered
_EXAMPLES = 10
_UNDECIDED = -2  # depends on the other names of the request


@dataclass(frozen=True, eq=False)
class GeneMap:
    """One cell as a client gives it: names of genes [n] and their values float64 [n]; genes left out are zeros."""

    cell_id: str
    names: Sequence[str]
    values: Floats


@dataclass(frozen=True)
class GenesFound:
    """How many of the names given are genes that the model knows, and some that are not."""

    known: int
    unknown: int
    examples: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return it for an answer."""
        total = self.known + self.unknown
        said = f"Genes: {self.known:,} of {total:,} names are known."
        return {"known": self.known, "unknown": self.unknown, "examples": list(self.examples), "sentence": said}


class GeneMapReader:
    """Turns gene maps into what the encoder takes; safe to use from several threads.

    A name is known as a column of a file would be (:func:`cellscribe.engine.cells.genes.match_genes`). What the names
    of unknown genes hold counts towards a cell's total, as it does in a file.

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
        kind = _kind(maps, values)
        part = _part(maps, columns, len(self._genes))
        if kind == "lognorm":
            _check_once(maps, columns, len(self._genes))
        names = [one.cell_id for one in maps]
        block = CsrBlock(np.arange(len(maps)), part, len(self._genes) + 1)
        batches = self._tokenizer(kind).block_batches(block, names, len(maps), seed)
        found = fed_cells(batches, dict(enumerate(names)), self._vocabulary.tokens)
        return [found[i] for i in range(len(maps))], _found(maps, columns, len(self._genes))

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
        known, found = self._columns, list[Ints]()
        if len(known) > _MOST_NAMES:
            known.clear()
        for names in lists:
            mine = list(map(known.get, names))
            if None in mine:
                mine = [self._learn(name) if at is None else at for name, at in zip(names, mine, strict=True)]
            columns = np.array(mine, np.int64).reshape(len(mine))
            if (columns == _UNDECIDED).any():
                matched = match_genes(names, self._vocabulary, lookup=self._lookup).token_of_column
                columns = np.array([self._column_of_token.get(token, len(self._genes)) for token in matched.tolist()])
            found.append(columns)
        return found

    def _learn(self, name: str) -> int:
        token, _ = self._lookup.strong(name, None, None)
        column = self._column_of_token.get(token, len(self._genes))
        if token < 0 and any(self._lookup.weak(name, None, kind) >= 0 for kind in WEAK):
            column = _UNDECIDED
        self._columns[name] = column
        return column


def _part(maps: Sequence[GeneMap], columns: Sequence[Ints], n_genes: int) -> Part:
    """Return the cells as rows over the vocabulary's genes and one column for all others; columns of a gene add up."""
    indices, data = list[npt.NDArray[np.int32]](), list[npt.NDArray[np.float32]]()
    for one, mine in zip(maps, columns, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.bincount(mine, one.values, n_genes + 1).astype(np.float32)
        (kept,) = sums.nonzero()
        indices.append(kept.astype(np.int32))
        data.append(sums[kept])
    indptr = np.cumsum([0, *map(len, data)], dtype=np.int64)
    return Part(indptr, np.concatenate(indices), np.concatenate(data))


def _kind(maps: Sequence[GeneMap], values: ValueChoice) -> ValueKind:
    """Say what the values are; RequestError where they can be neither counts nor logarithms, or not what was said.

    They are looked at as they are given: sums over the genes that share a column say nothing of that.
    """
    for i, one in enumerate(maps):
        if not (np.isfinite(one.values).all() and one.values.min(initial=0.0) >= 0):
            at = int(np.argmin(np.isfinite(one.values) & (one.values >= 0)))
            raise RequestError(
                422,
                f"the gene {one.names[at]!r} of cell {one.cell_id!r} has the value {one.values[at]:g}; counts are "
                "finite and not negative.",
                f"cells[{i}]",
            )
    with np.errstate(over="ignore"):
        given = np.concatenate([one.values for one in maps]).astype(np.float32)
        totals = np.array([one.values.sum() for one in maps]).astype(np.float32)
    if not np.isfinite(totals).all():
        raise RequestError(422, "the values of a cell add up to more than float32 holds; send counts.", "cells")
    lengths, stats = [len(one.values) for one in maps], ValueStats()
    stats.add(Part(np.cumsum([0, *lengths]), np.zeros(len(given), np.int32), given), np.arange(len(maps)))
    if values == "counts" or (values == "auto" and stats.kind == "counts"):
        return "counts"
    if stats.maximum < MAX_LOGGED:
        return "lognorm"
    raise RequestError(
        422, f"the values reach {stats.maximum:g} and are no whole numbers, so they are neither counts nor "
        'log-normalised; send counts, or say "values": "counts" if they are.', "values",
    )  # fmt: skip


def _check_once(maps: Sequence[GeneMap], columns: Sequence[Ints], n_genes: int) -> None:
    """Raise RequestError where two names of a cell mean one gene: logarithms cannot be added up."""
    for i, (one, mine) in enumerate(zip(maps, columns, strict=True)):
        genes = mine[mine < n_genes]
        values, counts = np.unique(genes, return_counts=True)
        if (counts > 1).any():
            column = int(values[counts > 1][0])
            names = [name for name, at in zip(one.names, mine.tolist(), strict=True) if at == column]
            raise RequestError(
                422, f"{names[0]!r} and {names[1]!r} of cell {one.cell_id!r} are one gene, and logarithms cannot be "
                "added up; leave one out, or send counts.", f"cells[{i}]",
            )  # fmt: skip


def _found(maps: Sequence[GeneMap], columns: Sequence[Ints], n_genes: int) -> GenesFound:
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
    return GenesFound(known, n_unknown, tuple(examples))
