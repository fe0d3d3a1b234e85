"""Cells of an AnnData object, in memory or backed by a file that the caller opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.cells import native_binning
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.log10 import mark_of
from cellscribe.engine.cells.log_base import base_of
from cellscribe.engine.cells.parts import (
    Part,
    Rows,
    canonical,
    check_indices,
    check_pointers,
    from_dense,
    is_run,
    sample_rows,
)
from cellscribe.engine.cells.tables import VarTable, var_table
from cellscribe.engine.cells.values import ValueStats, layer_origin, obsm_origin
from cellscribe.engine.errors import InputError

Array = npt.NDArray[Any]
_STATS_CELLS = 2048


class MemoryStore:
    """Cells of an AnnData object; it is only read."""

    name = "the AnnData object"
    is_alive = True
    notes: tuple[str, ...] = ()

    def __init__(self, adata: AnnData, limits: ReadLimits) -> None:
        self.path = Path(adata.filename) if adata.isbacked and adata.filename else None
        self._limits = limits
        self._adata = cast(Any, adata)  # its types differ between anndata's releases
        self._matrices: dict[str, Any] = {}
        self.layers: tuple[str, ...] = tuple(str(key) for key in self._adata.layers if key is not None)
        self.has_x, self.has_raw = adata.X is not None, adata.raw is not None
        self.obs_columns: tuple[str, ...] = tuple(str(key) for key in adata.obs.columns)
        self.obs_names = _texts(adata.obs_names, "obs")
        self.obsm_names = tuple(str(key) for key, value in adata.obsm.items() if isinstance(value, np.ndarray))
        self.log10_mark = mark_of(self._adata.uns)
        self.said_base = base_of(self._adata.uns)

    def shape(self, origin: str) -> tuple[int, int]:
        """Return cells and genes of a matrix."""
        rows, columns = self._matrix(origin).shape
        return int(rows), int(columns)

    def layout(self, origin: str) -> str:
        """Return "csr" or "dense" (columns are turned into rows when a matrix is first read)."""
        return "csr" if _is_sparse(self._matrix(origin)) else "dense"

    def dtype(self, origin: str) -> np.dtype[Any]:
        """Return the type of the numbers that are stored."""
        found: np.dtype[Any] = np.dtype(self._matrix(origin).dtype)
        return found

    def stats(self, origin: str, *, is_lenient: bool = False) -> ValueStats:
        """Return what values a matrix holds: all of them, or rows spread over a large one."""
        matrix, stats = self._matrix(origin), ValueStats(is_lenient=is_lenient)
        stored = matrix.nnz if _is_sparse(matrix) else matrix.shape[0] * matrix.shape[1]
        is_small = stored <= self._limits.full_check_values
        rows = np.arange(matrix.shape[0]) if is_small else sample_rows(matrix.shape[0])
        groups = [rows[start : start + _STATS_CELLS] for start in range(0, len(rows), _STATS_CELLS)]
        for group, part in zip(groups, self.stream(origin, groups), strict=True):
            stats.add(part, group)
        return stats

    def var(self, is_raw: bool) -> VarTable:
        """Return the names of the genes."""
        frame: pd.DataFrame = self._adata.raw.var if is_raw else self._adata.var
        columns = [name for name in frame.columns if isinstance(name, str)]
        return var_table(_texts(frame.index, "var"), columns, lambda name: frame[name])

    def obs_column(self, name: str) -> pd.Series[Any]:
        """Return a column of obs."""
        column: pd.Series[Any] = self._adata.obs[name].reset_index(drop=True)
        return column

    def stream(self, origin: str, groups: Sequence[Rows]) -> Iterator[Part]:
        """Yield the rows of every group."""
        matrix, where = self._matrix(origin), f"{origin} of {self.name}"
        for rows in groups:
            if _is_sparse(matrix) and is_run(rows):
                yield _checked(*_span(matrix, int(rows[0]), int(rows[-1]) + 1), matrix.shape[1], where)
                continue
            block = matrix[rows]
            if _is_sparse(block):
                yield _checked(block.indptr.astype(np.int64), block.indices, block.data, matrix.shape[1], where)
            else:
                yield from_dense(np.asarray(block), where)

    def close(self) -> None:
        """Let go of matrices that were turned into rows."""
        self._matrices.clear()

    def _matrix(self, origin: str) -> Any:
        if origin not in self._matrices:
            self._matrices[origin] = self._prepared(self._stored(origin), origin)
        return self._matrices[origin]

    def _stored(self, origin: str) -> Any:
        if origin == "X":
            return self._adata.X
        if origin == "raw.X":
            return self._adata.raw.X
        if origin.startswith("obsm["):
            return next(self._adata.obsm[name] for name in self.obsm_names if obsm_origin(name) == origin)
        return self._adata.layers[next(key for key in self.layers if layer_origin(key) == origin)]

    def _prepared(self, matrix: Any, origin: str) -> Any:
        where = f"{origin} of {self.name}"
        if _is_sparse(matrix):
            _check_sparse(matrix, where)
            return matrix if matrix.format == "csr" else sp.csr_matrix(matrix)
        if isinstance(matrix, np.ndarray):
            return np.asarray(matrix)
        if hasattr(matrix, "to_memory") and getattr(matrix, "format", "") == "csc":
            return sp.csr_matrix(matrix.to_memory())
        if hasattr(matrix, "to_memory"):
            return Backed(matrix)
        if type(matrix).__module__.startswith("h5py"):
            return Backed(matrix)
        raise InputError(
            f"{where} is a {type(matrix).__name__}, which cannot be read; bring it into memory (adata.to_memory())."
        )


class Backed:
    """Rows of a matrix that anndata reads from its file."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self.shape, self.dtype = matrix.shape, matrix.dtype

    def __getitem__(self, rows: Rows) -> Any:
        unique, inverse = np.unique(rows, return_inverse=True)
        is_run = len(unique) > 0 and unique[-1] - unique[0] + 1 == len(unique)
        block = self._matrix[int(unique[0]) : int(unique[-1]) + 1] if is_run else self._matrix[unique]
        return block[inverse]


