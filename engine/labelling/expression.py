"""How strongly every gene is expressed in the cells of each label, from one pass over the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.cells import CellSource

Rows = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

OTHERS = "others"
_TARGET = 1e4  # counts a cell is scaled to before log1p, as scanpy users expect


@dataclass(frozen=True, eq=False)
class LabelExpression:
    """Expression by label.

    Parameters
    ----------
    labels
        Names [L].
    genes
        Symbols where they are known, names of var otherwise [G].
    num_cells
        int64 [L].
    mean
        Of log1p of counts per 10,000, float64 [L, G].
    share
        Of cells that express the gene at all, float64 [L, G].
    """

    labels: tuple[str, ...]
    genes: tuple[str, ...]
    num_cells: npt.NDArray[np.int64]
    mean: Doubles
    share: Doubles


def expression_by_label(source: CellSource, rows: Rows, chosen: Sequence[str], most: int = 40) -> LabelExpression:
    """Read cells once and add up their expression by label; memory grows with `most` times genes only.

    Parameters
    ----------
    rows, chosen
        The cells and their labels [N]; cells without one ("") are left out. Labels come by falling number of cells.
    most
        Rarer labels than so many are added up as "others".

    Raises
    ------
    InputError
        When values cannot be read.
    """
    texts = np.array(chosen, dtype=object)
    has_label = texts != ""
    rows, texts = rows[has_label], texts[has_label].astype(str)
    names, label_of, num_cells = np.unique(texts, return_inverse=True, return_counts=True)
    order = np.argsort(-num_cells, kind="stable")
    place_of = np.empty_like(order)
    place_of[order] = np.minimum(np.arange(len(order)), most)
    shown = names[order[:most]].tolist() + ([OTHERS] if len(names) > most else [])
    cells = np.bincount(place_of, num_cells, len(shown)).astype(np.int64)
    sums, expressing = np.zeros((2, len(shown), source.n_genes))
    start = 0
    for block in source.blocks(rows):
        values = _normalised(block.matrix, is_counts=source.value_kind == "counts")
        labels = place_of[label_of[start : start + len(block.rows)]]
        start += len(block.rows)
        gather = sp.csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), (len(shown), len(labels)))
        _add(sums, gather @ values)
        _add(expressing, gather @ values.sign())
    per_cell = 1.0 / np.maximum(cells, 1)[:, None]
    sums *= per_cell
    expressing *= per_cell
    return LabelExpression(tuple(shown), gene_names(source), cells, sums, expressing)


def _add(total: Doubles, part: sp.csr_matrix) -> None:
    """Add a sparse matrix to a dense one in place."""
    rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
    total[rows, part.indices] += part.data  # a product has each place once


def gene_names(source: CellSource) -> tuple[str, ...]:
    """Return the symbols of a source's genes, the names of var where there is none [G]."""
    names = source.var_names if source.var_symbols is None else source.var_symbols
    return tuple(str(name) or str(other) for name, other in zip(names, source.var_names, strict=True))


def _normalised(matrix: sp.csr_matrix, *, is_counts: bool) -> sp.csr_matrix:
    values = matrix.astype(np.float64)
    if is_counts:
        totals = np.asarray(values.sum(axis=1)).ravel()
        scale = np.divide(_TARGET, totals, out=np.zeros_like(totals), where=totals > 0)
        values.data *= np.repeat(scale, np.diff(values.indptr))
        np.log1p(values.data, out=values.data)
    return values
