"""Greedy texts from the torch model, and a judgement of them; used to choose between trainings."""

from __future__ import annotations

import numpy as np
import torch
from binning import bin_rows
from cells import Cells, Floats
from course import Course, gene_ids, with_cls
from network import DemoModel
from texts import named_genes, named_state, named_type
from tokens import END, Encoder
from torch import Tensor


@torch.no_grad()
def generate(model: DemoModel, encoder: Encoder, digits: Floats, limit: int = 64) -> tuple[list[str], Floats]:
    """Write greedily about cells whose digits are [N, G].

    Returns
    -------
    The texts, and the cross-attention to each gene summed over a text's tokens, [N, G].
    """
    model.eval()
    ids = gene_ids(*digits.shape)
    mask = torch.ones_like(ids, dtype=torch.bool)
    memory, _ = model.encoder(ids, with_cls(digits), mask)
    tokens = torch.from_numpy(encoder.prompt).expand(len(ids), -1)
    done = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(limit):
        best = model.decoder.forward_train(tokens, memory, mask)[0][:, -1].argmax(-1)
        best = torch.where(done, END, best)
        tokens, done = torch.cat([tokens, best[:, None]], 1), done | (best == END)
        if done.all():
            break
    attention = _attention(model, tokens[:, :-1], memory, mask)  # [N, T, S]
    start = len(encoder.prompt)
    is_text = (tokens[:, start:] != END).float()
    mass = (attention[:, start - 1 :] * is_text[..., None]).sum(1)[:, 1:]
    return [encoder.tokenizer.decode(row[start:].tolist()) for row in tokens], mass.numpy()


def _attention(model: DemoModel, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    attention = model.decoder.forward_train(tokens, memory, mask, return_attention=True)[1]
    assert attention is not None
    mean: Tensor = attention.mean((1, 2))
    return mean


def score(course: Course, model: DemoModel, cells: Cells, seed: int = 12345) -> tuple[dict[str, float], list[str]]:
    """Judge greedy texts about cells that were not trained on; every figure is a share, but the count of genes."""
    cells = cells.keep_genes(course.cells.genes)
    texts, mass = generate(model, course.encoder, bin_rows(cells.expression, np.random.default_rng(seed)))
    named = [named_genes(text, cells.genes) for text in texts]
    top = [{cells.genes[g] for g in np.argsort(-row)[:10]} for row in mass]
    expressed = [cells.expression[i, cells.genes.index(g)] > 0 for i, row in enumerate(named) for g in row]
    states = course.writer.states(cells)
    return {
        "type": float(np.mean([named_type(t) == label for t, label in zip(texts, cells.labels, strict=True)])),
        "state": float(np.mean([named_state(t) == s for t, s in zip(texts, states, strict=True)])),
        "named 3": float(np.mean([len(set(n) & t) >= 3 for n, t in zip(named, top, strict=True)])),
        "expressed": float(np.mean(expressed)),
        "repeats": float(np.mean([len(set(n)) < len(n) for n in named])),
        "genes": float(np.mean([len(set(n)) for n in named])),
    }, texts
