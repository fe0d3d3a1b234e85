"""Columns of a matrix in the order of a list of genes, as InstructCell's preparation puts them.

One map of columns, so that a sparse matrix is permuted without being touched otherwise; nothing is summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.errors import InputError

Ints = npt.NDArray[np.int64]


def gene_columns(symbols: Sequence[str], genes: Sequence[str], *, ignores_case: bool = False) -> Ints:
    """Return the place among `genes` of every column, int64 [columns], -1 for those that are left out.

    Of columns of one symbol the last one counts; where case is ignored, the first one, as upstream has it.

    Raises
    ------
    InputError
        When no column is one of the genes, or genes are alike but for case and case is ignored.
    """
    if ignores_case:
        symbols, genes = [one.upper() for one in symbols], [one.upper() for one in genes]
    place_of = {name: place for place, name in enumerate(genes)}
    if len(place_of) < len(genes):
        raise InputError(
            f"{len(genes) - len(place_of)} of the model's {len(genes):,} genes are named twice when case is ignored; "
            "match them as they are written."
        )
    found = np.array([place_of.get(name, -1) for name in symbols], np.int64)
    known = np.flatnonzero(found >= 0)
    if not len(known):
        near = num_in_other_case(symbols, genes)
        aside = f" as they are written ({near:,} are there in another case, as of other species)" if near else ""
        raise InputError(
            f"none of the {len(symbols):,} genes is one of the model's {len(genes):,}{aside}; give symbols such as "
            f"{genes[0]}."
        )
    order = known if ignores_case else known[::-1]
    _, first = np.unique(found[order], return_index=True)
    kept = np.full(len(found), -1, np.int64)
    kept[order[first]] = found[order[first]]
    return kept


def num_in_other_case(symbols: Sequence[str], genes: Sequence[str]) -> int:
    """Return how many more of the genes there would be where case counted nothing."""
    missing = {one.upper() for one in set(genes).difference(symbols)}
    return len(missing.intersection(one.upper() for one in symbols))


def in_gene_order(matrix: sp.csr_matrix, place_of: Ints, num_genes: int) -> sp.csr_matrix:
    """Return the values [B, columns] as [B, num_genes] with sorted columns, those at -1 left out."""
    columns = place_of[matrix.indices]
    kept = columns >= 0
    indptr = np.concatenate(([0], np.cumsum(kept)))[matrix.indptr]
    found = sp.csr_matrix((matrix.data[kept], columns[kept], indptr), (matrix.shape[0], num_genes))
    found.sort_indices()
    return found
