"""The portable GPU backend, on the CPU provider: the same class, bindings, views and copies, with another device."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.backends import onnxruntime_cuda
from cellscribe.engine.backends.base import NOT_FINITE, Admission, Backend, Memory, SlotPlan
from cellscribe.engine.backends.device_arrays import DeviceArray, stretches
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda
from cellscribe.engine.backends.sessions import CPU, Device, running
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellTokenizer, open_cells
from cellscribe.engine.decode.scheduler import Request, Scheduler, Text
from cellscribe.engine.errors import BackendError, RoomError
from cellscribe.engine.gpu import Gpu
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify import measure_parity, parity_failures

S, CELLS, TOKENS = 61, 7, 24
BUNDLES = ["tiny_bundle", "tiny_bundle_materialised", "tiny_bundle_fp16", "tiny_bundle_materialised_fp16"]


@pytest.fixture(scope="module")
def tiny_bundle_materialised_fp16(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("torch", reason="the export extra is not installed")
    from cellscribe.export.bundle import export_random

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export_random("lingocell-tiny", folder, cross_attention="materialised", precision="fp16")
    return str(folder)


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> OnnxRuntimeCuda:
    return OnnxRuntimeCuda(bundle, CPU, threads=2)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> OnnxRuntimeCpu:
    return OnnxRuntimeCpu(bundle, threads=2)


def memories(backend: OnnxRuntimeCuda | OnnxRuntimeCpu) -> tuple[np.ndarray, np.ndarray]:
    width = backend.bundle.manifest.encoder.d_model
    memory = np.random.default_rng(0).normal(size=(CELLS, S, width)).astype(backend.dtype)
    mask = np.arange(S)[None] < np.array([61, 61, 30, 1, 61, 12, 61])[:, None]
    mask[4, 10:20] = False
    return memory, mask


def write(
    backend: Backend, memory: Memory, mask: np.ndarray, order: list[int], num_slots: int, sampling: Sampling
) -> dict[int, Text]:
    slots = backend.open_slots(SlotPlan(num_slots, S, TOKENS, sampling, keep_attention=True))
    scheduler = Scheduler(slots, num_slots, eos_ids=frozenset([2]), max_new_tokens=TOKENS, keep_attention=True)
    requests = (Request(i, 1000 + i, memory[i], mask[i]) for i in order)
    return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4)])
@pytest.mark.parametrize("is_on_device", [False, True])
def test_texts_are_those_of_the_cpu_backend_token_for_token(
    backend: OnnxRuntimeCuda, reference: OnnxRuntimeCpu, sampling: Sampling, is_on_device: bool
) -> None:
    memory, mask = memories(backend)
    expected = write(reference, memory, mask, list(range(CELLS)), 4, sampling)
    given = DeviceArray.of(backend.decoder, memory, CPU) if is_on_device else memory
    for num_slots, order in ((1, [3, 0, 6]), (3, [6, 5, 4, 3, 2, 1, 0]), (12, list(range(CELLS)))):
        found = write(backend, given, mask, order, num_slots, sampling)
        for i in order:
            assert found[i].token_ids == expected[i].token_ids
            assert found[i].logprobs == pytest.approx(expected[i].logprobs, abs=1e-5)
            assert np.abs(found[i].evidence - expected[i].evidence).max() < 1e-4
            assert np.abs(np.array(found[i].attention) - np.array(expected[i].attention)).max() < 1e-4


@pytest.mark.parametrize("is_on_device", [False, True])
def test_padding_of_the_memory_is_never_read(backend: OnnxRuntimeCuda, is_on_device: bool) -> None:
    memory, mask = memories(backend)
    poisoned = memory.copy()
    poisoned[~mask] = np.nan
    seen = []
    for given in (memory, poisoned):
        held = DeviceArray.of(backend.decoder, given, CPU) if is_on_device else given
        slots = backend.open_slots(SlotPlan(CELLS, S, 4, Sampling()))
        slots.admit([Admission(i, i, held[i], mask[i]) for i in range(CELLS)])
        (chosen,) = slots.step(np.arange(CELLS)).wait()
        seen.append((slots.logits(CELLS), chosen.evidence))
    assert np.isfinite(seen[1][0]).all()
    assert (seen[0][0] == seen[1][0]).all()
    assert not seen[1][1][~mask].any()


def test_a_reused_slot_forgets_its_last_cell_even_one_that_was_not_finite(backend: OnnxRuntimeCuda) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(2, S, 6, Sampling()))
    slots.admit([Admission(0, 0, memory[2], mask[2])])
    first = slots.logits(1).copy()
    broken = memory[0].copy()
    broken[3:] = np.nan
    assert slots.admit([Admission(0, 1, broken, mask[0])]).wait()[0].token_ids.tolist() == [NOT_FINITE]
    slots.admit([Admission(0, 0, memory[2, :30], mask[2, :30])])  # as a ragged layout gives it
    assert (slots.logits(1) == first).all()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4)])
def test_a_memory_that_is_not_finite_fails_alone(backend: OnnxRuntimeCuda, sampling: Sampling) -> None:
    memory, mask = memories(backend)
    slots = backend.open_slots(SlotPlan(2, S, 4, sampling))
    good = slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(2)]).wait()[0].token_ids[1]
    memory[0, 3] = np.nan
    (chosen,) = slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(2)]).wait()
    assert chosen.token_ids.tolist() == [NOT_FINITE, good]
    assert slots.step(np.arange(1, 2)).wait()[0].slots.tolist() == [1]


def test_encoding_leaves_the_memory_on_the_device_and_does_not_depend_on_neighbours(
    backend: OnnxRuntimeCuda, reference: OnnxRuntimeCpu
) -> None:
    bundle = backend.bundle
    with open_cells(packaged_cells()) as source:
        tokenizer = CellTokenizer(bundle.manifest.cells, bundle.vocabulary, source)
        (ten,) = tokenizer.batches(rows=np.arange(10), batch_cells=10)
        (two,) = tokenizer.batches(rows=np.array([3, 9]), batch_cells=10)
    encoded, few, expected = backend.encode(ten), backend.encode(two), reference.encode(ten)
    assert isinstance(encoded.memory, DeviceArray)
    assert encoded.memory.shape == expected.memory.shape
    real = ten.mask
    atol = 1e-5 if backend.dtype == np.float32 else 1e-2
    assert np.abs(encoded.host_memory()[real] - expected.memory[real]).max() <= atol
    assert np.abs(encoded.cell - expected.cell).max() <= atol
    assert (few.host_memory() == encoded.host_memory()[[3, 9]]).all()
    assert (encoded.memory[3].read() == encoded.host_memory()[3]).all()


def test_it_reproduces_what_torch_computed(backend: OnnxRuntimeCuda, bundle: Bundle) -> None:
    assert parity_failures(measure_parity(bundle, backend, "reference")) == ()


def test_rows_of_a_device_array_are_places_in_it(backend: OnnxRuntimeCuda) -> None:
    array = DeviceArray.of(backend.decoder, np.arange(12, dtype=np.float32).reshape(4, 3), CPU)
    array.rows(1, 3).write(np.full((2, 3), -1, np.float32))
    array.rows(3, 4).write(array.rows(1, 2))
    assert array.read().tolist() == [[0, 1, 2], [-1] * 3, [-1] * 3, [-1] * 3]
    assert array[0].shape == (3,)
    assert len(list(iter(array))) == 4
    with pytest.raises(ValueError, match="does not fit"):
        array.write(np.zeros((4, 2), np.float32))
    assert array.rows(2, 2).read().shape == (0, 3)
    flags = DeviceArray.of(backend.decoder, np.array([[True, False]]), CPU)
    assert flags.read().tolist() == [[True, False]]


def test_a_mask_is_cut_into_stretches() -> None:
    assert list(stretches(np.array([True, True, False, True]))) == [(0, 2, True), (2, 3, False), (3, 4, True)]
    assert list(stretches(np.ones(2, bool))) == [(0, 2, True)]


def test_what_onnxruntime_raises_becomes_one_sentence() -> None:
    gpu = Device("cuda", 1)
    with pytest.raises(RoomError, match=r"GPU 1 ran out of memory; free the device"), running(gpu):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 123\nmore")
    with pytest.raises(BackendError, match=r"failed on GPU 1 \(CUDA failure 700\)") as caught, running(gpu):
        raise RuntimeError("CUDA failure 700\nmore")
    assert not isinstance(caught.value, RoomError)


def test_too_many_slots_are_refused_before_they_are_allocated(
    backend: OnnxRuntimeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(0, "GPU-1", "H200", "580", "9.0", 10, 4 << 20)
    monkeypatch.setattr(onnxruntime_cuda, "gpu_number", lambda *_, **__: gpu)
    _ = backend.decoder  # before the place is said to be a GPU
    monkeypatch.setattr(backend, "place", Device("cuda"))
    with pytest.raises(RoomError, match=r"H200 has 4.2 MB free and 512 slots need .* would fit") as caught:
        backend.open_slots(SlotPlan(512, S, TOKENS, Sampling()))
    assert 0 < caught.value.num_fitting < 512
