"""Where every slot stands, for backends that choose tokens on the host."""

from __future__ import annotations

import numpy as np

from cellscribe.engine.backends.base import NOT_FINITE, Admission, Chosen, Floats, Ints, SlotPlan
from cellscribe.engine.backends.samplers import Samplers
from cellscribe.engine.decode.sampling import Greedy


class SlotState:
    """What the next step feeds each slot: its last token, that token's position, and which positions count.

    `tokens` and `positions` int64 [B, 1], `mask` bool [B, 1, C]. `greedy` is a backend's own way of choosing the most
    probable token of each row.
    """

    def __init__(self, rows: int, prompt_len: int, plan: SlotPlan, greedy: Greedy | None = None) -> None:
        self._samplers = Samplers(plan, rows, greedy)
        self.prompt_len, self.capacity = prompt_len, prompt_len + plan.max_new_tokens
        self.range = np.arange(self.capacity)
        self.tokens = np.zeros((rows, 1), np.int64)
        self.positions = np.zeros((rows, 1), np.int64)
        self.mask = np.zeros((rows, 1, self.capacity), bool)
        self.mask[..., 0] = True  # an idle row attends to something, so that it stays finite
        self._keys = np.zeros(rows, np.uint64)
        self._lengths = np.zeros(rows, np.int64)  # tokens chosen so far
        self._lost: set[int] = set()

    @property
    def lengths(self) -> Ints:
        """Tokens chosen so far for each slot's text, int64 [B]."""
        return self._lengths

    def is_greedy(self, slot: int) -> bool:
        """Whether the text of a slot is made of most probable tokens."""
        return self._samplers.is_greedy(slot)

    def begin(self, one: Admission) -> bool:
        """Start the text of another cell; say whether the last one left something in the caches that is not finite.

        Those rows must be cleared: what is masked counts nothing, but nothing times NaN is NaN. UsageError for a
        sampling of its own where the plan mixes none.
        """
        self._samplers.begin(one)
        was_lost = one.slot in self._lost
        self._lost.discard(one.slot)
        self._keys[one.slot], self._lengths[one.slot] = one.key, 0
        return was_lost

    def force(self, tokens: Ints) -> None:
        """Put other tokens [n] in place of the last chosen ones of the first slots."""
        self.tokens[: len(tokens), 0] = tokens

    def choose(self, slots: Ints, logits: Floats, evidence: Floats, attention: Floats | None) -> Chosen:
        """Choose the next tokens of n slots from logits [n, V], and move the slots on."""
        tokens, logprobs = self._samplers.choose(slots, logits, self._keys[slots], self._lengths[slots])
        lost = ~np.isfinite(logprobs)
        self._lost.update(slots[lost].tolist())
        self.tokens[slots, 0] = np.where(lost, 0, tokens)
        self.positions[slots, 0] = self.prompt_len + self._lengths[slots]
        self.mask[slots, 0] = self.range <= self.positions[slots]
        self._lengths[slots] += 1
        return Chosen(slots, np.where(lost, NOT_FINITE, tokens), logprobs, evidence, attention)
