"""Which kind of cells a path holds, told from its name and what lies there, before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cellscribe.engine.errors import InputError

Kind = Literal["h5ad", "zarr", "10x-h5", "10x-mtx"]
_MATRICES = ("matrix.mtx", "matrix.mtx.gz")
_ROOTS = (".zgroup", "zarr.json", ".zmetadata")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def kind_of(path: Path) -> Kind | None:
    """Return what a path holds, None for what is no cells."""
    if path.is_dir():
        if any((path / name).is_file() for name in _MATRICES):
            return "10x-mtx"
        return "zarr" if any((path / name).is_file() for name in _ROOTS) else None
    if path.suffix == ".h5ad":
        return "h5ad"
    return "10x-h5" if path.suffix in (".h5", ".hdf5") else None


def checked_kind(path: Path) -> Kind:
    """Return what a path holds; every HDF5 file counts as .h5ad or 10x .h5, which its groups tell apart later.

    Raises
    ------
    InputError
        For what is plainly no cells.
    """
    if not path.exists():
        raise InputError(f"There is no file {path}; check the name.")
    if not path.is_dir():
        _check_file(path)
        return kind_of(path) or "h5ad"
    kind = kind_of(path)
    if kind is None:
        raise InputError(
            f"{path} is a folder without {_ROOTS[0]}, {_ROOTS[1]} and {_MATRICES[0]}, so it is no .zarr store and no "
            "10x folder; name the one that is, or an .h5ad file."
        )
    return kind


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; name an .h5ad file.")
    if path.name.endswith((".mtx", ".mtx.gz")):
        raise InputError(f"{path} is one of three files; name the folder of matrix.mtx, features.tsv and barcodes.tsv.")
    try:
        with path.open("rb") as file:
            head = file.read(len(_SIGNATURE))
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions.") from error
    if head != _SIGNATURE:
        raise InputError(f"{path} is {'empty' if not head else 'not an HDF5 file'}, so it is no .h5ad; write it again.")
