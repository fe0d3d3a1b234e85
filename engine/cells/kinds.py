"""Which kind of cells a path holds, told from its name and what lies there, before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["h5ad", "zarr", "10x-h5", "10x-mtx"]
_MATRICES = ("matrix.mtx", "matrix.mtx.gz")


def kind_of(path: Path) -> Kind | None:
    """Return what a path holds, None for what is no cells."""
    if path.is_dir():
        if any((path / name).is_file() for name in _MATRICES):
            return "10x-mtx"
        is_zarr = any((path / name).is_file() for name in (".zgroup", "zarr.json", ".zmetadata"))
        return "zarr" if is_zarr else None
    if path.suffix == ".h5ad":
        return "h5ad"
    return "10x-h5" if path.suffix in (".h5", ".hdf5") else None
