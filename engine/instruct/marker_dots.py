"""Expression of marker genes in the real and the generated cells of each type, for a dot plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.instruct.compared_cells import ComparedCells
from cellscribe.engine.labelling.expression import LabelExpression
from cellscribe.engine.labelling.markers import markers, places_of

Doubles = npt.NDArray[np.float64]

MAX_TYPES = 12
_FEWEST, _MOST, _WANTED = 3, 10, 36  # genes of a type, at least and at most, and of all types


@dataclass(frozen=True, eq=False)
class MarkerDots:
    """Marker genes.

    Parameters
    ----------
    types
        Those that both sets have, by falling number of real cells [R].
    genes
        Names [C].
    groups
        Types, or the keys of given markers, with how many of the genes are theirs.
    share, share_generated
        Of a type's real and generated cells that express a gene, float64 [R, C].
    mean, mean_generated
        Mean of log1p of values per 10,000, float64 [R, C].
    """

    types: tuple[str, ...]
    genes: tuple[str, ...]
    groups: tuple[tuple[str, int], ...]
    share: Doubles
    mean: Doubles
    share_generated: Doubles
    mean_generated: Doubles

    def as_dict(self) -> dict[str, Any]:
        """Return names and figures for JSON."""
        arrays = ("share", "mean", "share_generated", "mean_generated")
        shown = {name: np.round(getattr(self, name), 6).tolist() for name in arrays}
        groups = [[name, number] for name, number in self.groups]
        return {"types": list(self.types), "genes": list(self.genes), "groups": groups, **shown}


def marker_dots(
    generated: ComparedCells,
    real: ComparedCells,
    genes: Sequence[str],
    given: Mapping[str, Sequence[str]] | None = None,
    given_from: str = "markers",
) -> MarkerDots:
    """Choose marker genes from the real cells and look them up in both sets.

    Parameters
    ----------
    genes
        Names of the columns [S].
    given, given_from
        Genes by type instead, and where they are from, for messages.

    Raises
    ------
    InputError
        When none of the given genes is shared.
    """
    theirs = expression_of(real, genes, first=set(generated.types))
    types = tuple(one for one in theirs.labels if one in set(generated.types))[:MAX_TYPES]
    if given is None:
        chosen = markers(theirs, len(types), min(_MOST, max(_FEWEST, _WANTED // max(1, len(types)))))
    else:
        chosen = places_of(given, genes, given_from)
    places = [place for some in chosen.values() for place in some]
    ours = expression_of(generated, genes)
    at, here = ([found.labels.index(one) for one in types] for found in (theirs, ours))
    return MarkerDots(
        types,
        tuple(genes[place] for place in places),
        tuple((name, len(some)) for name, some in chosen.items() if some),
        theirs.share[np.ix_(at, places)],
        theirs.mean[np.ix_(at, places)],
        ours.share[np.ix_(here, places)],
        ours.mean[np.ix_(here, places)],
    )


def expression_of(cells: ComparedCells, genes: Sequence[str], first: set[str] | None = None) -> LabelExpression:
    """Return expression by type; types by falling number of cells, those in `first` before the others."""
    names, type_of, num_cells = np.unique(np.array(cells.types), return_inverse=True, return_counts=True)
    is_later = np.array([first is not None and str(name) not in first for name in names])
    order = np.lexsort((-num_cells, is_later))
    shape = (len(names), cells.num_cells)
    gather = sp.csr_matrix((1.0 / num_cells[type_of], (type_of, np.arange(cells.num_cells))), shape)[order]
    return LabelExpression(
        tuple(map(str, names[order])),
        tuple(genes),
        num_cells[order].astype(np.int64),
        (gather @ cells.values).toarray(),
        (gather @ cells.values.sign()).toarray(),
    )
