"""Ending texts before their end, while other work for them is under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from scripted_slots import EOS, ScriptedSlots, blank_request

from cellscribe.engine.decode.scheduler import Request, Scheduler, Text

LONG = {0: [10] * 20, 1: [11] * 20, 2: [12] * 20, 3: [13, 13, EOS], 4: [14] * 20}
WHOLE = {0: [10] * 8, 1: [11] * 8, 2: [12] * 8, 3: [13, 13], 4: [14] * 8}
DEPTHS = pytest.mark.parametrize(("depth", "steps_ahead"), [(1, 1), (2, 1), (2, 4), (3, 3)])


class Hooked:
    """A scheduler of scripted slots whose hook cancels requests in given rounds, counted from 1."""

    def __init__(
        self, num_slots: int, depth: int = 1, steps_ahead: int = 1, cancels: dict[int, Sequence[int]] | None = None
    ) -> None:
        self.slots = ScriptedSlots(LONG, depth, steps_ahead)
        self.rounds, self.said, self._cancels = 0, list[bool](), cancels or {}
        self.scheduler = Scheduler(
            self.slots, num_slots, eos_ids=frozenset([EOS]), max_new_tokens=8, between=self._between
        )

    def _between(self) -> None:
        self.rounds += 1
        self.said += [self.scheduler.cancel(index) for index in self._cancels.get(self.rounds, ())]

    def write(self, requests: Iterator[Request | None]) -> dict[int, list[int]]:
        found = {e.text.request.index: e.text for e in self.scheduler.run(requests) if e.text.is_finished}
        assert self.scheduler.busy == self.slots.under_way == 0
        return {i: one.token_ids for i, one in found.items()}


def requests(*indices: int) -> Iterator[Request]:
    return (blank_request(i) for i in indices)


@DEPTHS
@pytest.mark.parametrize("num_slots", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2, 4, 7])
def test_a_text_ends_between_events_and_no_other_changes(
    num_slots: int, depth: int, steps_ahead: int, after: int
) -> None:
    slots = ScriptedSlots(LONG, depth, steps_ahead)
    scheduler = Scheduler(slots, num_slots, eos_ids=frozenset([EOS]), max_new_tokens=8)
    texts: dict[int, Text] = {}
    for event in scheduler.run(requests(*range(5))):
        text = texts.setdefault(event.text.request.index, event.text)
        assert text.finish_reason != "gone"
        if text.request.index == 1 and len(text.token_ids) == after:
            busy = scheduler.busy
            assert scheduler.cancel(1, "gone")
            assert not scheduler.cancel(1)
            assert (scheduler.busy, text.finish_reason) == (busy - 1, "gone")
            assert text.latency_ms >= 0
    assert {i: one.token_ids for i, one in texts.items()} == WHOLE | {1: [11] * after}
    assert scheduler.busy == slots.under_way == 0


@DEPTHS
@pytest.mark.parametrize("round_", [2, 3])
def test_a_slot_that_is_freed_takes_the_next_request_in_the_same_round(
    depth: int, steps_ahead: int, round_: int
) -> None:
    hooked = Hooked(2, depth, steps_ahead, {round_: [0]})
    given: list[list[int]] = []
    admit = hooked.slots.admit

    def noted(admissions: Sequence[object]) -> object:
        given.append([hooked.rounds, *(one.key for one in admissions)])  # type: ignore[attr-defined]
        return admit(admissions)  # type: ignore[arg-type]

    hooked.slots.admit = noted  # type: ignore[assignment,method-assign]
    found = hooked.write(requests(0, 1, 2))
    assert hooked.said == [True]
    assert given == [[1, 0, 1], [round_, 2]]
    assert found == {1: WHOLE[1], 2: WHOLE[2]}


@DEPTHS
def test_all_may_be_cancelled_while_their_tickets_are_under_way(depth: int, steps_ahead: int) -> None:
    hooked = Hooked(3, depth, steps_ahead, {2: [0, 1, 2]})
    assert hooked.write(requests(0, 1, 2)) == {}
    assert hooked.said == [True] * 3
    assert hooked.slots.log.count("give step") == hooked.slots.log.count("wait step") == 1
    assert hooked.write(requests(3, 4)) == {3: WHOLE[3], 4: WHOLE[4]}  # what was left is nobody else's


def test_what_is_not_in_progress_is_not_cancelled() -> None:
    hooked = Hooked(1, cancels={1: [0], 2: [1, 77], 9: [0]})
    assert hooked.write(requests(0, 1)) == {0: WHOLE[0], 1: WHOLE[1]}
    assert hooked.said == [False] * 4  # not yet admitted, unknown, and finished


def test_the_hook_is_called_in_rounds_without_texts() -> None:
    hooked = Hooked(2)

    def waiting() -> Iterator[Request | None]:
        yield from (None, None, None)
        assert (hooked.rounds, hooked.scheduler.busy) == (4, 0)
        yield blank_request(3)

    assert hooked.write(waiting()) == {3: WHOLE[3]}


@DEPTHS
def test_a_text_is_not_kept_waiting_for_a_request_that_is_not_there(depth: int, steps_ahead: int) -> None:
    hooked = Hooked(3, depth, steps_ahead)

    def trickling() -> Iterator[Request | None]:
        yield blank_request(0)
        while not hooked.slots.steps:
            yield None
        assert hooked.scheduler.busy == 1
        yield from (blank_request(1), None, blank_request(4))

    assert hooked.write(trickling()) == {i: WHOLE[i] for i in (0, 1, 4)}
    assert hooked.slots.admissions == [[0], [1], [4]]


def test_a_request_may_be_cancelled_while_the_next_is_fetched() -> None:
    hooked = Hooked(2)

    def fickle() -> Iterator[Request]:
        yield blank_request(0)
        assert hooked.scheduler.cancel(0)
        yield blank_request(1)
        yield blank_request(2)

    assert hooked.write(fickle()) == {1: WHOLE[1], 2: WHOLE[2]}
