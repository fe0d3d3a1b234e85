"""Where every slot of a family without an encoder stands, for backends that choose tokens on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellscribe.engine.backends.base import NOT_FINITE, Chosen, Floats, Ints
from cellscribe.engine.backends.samplers import Samplers
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.decode.courses import Course, Move, Survey, Walk
from cellscribe.engine.decode.sampling import Greedy


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
        count = plan.num_slots
        self._samplers = Samplers(plan, count, greedy)
        self.capacity = plan.longest_prompt + plan.max_new_tokens + plan.longest_label
        self._keys = np.zeros(count, np.uint64)
        self.lengths = np.zeros(count, np.int64)  # tokens written so far
        self.known = np.zeros(count, np.int64)  # positions in the caches
        self._pending: list[list[int]] = [[] for _ in range(count)]
        self._prompts = np.zeros(count, np.int64)  # tokens of the prompts
        self._courses: list[Course | None] = [None] * count
        self._lost: set[int] = set()

    def begin(self, one: Prompted, known: int) -> list[Chosen]:
        """Start a text after a prompt of which `known` tokens are in the caches; what must be written at once.

        UsageError for a sampling of its own where the plan mixes none.
        """
        self._samplers.begin(one)
        course: Course | None = None
        if one.labels is not None:
            course = Survey(one.labels) if one.all_labels else Walk(one.labels)
        move = Move() if course is None else course.start()
        self._keys[one.slot], self.lengths[one.slot], self.known[one.slot] = one.key, 0, known
        self._prompts[one.slot] = len(one.tokens)
        self._pending[one.slot] = [*one.tokens[known:].tolist(), *move.fed]
        self._courses[one.slot] = course
        return self._write({one.slot: move})

    def was_lost(self, slot: int) -> bool:
        """Whether the last text of a slot left something in the caches that is not finite; asked once.

        Those rows must be cleared: what is masked counts nothing, but nothing times NaN is NaN.
        """
        was_lost = slot in self._lost
        self._lost.discard(slot)
        return was_lost

    def has_ended(self, slot: int) -> bool:
        """Whether a slot's text is complete."""
        course = self._courses[slot]
        return self.lengths[slot] >= self._plan.max_new_tokens or (course is not None and course.has_ended)

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
        free = [i for i, slot in enumerate(slots) if self._courses[slot] is None]
        moves: dict[int, Move] = {}
        if free:
            at = np.array([slots[i] for i in free], np.int64)
            tokens, logprobs = self._samplers.choose(at, logits[free], self._keys[at], self.lengths[at])
            for slot, token, logprob in zip(at.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
                is_finite = bool(np.isfinite(logprob))
                moves[slot] = Move(((token, logprob),), (token,)) if is_finite else Move(failed=True)
        for i, slot in enumerate(slots):
            course = self._courses[slot]
            if course is not None:
                moves[slot] = course.choose(logits[i])
        for slot, move in moves.items():
            self._pending[slot] = list(move.fed)
            if move.known is not None:
                self.known[slot] = self._prompts[slot] + move.known
            if move.failed:
                self._lost.add(slot)
                self._pending[slot] = [0]  # the slot stays in the run until its text is ended
        return self._write(moves)

    def force(self, tokens: Ints) -> None:
        """Put other tokens [n] in place of the last chosen ones of the first slots."""
        for slot, token in enumerate(tokens.tolist()):
            self._pending[slot] = [token]

    def _write(self, moves: dict[int, Move]) -> list[Chosen]:
        """Hand out tokens in turn, one of each slot at a time."""
        failed = ((NOT_FINITE, float("nan")),)
        written = {slot: failed if move.failed else move.written for slot, move in moves.items()}
        chosen = []
        for n in range(max(map(len, written.values()), default=0)):
            now = {slot: found[n] for slot, found in written.items() if len(found) > n}
            slots = np.fromiter(now, np.int64, len(now))
            tokens = np.array([token for token, _ in now.values()], np.int64)
            logprobs = np.array([logprob for _, logprob in now.values()], np.float32)
            self.lengths[slots] += 1
            labels = _label_logprobs([moves[slot] for slot in now]) if n == 0 else None
            empty = np.zeros((len(now), 0), np.float32)
            chosen.append(Chosen(slots, tokens, logprobs, empty, label_logprobs=labels))
        return chosen


def _label_logprobs(moves: Sequence[Move]) -> Floats | None:
    """Log-probabilities of labels [n, L], NaN where a text has none; None where none has any."""
    found = [move.label_logprobs for move in moves]
    some = next((one for one in found if one is not None), None)
    if some is None:
        return None
    return np.stack([np.full_like(some, np.nan) if one is None else one for one in found])
