"""Cells as users give them: a file, an object, or a source that is opened already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from anndata import AnnData

from cellscribe.engine.cells.opening import open_cells
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import InputError, UsageError

Cells: TypeAlias = str | Path | AnnData | CellSource


@contextmanager
def opened(cells: Cells, layer: str | None = None, values: ValueChoice = "auto") -> Iterator[CellSource]:
    """Open cells for reading; a source that is opened already is left open.

    Parameters
    ----------
    cells
        A path, an AnnData object, or a source of :func:`cellscribe.engine.cells.open_cells`.
    layer, values
        As for that function.

    Raises
    ------
    InputError
        When they cannot be read, or are no cells.
    UsageError
        For a layer or kind of values of an opened source.
    """
    if isinstance(cells, CellSource):
        if layer is not None or values != "auto":
            raise UsageError("the cells are opened already; give layer and values to open_cells.")
        yield cells
        return
    if not isinstance(cells, (str, Path, AnnData)):
        raise InputError(f"the cells are {type(cells).__name__}; give AnnData, a path, or a source.")
    with open_cells(cells, layer=layer, values=values) as source:
        yield source
