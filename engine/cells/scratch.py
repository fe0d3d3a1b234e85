"""Matrices turned into rows, in nameless files on disk that go with the process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Entries = tuple[Array, Array, Array]  # row, column and value of each, of one length
Csr = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]  # pointers, columns, values


def to_rows(counts: npt.NDArray[np.int64], entries: Iterable[Entries]) -> Csr:
    """Sort entries by row; within a row they keep their order.

    Parameters
    ----------
    counts
        Entries of every row, int64 [n_rows].
    entries
        All of them, some at a time, rows within ``[0, n_rows)``.
    """
    indptr = pointers_of(counts)
    indices, data = scratch(np.int32, int(indptr[-1])), scratch(np.float32, int(indptr[-1]))
    free = indptr[:-1].copy()
    for rows, columns, values in entries:
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order].astype(np.int64)
        found, first, count = np.unique(sorted_rows, return_index=True, return_counts=True)
        slots = free[sorted_rows] + np.arange(len(order)) - np.repeat(first, count)
        indices[slots], data[slots] = columns[order], values[order]
        free[found] += count
    return indptr, indices, data


def pointers_of(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the row pointers int64 [n_rows + 1] of rows of such lengths."""
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def scratch(dtype: Any, count: int) -> Array:
    """Return an array [count] in a nameless file."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=(max(count, 1),))[:count]


class Growing:
    """An array in a nameless file that grows at its end."""

    def __init__(self, dtype: Any) -> None:
        self._dtype, self._count, self._file = np.dtype(dtype), 0, tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, values: Array) -> None:
        """Append values, converted to the type of the array."""
        with np.errstate(over="ignore"):
            self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._count += len(values)

    def array(self) -> Array:
        """Return what was added; nothing can be added any more."""
        with self._file:
            self._file.flush()
            if not self._count:
                return np.empty(0, dtype=self._dtype)
            return np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self._count,))
