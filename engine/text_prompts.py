"""What fills the prompts of a bundle that reads sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellscribe.engine.errors import UsageError
from cellscribe.engine.sentences.templates import fill

ENDED = "White space at the end of prompts was taken for the beginning of their answers."


@dataclass(frozen=True)
class Ended:
    """A prompt up to where an answer goes on: its `text`, and the white space that an answer begins with.

    `is_cut` says whether the text lost any.
    """

    text: str
    gap: str = ""
    is_cut: bool = False

    @classmethod
    def of(cls, prompt: str, has_labels: bool) -> Ended:
        """Cut a prompt: all of its last white space before labels, as tokens do; else lines stay ended."""
        text = prompt.rstrip() if has_labels else prompt.rstrip(" \t")
        return cls(text, prompt[len(text) :] if has_labels else "", text != prompt)


@dataclass(frozen=True)
class Prompts:
    """Values that prompts have in common; values that are given beside them go before them.

    Parameters
    ----------
    organism
        As prompts name it.
    num_genes
        Most genes of a sentence: what a prompt says where it has no cells, and else how many its longest sentence has.
    reserved
        Texts that are tokens of a meaning of their own, as that which ends a text; values may not hold them. Prompts of
        templates may.
    """

    organism: str
    num_genes: int
    reserved: tuple[str, ...] = ()

    def check(self, name: str, text: str) -> None:
        """Raise UsageError for a text of a user's, by what it is, that holds a token of a meaning of its own."""
        found = next((one for one in self.reserved if one in text), None)
        if found is not None:
            raise UsageError(f"{name} holds {found}, which is no text to the model but a sign; leave it out.")

    def of_cell(self, prompt: str, sentence: str, given: Mapping[str, Any] | None = None) -> str:
        """Fill a prompt about one cell; UsageError where it wants another value, or one holds a reserved token."""
        return fill(prompt, {**self._common([sentence], given), "cell_sentence": sentence})

    def of_group(self, prompt: str, sentences: Sequence[str], given: Mapping[str, Any] | None = None) -> str:
        """Fill a prompt about several cells, a line each; UsageError as :meth:`of_cell`."""
        own = {"cell_sentences": "\n".join(sentences), "num_cells": len(sentences)}
        return fill(prompt, {**self._common(sentences, given), **own})

    def of_nothing(self, prompt: str, given: Mapping[str, Any] | None = None) -> str:
        """Fill a prompt without cells; UsageError as :meth:`of_cell`."""
        return fill(prompt, self._common((), given))

    def _common(self, sentences: Sequence[str], given: Mapping[str, Any] | None) -> dict[str, Any]:
        for name, value in {"organism": self.organism, **(given or {})}.items():
            self.check(f"the value of {name}", str(value))
        named = max((len(one.split()) for one in sentences if one), default=self.num_genes)
        return {"organism": self.organism, "num_genes": named, **(given or {})}
