"""Cells of a file or an object, opened."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from cellscribe.engine.cells.file_store import FileStore
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.memory_store import MemoryStore
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import InputError

_DEFAULT_LIMITS = ReadLimits()


def open_cells(
    cells: str | Path | AnnData,
    *,
    layer: str | None = None,
    values: ValueChoice = "auto",
    limits: ReadLimits = _DEFAULT_LIMITS,
    is_lenient: bool = False,
) -> CellSource:
    """Open cells for reading.

    Parameters
    ----------
    cells
        An AnnData object (in memory or backed), or a path, which a child process reads: of an .h5ad file, a 10x .h5
        file, a 10x folder of matrix.mtx, features.tsv and barcodes.tsv, or a .zarr store that anndata wrote.
    layer
        Matrix to read: a layer's name, "X" or "raw"; None looks in X, the count layers and raw, counts first.
    values
        What the values are; "auto" decides by looking at them.
    limits
        Bounds of the reading process.
    is_lenient
        Whether cells that hold NaN, infinities or negative numbers are given as cells without counts, and noted in
        ``bad_cells``, while they are few; without it they are an error.

    Returns
    -------
    CellSource
        A context manager.

    Raises
    ------
    InputError
        When the cells cannot be read or used, in one sentence.
    UsageError
        For an unknown `layer` or `values`.
    """
    store = MemoryStore(cells, limits) if isinstance(cells, AnnData) else FileStore(Path(cells), limits)
    try:
        return CellSource(store, layer, values, is_lenient=is_lenient)
    except ValueError as error:
        store.close()
        raise InputError(f"{store.name} is damaged ({error}); write the file again with anndata.") from error
    except BaseException:
        store.close()
        raise
