"""What every backend can do; the scheduler does not know which one it drives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.types import Sampling

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


# Memory [.., S, d] where the backend keeps it: a NumPy array, or a tensor on its device.
Memory = Any

NOT_FINITE = -1  # stands for a token whose logits are not finite


@dataclass(frozen=True)
class Encoded:
    """Cells as the encoder sees them: memory [B, S, d] in the backend's precision, cell float32 [B, d]."""

    memory: Memory
    cell: Floats

    def host_memory(self) -> Array:
        """Return the memory as a NumPy array."""
        return host_array(self.memory)


def host_array(memory: Memory) -> Array:
    """Copy a memory to the host where it is not there already."""
    copied: Array = memory if isinstance(memory, np.ndarray) else memory.cpu().numpy()
    return copied


@dataclass(frozen=True)
class SlotPlan:
    """How slots are laid out for a run.

    `num_genes` is the longest memory (S), `max_new_tokens` sizes the caches and ends a text, as do the `eos_ids`;
    `keep_attention` asks for the weights of every layer and head; `forced` means that other tokens may be put in place
    of the chosen ones, so that a step gives one token and no more. Without `may_guess` no tokens are tried that were
    guessed from earlier texts of these slots: a benchmark that writes the same texts again would guess them all. Where
    it `mixes`, admissions may have a sampling of their own, and every text is the one of a plan with that sampling.
    """

    num_slots: int
    num_genes: int
    max_new_tokens: int
    sampling: Sampling
    keep_attention: bool = False
    eos_ids: frozenset[int] = frozenset()
    forced: bool = False
    may_guess: bool = True
    mixes: bool = False


@dataclass(frozen=True)
class Admission:
    """One cell for one slot: its key, its memory [S, d] and mask bool [S], S at most the plan's.

    `sampling` chooses its tokens, None leaves the plan's; another needs a plan that ``mixes``.
    """

    slot: int
    key: int
    memory: Memory
    mask: npt.NDArray[np.bool_]
    sampling: Sampling | None = None


@dataclass(frozen=True)
class Chosen:
    """Tokens that one step chose for n slots, and what was attended to meanwhile.

    slots int64 [n], token ids int64 [n] (`NOT_FINITE` where the logits are not finite), natural log-probabilities
    float32 [n], evidence float32 [n, S] (attention to each gene, averaged over layers and heads), and attention float32
    [n, L, H, S] with ``keep_attention``. Where texts are labels that were all asked about, their log-probabilities
    float32 [n, labels] come with the first token, NaN in a row that has none. `conditions` float32 [n, d] are the
    decoder's states at a signal token that was chosen, NaN in a row without. The arrays belong to the receiver.
    """

    slots: Ints
    token_ids: Ints
    logprobs: Floats
    evidence: Floats
    attention: Floats | None = None
    label_logprobs: Floats | None = None
    conditions: Floats | None = None


class Ticket(Protocol):
    """Work that was given to a device; tickets of one set of slots are waited for in the order they were given."""

    def wait(self) -> Sequence[Chosen]:
        """Return what was chosen, step by step, when it is there."""


@dataclass(frozen=True)
class Ready:
    """The ticket of work that is done already."""

    chosen: tuple[Chosen, ...]

    def wait(self) -> tuple[Chosen, ...]:
        """Return what was chosen."""
        return self.chosen


class Slots(Protocol):
    """A fixed number of texts in progress, each with its caches.

    A slot whose text has ended (an end token, or ``max_new_tokens``) stays silent until it is filled anew: steps that
    were under way then choose nothing for it.
    """

    @property
    def depth(self) -> int:
        """Steps' tickets that may be under way together; with 1 each is waited for before more work is given."""

    @property
    def steps_per_ticket(self) -> int:
        """Tokens that a step's ticket chooses at least for a slot whose text does not end meanwhile."""

    def admit(self, admissions: Sequence[Any]) -> Ticket:
        """Fill slots with :class:`Admission` (or, without an encoder, ``Prompted``), run the prompt, choose tokens."""

    def step(self, active: Ints) -> Ticket:
        """Choose the next token, or the next few, of the active slots."""

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots, for checks."""

    def force(self, tokens: Ints) -> None:
        """Put other tokens [n] in place of the last chosen ones of the first slots, for checks."""


class Backend(Protocol):
    """Runs the graphs of one bundle on one device."""

    @property
    def device(self) -> str:
        """Device and provider in words."""

    @property
    def cells_ahead(self) -> int:
        """Encoded cells worth keeping ready for free slots; 0 where encoding would only take time from decoding."""

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells."""

    def open_slots(self, plan: SlotPlan) -> Slots:
        """Allocate the slots of a run."""
