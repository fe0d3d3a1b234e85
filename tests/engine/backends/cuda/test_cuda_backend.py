"""The CUDA backend with its kernels: in the emulator everywhere, on a GPU where one is."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.backends.base import NOT_FINITE, Admission, SlotPlan
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.bundle.load import REFERENCE
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.decode.sampling import choose
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text
from cellscribe.engine.errors import BackendError, UsageError
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify import TOLERANCES, measure_parity

torch = pytest.importorskip("torch", reason="the CUDA backend needs torch")
from cellscribe.engine.backends.cuda import CudaBackend  # noqa: E402

S, CELLS = 61, 6
BUNDLES = ["tiny_bundle", "tiny_bundle_materialised", "tiny_bundle_fp16"]


@pytest.fixture(params=["emulated", pytest.param("device", marks=pytest.mark.gpu)])
def where(request: pytest.FixtureRequest) -> tuple[str, Path]:
    if request.param == "emulated":
        return "cpu", request.getfixturevalue("emulated_kernels")
    return "cuda", request.getfixturevalue("device_kernels")


@pytest.fixture(params=BUNDLES)
def backend(request: pytest.FixtureRequest, where: tuple[str, Path]) -> CudaBackend:
    return CudaBackend(open_bundle(request.getfixturevalue(request.param)), *where)


def memories(backend: CudaBackend) -> tuple[np.ndarray, np.ndarray]:
    width = backend.bundle.manifest.encoder.d_model
    memory = np.random.default_rng(0).normal(size=(CELLS, S, width)).astype(np.float16)
    mask = np.arange(S)[None] < np.array([61, 61, 30, 1, 61, 12])[:, None]
    return memory, mask


def write(
    backend: CudaBackend,
    order: list[int],
    num_slots: int,
    sampling: Sampling,
    tokens: int = 11,
    *,
    poison: bool = False,
) -> dict[int, Text]:
    memory, mask = memories(backend)
    if poison:
        memory[~mask] = np.nan
    ends = frozenset([2])
    slots = backend.open_slots(SlotPlan(num_slots, S, tokens, sampling, eos_ids=ends))
    scheduler = Scheduler(slots, num_slots, eos_ids=ends, max_new_tokens=tokens)
    requests = (Request(i, 1000 + i, memory[i], mask[i]) for i in order)
    return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


def reference_batch(bundle: Bundle) -> TokenBatch:
    reference = bundle.tensors(REFERENCE)
    count = len(reference["genes"])
    return TokenBatch(
        rows=np.arange(count),
        cell_ids=tuple(map(str, range(count))),
        genes=reference["genes"].astype(np.int64),
        values=reference["values"].astype(np.float32),
        mask=reference["mask"].astype(bool),
        columns=np.full(reference["genes"].shape, -1, np.int64),
        failures=(),
    )


def test_it_reproduces_the_torch_model(backend: CudaBackend) -> None:
    parity = measure_parity(backend.bundle, backend, "reference cells")
    limits = TOLERANCES["fp16"]
    assert parity.memory_max_error < 0.2 * limits["memory_max_error"]
    assert parity.logits_max_error is not None
    assert parity.logits_max_error < 0.2 * limits["logits_max_error"]
    assert parity.greedy_agreement == 1.0


def test_the_packaged_bundle_runs(where: tuple[str, Path]) -> None:
    from cellscribe.engine.packaged import packaged_bundle

    bundle = open_bundle(packaged_bundle())
    parity = measure_parity(bundle, CudaBackend(bundle, *where), "reference cells")
    assert parity.logits_max_error is not None
    assert parity.logits_max_error < 0.03
    assert parity.greedy_agreement == 1.0


def test_texts_do_not_depend_on_slots_and_order(backend: CudaBackend) -> None:
    expected = write(backend, list(range(CELLS)), CELLS, Sampling())
    assert len({tuple(t.token_ids) for t in expected.values()}) == CELLS
    for num_slots, order in ((2, [5, 4, 3, 2, 1, 0]), (4, [2, 0, 4, 1, 3, 5])):
        found = write(backend, order, num_slots, Sampling(), poison=True)
        for i in order:
            assert found[i].token_ids == expected[i].token_ids
            assert np.abs(np.array(found[i].logprobs) - expected[i].logprobs).max() < 1e-2
            assert np.abs(found[i].evidence - expected[i].evidence).max() < 1e-2


def test_texts_and_evidence_are_those_of_onnx_runtime(backend: CudaBackend) -> None:
    memory, mask = memories(backend)
    plan = SlotPlan(CELLS, S, 8, Sampling(), keep_attention=True, forced=True)
    admissions = [Admission(i, i, memory[i], mask[i]) for i in range(CELLS)]
    ours, theirs = backend.open_slots(plan), OnnxRuntimeCpu(backend.bundle, threads=2).open_slots(plan)
    steps = [(slots.admit(admissions), slots) for slots in (ours, theirs)]
    for _ in range(4):
        (found,), (expected,) = (ticket.wait() for ticket, _ in steps)
        assert np.abs(ours.logits(CELLS) - theirs.logits(CELLS)).max() < 0.02
        assert np.abs(found.logprobs - expected.logprobs).max() < 0.02
        assert np.abs(found.evidence - expected.evidence).max() < 2e-3
        assert not found.evidence[~mask].any()
        assert found.attention is not None
        assert expected.attention is not None
        assert np.abs(found.attention - expected.attention).max() < 5e-3
        ours.force(expected.token_ids)
        steps = [(slots.step(np.arange(CELLS)), slots) for slots in (ours, theirs)]


def test_drawn_tokens_are_those_the_cpu_draws_from_the_same_logits(backend: CudaBackend) -> None:
    memory, mask = memories(backend)
    sampling = Sampling(0.9, 0.7, 4)
    slots = backend.open_slots(SlotPlan(CELLS, S, 8, sampling, forced=True))
    ticket = slots.admit([Admission(i, 1000 + i, memory[i], mask[i]) for i in range(CELLS)])
    for length in range(4):
        (chosen,) = ticket.wait()
        keys = np.arange(1000, 1000 + CELLS, dtype=np.uint64)
        tokens, logprobs = choose(slots.logits(CELLS), sampling, keys, np.full(CELLS, length))
        assert (chosen.token_ids == tokens).all()
        assert np.abs(chosen.logprobs - logprobs).max() < 1e-5
        ticket = slots.step(np.arange(CELLS))


OWN = [None, Sampling(0.9, 0.7, 4), Sampling(), Sampling(1.0, 1.3, 5), Sampling(0.9, 0.7, 6), Sampling(seed=3)]


def test_texts_that_share_slots_each_have_their_sampling(backend: CudaBackend) -> None:
    memory, mask = memories(backend)
    shared = Sampling(0.8, 0.9, 1)

    def write_own(num_slots: int, indices: list[int], *, mixes: bool, sampling: Sampling) -> dict[int, Text]:
        slots = backend.open_slots(SlotPlan(num_slots, S, 6, sampling, eos_ids=frozenset([2]), mixes=mixes))
        scheduler = Scheduler(slots, num_slots, eos_ids=frozenset([2]), max_new_tokens=6)
        own = OWN if mixes else [None] * CELLS
        requests = (Request(i, 1000 + i, memory[i], mask[i], sampling=own[i]) for i in indices)
        return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}

    found = write_own(4, [5, 0, 1, 4, 3, 2], mixes=True, sampling=shared)
    for i, own in enumerate(OWN):
        alone = write_own(2, [i], mixes=False, sampling=own or shared)[i]
        assert found[i].token_ids == alone.token_ids
        np.testing.assert_allclose(found[i].logprobs, alone.logprobs, atol=1e-2)
    assert {one.finish_reason for one in found.values()} <= {"stop", "length"}


def test_a_slot_takes_the_sampling_of_its_next_text(backend: CudaBackend) -> None:
    """The step reads it when it runs: nothing is captured of the last one."""
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(2, S, 8, Sampling(), mixes=True))

    def tokens(sampling: Sampling | None) -> list[int]:
        chosen = [*slots.admit([Admission(0, 7, memory[0], mask[0], sampling)]).wait()]
        return [int(one.token_ids[0]) for one in (*chosen, *slots.step(np.array([0])).wait())]

    greedy, drawn = tokens(None), tokens(Sampling(1.0, 2.0, 1))
    assert len(greedy) == 5
    assert drawn not in (greedy, tokens(Sampling(1.0, 2.0, 2)))
    assert tokens(Sampling(1.0, 2.0, 1)) == drawn
    assert tokens(None) == greedy


def test_a_plan_that_mixes_none_refuses_a_sampling(backend: CudaBackend) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(2, S, 8, Sampling()))
    with pytest.raises(UsageError, match="mixes=True"):
        slots.admit([Admission(0, 7, memory[0], mask[0], Sampling(1.0, 2.0, 1))])


def test_a_slot_whose_text_ended_stays_silent(backend: CudaBackend) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(2, S, 3, Sampling()))
    seen = list(slots.admit([Admission(1, 7, memory[0], mask[0])]).wait())
    assert slots.steps_per_ticket == 4
    seen += slots.step(np.array([1])).wait()
    assert [one.slots.tolist() for one in seen] == [[1]] * 3  # three tokens, though a ticket holds four steps
    assert list(slots.step(np.array([1])).wait()) == []


def test_a_memory_that_is_not_finite_fails_alone(backend: CudaBackend) -> None:
    memory, mask = memories(backend)
    memory[0, 3] = np.nan
    slots = backend.open_slots(SlotPlan(2, S, 8, Sampling()))
    first = slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(2)]).wait()
    assert first[0].token_ids[0] == NOT_FINITE
    assert first[0].token_ids[1] >= 0
    assert np.isnan(first[0].logprobs[0])
    for chosen in slots.step(np.arange(2)).wait():
        assert chosen.slots.tolist() == [1]
        assert np.isfinite(chosen.logprobs).all()


def test_slots_go_when_nobody_holds_them(backend: CudaBackend) -> None:
    """Without the help of the cycle collector: they hold gigabytes."""
    gc.collect()
    gc.disable()
    try:
        slots = backend.open_slots(SlotPlan(2, S, 8, Sampling()))
        memory, mask = memories(backend)
        slots.admit([Admission(0, 0, memory[0], mask[0])]).wait()
        slots.step(np.array([0])).wait()
        alive = weakref.ref(slots)
        del slots
        assert alive() is None
    finally:
        gc.enable()


def test_texts_are_held_while_a_graph_is_captured_whatever_happens(backend: CudaBackend) -> None:
    slots = backend.open_slots(SlotPlan(2, S, 8, Sampling()))
    memory, mask = memories(backend)
    slots.admit([Admission(0, 0, memory[0], mask[0])]).wait()
    finished = slots._memory.cursor.finished
    seen: list[list[int]] = []

    def interrupt() -> None:
        with slots._frozen():
            seen.append(finished.tolist())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert seen == [[1, 1]]
    assert finished.tolist() == [0, 1]


def test_what_goes_wrong_on_the_device_later_is_a_sentence_too(backend: CudaBackend) -> None:
    slots = backend.open_slots(SlotPlan(1, S, 8, Sampling()))
    ticket = slots.step(np.array([0]))

    class Event:
        def synchronize(self) -> None:
            raise RuntimeError("CUDA error: unspecified launch failure")

    ticket._event = Event()
    with pytest.raises(BackendError, match="unspecified launch failure"):
        ticket.wait()


@pytest.mark.gpu
def test_cells_are_encoded_while_steps_are_captured(device_kernels: Path, tiny_bundle: Path) -> None:
    """A capture must bear another thread that allocates and launches, on a stream of its own."""
    bundle = open_bundle(tiny_bundle)
    backend, expected = CudaBackend(bundle, "cuda", device_kernels), CudaBackend(bundle, "cuda", device_kernels)
    alone = write(expected, list(range(CELLS)), 3, Sampling())
    batch, stop, encoded = reference_batch(bundle), threading.Event(), []

    def encode() -> None:
        while not stop.is_set():
            encoded.append(backend.encode(batch).cell)

    thread = threading.Thread(target=encode)
    thread.start()
    try:
        for _ in range(5):
            found = write(backend, list(range(CELLS)), 3, Sampling())
            assert {i: t.token_ids for i, t in found.items()} == {i: t.token_ids for i, t in alone.items()}
    finally:
        stop.set()
        thread.join()
    assert len(encoded) > 1
    assert all((one == encoded[0]).all() for one in encoded)


def forced_logits(backend: CudaBackend, num_slots: int, steps: int = 4) -> np.ndarray:
    """Logits [steps, 4, V] of four cells under the same tokens."""
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(num_slots, S, 8, Sampling(), forced=True))
    slots.admit([Admission(i, i, memory[i % CELLS], mask[i % CELLS]) for i in range(num_slots)]).wait()
    seen = []
    for step in range(steps):
        slots.force(np.full(num_slots, 5 + step))
        slots.step(np.arange(num_slots)).wait()
        seen.append(slots.logits(4))
    return np.stack(seen)


def test_few_rows_and_many_are_the_same_mathematics(backend: CudaBackend) -> None:
    few, many = forced_logits(backend, 4), forced_logits(backend, 12)
    assert np.abs(few - many).max() < 0.02


def test_8_bit_weights_stay_close(tiny_bundle: Path, where: tuple[str, Path]) -> None:
    bundle = open_bundle(tiny_bundle)
    exact, rounded = (forced_logits(CudaBackend(bundle, *where, kind), 4) for kind in ("fp16", "int8"))
    difference = np.abs(exact - rounded)
    assert 0.005 < difference.max() < 0.3
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.999
