"""Cells as the engine sees them: named rows of non-negative numbers over named genes, block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellscribe.engine.cells.block import CsrBlock, natural
from cellscribe.engine.cells.file_store import FileStore
from cellscribe.engine.cells.log_base import told_base
from cellscribe.engine.cells.memory_store import MemoryStore
from cellscribe.engine.cells.names import check_names, suggest
from cellscribe.engine.cells.parts import Part, Rows, kept, sample_rows
from cellscribe.engine.cells.tables import VarTable
from cellscribe.engine.cells.values import ValueChoice, ValueKind, choose_values, obsm_origin
from cellscribe.engine.errors import InputError


class CellSource:
    """Cells of one matrix of one AnnData object or file; made by :func:`cellscribe.engine.cells.opening.open_cells`.

    Attributes
    ----------
    path
        The file or folder, or None.
    obs_names, var_names
        Names of cells [n_cells] and genes [n_genes], object arrays of str.
    var_ensembl, var_symbols
        Ensembl ids and symbols of the genes where var has such columns, else None.
    obs_columns
        Names of the columns of obs.
    value_kind, value_origin, value_note
        "counts" or "lognorm"; where they come from ("X", "layers['counts']", "raw.X"); a sentence about it.
    log_base, is_log10
        The base of their logarithm, where the cells say one and it is not e, and whether that is 10, as of cells made
        of sentences; blocks give ln(1 + x). What cells say of themselves counts only while their values bear it out.
    value_dtype
        Type of the numbers as they are stored; blocks give them in float32.
    notes
        Sentences worth showing to the user, the value note first.
    bad_cells
        Why a row has no usable values, of the rows read so far; lenient sources only.
    """

    log_base: float | None = None

    def __init__(
        self, store: FileStore | MemoryStore, layer: str | None, values: ValueChoice, *, is_lenient: bool = False
    ) -> None:
        self._store, self._is_lenient = store, is_lenient
        self.bad_cells: dict[int, str] = {}
        self.path: Path | None = store.path
        self.name = store.name
        self.obs_columns = store.obs_columns
        self.obs_names: npt.NDArray[Any] = np.array(store.obs_names, dtype=object)
        check_names(store.obs_names, store.name)
        chosen = choose_values(store, layer, values, is_lenient=is_lenient)
        self.value_kind: ValueKind = chosen.kind
        self.value_origin = chosen.origin
        self.log_base, said = told_base(store, chosen)
        self.is_log10 = self.log_base == 10.0
        self.value_note = " ".join((chosen.note + said, *store.notes))
        self.value_dtype: np.dtype[Any] = store.dtype(chosen.origin)
        self._var: VarTable = store.var(chosen.origin == "raw.X")
        self.var_names: npt.NDArray[Any] = np.array(self._var.names, dtype=object)
        self.var_ensembl, self.var_symbols = self._var.ensembl, self._var.symbols
        self._check_shape(store.shape(chosen.origin))
        self.notes: tuple[str, ...] = (self.value_note, *self._layout_note(store.layout(chosen.origin)))
        self._row_by_name: dict[str, int] | None = None
        self._fingerprint = ""

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.obs_names)

    @property
    def is_alive(self) -> bool:
        """Whether more can be asked of it; False once its reading process has died."""
        return self._store.is_alive

    @property
    def n_genes(self) -> int:
        """Number of genes of the matrix that is read."""
        return len(self.var_names)

    def obs_column(self, name: str) -> pd.Series[Any]:
        """Return a column of obs [n_cells], in file order, indexed by cell name; InputError for an unknown name."""
        if name not in self.obs_columns:
            raise InputError(f"{self.name} has no obs column {name!r}{suggest(name, self.obs_columns)}.")
        try:
            column = self._store.obs_column(name)
            column.index = pd.Index(self.obs_names)
        except ValueError as error:
            raise InputError(f"The obs column {name!r} of {self.name} is damaged ({error}); write it again.") from error
        return column

    @property
    def obsm_names(self) -> tuple[str, ...]:
        """Names of the arrays that lie beside obs, as "X_umap"."""
        return self._store.obsm_names

    def obsm(self, name: str) -> npt.NDArray[np.float32]:
        """Return an array that lies beside obs, float32 [n_cells, D]; InputError where it cannot be one."""
        origin = obsm_origin(name)
        shape = self._store.shape(origin) if name in self.obsm_names else (0, 0)
        if shape[0] != self.n_cells:
            raise InputError(
                f"{self.name} has no obsm {name!r} of {self.n_cells} rows{suggest(name, self.obsm_names)}."
            )
        found, groups = np.zeros(shape, np.float32), np.array_split(np.arange(shape[0]), max(1, shape[0] // 4096))
        for rows, part in zip(groups, self._store.stream(origin, groups), strict=True):
            found[rows[part.row_of], part.indices] = part.data
        return found

    def rows_of(self, cell_ids: Sequence[str]) -> Rows:
        """Return the rows int64 [N] of named cells; InputError for an unknown name."""
        if self._row_by_name is None:
            self._row_by_name = {name: row for row, name in enumerate(self.obs_names)}
        for cell_id in cell_ids:
            if cell_id not in self._row_by_name:
                near = suggest(cell_id, tuple(self.obs_names[:20_000]))
                raise InputError(f"{self.name} has no cell {cell_id!r}{near}.")
        return np.array([self._row_by_name[cell_id] for cell_id in cell_ids], dtype=np.int64)

    def checked_rows(self, rows: npt.ArrayLike | None = None) -> Rows:
        """Return rows as int64 [N], None as all of them; InputError for one that is not there."""
        wanted = np.arange(self.n_cells) if rows is None else np.asarray(rows, dtype=np.int64).ravel()
        odd = wanted[(wanted < 0) | (wanted >= self.n_cells)]
        if len(odd):
            raise InputError(f"{self.name} has rows 0 to {self.n_cells - 1}; row {int(odd[0])} was asked for.")
        return wanted

    def blocks(self, rows: npt.ArrayLike | None = None, block_cells: int = 512) -> Iterator[CsrBlock]:
        """Read cells.

        Parameters
        ----------
        rows
            Rows to read, in the order wanted; None reads all of them.
        block_cells
            Cells per block.

        Yields
        ------
        CsrBlock
            Up to `block_cells` cells.

        Raises
        ------
        InputError
            At the first value that is NaN, infinite or negative, naming the cell, unless the source is lenient.
        """
        wanted = self.checked_rows(rows)
        groups = [wanted[start : start + block_cells] for start in range(0, len(wanted), block_cells)]
        for group, part in zip(groups, self._store.stream(self.value_origin, groups), strict=True):
            if not part.is_plain:
                part = self._checked_values(part, group)
            yield CsrBlock(group, part if self.log_base is None else natural(part, self.log_base), self.n_genes)

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the shape, the names, and a sample of the values."""
        if not self._fingerprint:
            self._fingerprint = self._digest()
        return self._fingerprint

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.n_cells} {self.n_genes} {self.value_kind}".encode())
        for names in (self.obs_names, self.var_names):
            digest.update("\n".join(names).encode())
        for block in self.blocks(sample_rows(self.n_cells, n_runs=16, run=4)):
            for array in (block.matrix.indptr, block.matrix.indices, block.matrix.data):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        """End the reading process."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_shape(self, shape: tuple[int, int]) -> None:
        if not self.n_cells or not self.n_genes:
            raise InputError(
                f"{self.name} has {self.n_cells} cells and {self.n_genes} genes; give one of each at least."
            )
        if shape != (self.n_cells, self.n_genes):
            raise InputError(
                f"{self.value_origin} of {self.name} has {shape[0]} x {shape[1]} values for {self.n_cells} cells and "
                f"{self.n_genes} genes; write the file again with anndata."
            )

    def _layout_note(self, layout: str) -> tuple[str, ...]:
        how = {"csc": "by genes (CSC); it is turned into rows", "mtx": "as text; it is read"}.get(layout)
        return (f"{self.value_origin} is stored {how} once, into a scratch file.",) if how else ()

    def _checked_values(self, part: Part, rows: Rows) -> Part:
        is_good = np.isfinite(part.data) & (part.data >= 0)
        if is_good.all():
            return part
        if self._is_lenient:
            return self._without_bad(part, rows, is_good)
        first = int(np.argmin(is_good))
        cell = self.obs_names[rows[part.row_of[first]]]
        gene = self.var_names[part.indices[first]]
        raise InputError(
            f"{self.value_origin} of {self.name} holds {part.data[first]:g} for gene {gene!r} in cell {cell!r}; "
            "counts are finite and not negative: remove or mend that cell."
        )

    def _without_bad(self, part: Part, rows: Rows, is_good: npt.NDArray[np.bool_]) -> Part:
        """Empty the cells with bad values, and note why."""
        row_of = part.row_of
        is_empty = np.zeros(part.n_rows, dtype=bool)
        for place in np.flatnonzero(~is_good)[::-1].tolist():  # the first of a cell is said
            row = int(row_of[place])
            is_empty[row] = True
            gene = self.var_names[part.indices[place]]
            self.bad_cells[int(rows[row])] = (
                f"it holds {part.data[place]:g} for gene {gene!r}, and counts are finite and not negative"
            )
        return kept(part, ~is_empty[row_of])
