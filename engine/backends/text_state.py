"""Where every slot of a family without an encoder stands, for backends that choose tokens on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cellscribe.engine.backends.base import NOT_FINITE, Chosen, Floats, Ints
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.decode.labels import Walk
from cellscribe.engine.decode.sampling import choose

Greedy = Callable[[Floats], tuple[Ints, Floats]]  # logits [n, V] -> tokens [n], log-probabilities [n]


@dataclass(frozen=True)
class Rows:
    """New tokens of some slots, slot after slot in rising position: `tokens`, `slots`, `positions` int64 [R].

    `last` int64 [n] is the row of each slot whose logits choose what follows.
    """

    tokens: Ints
    slots: Ints
    positions: Ints
    last: Ints


class TextState:
    """What the next run feeds each slot: the tokens that were chosen, or had to follow, since the last one."""

    def __init__(self, plan: TextPlan, greedy: Greedy | None = None) -> None:
        self._plan = plan
        self._greedy = greedy if plan.sampling.is_greedy else None
        count = plan.num_slots
        self.capacity = plan.longest_prompt + plan.max_new_tokens + plan.longest_label
        self._keys = np.zeros(count, np.uint64)
        self.lengths = np.zeros(count, np.int64)  # tokens written so far
        self.known = np.zeros(count, np.int64)  # positions in the caches
        self._pending: list[list[int]] = [[] for _ in range(count)]
        self._walks: list[Walk | None] = [None] * count
        self._lost: set[int] = set()

    def begin(self, one: Prompted, known: int) -> list[Chosen]:
        """Start a text after a prompt of which `known` tokens are in the caches; what must be written at once."""
        walk = None if one.labels is None else Walk(one.labels)
        start = [] if walk is None else walk.start()
        self._keys[one.slot], self.lengths[one.slot], self.known[one.slot] = one.key, 0, known
        self._pending[one.slot] = [*one.tokens[known:].tolist(), *start]
        self._walks[one.slot] = walk
        return self._write({one.slot: [(token, 0.0) for token in start]})

    def was_lost(self, slot: int) -> bool:
        """Whether the last text of a slot left something in the caches that is not finite; asked once.

        Those rows must be cleared: what is masked counts nothing, but nothing times NaN is NaN.
        """
        was_lost = slot in self._lost
        self._lost.discard(slot)
        return was_lost

    def has_ended(self, slot: int) -> bool:
        """Whether a slot's text is complete."""
        walk = self._walks[slot]
        return self.lengths[slot] >= self._plan.max_new_tokens or (walk is not None and walk.has_ended)

    def rows(self, slots: Sequence[int]) -> Rows:
        """Return the tokens that are not in the caches yet, which count as known from now on."""
        counts = np.array([len(self._pending[slot]) for slot in slots], np.int64)
        ends = counts.cumsum()
        found = Rows(
            tokens=np.array([token for slot in slots for token in self._pending[slot]], np.int64),
            slots=np.array(slots, np.int64).repeat(counts),
            positions=self.known[list(slots)].repeat(counts) + np.arange(counts.sum()) - (ends - counts).repeat(counts),
            last=ends - 1,
        )
        self.known[list(slots)] += counts
        for slot in slots:
            self._pending[slot] = []
        return found

    def choose(self, slots: Sequence[int], logits: Floats) -> list[Chosen]:
        """Choose what follows for n slots from logits [n, V], with all that must follow it."""
        free = [i for i, slot in enumerate(slots) if self._walks[slot] is None]
        written: dict[int, list[tuple[int, float]]] = {}
        if free:
            at = np.array([slots[i] for i in free], np.int64)
            if self._greedy is not None:
                tokens, logprobs = self._greedy(logits[free])
            else:
                tokens, logprobs = choose(logits[free], self._plan.sampling, self._keys[at], self.lengths[at])
            for slot, token, logprob in zip(at.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
                written[slot] = [(token if np.isfinite(logprob) else NOT_FINITE, logprob)]
        for i, slot in enumerate(slots):
            walk = self._walks[slot]
            if walk is not None:
                tokens_, logprob = walk.choose(logits[i])
                written[slot] = [(t, logprob if n == 0 else 0.0) for n, t in enumerate(tokens_)] or [
                    (NOT_FINITE, logprob)
                ]
        for slot, found in written.items():
            self._pending[slot] = [max(token, 0) for token, _ in found]
            if found[0][0] == NOT_FINITE:
                self._lost.add(slot)
        return self._write(written)

    def force(self, tokens: Ints) -> None:
        """Put other tokens [n] in place of the last chosen ones of the first slots."""
        for slot, token in enumerate(tokens.tolist()):
            self._pending[slot] = [token]

    def _write(self, written: dict[int, list[tuple[int, float]]]) -> list[Chosen]:
        """Hand out tokens in turn, one of each slot at a time."""
        chosen, n = [], 0
        while any(len(found) > n for found in written.values()):
            now = {slot: found[n] for slot, found in written.items() if len(found) > n}
            slots = np.fromiter(now, np.int64, len(now))
            tokens = np.array([token for token, _ in now.values()], np.int64)
            logprobs = np.array([logprob for _, logprob in now.values()], np.float32)
            self.lengths[slots] += 1
            chosen.append(Chosen(slots, tokens, logprobs, np.zeros((len(now), 0), np.float32)))
            n += 1
        return chosen
