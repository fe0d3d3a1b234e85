"""Rows of a sparse matrix as bare arrays, and the checks that make them safe to compute with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import InputError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Rows in CSR form: `indptr` int64 [B + 1], `indices` int32 [nnz] rising within a row, `data` float32 [nnz].

    `is_plain`: it is known that all of `data` are positive and finite. The arrays may be those of the caller's matrix.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    data: npt.NDArray[np.float32]
    is_plain: bool = False

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def row_of(self) -> npt.NDArray[np.int64]:
        """Row of every stored value, int64 [nnz]."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.indptr))


def check_pointers(indptr: npt.NDArray[np.int64], n_values: int, n_genes: int, where: str) -> None:
    """Raise InputError unless `indptr` rises from 0 to `n_values` with at most `n_genes` values a row."""
    steps = np.diff(indptr)
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != n_values or (steps < 0).any():
        raise InputError(f"The row pointers of {where} are damaged; write the file again with adata.write_h5ad.")
    if (steps > n_genes).any():
        row = int(np.argmax(steps > n_genes))
        raise InputError(
            f"Row {row} of {where} stores {int(steps[row])} values for {n_genes} genes; "
            "run adata.X.sum_duplicates() and write the file again."
        )


def check_indices(indices: npt.NDArray[Any], n_genes: int, where: str) -> None:
    """Raise InputError when a column index lies outside [0, n_genes)."""
    if len(indices) and (indices.min() < 0 or indices.max() >= n_genes):
        raise InputError(
            f"{where} points at genes outside its {n_genes} columns, so it is damaged; "
            "write the file again from the original data."
        )


def canonical(indptr: npt.NDArray[np.int64], indices: npt.NDArray[Any], data: npt.NDArray[Any], where: str) -> Part:
    """Return a Part with float32 values, rising columns and no stored zeros; refuse a gene stored twice in a cell."""
    part = Part(indptr, indices.astype(np.int32, copy=False), as_float32(data, where))
    part = _sorted(part, where)
    return kept(part, part.data != 0) if (part.data == 0).any() else part


def as_float32(data: npt.NDArray[Any], where: str) -> npt.NDArray[np.float32]:
    """Return numbers as float32 (what exceeds it becomes infinite and is refused later)."""
    if data.dtype.kind not in "buif":
        raise InputError(f"{where} holds {data.dtype} and not numbers; store counts as integers or floats.")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(data, dtype=np.float32)


def from_dense(block: npt.NDArray[Any], where: str) -> Part:
    """Return the non-zero entries (NaN among them) of a dense [B, n_genes] block."""
    values = as_float32(block, where)
    rows, columns = np.nonzero(values)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(values))))).astype(np.int64)
    return Part(indptr, columns.astype(np.int32), values[rows, columns])


def take(part: Part, rows: Rows) -> Part:
    """Return the given rows of a part, in that order."""
    lengths = np.diff(part.indptr)[rows]
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    source = np.arange(indptr[-1]) + np.repeat(part.indptr[rows] - indptr[:-1], lengths)
    return Part(indptr, part.indices[source], part.data[source])


def kept(part: Part, is_kept: npt.NDArray[np.bool_]) -> Part:
    """Return the stored values that are to stay, by `is_kept` [nnz]."""
    counts = np.concatenate(([0], np.cumsum(is_kept)))
    return Part(counts[part.indptr].astype(np.int64), part.indices[is_kept], part.data[is_kept])


def join(parts: list[Part]) -> Part:
    """Stack parts below each other."""
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Part(indptr, np.concatenate([p.indices for p in parts]), np.concatenate([p.data for p in parts]))


def is_run(rows: Rows) -> bool:
    """Whether rows are consecutive and rising."""
    return len(rows) > 0 and int(rows[-1]) - int(rows[0]) + 1 == len(rows) and bool((rows[1:] > rows[:-1]).all())


def runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of every run of consecutive rows in a rising list."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for group in np.split(rows, breaks):
        if len(group):
            yield int(group[0]), int(group[-1]) + 1


def sample_rows(n_rows: int, n_runs: int = 64, run: int = 16) -> Rows:
    """Return short runs of rows spread evenly over a matrix, rising (all rows of a small matrix)."""
    if n_rows <= n_runs * run:
        return np.arange(n_rows)
    starts = np.linspace(0, n_rows - run, n_runs).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(run))


def _sorted(part: Part, where: str) -> Part:
    """Sort the columns of every row."""
    rising = np.ones(len(part.indices), dtype=bool)
    rising[1:] = part.indices[1:] > part.indices[:-1]
    starts = part.indptr[:-1]
    rising[starts[starts < len(rising)]] = True
    if rising.all():
        return part
    order = np.lexsort((part.indices, part.row_of))
    done = Part(part.indptr, part.indices[order], part.data[order])
    twice = (done.indices[1:] == done.indices[:-1]) & (np.diff(done.row_of) == 0)
    if twice.any():
        raise InputError(
            f"{where} stores one gene twice in a cell (row {int(done.row_of[1:][twice][0])} of a block); "
            "run adata.X.sum_duplicates() and write the file again."
        )
    return done
