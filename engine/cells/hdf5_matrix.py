"""Row blocks of a matrix in an HDF5 file, whatever its layout: CSR, dense, or CSC turned once into CSR."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.hdf5_guard import Guard
from cellscribe.engine.cells.parts import (
    Part,
    Rows,
    as_float32,
    canonical,
    check_indices,
    check_pointers,
    from_dense,
    join,
    runs,
    take,
)
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


def open_matrix(guard: Guard, parent: Any, key: str, tick: Callable[[], None]) -> MatrixReader:
    """Return the reader of a matrix; `tick` is called while long work goes on."""
    node = guard.member(parent, key)
    where = f"{node.name.lstrip('/')} of {guard.name}"
    if isinstance(node, h5py.Dataset):
        return DenseReader(node, where)
    kind = _attribute(node, "encoding-type") or f"{_attribute(node, 'h5sparse_format')}_matrix"
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    if kind not in ("csr_matrix", "csc_matrix") or shape is None or len(shape) != 2:
        raise InputError(f"{where} is stored as {kind}, which cannot be read; store it as a CSR or dense matrix.")
    indptr, indices, data = (guard.dataset(node, name) for name in ("indptr", "indices", "data"))
    size = (int(shape[0]), int(shape[1]))
    if kind == "csr_matrix":
        return CsrReader(indptr, indices, data, size, where)
    return CscReader(indptr, indices, data, size, where, tick)


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

    def __init__(self, dataset: h5py.Dataset, where: str) -> None:
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
        indptr = np.concatenate(([0], np.cumsum(self._row_counts())))
        indices, data = _scratch(np.int32, self.n_stored), _scratch(np.float32, self.n_stored)
        free = indptr[:-1].copy()
        for start in range(0, self.n_stored, _CHUNK):
            stop = min(start + _CHUNK, self.n_stored)
            rows, values = self._indices[start:stop], as_float32(self._data[start:stop], self.where)
            columns = np.searchsorted(self._columns, np.arange(start, stop), side="right") - 1
            order = np.argsort(rows, kind="stable")
            sorted_rows = rows[order].astype(np.int64)
            found, first, count = np.unique(sorted_rows, return_index=True, return_counts=True)
            slots = free[sorted_rows] + np.arange(len(order)) - np.repeat(first, count)
            indices[slots], data[slots] = columns[order], values[order]
            free[found] += count
            self._tick()
        return CsrReader(indptr, indices, data, self.shape, self.where)

    def _row_counts(self) -> npt.NDArray[np.int64]:
        counts = np.zeros(self.shape[0], dtype=np.int64)
        for start in range(0, self.n_stored, _CHUNK):
            rows = self._indices[start : start + _CHUNK]
            check_indices(rows, self.shape[0], self.where)
            counts += np.bincount(rows, minlength=self.shape[0])
            self._tick()
        return counts


def _scratch(dtype: Any, count: int) -> npt.NDArray[Any]:
    """Return an array in a nameless file on disk."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=(max(count, 1),))[:count]


def _pointers(indptr: Any, where: str) -> npt.NDArray[np.int64]:
    values = indptr[()] if isinstance(indptr, h5py.Dataset) else indptr
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"The row pointers of {where} are not whole numbers; write the file again.")
    return np.asarray(values, dtype=np.int64)


def _attribute(node: h5py.Group, key: str) -> str:
    value = node.attrs.get(key, "")
    return value.decode() if isinstance(value, bytes) else str(value)
