"""What bundles that read sentences are asked with, and what they answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.output.run import count
from cellscribe.engine.types import check_seed

_LAST_WORD = re.compile(r"\s*\S+\Z")


@dataclass(frozen=True)
class Answer:
    """What was written about one cell (or group, or without any): `text`, and the sum of its tokens' `logprob`.

    `finish_reason` is "stop" where the model ended it, "length" where the limit of tokens cut it off, and "failed".
    `label_logprobs` float32 [L] holds those of all labels where they were asked for; `cells` are the names of a group's
    cells, in the order of the prompt.
    """

    name: str
    text: str
    token_ids: tuple[int, ...]
    logprob: float
    finish_reason: str
    status: str = "ok"
    label_logprobs: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    cells: tuple[str, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether the limit of tokens cut the text off."""
        return self.finish_reason == "length"

    @property
    def whole_words(self) -> str:
        """The text without a last word that may have been cut."""
        return _LAST_WORD.sub("", self.text) if self.is_cut else self.text


def cut_note(answers: Iterable[Answer], max_new_tokens: int) -> str:
    """Say how many answers the limit of tokens cut off; empty where it cut none."""
    found = list(answers)
    cut = sum(one.is_cut for one in found)
    if not cut:
        return ""
    limit = f"{count(max_new_tokens, 'token')}; allow more (--max-new-tokens, max_new_tokens)"
    return f"{cut:,} of {count(len(found), 'answer')} {'was' if cut == 1 else 'were'} cut off at {limit}."


@dataclass(frozen=True)
class TextSettings:
    """What prompts are made with.

    Parameters
    ----------
    organism
        As prompts name it.
    num_genes
        Genes of a sentence; None takes what the bundle was trained with.
    template
        Which prompt of a task, from 0 on; None draws one for every cell by its name.
    seed
        Key of the draws that order equal values and choose prompts, from 0 to 2**63 - 1 (UsageError).
    """

    organism: str = "human"
    num_genes: int | None = None
    template: int | None = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
