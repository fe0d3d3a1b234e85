"""What fills the prompts of a bundle that reads sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellscribe.engine.sentences.templates import fill


@dataclass(frozen=True)
class Prompts:
    """Values that prompts have in common; values that are given beside them go before them.

    Parameters
    ----------
    organism
        As prompts name it.
    num_genes
        Most genes of a sentence: what a prompt says where it has no cells, and else how many its longest sentence has.
    """

    organism: str
    num_genes: int

    def of_cell(self, prompt: str, sentence: str, given: Mapping[str, Any] | None = None) -> str:
        """Fill a prompt about one cell; UsageError where it wants another value."""
        return fill(prompt, {**self._common([sentence], given), "cell_sentence": sentence})

    def of_group(self, prompt: str, sentences: Sequence[str], given: Mapping[str, Any] | None = None) -> str:
        """Fill a prompt about several cells, a line each; UsageError where it wants another value."""
        own = {"cell_sentences": "\n".join(sentences), "num_cells": len(sentences)}
        return fill(prompt, {**self._common(sentences, given), **own})

    def of_nothing(self, prompt: str, given: Mapping[str, Any] | None = None) -> str:
        """Fill a prompt without cells; UsageError where it wants another value."""
        return fill(prompt, self._common((), given))

    def _common(self, sentences: Sequence[str], given: Mapping[str, Any] | None) -> dict[str, Any]:
        named = max((len(one.split()) for one in sentences if one), default=self.num_genes)
        return {"organism": self.organism, "num_genes": named, **(given or {})}
