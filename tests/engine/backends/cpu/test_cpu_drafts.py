"""Guessed tokens change how fast texts come, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from cellscribe.engine.backends.base import Admission, Chosen, Encoded, Ints, Ready, SlotPlan
from cellscribe.engine.backends.cpu import CpuBackend
from cellscribe.engine.backends.cpu.slots import CpuSlots
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.drafts import Drafts
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text
from cellscribe.engine.measure import real_cells
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.types import Sampling

CELLS, TOKENS = 12, 96

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture(scope="module")
def backend() -> CpuBackend:
    return CpuBackend(open_bundle(packaged_bundle()), threads=2)


@pytest.fixture(scope="module")
def cells(backend: CpuBackend) -> TokenBatch:
    batch, _ = real_cells(backend.bundle, None, CELLS)
    assert batch is not None
    return batch


@pytest.fixture(scope="module")
def encoded(backend: CpuBackend, cells: TokenBatch) -> Encoded:
    return backend.encode(cells)


class Counting:
    """Slots that note how many tokens each step chose for its slots, and how many rows it had."""

    depth, steps_per_ticket = 1, 1

    def __init__(self, slots: CpuSlots) -> None:
        self._slots, self.rows, self.tokens = slots, list[int](), list[int]()
        run = slots._run

        def counted(tokens: Ints, *where: Ints) -> object:
            self.rows.append(len(tokens))
            return run(tokens, *where)

        slots._run = counted  # type: ignore[assignment,method-assign]
        self.admit, self.logits, self.force = slots.admit, slots.logits, slots.force

    def step(self, active: Ints) -> Ready:
        ready = self._slots.step(active)
        self.tokens.append(sum(len(one.slots) for one in ready.wait()))
        return ready


class Writing:
    """Writes about the packaged cells with slots of one plan."""

    def __init__(self, backend: CpuBackend, cells: TokenBatch, encoded: Encoded) -> None:
        self._backend, self._cells, self._encoded = backend, cells, encoded
        prompt = backend.bundle.manifest.prompt
        assert prompt is not None
        self.eos_ids = frozenset(prompt.eos_token_ids)

    def plan(self, num_slots: int, tokens: int = TOKENS, eos_ids: frozenset[int] | None = None) -> SlotPlan:
        eos_ids = self.eos_ids if eos_ids is None else eos_ids
        return SlotPlan(num_slots, self._cells.mask.shape[1], tokens, Sampling(), eos_ids=eos_ids)

    def requests(self, limits: dict[int, int]) -> Iterator[Request]:
        for i in range(self._cells.n_cells):
            yield Request(i, i, self._encoded.memory[i], self._cells.mask[i], limits.get(i))

    def __call__(self, plan: SlotPlan, limits: dict[int, int] | None = None) -> tuple[list[Text], Counting]:
        slots = Counting(self._backend.open_slots(plan))
        scheduler = Scheduler(
            slots,
            plan.num_slots,
            eos_ids=plan.eos_ids,
            max_new_tokens=plan.max_new_tokens,
            keep_attention=plan.keep_attention,
        )
        found = {e.text.request.index: e.text for e in scheduler.run(self.requests(limits or {})) if e.text.is_finished}
        return [found[i] for i in range(self._cells.n_cells)], slots


@pytest.fixture(scope="module")
def write(backend: CpuBackend, cells: TokenBatch, encoded: Encoded) -> Writing:
    return Writing(backend, cells, encoded)


def same(found: list[Text], expected: list[Text]) -> bool:
    """Whether texts are the same to the last bit."""
    return all(
        a.token_ids == b.token_ids
        and a.logprobs == b.logprobs
        and a.finish_reason == b.finish_reason
        and np.array_equal(a.evidence, b.evidence)
        and all(np.array_equal(x, y) for x, y in zip(a.attention, b.attention, strict=True))
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("num_slots", [1, 2, 4])
@pytest.mark.parametrize("keep_attention", [False, True])
def test_texts_are_the_same_bits_with_guesses_and_without(write: Writing, num_slots: int, keep_attention: bool) -> None:
    plan = replace(write.plan(num_slots), keep_attention=keep_attention)
    expected, plain = write(replace(plan, may_guess=False))
    found, guessing = write(plan)
    assert same(found, expected)
    assert "stop" in {one.finish_reason for one in found}
    assert all(tokens <= num_slots for tokens in plain.tokens)
    assert max(guessing.tokens) > num_slots if num_slots < 4 else guessing.tokens
    if num_slots == 1:
        assert sum(guessing.tokens) / len(guessing.tokens) > 1.3
        assert len(guessing.tokens) < len(plain.tokens)


@pytest.mark.parametrize("tokens", [33, 34, 35, 36, 39])
def test_the_longest_text_is_not_exceeded(write: Writing, tokens: int) -> None:
    plan = write.plan(1, tokens, frozenset())
    expected, _ = write(replace(plan, may_guess=False))
    found, guessing = write(plan)
    assert same(found, expected)
    assert {len(one.token_ids) for one in found} == {tokens}
    assert sum(guessing.tokens) == CELLS * (tokens - 1)


def test_a_text_ends_at_its_end_token_inside_guesses(write: Writing) -> None:
    """Every token of the first text once ends the texts: wherever it falls among the guesses, nothing follows."""
    (first, *_), _ = write(write.plan(1, 40, frozenset()))
    for token in list(dict.fromkeys(first.token_ids))[1::5]:
        plan = write.plan(1, 40, frozenset([token]))
        expected, plain = write(replace(plan, may_guess=False))
        found, guessing = write(plan)
        assert same(found, expected)
        assert first.token_ids.index(token) == len(found[0].token_ids)
        assert sum(guessing.tokens) == sum(plain.tokens)


def test_a_requests_own_limit_is_kept(write: Writing) -> None:
    limits = {i: 1 + (7 * i) % 13 for i in range(CELLS)}
    plan = write.plan(2, 64, frozenset())
    expected, _ = write(replace(plan, may_guess=False), limits)
    found, _ = write(plan, limits)
    assert same(found, expected)
    assert [len(one.token_ids) for one in found] == list(limits.values())


def test_rows_with_guesses_stay_within_their_number(write: Writing) -> None:
    for num_slots, most in ((1, 4), (2, 4)):
        _, guessing = write(write.plan(num_slots))
        assert max(guessing.rows) == most
    _, guessing = write(write.plan(3, 40, frozenset()))
    assert max(guessing.rows) == 3  # three texts are too many for guesses, and all are as long


@pytest.mark.parametrize(
    "change",
    [{"sampling": Sampling(0.9, 0.8, 3)}, {"sampling": Sampling(1.0, 1.0)}, {"forced": True}, {"may_guess": False}],
)
def test_where_a_guess_would_not_be_the_choice_none_is_made(
    write: Writing, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    monkeypatch.setattr(Drafts, "guess", lambda *_: pytest.fail("a token was guessed"))
    _, plain = write(replace(write.plan(1, 36), **change))  # type: ignore[arg-type]
    assert set(plain.rows) == {1}


def test_guesses_that_fail_are_given_up(write: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = write.plan(1, 64, frozenset())
    expected, _ = write(replace(plan, may_guess=False))
    monkeypatch.setattr(Drafts, "guess", lambda self, slot, most: [3] * most)
    found, guessing = write(plan)
    assert same(found, expected)
    assert sum(rows > 1 for rows in guessing.rows) < len(guessing.rows) / 8


def test_a_slot_that_is_full_stays_silent(
    backend: CpuBackend, write: Writing, cells: TokenBatch, encoded: Encoded
) -> None:
    """Its caches have no room for another position."""
    slots = backend.open_slots(write.plan(1, 4, frozenset()))
    for _ in range(2):
        chosen: list[Chosen] = list(slots.admit(admissions(encoded, cells)).wait())
        for _ in range(8):
            chosen += slots.step(np.array([0])).wait()
        assert sum(len(one.slots) for one in chosen) == 4


def admissions(encoded: Encoded, cells: TokenBatch) -> list[Admission]:
    return [Admission(0, 0, encoded.memory[0], cells.mask[0])]


def test_a_cell_that_is_not_finite_fails_alone_among_guesses(
    backend: CpuBackend, write: Writing, cells: TokenBatch, encoded: Encoded
) -> None:
    memory = encoded.host_memory().copy()
    memory[1::3, 2] = np.nan
    spoilt = Writing(backend, cells, Encoded(memory, encoded.cell))
    expected, _ = write(replace(write.plan(1), may_guess=False))
    found, _ = spoilt(write.plan(1))
    assert all(one.finish_reason == "failed" and not one.token_ids for one in found[1::3])
    good = [i for i in range(CELLS) if i % 3 != 1]
    assert same([found[i] for i in good], [expected[i] for i in good])
