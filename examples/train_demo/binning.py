"""Digits for training, made by the engine's own binning."""

from __future__ import annotations

import numpy as np
from cells import Floats
from scipy import sparse

from cellscribe.engine.cells.binning import bin_values

N_BINS = 51


def bin_rows(expression: Floats, rng: np.random.Generator) -> Floats:
    """Bin the non-zero values of each cell [N, G] to digits 1..50, ties drawn from `rng`; zeros stay 0."""
    rows = sparse.csr_matrix(expression)
    rows.data = bin_values(
        rows.data, rows.indptr.astype(np.int64), n_bins=N_BINS, uniforms=rng.random(rows.nnz)
    ).astype(np.float32)
    return rows.toarray()
