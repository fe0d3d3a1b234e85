"""Generated cells compared with real ones: what InstructCell's authors measure of cells that a model wrote.

Fang et al. (2025) bring both sets to 10,000 values per cell and logarithms (whose base only scales), take 50 components
of the real cells, fit a UMAP to those, place the generated cells in it, and compute sKNN, pKNN and MMD from the places.
Here these are computed that way, as `published`, and from components and a map of both sets, which treat all cells
alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.given import Cells, opened
from cellscribe.engine.errors import InputError
from cellscribe.engine.instruct.compare_settings import CompareSettings
from cellscribe.engine.instruct.compared_cells import ComparedCells, read_compared, shared_genes
from cellscribe.engine.instruct.components import (
    LACKING,
    Places,
    components,
    has_umap,
    joint_map,
    published_components,
    published_map,
)
from cellscribe.engine.instruct.likeness import Likeness, likeness
from cellscribe.engine.instruct.marker_dots import MarkerDots, marker_dots
from cellscribe.engine.instruct.neighbours import sizes_that_fit
from cellscribe.engine.output.run import count

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LABEL = "cell_type"
_MANY = 5  # names in a message
_PUBLISHED = ("sknn", "sknn_real", "pknn")  # what is published beside MMD


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came of it.

    Parameters
    ----------
    generated, real
        The cells that were compared, M and N of them.
    genes
        Names that both have [S].
    types
        Of either set, sorted [T].
    num_generated, num_real
        Compared cells by type, int64 [T].
    components, map, published
        Figures from components of both sets, from a map of both, and from the map of InstructCell's evaluation; None
        without umap-learn. How well both overlap in the map is its `mixing`.
    places
        Of generated and real cells in the map of both, float64 [M, 2] and [N, 2], or None.
    dots
        Marker genes in both.
    settings, notes
        How it was done, and sentences worth showing.
    """

    generated: ComparedCells
    real: ComparedCells
    genes: tuple[str, ...]
    types: tuple[str, ...]
    num_generated: Ints
    num_real: Ints
    components: Likeness
    map: Likeness | None
    published: Likeness | None
    places: Places | None
    dots: MarkerDots
    settings: CompareSettings
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON; NaN is None."""
        counts = zip(self.types, self.num_generated.tolist(), self.num_real.tolist(), strict=True)
        ours, theirs = (None, None) if self.places is None else self.places
        return {
            "generated": _side(self.generated, ours),
            "real": _side(self.real, theirs),
            "num_shared_genes": len(self.genes),
            "types": {name: {"generated": ours, "real": theirs} for name, ours, theirs in counts},
            "components": self.components.as_dict(self.types),
            "map": None if self.map is None else self.map.as_dict(self.types),
            "published": None if self.published is None else self.published.as_dict(self.types, _PUBLISHED),
            "markers": self.dots.as_dict(),
            "settings": asdict(self.settings),
            "notes": list(self.notes),
        }


def compare_cells(
    generated: Cells,
    real: Cells,
    *,
    label: str = LABEL,
    label_real: str | None = None,
    markers: Mapping[str, Sequence[str]] | None = None,
    markers_from: str = "markers",
    settings: CompareSettings | None = None,
) -> Comparison:
    """Compare generated cells with real ones.

    Parameters
    ----------
    generated, real
        Files, AnnData objects, or opened sources, of counts or log-normalised values.
    label, label_real
        Columns of obs with the type that a generated cell was asked for, and with that of a real cell; the second is
        named like the first without it. Cells without a type are left out.
    markers, markers_from
        Genes by type for the dot plot, and where they are from; chosen from the real cells without them.

    Raises
    ------
    InputError
        When the cells cannot be read, are too few, or share too few genes or no type.
    """
    wanted = settings or CompareSettings()
    with opened(generated) as ours, opened(real) as theirs:
        genes = shared_genes(ours, theirs)
        most, seed = wanted.max_cells, wanted.seed
        made = read_compared(ours, genes, label, most, seed, wanted.log_base)
        alike = set(made.types) if wanted.same_types else None
        known = read_compared(theirs, genes, label_real or label, most, seed, wanted.log_base_real, alike)
    sizes = _sizes(made, known, wanted)
    types, codes = np.unique(np.array(made.types + known.types), return_inverse=True)
    own, other = codes[: made.num_cells], codes[made.num_cells :]
    if not np.isin(own, other).any():
        raise InputError(
            f"no type of {made.source} ({_some(made.types)}) is one of {known.source} ({_some(known.types)}); "
            "write them alike, or name other columns of obs."
        )
    is_alike = np.isin(other, own) if wanted.same_types else np.ones(known.num_cells, bool)
    _check_number(int(is_alike.sum()), f"have a type that cells of {made.source} have", known, wanted)

    def figures(places: Places) -> Likeness:
        return likeness(*places, (own, other), len(types), sizes, wanted.gammas, wanted.bandwidth_neighbours, is_alike)

    low, has_map = components(made.values, known.values, wanted.components), wanted.has_map and has_umap()
    places = joint_map(low, wanted.map_neighbours, wanted.seed) if has_map else None
    return Comparison(
        made,
        known,
        genes,
        tuple(map(str, types)),
        np.bincount(own, minlength=len(types)),
        np.bincount(other, minlength=len(types)),
        figures(low),
        None if places is None else figures(places),
        figures(_published(made, known, wanted)) if has_map else None,
        places,
        marker_dots(made, known, genes, markers, markers_from),
        wanted,
        (
            *_notes(made, known, wanted, sizes),
            *_others(known, is_alike),
            *([LACKING] if wanted.has_map and not has_map else []),
        ),
    )


def _published(generated: ComparedCells, real: ComparedCells, wanted: CompareSettings) -> Places:
    low = published_components(generated.values, real.values, wanted.components)
    return published_map(low, wanted.map_neighbours, wanted.seed)


def _sizes(generated: ComparedCells, real: ComparedCells, wanted: CompareSettings) -> tuple[int, ...]:
    """Return the numbers of neighbours to use, or raise InputError where a set has too few cells."""
    for cells in (generated, real):
        _check_number(cells.num_cells, "have a type", cells, wanted)
        if cells.num_empty == cells.num_cells:
            raise InputError(f"no cell of {cells.source} expresses any of the shared genes; give other cells.")
    return sizes_that_fit(wanted.neighbours, min(generated.num_cells, real.num_cells))


def _check_number(number: int, which: str, cells: ComparedCells, wanted: CompareSettings) -> None:
    if number < wanted.min_cells:
        raise InputError(
            f"{number} of the cells of {cells.source} {which} and {wanted.min_cells} are needed to compare "
            "neighbours; give more."
        )


def _others(real: ComparedCells, is_alike: npt.NDArray[np.bool_]) -> list[str]:
    """Say what real cells of other types are for, where there are any."""
    if is_alike.all():
        return []
    told = count(int((~is_alike).sum()), "cell")
    return [f"Of other types, for pKNN and marker genes but not for mixing, reach and MMD: {told} of {real.source}."]


def _notes(generated: ComparedCells, real: ComparedCells, wanted: CompareSettings, sizes: tuple[int, ...]) -> list[str]:
    said = []
    for cells in (generated, real):
        if cells.num_untyped:
            said.append(f"Without a type, and left out: {count(cells.num_untyped, 'cell')} of {cells.source}.")
        if cells.num_empty:
            said.append(f"Without any of the shared genes: {count(cells.num_empty, 'cell')} of {cells.source}.")
    strange = [one for one in generated.types if one not in set(real.types)]
    if strange:
        told = count(len(strange), "generated cell")
        said.append(f"Of types that no real cell has ({_some(strange)}), and not in pKNN: {told}.")
    if len(set(real.types)) == 1:
        said.append("The real cells are of one type, so that pKNN is 1 whatever the generated cells are.")
    if len(set(generated.types)) == 1:
        said.append("The generated cells are of one type, so that sKNN is 1 whatever they are.")
    left_out = sorted(set(wanted.neighbours) - set(sizes))
    if left_out:
        said.append(f"There are too few cells for {', '.join(map(str, left_out))} neighbours.")
    return said


def _some(names: Sequence[str]) -> str:
    every = sorted(set(names))
    return ", ".join(every[:_MANY]) + (f" and {len(every) - _MANY} more" if len(every) > _MANY else "")


def _side(cells: ComparedCells, places: Doubles | None) -> dict[str, Any]:
    """Return what is known of one set for JSON, with places in the map where there is one."""
    told: dict[str, Any] = {
        "source": cells.source,
        "num_cells": cells.num_all,
        "num_compared": cells.num_cells,
        "num_without_type": cells.num_untyped,
        "num_empty": cells.num_empty,
        "notes": list(cells.notes),
    }
    if places is not None:
        told["places"] = dict(zip(cells.cell_ids, np.round(places, 4).tolist(), strict=True))
    return told
