"""An index of cells on disk: vectors, names, and what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.search.approximate import open_approximate
from cellscribe.engine.search.nearest import nearest

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SCHEMA = 1
_ENTRIES = ("bundle", "input", "num_cells", "width", "approximate")
MANIFEST, VECTORS, CELLS, NEAREST = "index.json", "vectors.npy", "cells.parquet", "nearest.faiss"


@dataclass(frozen=True, eq=False)
class CellIndex:
    """Cells that can be searched; made by :func:`open_index`.

    Parameters
    ----------
    folder
        Where it lies.
    manifest
        What it was made from: ``bundle`` (name, hash, folder, family), ``input``, ``fingerprint``, ``num_cells``,
        ``width``, ``settings`` and ``approximate`` (None for an exact index).
    vectors
        float32 [N, d] of length 1, on disk.
    cells
        One row per vector: ``cell_id``, ``row`` in the input, and the columns that were kept.
    """

    folder: Path
    manifest: Mapping[str, Any]
    vectors: Floats
    cells: pd.DataFrame

    @property
    def is_exact(self) -> bool:
        """Whether all vectors are compared with a query, unless something else is asked for."""
        return self.manifest["approximate"] is None

    def nearest(self, queries: Floats, k: int = 10, *, exact: bool = False) -> tuple[Ints, Floats]:
        """Find the cells nearest to queries.

        Parameters
        ----------
        queries
            float32 [Q, d]; they are brought to length 1.
        k
            How many.
        exact
            Compare all vectors, though the index has a faster way.

        Returns
        -------
        Places in the index int64 and cosines float32, [Q, k], the nearest first; -1 where fewer were found.

        Raises
        ------
        UsageError
            For queries of another width, or no k.
        BackendError
            When the faster way needs faiss, which is not installed.
        """
        if k < 1:
            raise UsageError(f"{k} nearest cells were asked for; ask for 1 at least.")
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise UsageError(
                f"the queries have shape {list(queries.shape)} and the index {self.folder} has vectors of "
                f"{self.vectors.shape[1]}; use the bundle that it was made with."
            )
        unit = unit_rows(queries)
        if exact or self.is_exact:
            return nearest(self.vectors, unit, k)
        scores, places = self._approximate.search(unit, min(k, len(self.vectors)))
        return places.astype(np.int64), scores

    def places_of(self, cell_ids: list[str]) -> Ints:
        """Return the places of named cells, int64 [N]; InputError for one that is not there."""
        place_of = self._place_of
        missing = next((name for name in cell_ids if name not in place_of), None)
        if missing is not None:
            raise InputError(f"the index {self.folder} has no cell {missing!r}; check the name.")
        return np.array([place_of[name] for name in cell_ids], np.int64)

    def column(self, name: str) -> pd.Series[Any]:
        """Return a column that was kept; InputError for another one."""
        if name not in self.cells:
            kept = ", ".join(map(str, self.cells.columns[2:])) or "none"
            raise InputError(
                f"the index {self.folder} keeps no column {name!r} (it has {kept}); make it with --columns."
            )
        return self.cells[name]

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.cells["cell_id"])}

    @cached_property
    def _approximate(self) -> Any:
        return open_approximate(self.folder / NEAREST, int(self.manifest["approximate"]["probes"]))


def open_index(folder: str | Path) -> CellIndex:
    """Open an index of cells.

    Raises
    ------
    InputError
        When the folder is no index, damaged, or of a newer Cellscribe.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no index of cells ({_why(error)}); make one with cellscribe index.") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise InputError(f"{folder} is an index of another Cellscribe; make it again with cellscribe index.")
    lacking = next((name for name in _ENTRIES if name not in manifest), None)
    if lacking is not None:
        raise InputError(f"the index {folder} is damaged ({MANIFEST} has no {lacking}); make it again.")
    try:
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        cells = pd.read_parquet(folder / CELLS)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"the index {folder} is damaged ({_why(error)}); make it again.") from error
    is_whole = vectors.shape == (manifest["num_cells"], manifest["width"]) and len(cells) == len(vectors)
    if not is_whole or vectors.dtype != np.float32 or list(cells.columns[:2]) != ["cell_id", "row"]:
        raise InputError(f"the index {folder} is damaged (its files disagree); make it again.")
    return CellIndex(folder, manifest, vectors, cells)


def unit_rows(vectors: Floats) -> Floats:
    """Return vectors [N, d] brought to length 1; a row of zeros stays."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).partition("\n")[0]
