"""What backends of families without an encoder do: prompts of their own in, texts and vectors out.

The scheduler drives these slots as it drives those of :mod:`cellscribe.engine.backends.base`: only what a slot is
filled with differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cellscribe.engine.backends.base import Floats, Ints, Slots
from cellscribe.engine.backends.prompt_rows import OnPrompts
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.errors import InputError
from cellscribe.engine.types import Sampling


@dataclass(frozen=True)
class TextPlan:
    """How slots are laid out for a run.

    `longest_prompt`, `max_new_tokens` and, where texts are labels, the tokens of the `longest_label` size the caches;
    `prefix` holds the tokens that all prompts begin with, which are computed once. Where a decoder attends to an
    encoder's states, `longest_memory` is the most of them, and a text that ends with `signal_id` gets the decoder's
    state at it. Further as :class:`cellscribe.engine.backends.base.SlotPlan`.
    """

    num_slots: int
    longest_prompt: int
    max_new_tokens: int
    sampling: Sampling
    eos_ids: frozenset[int] = frozenset()
    prefix: tuple[int, ...] = ()
    longest_label: int = 0
    forced: bool = False
    may_guess: bool = True
    longest_memory: int = 0
    signal_id: int = -1
    mixes: bool = False


@dataclass(frozen=True)
class Prompted:
    """One prompt for one slot: its key, its tokens int64 [P], and the labels its text must be one of, if any.

    With `all_labels` every label gets its log-probability and the best of them is written. `memory` is what an encoder
    made of the prompt [S, d], where there is one; the tokens are then those that the decoder begins with. `sampling` as
    in :class:`cellscribe.engine.backends.base.Admission`.
    """

    slot: int
    key: int
    tokens: Ints
    labels: LabelTrie | None = None
    all_labels: bool = False
    memory: Any = None
    sampling: Sampling | None = None


class TextBackend(Protocol):
    """Runs decoder.onnx of one bundle on one device."""

    @property
    def device(self) -> str:
        """Device and provider in words."""

    def open_text_slots(self, plan: TextPlan) -> Slots:
        """Allocate the slots of a run."""

    def embed_prompts(self, prompts: Sequence[Ints], progress: OnPrompts | None = None) -> Floats:
        """Return the mean of the last states over each prompt's tokens, float32 [N, d].

        A prompt's vector has the same bits whatever the others are; `progress` hears of prompts as they end.
        """


def check_room(bundle: Bundle, longest_prompt: int, max_new_tokens: int) -> None:
    """Raise InputError when prompt and text do not fit the decoder's positions."""
    shape = bundle.manifest.decoder
    assert shape is not None
    if longest_prompt + max_new_tokens > shape.max_positions:
        raise InputError(
            f"a prompt of {longest_prompt} tokens and {max_new_tokens} new ones do not fit the {shape.max_positions} "
            f"positions of {bundle.name}; name fewer genes or cells, or ask for fewer tokens."
        )
