from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.backends.base import NOT_FINITE, Admission, SlotPlan
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu, _neighbours
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text
from cellscribe.engine.types import Sampling

S = 61
CELLS = 7


@pytest.fixture(scope="module", params=["tiny_bundle", "tiny_bundle_materialised", "tiny_bundle_fp16"])
def backend(request: pytest.FixtureRequest) -> OnnxRuntimeCpu:
    return OnnxRuntimeCpu(open_bundle(request.getfixturevalue(request.param)), threads=2)


def memories(backend: OnnxRuntimeCpu) -> tuple[np.ndarray, np.ndarray]:
    width = backend.bundle.manifest.encoder.d_model
    memory = np.random.default_rng(0).normal(size=(CELLS, S, width)).astype(backend.dtype)
    mask = np.arange(S)[None] < np.array([61, 61, 30, 1, 61, 12, 61])[:, None]
    return memory, mask


def write(
    backend: OnnxRuntimeCpu, order: list[int], num_slots: int, sampling: Sampling, tokens: int = 24
) -> dict[int, Text]:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(num_slots, S, tokens, sampling))
    scheduler = Scheduler(slots, num_slots, eos_ids=frozenset([2]), max_new_tokens=tokens)
    requests = (Request(i, 1000 + i, memory[i], mask[i]) for i in order)
    return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4)])
def test_a_text_is_the_same_bits_for_any_slots_and_order(backend: OnnxRuntimeCpu, sampling: Sampling) -> None:
    expected = write(backend, list(range(CELLS)), 1, sampling)
    assert len({tuple(t.token_ids) for t in expected.values()}) == CELLS
    for num_slots, order in (
        (2, [6, 5, 4, 3, 2, 1, 0]),
        (3, [2, 0, 4, 6, 1, 3, 5]),
        (7, list(range(CELLS))),
        (12, [3, 1]),
    ):
        found = write(backend, order, num_slots, sampling)
        for i in order:
            assert found[i].token_ids == expected[i].token_ids
            assert found[i].logprobs == expected[i].logprobs
            assert (found[i].evidence == expected[i].evidence).all()


def test_padding_of_the_memory_is_never_read(backend: OnnxRuntimeCpu) -> None:
    memory, mask = memories(backend)
    poisoned = memory.copy()
    poisoned[~mask] = np.nan
    seen = []
    for given in (memory, poisoned):
        slots = backend.open_slots(SlotPlan(CELLS, S, 4, Sampling()))
        slots.admit([Admission(i, i, given[i], mask[i]) for i in range(CELLS)])
        (chosen,) = slots.step(np.arange(CELLS)).wait()
        seen.append((slots.logits(CELLS).copy(), chosen.evidence))
    assert np.isfinite(seen[1][0]).all()
    assert (seen[0][0] == seen[1][0]).all()
    assert not seen[1][1][~mask].any()
    assert np.abs(seen[1][1].sum(-1) - 1).max() < 1e-3


def test_a_reused_slot_forgets_its_last_cell(backend: OnnxRuntimeCpu) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(2, S, 6, Sampling()))
    fresh = slots.admit([Admission(0, 0, memory[2], mask[2])]).wait()[0].token_ids
    first = slots.logits(1).copy()
    slots.admit([Admission(0, 1, memory[0], mask[0])])
    for _ in range(5):
        slots.step(np.array([0]))
    again = slots.admit([Admission(0, 0, memory[2], mask[2])]).wait()[0].token_ids
    assert (again == fresh).all()
    assert (slots.logits(1) == first).all()


def test_the_attention_of_layers_and_heads_averages_to_the_evidence(backend: OnnxRuntimeCpu) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(3, S, 4, Sampling(), keep_attention=True))
    cross = backend.bundle.manifest.cross_attention
    assert cross is not None
    tickets = [slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(3)]), slots.step(np.arange(3))]
    for (chosen,) in (ticket.wait() for ticket in tickets):
        assert chosen.attention is not None
        assert chosen.attention.shape == (3, cross.n_layers, cross.n_heads, S)
        assert np.abs(chosen.attention.mean((1, 2)) - chosen.evidence).max() < 1e-5


def test_attention_must_be_asked_for(backend: OnnxRuntimeCpu) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(1, S, 4, Sampling()))
    assert slots.admit([Admission(0, 0, memory[0], mask[0])]).wait()[0].attention is None


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4)])
def test_a_memory_that_is_not_finite_fails_alone(backend: OnnxRuntimeCpu, sampling: Sampling) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(2, S, 4, sampling))
    good = slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(2)]).wait()[0].token_ids[1]
    memory[0, 3] = np.nan
    (chosen,) = slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(2)]).wait()
    assert chosen.token_ids.tolist() == [NOT_FINITE, good]
    slots.step(np.arange(1, 2))
    memory[0, 3] = 0.0
    again = slots.admit([Admission(0, 1, memory[1], mask[1])]).wait()  # a healthy cell in the slot of the lost one
    assert again[0].token_ids[0] == good
    (chosen,) = slots.step(np.arange(2)).wait()
    assert (chosen.token_ids >= 0).all()


def test_neighbouring_slots_run_their_prompt_together() -> None:
    assert _neighbours(np.array([0, 1, 2, 5, 7, 8])) == [(0, 3), (5, 6), (7, 9)]
    assert _neighbours(np.array([], dtype=np.int64)) == []
