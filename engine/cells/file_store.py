"""Cells of a file or folder, read by another process (see :mod:`cellscribe.engine.cells.child`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.engine.cells import native_binning, wire
from cellscribe.engine.cells.child import Child
from cellscribe.engine.cells.kinds import Kind, checked_kind
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.log10 import Log10Mark
from cellscribe.engine.cells.log_base import plain_base
from cellscribe.engine.cells.parts import Part, Rows, check_indices, check_pointers, is_run
from cellscribe.engine.cells.tables import VarTable, series_of, var_table
from cellscribe.engine.cells.values import ValueStats
from cellscribe.engine.errors import InputError


class FileStore:
    """Cells of a file or folder, read by a :class:`Child`.

    Attributes
    ----------
    kind
        What it is: "h5ad", "10x-h5", "10x-mtx" or "zarr".
    notes
        Sentences about what is left out of it.
    """

    def __init__(self, path: Path, limits: ReadLimits) -> None:
        kind = checked_kind(path)
        self.path, self.name = path, path.name or path.resolve().name
        self._child = Child(path, kind, limits)
        try:
            header, text = self._child.ask("describe")
            self.obs_names = wire.unpack_text(*text)
        except ValueError as error:
            self.close()
            raise InputError(f"{self.name} is damaged ({error}); write it again with anndata.") from error
        except BaseException:
            self.close()
            raise
        self.kind: Kind = header["kind"]
        self.notes: tuple[str, ...] = tuple(header["notes"])
        self.layers: tuple[str, ...] = tuple(header["layers"])
        self.has_x, self.has_raw = bool(header["has_x"]), bool(header["has_raw"])
        self.obs_columns: tuple[str, ...] = tuple(header["obs_columns"])
        self.obsm_names: tuple[str, ...] = tuple(header["obsm"])
        self.log10_mark = None if header["log10"] is None else Log10Mark.of(*header["log10"])
        self.said_base = plain_base(header["log_base"])

    @property
    def is_alive(self) -> bool:
        """Whether the reading process still answers."""
        return self._child.is_alive

    def shape(self, origin: str) -> tuple[int, int]:
        """Return cells and genes of a matrix."""
        rows, columns = self._child.ask("matrix", origin=origin)[0]["shape"]
        return int(rows), int(columns)

    def layout(self, origin: str) -> str:
        """Return "csr", "csc" or "dense"."""
        return str(self._child.ask("matrix", origin=origin)[0]["layout"])

    def dtype(self, origin: str) -> np.dtype[Any]:
        """Return the type of the numbers that are stored."""
        return np.dtype(self._child.ask("matrix", origin=origin)[0]["dtype"])

    def stats(self, origin: str, *, is_lenient: bool = False) -> ValueStats:
        """Return what values a matrix holds; see :class:`ValueStats` for `is_lenient`."""
        return ValueStats(**self._child.ask("stats", origin=origin, is_lenient=is_lenient)[0])

    def var(self, is_raw: bool) -> VarTable:
        """Return the names of the genes."""
        header, text = self._child.ask("var", is_raw=is_raw)

        def column(name: str) -> pd.Series[Any]:
            return series_of(*self._child.ask("var_column", is_raw=is_raw, column=name), name=name)

        return var_table(wire.unpack_text(*text), header["columns"], column)

    def obs_column(self, name: str) -> pd.Series[Any]:
        """Return a column of obs."""
        return series_of(*self._child.ask("obs_column", column=name), name=name)

    def stream(self, origin: str, groups: Sequence[Rows]) -> Iterator[Part]:
        """Yield the rows of every group, one group ahead of what is asked for."""
        n_genes = self.shape(origin)[1]
        numbers: list[int] = []
        try:
            for index in range(len(groups)):
                numbers = numbers or [self._ask_rows(origin, groups[index])]
                indptr, indices, data = self._child.receive(numbers.pop(0))[1]
                if index + 1 < len(groups):
                    numbers.append(self._ask_rows(origin, groups[index + 1]))
                check_pointers(indptr, len(data), n_genes, self.name)
                native = native_binning.find_native()
                is_plain = native is not None and native.rows_are_plain(indptr, indices, data, n_genes)
                if not is_plain:
                    check_indices(indices, n_genes, self.name)
                yield Part(indptr, indices, data, is_plain)
        finally:
            for number in numbers:
                self._child.forget(number)

    def _ask_rows(self, origin: str, rows: Rows) -> int:
        if is_run(rows):
            return self._child.send("rows", origin=origin, span=[int(rows[0]), int(rows[-1]) + 1])
        return self._child.send("rows", origin=origin, rows=rows.tolist())

    def close(self) -> None:
        """End the reading process."""
        self._child.close()


def stored_kind(path: Path) -> Kind:
    """Return what a path holds, which its name alone does not say of HDF5 files; InputError for what is no cells."""
    store = FileStore(path, ReadLimits())
    try:
        return store.kind
    finally:
        store.close()
