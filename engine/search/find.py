"""What a search finds, as tables: cells by text, cells like a cell, texts by cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellscribe.engine.errors import UsageError
from cellscribe.engine.search.index import CellIndex, unit_rows
from cellscribe.engine.search.nearest import nearest

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def cells_by_vector(
    index: CellIndex, names: Sequence[str], queries: Floats, k: int = 10, *, exact: bool = False
) -> pd.DataFrame:
    """Find the cells nearest to texts.

    Parameters
    ----------
    names, queries
        The texts and their vectors, float32 [Q, d].

    Returns
    -------
    ``query``, ``rank`` from 1, ``cell_id``, ``score`` (cosine), and the columns that the index keeps.
    """
    return _cells(index, names, *index.nearest(queries, k, exact=exact))


def cells_like(index: CellIndex, cell_ids: Sequence[str], k: int = 10, *, exact: bool = False) -> pd.DataFrame:
    """Find the cells nearest to cells of the index, themselves left out; the table of :func:`cells_by_vector`."""
    own = index.places_of(list(cell_ids))
    places, scores = index.nearest(np.asarray(index.vectors[own]), k + 1, exact=exact)
    order = np.argsort(places == own[:, None], axis=1, kind="stable")[:, :k]  # itself comes last
    order = order[:, : len(index.vectors) - 1]
    return _cells(index, cell_ids, np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1))


def texts_by_cell(
    index: CellIndex, cell_ids: Sequence[str], names: Sequence[str], texts: Floats, k: int = 10
) -> pd.DataFrame:
    """Find the texts nearest to cells of the index: ``cell_id``, ``rank`` from 1, ``text`` and ``score`` (cosine)."""
    if k < 1:
        raise UsageError(f"{k} nearest texts were asked for; ask for 1 at least.")
    places, scores = nearest(unit_rows(texts), np.asarray(index.vectors[index.places_of(list(cell_ids))]), k)
    table = _ranked("cell_id", cell_ids, scores)
    table.insert(2, "text", [names[place] for place in places.ravel().tolist()])
    return table


def _cells(index: CellIndex, names: Sequence[str], places: Ints, scores: Floats) -> pd.DataFrame:
    table = _ranked("query", names, scores)
    chosen = places.ravel()
    rows = index.cells.iloc[chosen].reset_index(drop=True)
    table.insert(2, "cell_id", rows["cell_id"])
    for name in rows.columns[2:]:
        table[name] = rows[name]
    return table[chosen >= 0].reset_index(drop=True)


def _ranked(what: str, names: Sequence[str], scores: Floats) -> pd.DataFrame:
    num, k = scores.shape
    return pd.DataFrame(
        {
            what: np.repeat(np.array(names, dtype=object), k),
            "rank": np.tile(np.arange(1, k + 1), num),
            "score": scores.ravel().astype(np.float64),
        }
    )
