"""Some cells of a source, as they are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from cellscribe.engine.cells.parts import Part, Rows


@dataclass(frozen=True)
class CsrBlock:
    """Some cells: `rows` int64 [B] of the source, and their values, finite, non-negative, no zeros; only to be read."""

    rows: Rows
    part: Part
    n_genes: int

    @cached_property
    def matrix(self) -> sp.csr_matrix:
        """The values as CSR float32 [B, n_genes]."""
        arrays, shape = (self.part.data, self.part.indices, self.part.indptr), (self.part.n_rows, self.n_genes)
        matrix = sp.csr_matrix(arrays, shape=shape, copy=False)
        matrix.has_sorted_indices = matrix.has_canonical_format = True
        return matrix


def natural(part: Part, base: float) -> Part:
    """Turn logarithms to a base into natural ones."""
    return replace(part, data=part.data * np.float32(np.log(base)))
