"""What a file of cells holds, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cellscribe.engine.cells.kinds import Kind
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.matrix_readers import MatrixReader
from cellscribe.engine.cells.table import Column

Tick = Callable[[], None]


class Contents(Protocol):
    """One open file, in the words of AnnData: obs are cells, var are genes, an origin is "X" or another matrix."""

    kind: Kind
    notes: tuple[str, ...]

    @property
    def layers(self) -> list[str]:
        """Names of the layers."""
        ...

    @property
    def has_x(self) -> bool:
        """Whether there is an X."""
        ...

    @property
    def has_raw(self) -> bool:
        """Whether there is a raw.X."""
        ...

    @property
    def log10(self) -> list[float] | None:
        """What the file says of X as log10(1 + x)."""
        ...

    @property
    def log_base(self) -> float | None:
        """The base of X's logarithm where the file names one that is not e."""
        ...

    @property
    def obs_columns(self) -> list[str]:
        """Names of the columns of obs."""
        ...

    @property
    def obsm_names(self) -> list[str]:
        """Names of the arrays that lie beside obs."""
        ...

    def obs_names(self) -> list[str]:
        """Names of the cells."""
        ...

    def obs_column(self, name: str) -> Column:
        """Return one column of obs."""
        ...

    def var_columns(self, is_raw: bool) -> list[str]:
        """Names of the columns of var."""
        ...

    def var_names(self, is_raw: bool) -> list[str]:
        """Names of the genes."""
        ...

    def var_column(self, is_raw: bool, name: str) -> Column:
        """Return one column of var."""
        ...

    def open_matrix(self, origin: str) -> MatrixReader:
        """Return the reader of a matrix."""
        ...


def open_contents(path: Path, kind: Kind, name: str, limits: ReadLimits, tick: Tick) -> Contents:
    """Open a file or folder; `tick` is called while long work goes on.

    Raises
    ------
    InputError
        When it is not what `kind` says, or cannot be read.
    """
    if kind == "zarr":
        from cellscribe.engine.cells.zarr_file import open_zarr

        return open_zarr(path, name, limits, tick)
    if kind == "10x-mtx":
        from cellscribe.engine.cells.tenx_mtx import TenxMtx

        return TenxMtx(path, name, limits, tick)
    from cellscribe.engine.cells.hdf5_file import open_hdf5

    return open_hdf5(path, name, limits, tick)
