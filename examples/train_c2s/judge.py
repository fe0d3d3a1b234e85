"""Labels from the torch model, to choose between trainings; the packaged bundle is judged by evaluate.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sets import CellSet
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel
from words import END_ID

from cellscribe.engine.decode.courses import Walk
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.keyed import stream_keys
from cellscribe.engine.sentences.ranked import rank_genes, to_sentences
from cellscribe.engine.sentences.templates import fill, packaged_templates
from cellscribe.engine.sentences.transform import TIES


@torch.no_grad()
def share_right(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, cells: CellSet, labels: Sequence[str], genes: int
) -> float:
    """Return the share of cells whose greedy label, out of `labels`, is the right one."""
    model.eval()
    trie = LabelTrie(labels, [tokenizer.encode(f" {one}").ids for one in labels], END_ID)
    ranked = rank_genes(cells.part(), cells.genes, stream_keys(0, cells.keys, TIES), genes)
    prompt = packaged_templates()["cell_type_prediction"].prompt(0, "")
    shared = {"organism": "human", "num_genes": genes}
    found = []
    for sentence in to_sentences(ranked, cells.genes):
        tokens = tokenizer.encode(fill(prompt, {**shared, "cell_sentence": sentence})).ids
        walk = Walk(trie)
        tokens += walk.start().fed
        while not walk.has_ended:
            tokens += walk.choose(_next(model, tokens)).fed
        found.append(walk.label)
    return float(np.mean(np.array(found) == cells.labels))


def _next(model: GPT2LMHeadModel, tokens: list[int]) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = model(torch.tensor([tokens])).logits[0, -1].numpy()
    return logits
