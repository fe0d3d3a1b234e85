"""Prompts as InstructCell reads them: an instruction in a frame, as tokens, with room for the cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from cellscribe.engine.backends.instruct import NOWHERE, EncoderPrompt
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.spec import InstructInput

FRAME = "User:\n{instruction}\n\nAssistant:\n"  # what the checkpoints were trained to read
CELL = "{cell}"  # stands for the cell in our templates and in a user's own words
MAX_TOKENS = 2048  # of a prompt: attention to itself grows with the square


@dataclass(frozen=True)
class CellToken:
    """How a cell is written in a prompt: the texts of the tokens around it and of the one that stands for it."""

    start: str
    placeholder: str
    end: str

    @classmethod
    def of(cls, tokenizer: Tokenizer, spec: InstructInput) -> CellToken:
        """Read them from a tokenizer: the two around the placeholder are its neighbours."""
        start, placeholder, end = (
            tokenizer.id_to_token(one) or "" for one in (spec.start_tag_id, spec.placeholder_id, spec.end_tag_id)
        )
        return cls(start, placeholder, end)

    @property
    def text(self) -> str:
        """What takes the place of ``{cell}``."""
        return f"{self.start}{self.placeholder}{self.end}"


def framed(instruction: str, cell: CellToken) -> str:
    """Put an instruction into the frame, its ``{cell}`` as tokens; UsageError for an empty one."""
    if not instruction.strip():
        raise UsageError("the instruction is empty; write one.")
    return FRAME.format(instruction=instruction.strip().replace(CELL, cell.text))


class PromptEncoder:
    """Turns texts into tokens with room for a cell.

    Parameters
    ----------
    tokenizer, spec
        Of the bundle.
    num_queries
        Positions that a cell takes, Q.
    """

    def __init__(self, tokenizer: Tokenizer, spec: InstructInput, num_queries: int) -> None:
        self._tokenizer, self._spec, self._num_queries = tokenizer, spec, num_queries
        self._known: dict[tuple[str, bool], EncoderPrompt] = {}
        self.cell = CellToken.of(tokenizer, spec)

    def encode(self, text: str, *, has_cell: bool) -> EncoderPrompt:
        """Return the tokens of a framed text, its placeholder widened to Q positions, without features.

        Raises
        ------
        UsageError
            When the text names another number of cells than is given, or is too long.
        """
        if (text, has_cell) not in self._known:
            self._known[text, has_cell] = self._encoded(text, has_cell)
        return self._known[text, has_cell]

    def _encoded(self, text: str, has_cell: bool) -> EncoderPrompt:
        tokens = np.array(self._tokenizer.encode(text).ids, np.int64)
        places = np.flatnonzero(tokens == self._spec.placeholder_id)
        if len(places) != has_cell:
            raise UsageError(
                f"the prompt names {len(places)} cells where {int(has_cell)} is given; write {CELL} once where the "
                "cell belongs, and nowhere where cells are to be written."
            )
        if len(tokens) > MAX_TOKENS:
            raise UsageError(f"the prompt has {len(tokens):,} tokens and {MAX_TOKENS:,} are read; shorten it.")
        if not has_cell:
            return EncoderPrompt(tokens, NOWHERE)
        at = int(places[0])
        return EncoderPrompt(np.insert(tokens, at, np.full(self._num_queries - 1, self._spec.placeholder_id)), at)
