"""Prompts as InstructCell reads them: an instruction in a frame, as tokens, with room for the cell."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from cellscribe.engine.backends.instruct import NOWHERE, EncoderPrompt
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.spec import InstructInput
from cellscribe.engine.output.run import count

FRAME = "User:\n{instruction}\n\nAssistant:\n"  # what the checkpoints were trained to read
CELL = "{cell}"  # stands for the cell in our templates and in a user's own words
_NO_WORD = re.compile(r"</?\w+>")  # as "</s>" and "<extra_id_0>"
_KEPT = 1024  # prompts whose tokens are kept
MAX_TOKENS = 2048  # of a prompt: attention to itself grows with the square


@dataclass(frozen=True)
class CellToken:
    """How a cell is written in a prompt: the texts of the tokens around it and of the one that stands for it.

    `odd` are the texts of all tokens that are no words, which neither instructions nor values may hold.
    """

    start: str
    placeholder: str
    end: str
    odd: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer, spec: InstructInput) -> CellToken:
        """Read them from a tokenizer: the two around the placeholder are its neighbours."""
        start, placeholder, end = (
            tokenizer.id_to_token(one) or "" for one in (spec.start_tag_id, spec.placeholder_id, spec.end_tag_id)
        )
        added = (one.content for one in tokenizer.get_added_tokens_decoder().values())
        odd = dict.fromkeys((start, placeholder, end, *(one for one in added if _NO_WORD.fullmatch(one))))
        return cls(start, placeholder, end, tuple(one for one in odd if one))

    @property
    def text(self) -> str:
        """What takes the place of ``{cell}``."""
        return f"{self.start}{self.placeholder}{self.end}"

    def odd_in(self, text: str) -> str | None:
        """Return a token that is no word and that a text holds, or None."""
        return next((one for one in self.odd if one in text), None)


def framed(instruction: str, cell: CellToken) -> str:
    """Put an instruction into the frame, its ``{cell}`` as tokens; UsageError for an empty one, or odd tokens in it."""
    if not instruction.strip():
        raise UsageError("the instruction is empty; write one.")
    odd = cell.odd_in(instruction)
    if odd is not None:
        raise UsageError(f"the instruction holds {odd}, which has a meaning of its own; write {CELL} for the cell.")
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
        found = self._known.get((text, has_cell))
        if found is None:
            found = self._encoded(text, has_cell)
            if len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[text, has_cell] = found
        return found

    def _encoded(self, text: str, has_cell: bool) -> EncoderPrompt:
        tokens = np.array(self._tokenizer.encode(text).ids, np.int64)
        places = np.flatnonzero(tokens == self._spec.placeholder_id)
        if len(places) != has_cell:
            raise UsageError(
                f"the prompt names {count(len(places), 'cell')} where {1 if has_cell else 'none'} is given; write "
                f"{CELL} once where the "
                "cell belongs, and nowhere where cells are to be written."
            )
        if len(tokens) > MAX_TOKENS:
            raise UsageError(f"the prompt has {len(tokens):,} tokens and {MAX_TOKENS:,} are read; shorten it.")
        if not has_cell:
            return EncoderPrompt(tokens, NOWHERE)
        at = int(places[0])
        return EncoderPrompt(np.insert(tokens, at, np.full(self._num_queries - 1, self._spec.placeholder_id)), at)
