"""Slots that write what they are told, for tests of the scheduler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellscribe.engine.backends.base import NOT_FINITE, Admission, Chosen, Ready
from cellscribe.engine.decode.scheduler import Request

EOS = 0
NUM_GENES = 5


def blank_request(index: int) -> Request:
    return Request(index, index, np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool))


class ScriptedSlots:
    """Slots that write a fixed text per cell key, and remember how they were driven.

    With a `depth` above 1 they work like a device: `steps_ahead` steps a ticket, and silent where a text has ended.
    """

    def __init__(
        self, texts: dict[int, list[int]], depth: int = 1, steps_ahead: int = 1, max_new_tokens: int = 8
    ) -> None:
        self.texts, self.slots = texts, {}
        self.depth, self.steps_per_ticket, self.max_new_tokens = depth, steps_ahead, max_new_tokens
        self.admissions: list[list[int]] = []
        self.steps: list[list[int]] = []
        self.under_way = 0
        self.log: list[str] = []  # what was given and waited for

    def admit(self, admissions: Sequence[Admission]) -> Ready:
        self.admissions.append([a.key for a in admissions])
        for a in admissions:
            self.slots[a.slot] = [a.key, -1]
        return self._ticket("admit", (self._choose(np.array([a.slot for a in admissions])),))

    def step(self, active: np.ndarray) -> Ready:
        self.steps.append(active.tolist())
        return self._ticket("step", tuple(self._choose(active) for _ in range(self.steps_per_ticket)))

    def _ticket(self, kind: str, chosen: tuple[Chosen, ...]) -> Ready:
        slots = self
        slots.under_way += kind == "step"
        slots.log.append(f"give {kind}")
        assert slots.under_way <= slots.depth

        class Counted(Ready):
            def wait(self) -> tuple[Chosen, ...]:
                slots.under_way -= kind == "step"
                slots.log.append(f"wait {kind}")
                return super().wait()

        return Counted(chosen)

    def _choose(self, slots: np.ndarray) -> Chosen:
        running = np.array([s for s in slots if self.depth == 1 or not self._ended(s)], dtype=np.int64)
        for slot in running:
            self.slots[slot][1] += 1
        states = [self.slots[s] for s in running]
        tokens = np.array([self.texts[key][at] for key, at in states], dtype=np.int64)
        evidence = np.array([np.eye(NUM_GENES)[at % NUM_GENES] * (key + 1) for key, at in states], np.float32)
        attention = np.array([np.full((2, 3, NUM_GENES), at) for _, at in states], np.float32)
        return Chosen(running, tokens, -tokens.astype(np.float32), evidence, attention)

    def _ended(self, slot: int) -> bool:
        key, at = self.slots[slot]
        return at >= 0 and (self.texts[key][at] in (EOS, NOT_FINITE) or at + 1 == self.max_new_tokens)
