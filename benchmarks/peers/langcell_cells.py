"""What is asked of LangCells: the rank tokens of real cells, and names of labels."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import open_cells
from cellscribe.engine.matching.zero_shot import TEMPERATURE
from cellscribe.engine.ranks import RankInput, RankTokenizer
from cellscribe.engine.ranks.genes import packaged_dictionaries, rank_vocabulary

__all__ = ["CELLS_FILE", "TEMPERATURE", "labels", "rank_tokens"]

CELLS_FILE = "zheng68k.h5ad"
_TYPES = (
    "B cell", "plasma cell", "naive CD4-positive T cell", "memory CD4-positive T cell", "regulatory T cell",
    "CD8-positive, alpha-beta T cell", "natural killer cell", "classical monocyte", "non-classical monocyte",
    "macrophage", "conventional dendritic cell", "plasmacytoid dendritic cell", "mast cell", "neutrophil",
    "erythrocyte", "platelet", "hematopoietic stem cell", "fibroblast", "endothelial cell", "smooth muscle cell",
    "pericyte", "hepatocyte", "epithelial cell",
)  # fmt: skip
_TISSUES = ("blood", "liver", "lung", "spleen", "bone marrow", "lymph node", "skin")


def labels(number: int) -> list[str]:
    """Return up to 161 names: 23 cell types, then the same of further tissues."""
    every = [f"{kind} of {tissue}" for tissue in _TISSUES for kind in _TYPES]
    if number > len(every):
        raise ValueError(f"{number} labels are asked for and {len(every)} are known")
    return every[:number]


@cache
def rank_tokens(path: str, cells: int) -> list[npt.NDArray[np.int64]]:
    """Return the tokens of the first cells of a file."""
    vocabulary = rank_vocabulary(*packaged_dictionaries())
    with open_cells(Path(path)) as source:
        batches = RankTokenizer(RankInput(), vocabulary, source).batches(np.arange(cells))
        found = [np.array(batch.cell(i)) for batch in batches for i in range(len(batch.rows))]
    if len(found) != cells:
        raise ValueError(f"{cells - len(found)} of the first {cells} cells of {path} cannot be tokenised")
    return found
