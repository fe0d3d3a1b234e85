"""HDF5 files of cells: AnnData's, or Cell Ranger's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py

from cellscribe.engine.cells.anndata_file import AnndataFile
from cellscribe.engine.cells.hdf5_guard import Guard
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.tenx_h5 import TenxH5, matrix_group
from cellscribe.engine.errors import InputError

_CACHE_BYTES = 64 << 20


def open_hdf5(path: Path, name: str, limits: ReadLimits, tick: Callable[[], None]) -> AnndataFile | TenxH5:
    """Open an .h5ad file or a 10x .h5 file, whatever its name ends in.

    Raises
    ------
    InputError
        When it is neither.
    """
    guard = Guard(h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES), name, limits)
    if guard.has(guard.file, "obs") and guard.has(guard.file, "var"):
        return AnndataFile(guard, "h5ad", tick)
    group = matrix_group(guard)
    if group is None:
        raise InputError(
            f"{name} has neither obs and var nor a matrix with barcodes, so it is HDF5 but no .h5ad and no 10x file; "
            "write it with anndata."
        )
    return TenxH5(guard, group)
