"""Row blocks of a matrix, whatever its layout: CSR, dense, or CSC turned once into CSR.

The arrays are datasets of HDF5, arrays of .zarr stores or plain ones: what has a type, a length and slices will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.parts import (
    Part,
    Rows,
    as_float32,
    canonical,
    check_indices,
    check_pointers,
    from_dense,
    join,
    kept,
    runs,
    take,
)
from cellscribe.engine.cells.scratch import Entries, to_rows
from cellscribe.engine.errors import InputError

_SLAB_BYTES = 64 << 20
_CHUNK = 1 << 22


class MatrixReader(Protocol):
    """Reads runs of rows."""

    layout: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def n_stored(self) -> int:
        """Number of stored values."""
        ...

    def run(self, start: int, stop: int) -> Part:
        """Return rows `start` to `stop`."""
        ...


def read_rows(reader: MatrixReader, rows: Rows) -> Part:
    """Return rows in the order asked for."""
    if len(rows) and (rows.min() < 0 or rows.max() >= reader.shape[0]):
        raise InputError(f"Rows up to {int(rows.max())} were asked of a matrix of {reader.shape[0]} rows.")
    unique, inverse = np.unique(rows, return_inverse=True)
    part = join([reader.run(start, stop) for start, stop in runs(unique)])
    return part if np.array_equal(unique, rows) else take(part, inverse)


class CsrReader:
    """Rows of a CSR matrix; the row pointers are kept, values are read by runs of rows."""

    layout = "csr"

    def __init__(self, indptr: Any, indices: Any, data: Any, shape: tuple[int, int], where: str) -> None:
        self.shape, self.where, self.dtype = shape, where, np.dtype(data.dtype)
        self._indices, self._data = indices, data
        self._indptr = _pointers(indptr, where)
        if len(self._indptr) != shape[0] + 1 or len(indices) != len(data):
            raise InputError(f"{where} is damaged: its parts differ in length; write the file again.")
        check_pointers(self._indptr, len(data), shape[1], where)

    @property
    def n_stored(self) -> int:
        """Number of stored values."""
        return int(self._indptr[-1])

    def run(self, start: int, stop: int) -> Part:
        """Return rows `start` to `stop`."""
        first, last = int(self._indptr[start]), int(self._indptr[stop])
        indices, data = self._indices[first:last], self._data[first:last]
        check_indices(indices, self.shape[1], self.where)
        return canonical(self._indptr[start : stop + 1] - first, indices, data, self.where)


class DenseReader:
    """Rows of a dense matrix, read in slabs of bounded size."""

    layout = "dense"

    def __init__(self, dataset: Any, where: str) -> None:
        if dataset.ndim != 2 or dataset.dtype.kind not in "buif":
            raise InputError(f"{where} has {dataset.ndim} dimensions of {dataset.dtype}; store a matrix of numbers.")
        self.shape, self.dtype = (int(dataset.shape[0]), int(dataset.shape[1])), np.dtype(dataset.dtype)
        self._dataset, self._where = dataset, where

    @property
    def n_stored(self) -> int:
        """Number of stored values."""
        return self.shape[0] * self.shape[1]

    def run(self, start: int, stop: int) -> Part:
        """Return rows `start` to `stop`."""
        step = max(1, _SLAB_BYTES // max(1, self.shape[1] * max(4, self._dataset.dtype.itemsize)))
        bounds = range(start, stop, step)
        return join([from_dense(self._dataset[a : min(a + step, stop)], self._where) for a in bounds])


class CscReader:
    """Rows of a CSC matrix: at the first read it is turned into CSR in a scratch file that goes with the process."""

    layout = "csc"

    def __init__(
        self, indptr: Any, indices: Any, data: Any, shape: tuple[int, int], where: str, tick: Callable[[], None]
    ) -> None:
        self.shape, self.where, self.dtype, self._tick = shape, where, np.dtype(data.dtype), tick
        self._columns = _pointers(indptr, where)
        self._indices, self._data = indices, data
        if len(self._columns) != shape[1] + 1 or len(indices) != len(data):
            raise InputError(f"{where} is damaged: its parts differ in length; write the file again.")
        check_pointers(self._columns, len(data), shape[0], where)
        self._rows: CsrReader | None = None

    @property
    def n_stored(self) -> int:
        """Number of stored values."""
        return int(self._columns[-1])

    def run(self, start: int, stop: int) -> Part:
        """Return rows `start` to `stop`."""
        if self._rows is None:
            self._rows = self._transposed()
        return self._rows.run(start, stop)

    def _transposed(self) -> CsrReader:
        return CsrReader(*to_rows(self._row_counts(), self._entries()), self.shape, self.where)

    def _entries(self) -> Iterator[Entries]:
        for start in range(0, self.n_stored, _CHUNK):
            stop = min(start + _CHUNK, self.n_stored)
            values = as_float32(self._data[start:stop], self.where)
            columns = np.searchsorted(self._columns, np.arange(start, stop), side="right") - 1
            yield self._indices[start:stop], columns, values
            self._tick()

    def _row_counts(self) -> npt.NDArray[np.int64]:
        counts = np.zeros(self.shape[0], dtype=np.int64)
        for start in range(0, self.n_stored, _CHUNK):
            rows = self._indices[start : start + _CHUNK]
            check_indices(rows, self.shape[0], self.where)
            counts += np.bincount(rows, minlength=self.shape[0])
            self._tick()
        return counts


class SelectedColumns:
    """Rows of another matrix, with some of its columns only."""

    def __init__(self, reader: MatrixReader, is_kept: npt.NDArray[np.bool_]) -> None:
        self._reader, self._is_kept = reader, is_kept
        self._places = (np.cumsum(is_kept) - 1).astype(np.int32)
        self.shape, self.layout, self.dtype = (reader.shape[0], int(is_kept.sum())), reader.layout, reader.dtype

    @property
    def n_stored(self) -> int:
        """Number of stored values, those of the other columns included."""
        return self._reader.n_stored

    def run(self, start: int, stop: int) -> Part:
        """Return rows `start` to `stop`."""
        part = self._reader.run(start, stop)
        part = kept(part, self._is_kept[part.indices])
        return replace(part, indices=self._places[part.indices])


def _pointers(indptr: Any, where: str) -> npt.NDArray[np.int64]:
    values = indptr[()]
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"The row pointers of {where} are not whole numbers; write the file again.")
    return np.asarray(values, dtype=np.int64)