def _span(matrix: Any, start: int, stop: int) -> tuple[Array, Array, Array]:
    """Return rows `start` to `stop` of a CSR matrix without a copy of their values."""
    indptr = matrix.indptr[start : stop + 1].astype(np.int64)
    first, last = int(indptr[0]), int(indptr[-1])
    return indptr - first, matrix.indices[first:last], matrix.data[first:last]


def _checked(indptr: Array, indices: Array, data: Array, n_genes: int, where: str) -> Part:
    check_pointers(indptr, len(data), n_genes, where)
    native = native_binning.find_native()
    if native is not None and native.rows_are_plain(indptr, indices, data, n_genes):
        return Part(indptr, indices, data, is_plain=True)
    check_indices(indices, n_genes, where)
    return canonical(indptr, indices, data, where)


def _is_sparse(matrix: Any) -> bool:
    return bool(sp.issparse(matrix))


def _check_sparse(matrix: Any, where: str) -> None:
    """Refuse broken pointers and indices before scipy computes with them."""
    if matrix.format not in ("csr", "csc"):
        return
    major, minor = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    if len(matrix.indptr) != major + 1 or len(matrix.indices) != len(matrix.data):
        raise InputError(f"{where} is damaged: its parts differ in length; build the matrix again.")
    check_pointers(matrix.indptr.astype(np.int64), len(matrix.data), max(minor, len(matrix.data)), where)
    check_indices(matrix.indices, minor, where)


def _texts(names: Any, frame: str) -> list[str]:
    texts = list(names)
    if not all(issubclass(kind, str) for kind in set(map(type, texts))):
        raise InputError(
            f"The index of adata.{frame} holds no names; run adata.{frame}_names = adata.{frame}_names.astype(str)."
        )
    return texts
