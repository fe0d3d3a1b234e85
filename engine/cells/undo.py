"""Taking log1p back where the values themselves prove that it was applied."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.parts import sample_rows
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.errors import InputError

LogScale = Literal["totals", "counts"]
_TOLERANCE = 1e-2
_FLOAT32 = 4 * float(np.finfo(np.float32).eps)


def prove_log_scale(source: CellSource, target_sum: float | None) -> LogScale:
    """Say how log1p can be undone.

    ``totals``: every cell sums to one total before it. ``counts``: a cell's values are whole multiples of its smallest,
    which is taken for one count.

    Raises
    ------
    InputError
        When neither can be shown on cells sampled over the whole source.
    """
    totals, off = [], 0.0
    for block in source.blocks(sample_rows(source.n_cells, n_runs=32, run=4)):
        for row in range(block.matrix.shape[0]):
            start, stop = block.matrix.indptr[row : row + 2]
            linear = np.expm1(block.matrix.data[start:stop].astype(np.float64))
            if len(linear):
                totals.append(linear.sum())
                counts = linear / linear.min()
                rounding = _FLOAT32 * (1.0 + np.log1p(linear)) * (counts + 1.0)  # what float32 logarithms can hide
                off = max(off, float((np.abs(counts - np.rint(counts)) - rounding).max()), float(rounding.max()) - 0.1)
    if target_sum is not None and totals and np.ptp(totals) <= _TOLERANCE * np.mean(totals):
        return "totals"
    if target_sum is None and totals and off <= _TOLERANCE * 0.1:
        return "counts"
    raise InputError(
        f"{source.value_origin} of {source.name} is log-normalised and this bundle wants values before the logarithm, "
        "which cannot be restored for certain; name a layer that holds counts."
    )


def undo_log1p(
    data: npt.NDArray[np.float32], indptr: npt.NDArray[np.int64], target_sum: float | None, scale: LogScale
) -> npt.NDArray[np.float32]:
    """Return values before log1p: scaled to `target_sum` per cell (``totals``), or counts (``counts``)."""
    linear = np.expm1(data.astype(np.float64))
    lengths = np.diff(indptr)
    filled = np.flatnonzero(lengths)
    if not len(filled):
        return data
    reduce = np.add.reduceat if scale == "totals" else np.minimum.reduceat
    unit = np.repeat(reduce(linear, indptr[filled]), lengths[filled])
    values = linear / unit * (target_sum or 1.0) if scale == "totals" else np.rint(linear / unit)
    done: npt.NDArray[np.float32] = values.astype(np.float32)
    return done
