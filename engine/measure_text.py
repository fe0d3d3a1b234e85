"""Prompts about real cells, and what a backend of a family without an encoder writes after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Floats, Ints, Slots
from cellscribe.engine.backends.text import Prompted, TextBackend, TextPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.ranked import rank_genes, to_sentences
from cellscribe.engine.sentences.templates import fill, packaged_templates
from cellscribe.engine.sentences.transform import TIES
from cellscribe.engine.types import Sampling

_DRAW = 19  # stream of the draws that choose cells
_ORGANISM = "human"


@dataclass(frozen=True)
class Prompts:
    """Prompts as tokens int64 [P] each, and where their cells come from."""

    tokens: tuple[Ints, ...]
    source: str


@dataclass(frozen=True)
class Followed:
    """Texts `tokens` int64 [R, T], and what a backend makes of each token after those before it.

    `best` int64 [R, T] is what it would have chosen, `logprobs` float32 [R, T] what it gives to the text's own.
    """

    tokens: Ints
    best: Ints
    logprobs: Floats


def real_prompts(bundle: Bundle, path: Path | None, num_prompts: int, num_tokens: int) -> Prompts:
    """Write prompts about cells of a file, or of the packaged ones, that leave room for `num_tokens` more.

    Cells are drawn by their names. Every other prompt asks for the cell's type; the rest start a cell with the first
    half of its genes, to be gone on with. Where the context is short, fewer genes are named.

    Raises
    ------
    InputError
        When a file cannot be used, or none of its cells expresses anything.
    BundleError
        When the bundle has no room for a prompt and so many tokens.
    """
    manifest, chosen = bundle.manifest, path or packaged_cells()
    assert manifest.sentences is not None
    assert manifest.decoder is not None
    room, num_genes = manifest.decoder.max_positions - num_tokens, manifest.sentences.num_genes
    if room < 2:
        raise BundleError(
            f"the bundle {bundle.name} has {manifest.decoder.max_positions} positions, too few for a prompt and "
            f"{num_tokens} new tokens; choose a model with a longer context."
        )
    with open_cells(chosen) as source:
        sentences = _sentences(source, num_prompts, num_genes)
    if not sentences:
        raise InputError(f"no cell of {chosen.name} that was drawn expresses a gene; give other cells.")
    tokens = tuple(_fitting(bundle, sentence, bool(i % 2), room) for i, sentence in enumerate(sentences))
    return Prompts(tokens, chosen.name)


def _sentences(source: CellSource, count: int, num_genes: int) -> list[list[str]]:
    """Return the genes of drawn cells, highest first; neither their order nor the other cells of the file matter."""
    drawn = np.argsort(stream_keys(0, cell_keys(source.obs_names), _DRAW), kind="stable")[:count]
    genes, found = SentenceGenes.of_cells(source), dict[int, str]()
    for block in source.blocks(np.sort(drawn)):
        ties = stream_keys(0, cell_keys(source.obs_names[block.rows]), TIES)
        texts = to_sentences(rank_genes(block.part, genes, ties, num_genes), genes)
        found |= zip(block.rows.tolist(), texts, strict=True)
    return [found[row].split(" ") for row in drawn.tolist() if found[row]]


def _fitting(bundle: Bundle, genes: Sequence[str], goes_on: bool, room: int) -> Ints:
    """Return a prompt of as many genes as fit; of its last tokens where the question alone is too long."""
    task = packaged_templates()["cell_generation" if goes_on else "cell_type_prediction"]
    count = len(genes)
    while True:
        named = genes[: max(1, count // 2)] if goes_on else genes[:count]
        values = {"organism": _ORGANISM, "num_genes": count, "cell_sentence": " ".join(named)}
        text = fill(task.prompts[0], values)
        ids = bundle.tokenizer.encode(f"{text} {' '.join(named)}" if goes_on else text).ids
        if len(ids) <= room or count == 1:
            return np.array(ids[-room:], np.int64)
        count = max(1, min(count - 1, count * room // len(ids)))


def follow(backend: TextBackend, prompts: Sequence[Ints], num_tokens: int, tokens: Ints | None = None) -> Followed:
    """Go on with prompts greedily, all in slots of one run, or along given tokens int64 [R, T]."""
    plan = TextPlan(len(prompts), max(map(len, prompts)), num_tokens, Sampling(), forced=True)
    slots = backend.open_text_slots(plan)
    slots.admit([Prompted(i, i, prompt) for i, prompt in enumerate(prompts)]).wait()
    return go_on(slots, len(prompts), num_tokens, tokens)


def go_on(slots: Slots, count: int, num_tokens: int, tokens: Ints | None = None) -> Followed:
    """Go on with the first `count` slots, which were filled, greedily or along given tokens int64 [R, T]."""
    seen = list[tuple[Ints, Ints, Floats]]()
    for t in range(num_tokens):
        logits = slots.logits(count)
        best = logits.argmax(-1)
        taken = best if tokens is None else tokens[:, t]
        seen.append((taken, best, _logprobs(logits, taken)))
        slots.force(taken)
        if t + 1 < num_tokens:
            slots.step(np.arange(count)).wait()
    taken, best, logprobs = (np.stack(one, 1) for one in zip(*seen, strict=True))
    return Followed(taken, best, logprobs)


def _logprobs(logits: Floats, tokens: Ints) -> Floats:
    """Return the log-probability of one token [R] of each row [R, V]."""
    found = np.empty(len(tokens), np.float32)
    for i, (row, token) in enumerate(zip(logits, tokens.tolist(), strict=True)):
        wide: npt.NDArray[np.float64] = row.astype(np.float64)
        wide -= wide.max()
        found[i] = wide[token] - np.log(np.exp(wide).sum())
    return found
