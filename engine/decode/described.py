"""From a text, growing or finished, to what is said of it: pieces and descriptions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer

from cellscribe.engine.backends.base import Backend, SlotPlan, Slots
from cellscribe.engine.decode.evidence import GeneAxis, named_genes, top_genes
from cellscribe.engine.decode.scheduler import Text, TokenEvent
from cellscribe.engine.decode.texts import GrowingText, decode
from cellscribe.engine.errors import RoomError
from cellscribe.engine.types import Description, Piece, TopGenes


def open_slots(backend: Backend, plan: SlotPlan) -> tuple[Slots, int, str]:
    """Open the slots of a plan; fewer of them, with a notice, where only fewer fit.

    On a GPU the order of sums can depend on the number of slots, and with it a choice between tokens that are nearly
    equally likely.

    Returns
    -------
    The slots, how many they are, and a sentence where they are fewer, else "".
    """
    try:
        return backend.open_slots(plan), plan.num_slots, ""
    except RoomError as error:
        if not 0 < error.num_fitting < plan.num_slots:
            raise
        slots, number, _ = open_slots(backend, replace(plan, num_slots=error.num_fitting))
        return slots, number, f"{str(error).removesuffix('.')}; went on with {number}."


def piece_of(event: TokenEvent, growing: GrowingText, axis: GeneAxis, count: int) -> Piece:
    """Return the token of an event as the text it adds to one that grows, with its `count` top genes."""
    token = event.token_id if event.token_id is not None else -1
    added = growing.add(token) if token >= 0 else ""
    genes = top_genes(event.evidence, axis, count)
    return Piece(added, token, event.logprob, genes, top_genes(event.text.evidence, axis, count))


def description_of(text: Text, cell_id: str, axis: GeneAxis, tokenizer: Tokenizer, count: int) -> Description:
    """Return a finished text as the description of a cell, with its `count` top genes."""
    if text.finish_reason == "failed":
        return failed(cell_id, "the model's output is not finite")
    written = decode(tokenizer, text.token_ids)
    genes = top_genes(text.evidence, axis, count)
    return Description(
        cell_id=cell_id,
        text=written,
        token_ids=tuple(text.token_ids),
        mean_logprob=float(np.mean(text.logprobs)) if text.logprobs else float("nan"),
        latency_ms=text.latency_ms,
        finish_reason=text.finish_reason,
        top_genes=genes,
        named_genes=named_genes(written, genes.symbols),
    )


def failed(cell_id: str, why: str) -> Description:
    """Return the result of a cell that could not be described."""
    return Description(cell_id, top_genes=TopGenes(), status=f"failed: {why}")
