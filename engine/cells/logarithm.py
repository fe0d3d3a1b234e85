"""Log-normalised values taken back: the base of their logarithm, which cells of one total give away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.cells.log_base import SAME_TOTAL, total_spreads
from cellscribe.engine.cells.parts import sample_rows
from cellscribe.engine.cells.source import CellSource

_BASES = (float(np.e), 10.0, 2.0)  # of logarithms that are tried


def log_base_of(source: CellSource) -> float:
    """Return the base whose powers give sampled cells one total, e where none does; for log-normalised sources."""
    if source.is_log10 or source.log_base is not None:  # which blocks give as natural ones
        return _BASES[0]
    blocks = source.blocks(sample_rows(source.n_cells, n_runs=32, run=4))
    spread = total_spreads((one.part for one in blocks), _BASES)
    return _BASES[int(spread.argmin())] if spread.min() <= SAME_TOTAL else _BASES[0]


def totals_of(values: sp.csr_matrix) -> npt.NDArray[np.float64]:
    """Return the sum of every row, float64 [B]."""
    return np.asarray(values.sum(axis=1), np.float64).ravel()


def linear(matrix: sp.csr_matrix, base: float) -> sp.csr_matrix:
    """Return values before the logarithm, those of base 1 as they are, in float64."""
    values = matrix.astype(np.float64)
    if base != 1.0:
        values.data = np.expm1(values.data * np.log(base))
    return values
