"""What every backend can do; the scheduler does not know which one it drives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.types import Sampling

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """Cells as the encoder sees them: memory [B, S, d] in the bundle's precision, cell float32 [B, d]."""

    memory: Array
    cell: Floats


@dataclass(frozen=True)
class SlotPlan:
    """How slots are laid out for a run.

    `num_genes` is the longest memory (S), `max_new_tokens` sizes the caches, `keep_attention` asks for the weights of
    every layer and head.
    """

    num_slots: int
    num_genes: int
    max_new_tokens: int
    sampling: Sampling
    keep_attention: bool = False


@dataclass(frozen=True)
class Admission:
    """One cell for one slot: its key, its memory [S, d] and mask bool [S], S at most the plan's."""

    slot: int
    key: int
    memory: Array
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Chosen:
    """Tokens that were chosen: slots [n], token ids int64 [n], log-probabilities float32 [n]."""

    slots: Ints
    token_ids: Ints
    logprobs: Floats


class Slots(Protocol):
    """A fixed number of texts in progress, each with its caches."""

    def admit(self, admissions: Sequence[Admission]) -> Chosen:
        """Fill slots, run the prompt for them, and choose their first tokens."""

    def step(self, active: Ints) -> Chosen:
        """Choose the next token of the active slots."""

    def evidence(self, slot: int) -> Floats:
        """Attention to each gene [S] while the last token of a slot was chosen, averaged over layers and heads."""

    def attention(self, slot: int) -> Floats:
        """Attention weights [L, H, S] while the last token of a slot was chosen (needs ``keep_attention``)."""

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots, for checks."""

    def force(self, tokens: Ints) -> None:
        """Put other tokens [n] in place of the last chosen ones of the first slots, for checks."""


class Backend(Protocol):
    """Runs the graphs of one bundle on one device."""

    @property
    def device(self) -> str:
        """Device and provider in words."""

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells."""

    def open_slots(self, plan: SlotPlan) -> Slots:
        """Allocate the slots of a run."""
