from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scripted_slots import EOS, NUM_GENES, ScriptedSlots

from cellscribe.engine.backends.base import NOT_FINITE
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text
from cellscribe.engine.errors import BackendError, UsageError


def run(
    texts: dict[int, list[int]], num_slots: int, *, max_new_tokens: int = 8, depth: int = 1, steps_ahead: int = 1
) -> tuple[ScriptedSlots, dict[int, Text]]:
    slots = ScriptedSlots(texts, depth, steps_ahead, max_new_tokens)
    scheduler = Scheduler(
        slots, num_slots, eos_ids=frozenset([EOS]), max_new_tokens=max_new_tokens, keep_attention=True
    )
    requests = (Request(i, i, np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool)) for i in texts)
    return slots, {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


TEXTS = {0: [5, 6, 7, EOS], 1: [EOS], 2: [9] * 20, 3: [4, EOS], 4: [3, 3, EOS]}


@pytest.mark.parametrize(("depth", "steps_ahead"), [(1, 1), (2, 1), (2, 4), (3, 3)])
@pytest.mark.parametrize("num_slots", [1, 2, 3, 8])
def test_every_request_becomes_its_text(num_slots: int, depth: int, steps_ahead: int) -> None:
    slots, texts = run(TEXTS, num_slots, depth=depth, steps_ahead=steps_ahead)
    assert slots.under_way == 0
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


def test_the_device_is_given_work_before_the_last_is_read() -> None:
    slots, texts = run({0: [1] * 4 + [EOS], 1: [1, EOS], 2: [1] * 8}, 2, depth=2)
    assert [len(texts[i].token_ids) for i in range(3)] == [4, 1, 8]
    assert slots.log[:3] == ["give admit", "give step", "wait admit"]
    second = slots.log.index("give admit", 1)  # a step follows a later admission before anything is read
    assert slots.log[second + 1] == "give step"


@pytest.mark.parametrize(("steps_ahead", "tickets"), [(1, 7), (4, 2), (3, 3)])
def test_no_step_is_given_that_cannot_choose_anything(steps_ahead: int, tickets: int) -> None:
    slots, texts = run({0: [1] * 20}, 1, depth=2, steps_ahead=steps_ahead)
    assert len(texts[0].token_ids) == 8
    assert slots.log.count("give step") == tickets  # the prompt chose the first of the eight


def test_an_error_of_the_requests_waits_for_the_texts_that_were_begun() -> None:
    def requests() -> Iterator[Request]:
        for i in range(3):
            yield Request(i, i, np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool))
        raise BackendError("the device is gone.")

    scheduler = Scheduler(
        ScriptedSlots({i: [1, 1, EOS] for i in range(3)}), 4, eos_ids=frozenset([EOS]), max_new_tokens=8
    )
    finished: list[int] = []
    events = (e.text.request.index for e in scheduler.run(requests()) if e.text.is_finished)
    with pytest.raises(BackendError, match="the device is gone"):
        finished.extend(events)
    assert finished == [0, 1, 2]


def test_a_text_whose_logits_are_not_finite_fails_alone() -> None:
    _, texts = run({0: [5, NOT_FINITE, 5], 1: [4, 4, 4, EOS]}, 2)
    assert (texts[0].finish_reason, texts[0].token_ids) == ("failed", [5])
    assert (texts[1].finish_reason, texts[1].token_ids) == ("stop", [4, 4, 4])


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


def test_texts_go_on_while_the_next_request_is_not_ready() -> None:
    ready: list[bool] = []

    def is_ready() -> bool:
        ready.append(len(ready) > 3)
        return ready[-1]

    slots = ScriptedSlots({0: [1, EOS], 1: [1] * 7 + [EOS], 2: [1, EOS]})
    scheduler = Scheduler(slots, 2, eos_ids=frozenset([EOS]), max_new_tokens=8, is_ready=is_ready)
    requests = (Request(i, i, np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool)) for i in range(3))
    texts = {e.text.request.index: e.text.token_ids for e in scheduler.run(requests) if e.text.is_finished}
    assert texts == {0: [1], 1: [1] * 7, 2: [1]}
    assert slots.admissions == [[0, 1], [2]]  # without work there is nothing to go on with: both slots are filled
    assert slots.steps[1:5] == [[1]] * 4  # cell 1 was not kept waiting for cell 2


@pytest.mark.parametrize(("depth", "steps_ahead"), [(1, 1), (2, 1), (2, 4), (3, 3)])
@pytest.mark.parametrize("num_slots", [1, 2, 5])
def test_a_request_may_end_earlier_than_the_run(num_slots: int, depth: int, steps_ahead: int) -> None:
    limits = {0: 1, 1: 3, 2: None, 3: 20, 4: 2, 5: 5}
    slots = ScriptedSlots({i: [10 + i] * 20 for i in limits}, depth, steps_ahead)
    scheduler = Scheduler(slots, num_slots, eos_ids=frozenset([EOS]), max_new_tokens=8)
    blank, mask = np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool)
    requests = (Request(i, i, blank, mask, limit) for i, limit in limits.items())
    texts = {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}
    assert {i: t.token_ids for i, t in texts.items()} == {
        0: [10], 1: [11] * 3, 2: [12] * 8, 3: [13] * 8, 4: [14] * 2, 5: [15] * 5
    }  # fmt: skip
    assert {t.finish_reason for t in texts.values()} == {"length"}


def test_a_request_of_no_tokens_is_refused() -> None:
    scheduler = Scheduler(ScriptedSlots({0: [1]}), 1, eos_ids=frozenset(), max_new_tokens=8)
    request = Request(0, 0, np.zeros((NUM_GENES, 2), np.float32), np.ones(NUM_GENES, bool), 0)
    with pytest.raises(UsageError, match="0 new tokens"):
        next(iter(scheduler.run(iter([request]))))
