"""What is asked of InstructCells: counts of real cells by the genes of the random shapes, and prompts.

Prompts are short, as a token of the random shapes is a single character: with T5's own tokenizer prompts of three times
as many characters are as many tokens.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import open_cells
from cellscribe.engine.instruct.genes import gene_columns, in_gene_order
from cellscribe.export.random_instruct import random_genes, random_words

CELLS_FILES = {"scp1884.h5ad": 64, "he2020liver.h5ad": 20}  # and how many cells are taken of each
TYPE_PROMPT = "User:\nWhich type is this human cell of the blood? <CELL><CELL0></CELL>\n\nAssistant:\n"
PROFILE_PROMPT = "User:\nPlease write the profile of a human T cell of the liver.\n\nAssistant:\n"


@cache
def prompt_ids(shape: str, prompt: str) -> list[int]:
    """Return the tokens of a prompt."""
    ids: list[int] = random_words(shape).encode(prompt).ids
    return ids


@cache
def counts(path: str, cells: int) -> npt.NDArray[np.float32]:
    """Return the counts of the first cells of a file by the genes of the random shapes, [cells, genes].

    Raises
    ------
    ValueError
        When there are fewer cells, or one has none of these genes.
    """
    genes = random_genes()
    with open_cells(Path(path)) as source:
        if cells > source.n_cells:
            raise ValueError(f"{cells} cells are asked for and {path} has {source.n_cells}")
        names = source.var_names if source.var_symbols is None else source.var_symbols
        columns = gene_columns([str(name) for name in names], genes)
        block = next(source.blocks(np.arange(cells), block_cells=cells))
        found = in_gene_order(block.matrix, columns, len(genes)).toarray()
    if not found.any(1).all():
        raise ValueError(f"one of the first {cells} cells of {path} has none of the genes")
    return found
