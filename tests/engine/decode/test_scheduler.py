from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cellscribe.engine.backends.base import Admission, Chosen
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text

EOS = 0
NUM_GENES = 5


class ScriptedSlots:
    """Slots that write a fixed text per cell key, and remember how they were driven."""

    def __init__(self, texts: dict[int, list[int]]) -> None:
        self.texts, self.slots = texts, {}
        self.admissions: list[list[int]] = []
        self.steps: list[list[int]] = []

    def admit(self, admissions: Sequence[Admission]) -> Chosen:
        self.admissions.append([a.key for a in admissions])
        for a in admissions:
            self.slots[a.slot] = [a.key, 0]
        return self._choose(np.array([a.slot for a in admissions]))

    def step(self, active: np.ndarray) -> Chosen:
        self.steps.append(active.tolist())
        for slot in active:
            self.slots[slot][1] += 1
        return self._choose(active)

    def _choose(self, slots: np.ndarray) -> Chosen:
        tokens = [self.texts[self.slots[s][0]][self.slots[s][1]] for s in slots]
        return Chosen(slots, np.array(tokens), -np.array(tokens, dtype=np.float32))

    def evidence(self, slot: int) -> np.ndarray:
        key, at = self.slots[slot]
        return np.eye(NUM_GENES, dtype=np.float32)[at % NUM_GENES] * (key + 1)

    def attention(self, slot: int) -> np.ndarray:
        return np.full((2, 3, NUM_GENES), self.slots[slot][1], dtype=np.float32)


def run(
    texts: dict[int, list[int]], num_slots: int, *, max_new_tokens: int = 8
) -> tuple[ScriptedSlots, dict[int, Text]]:
    slots = ScriptedSlots(texts)
    scheduler = Scheduler(
        slots, num_slots, eos_ids=frozenset([EOS]), max_new_tokens=max_new_tokens, keep_attention=True
    )
    requests = (Request(i, i, np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool)) for i in texts)
    return slots, {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


TEXTS = {0: [5, 6, 7, EOS], 1: [EOS], 2: [9] * 20, 3: [4, EOS], 4: [3, 3, EOS]}


@pytest.mark.parametrize("num_slots", [1, 2, 3, 8])
def test_every_request_becomes_its_text(num_slots: int) -> None:
    _, texts = run(TEXTS, num_slots)
    assert {i: t.token_ids for i, t in texts.items()} == {0: [5, 6, 7], 1: [], 2: [9] * 8, 3: [4], 4: [3, 3]}
    assert [texts[i].finish_reason for i in range(5)] == ["stop", "stop", "length", "stop", "stop"]
    assert texts[0].logprobs == [-5.0, -6.0, -7.0]


def test_a_free_slot_takes_the_next_cell_at_once() -> None:
    slots, _ = run({0: [1] * 6 + [EOS], 1: [1, EOS], 2: [1, EOS]}, 2)
    assert slots.admissions == [[0, 1], [2]]
    assert slots.steps[:2] == [[0, 1], [0, 1]]  # slot 1 holds cell 1, then cell 2


def test_a_slot_never_runs_past_its_end() -> None:
    slots, _ = run({0: [1, 1, 1, 1, EOS], 1: [1, EOS]}, 2)
    assert slots.steps == [[0, 1], [0], [0], [0]]


def test_evidence_sums_over_the_tokens_of_the_text_and_leaves_the_end_out() -> None:
    _, texts = run({2: [7, 8, EOS]}, 1)
    assert texts[2].evidence.tolist() == [3.0, 3.0, 0.0, 0.0, 0.0]
    assert np.stack(texts[2].attention).shape == (2, 2, 3, NUM_GENES)


def test_no_requests_no_texts() -> None:
    slots, texts = run({}, 4)
    assert texts == {}
    assert slots.admissions == []


def test_requests_are_pulled_only_when_a_slot_is_free() -> None:
    pulled: list[int] = []

    def requests() -> object:
        for i in range(6):
            pulled.append(i)
            yield Request(i, i, np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool))

    slots = ScriptedSlots({i: [1, 1, EOS] for i in range(6)})
    events = Scheduler(slots, 2, eos_ids=frozenset([EOS]), max_new_tokens=8).run(requests())  # type: ignore[arg-type]
    next(events)
    assert pulled == [0, 1]
