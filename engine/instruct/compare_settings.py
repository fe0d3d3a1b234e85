"""How generated cells are compared with real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cellscribe.engine.errors import UsageError

MIN_CELLS = 6  # of each set; below, there is no map


@dataclass(frozen=True)
class CompareSettings:
    """How cells are compared; the numbers are InstructCell's, but for the draw.

    Parameters
    ----------
    neighbours
        Numbers of neighbours of sKNN, pKNN and mixing; those that the sets are too small for are left out.
    gammas
        Kernels exp(-gamma d^2) of MMD; None chooses three from the real cells.
    bandwidth_neighbours
        Neighbours whose distances choose them (:func:`cellscribe.engine.instruct.discrepancy.gammas_of`).
    components, map_neighbours
        Components of the cells, and neighbours of the UMAPs that are fitted to them.
    has_map
        Whether UMAPs are fitted at all.
    max_cells
        Of more cells of a set so many are drawn, keyed by `seed` and cell name. Figures depend on how many cells a set
        has, as neighbours are nearer among more of them.
    seed
        Of that draw and of the maps.
    same_types
        Leave real cells of types that no generated cell has out of mixing, reach and MMD, and of what is expected.
        They still elect types in pKNN, and marker genes tell types from theirs, too. Of more than `max_cells` real
        cells at least a quarter of those drawn are of the generated types, where there are as many.
    log_base, log_base_real
        Base of the logarithm of log-normalised cells, which is taken back; None looks at their totals.

    Raises
    ------
    UsageError
        For a number that is too small.
    """

    neighbours: tuple[int, ...] = (5, 10, 25, 50)
    gammas: tuple[float, ...] | None = None
    bandwidth_neighbours: int = 25
    components: int = 50
    map_neighbours: int = 40
    has_map: bool = True
    max_cells: int = 2000
    seed: int = 0
    same_types: bool = False
    log_base: float | None = None
    log_base_real: float | None = None

    @property
    def min_cells(self) -> int:
        """Cells of each set that are needed."""
        return max(MIN_CELLS, min(self.neighbours) + 1)

    def __post_init__(self) -> None:
        least = {"bandwidth_neighbours": 1, "components": 1, "map_neighbours": 2, "max_cells": MIN_CELLS}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UsageError(f"{name} is {getattr(self, name)}; choose at least {number}.")
        if not self.neighbours or min(self.neighbours) < 1:
            raise UsageError(f"the numbers of neighbours are {list(self.neighbours)}; choose some from 1 on.")
        if self.gammas is not None and not (self.gammas and min(self.gammas) > 0):
            raise UsageError(f"the kernels' gammas are {list(self.gammas)}; choose some above 0.")
        for base in (self.log_base, self.log_base_real):
            if base is not None and not 1 < base < math.inf:
                raise UsageError(f"the base of a logarithm is {base:g}; choose one above 1.")
