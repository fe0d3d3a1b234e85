"""Prompts of Cell2Sentence as token ids: real cells through our own templates and the tokenizer of `tiny_neox`.

Cell type prediction takes the first of our prompts with the 200 most expressed genes of a packaged cell; of the first
64 cells Pythia's own tokenizer makes 672 to 715 tokens a prompt, 691 in the mean, 3.3 a gene; the rule of `tiny_neox`
makes 670 to 726, 699 in the mean. Generation takes the first prompt for a cell of a given type, the types of the
packaged cells in turn, so that texts differ.
"""

from __future__ import annotations

import json

import numpy as np
from peers.tiny_neox import tokenizer
from tokenizers import Tokenizer

from cellscribe.engine.cells import open_cells
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.ranked import rank_genes, to_sentences
from cellscribe.engine.sentences.templates import fill, packaged_templates
from cellscribe.engine.sentences.transform import TIES

NUM_GENES = 200
_TYPES = "cell_type_reference"
_SHARED = {"organism": "human", "num_genes": NUM_GENES}


def type_prompts(count: int) -> list[list[int]]:
    """Return the prompts of cell type prediction of the first packaged cells.

    Raises
    ------
    ValueError
        When there are fewer cells.
    """
    with open_cells(packaged_cells()) as source:
        if not 1 <= count <= source.n_cells:
            raise ValueError(f"{count} cells are asked for and there are {source.n_cells} packaged ones.")
        block = next(source.blocks(np.arange(count)))
        genes = SentenceGenes.of_cells(source)
        keys = stream_keys(0, cell_keys(source.obs_names[block.rows]), TIES)
        sentences = to_sentences(rank_genes(block.part, genes, keys, NUM_GENES), genes)
    return _ids("cell_type_prediction", [{"cell_sentence": one} for one in sentences])


def cell_prompts(count: int) -> list[list[int]]:
    """Return the prompts of as many cells to be written, the types of the packaged cells in turn."""
    with open_cells(packaged_cells()) as source:
        types = list(dict.fromkeys(map(str, source.obs_column(_TYPES))))
    return _ids("conditional_cell_generation", [{"cell_type": types[i % len(types)]} for i in range(count)])


def _ids(task: str, values: list[dict[str, str]]) -> list[list[int]]:
    template, words = packaged_templates()[task], Tokenizer.from_str(json.dumps(tokenizer()))
    texts = [fill(template.prompts[0], {**_SHARED, **one}) for one in values]
    return [one.ids for one in words.encode_batch(texts)]
