"""What is asked of the scheduler, and the texts that become of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Admission, Memory
from cellscribe.engine.backends.text import Prompted
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.types import Sampling

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """One cell to describe: its index in the run, its key, its memory [S, d] and mask bool [S].

    `max_new_tokens` ends its text earlier than the run's does; None leaves the run's. `sampling` chooses its tokens,
    where the plan of the slots ``mixes``; None leaves the plan's.
    """

    index: int
    key: int
    memory: Memory
    mask: npt.NDArray[np.bool_]
    max_new_tokens: int | None = None
    sampling: Sampling | None = None

    @property
    def num_genes(self) -> int:
        """Genes that evidence is kept for."""
        return len(self.mask)

    def admission(self, slot: int) -> Admission:
        """Return what fills a slot."""
        return Admission(slot, self.key, self.memory, self.mask, self.sampling)


@dataclass(frozen=True)
class TextRequest:
    """One prompt: its index in the run, its key, its tokens int64 [P], and the labels its text must be one of.

    With `all_labels` the text gets the log-probabilities of all of them. `memory` [S, d] is what the decoder attends
    to, where there is an encoder. `max_new_tokens` and `sampling` as in :class:`Request`; what a label is chosen by is
    never drawn.
    """

    index: int
    key: int
    tokens: npt.NDArray[np.int64]
    labels: LabelTrie | None = None
    max_new_tokens: int | None = None
    all_labels: bool = False
    memory: Memory = None
    sampling: Sampling | None = None
    num_genes = 0

    def admission(self, slot: int) -> Prompted:
        """Return what fills a slot."""
        return Prompted(slot, self.key, self.tokens, self.labels, self.all_labels, self.memory, self.sampling)


AnyRequest = Request | TextRequest


@dataclass
class Text:
    """A text in progress or finished: tokens, log-probabilities, evidence summed over its tokens [S]."""

    request: AnyRequest
    started: float
    evidence: Floats
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    attention: list[Floats] = field(default_factory=list)  # [L, H, S] per token
    label_logprobs: Floats | None = None  # [labels]
    condition: Floats | None = None  # [d]
    finish_reason: str = ""
    latency_ms: float = float("nan")

    @property
    def is_finished(self) -> bool:
        """Whether it reached its end."""
        return bool(self.finish_reason)


@dataclass(frozen=True)
class TokenEvent:
    """What one step did to one text; `token_id` is None when the step ended the text without adding to it."""

    text: Text
    token_id: int | None
    logprob: float
    evidence: Floats  # [S], this token's
