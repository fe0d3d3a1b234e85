"""Which kind of cells a path holds, told from its name and what lies there, before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cellscribe.engine.errors import InputError

Kind = Literal["h5ad", "zarr", "10x-h5", "10x-mtx"]
MATRICES = ("matrix.mtx", "matrix.mtx.gz")
ZARR_MARKS = (".zgroup", "zarr.json", ".zmetadata")
KINDS_BY_SUFFIX: dict[str, Kind] = {".h5ad": "h5ad", ".h5": "10x-h5", ".hdf5": "10x-h5"}
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def kind_of(path: Path) -> Kind | None:
    """Return what a path holds, None for what is no cells."""
    if path.is_dir():
        if any((path / name).is_file() for name in MATRICES):
            return "10x-mtx"
        is_zarr = any((path / name).is_file() for name in ZARR_MARKS)
        return "zarr" if is_zarr else None
    return KINDS_BY_SUFFIX.get(path.suffix)


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
            f"{path} is a folder without {ZARR_MARKS[0]}, {ZARR_MARKS[1]} and {MATRICES[0]}, so it is no .zarr store "
            "and no 10x folder; name the one that is, or an .h5ad file."
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
