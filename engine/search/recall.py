"""How often what was looked for is among the nearest: R@k, from texts to cells and from cells to texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import InputError
from cellscribe.engine.search.nearest import nearest

Floats = npt.NDArray[np.float32]

_BLOCK = 65_536


@dataclass(frozen=True)
class Recall:
    """Shares from 0 to 1 by k.

    Parameters
    ----------
    cells_by_text
        Of the texts that some cell is known to fit, those with one of these cells among the k nearest.
    texts_by_cell
        Of the cells whose known label has a text, those with that text among the k nearest.
    num_texts, num_cells
        How many of them there are.
    """

    cells_by_text: dict[int, float]
    texts_by_cell: dict[int, float]
    num_texts: int
    num_cells: int


def recall_at(
    cells: Floats, texts: Floats, truth: Sequence[str], labels: Sequence[str], ks: Sequence[int] = (1, 5, 10)
) -> Recall:
    """Compare what is near with what is known.

    Parameters
    ----------
    cells, texts
        Vectors of length 1: float32 [N, d] and [L, d].
    truth, labels
        The known label of each cell ("" for none) and the label of each text, alike but for case and spaces.

    Raises
    ------
    InputError
        When no cell's label has a text.
    """
    place = {_plain(label): i for i, label in enumerate(labels)}
    own = np.array([place.get(_plain(name), -1) for name in truth], np.int64)
    has_text = np.flatnonzero(own >= 0)
    if not len(has_text):
        raise InputError(
            f"no known label of the cells is among the {len(labels)} texts; name another column, or give the texts its "
            "names."
        )
    known = np.unique(own[has_text])
    most = max(ks)
    found = own[nearest(cells, texts[known], most)[0]] == known[:, None]
    ranks = np.concatenate(
        [
            nearest(texts, np.asarray(cells[block]), most)[0] == own[block, None]
            for block in np.array_split(has_text, -(-len(has_text) // _BLOCK))
        ]
    )
    return Recall(
        {k: float(found[:, :k].any(axis=1).mean()) for k in ks},
        {k: float(ranks[:, :k].any(axis=1).mean()) for k in ks},
        len(known),
        len(has_text),
    )


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
