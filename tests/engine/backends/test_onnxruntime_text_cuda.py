"""Decoders without an encoder on the portable GPU backend, on the CPU provider: the same class with another device.

Golden texts, prefixes and labels are in ``test_text_backends.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from cellscribe.engine import device_facts, doctor
from cellscribe.engine.backends import (
    choose,
    cuda_provider,
    device_text_slots,
    onnxruntime_text_cuda,
    sessions,
)
from cellscribe.engine.backends.base import NOT_FINITE
from cellscribe.engine.backends.choose import choose_backend, choose_text_backend
from cellscribe.engine.backends.cpu.text import CpuText
from cellscribe.engine.backends.device_arrays import NO_CAPTURE, DeviceRun
from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.backends.onnxruntime_text_cuda import OnnxRuntimeTextCuda
from cellscribe.engine.backends.sessions import CPU, Device
from cellscribe.engine.backends.text import Prompted, TextBackend, TextPlan
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.decode.scheduler import Scheduler, Text, TextRequest
from cellscribe.engine.errors import BackendError, BundleError, RoomError
from cellscribe.engine.gpu import Gpu
from cellscribe.engine.types import Sampling
from cellscribe.engine.verify_text import measure_text_parity, text_failures

PROMPT, TOKENS = 80, 12


@pytest.fixture(scope="module")
def bundle(c2s_bundle: Path) -> Bundle:
    return open_bundle(c2s_bundle)


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> OnnxRuntimeTextCuda:
    return OnnxRuntimeTextCuda(bundle, CPU, threads=2)


def prompts() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [np.append(np.arange(5, 17), random.integers(3, 440, n)) for n in (3, 20, 4, 36, 52)]


def write(backend: TextBackend, num_slots: int, sampling: Sampling, labels: LabelTrie | None = None) -> dict[int, Text]:
    longest = max(map(len, labels.sequences)) if labels else 0
    plan = TextPlan(num_slots, PROMPT, longest or TOKENS, sampling, frozenset([2]), tuple(range(5, 17)), longest)
    scheduler = Scheduler(
        backend.open_text_slots(plan), num_slots, eos_ids=plan.eos_ids, max_new_tokens=plan.max_new_tokens
    )
    requests = (TextRequest(i, 1000 + i, ids, labels) for i, ids in enumerate(prompts()))
    return {e.text.request.index: e.text for e in scheduler.run(requests) if e.text.is_finished}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, 0.7, 4)])
def test_texts_are_those_of_the_cpu(backend: OnnxRuntimeTextCuda, bundle: Bundle, sampling: Sampling) -> None:
    expected = write(OnnxRuntimeText(bundle, 2), 2, sampling)
    for num_slots in (1, 3, 5):
        found = write(backend, num_slots, sampling)
        for i, text in expected.items():
            assert found[i].token_ids == text.token_ids
            assert found[i].logprobs == pytest.approx(text.logprobs, abs=1e-5)


def test_labels_whose_rest_takes_more_than_one_run(backend: OnnxRuntimeTextCuda, bundle: Bundle) -> None:
    ids = ((5, 6, 7), (5, 8), (20, 21, 22, 23), (5, 6, 9, 10, *range(40, 57)), (30,), (30, 31, *range(60, 68)))
    labels = LabelTrie([f"label {i}" for i in range(len(ids))], ids, 2)
    expected = write(OnnxRuntimeText(bundle, 2), 2, Sampling(), labels)
    for num_slots in (1, 3, 5):
        found = write(backend, num_slots, Sampling(), labels)
        assert {i: text.token_ids for i, text in found.items()} == {i: t.token_ids for i, t in expected.items()}


def test_logits_and_embeddings_are_those_of_torch(backend: OnnxRuntimeTextCuda, bundle: Bundle) -> None:
    assert not text_failures(measure_text_parity(bundle, backend, "reference"))
    assert backend.embed_prompts([]).shape == (0, 64)


def test_a_slot_forgets_a_text_that_was_not_finite(backend: OnnxRuntimeTextCuda) -> None:
    slots, ids = backend.open_text_slots(TextPlan(2, PROMPT, 6, Sampling())), prompts()
    (first,) = slots.admit([Prompted(i, i, ids[i]) for i in range(2)]).wait()
    for array in slots._caches.values():
        array.rows(1, 2).write(np.full((1, *array.shape[1:]), np.nan, np.float32))
    (lost,) = slots.step(np.arange(2)).wait()
    assert lost.token_ids[1] == NOT_FINITE
    assert lost.token_ids[0] >= 0
    (again,) = slots.admit([Prompted(1, 1, ids[1])]).wait()
    assert again.token_ids.tolist() == [first.token_ids[1]]


def test_too_many_slots_are_refused_before_they_are_allocated(
    backend: OnnxRuntimeTextCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(0, "GPU-1", "H200", "580", "9.0", 10, 4 << 20)
    monkeypatch.setattr(onnxruntime_text_cuda, "gpu_number", lambda *_, **__: gpu)
    monkeypatch.setattr(backend, "place", Device("cuda"))
    with pytest.raises(RoomError, match=r"H200 has 4.2 MB free and 512 slots need .* would fit") as caught:
        backend.open_text_slots(TextPlan(512, PROMPT, TOKENS, Sampling()))
    assert 0 < caught.value.num_fitting < 512


def test_steps_of_each_width_are_a_graph_of_their_own_and_prompts_are_none(
    backend: OnnxRuntimeTextCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []

    class Recorded(DeviceRun):
        def __init__(self, session: Any, inputs: Any, outputs: Any, graph_id: str = NO_CAPTURE) -> None:
            ids.append(graph_id)
            super().__init__(session, inputs, outputs, graph_id)

    monkeypatch.setattr(device_text_slots, "DeviceRun", Recorded)
    written = [(a, 20, 9, b, c) for a in (6, 8) for b in (30, 31) for c in (40, 41)]
    labels = LabelTrie(list(map(str, written)), written, 2)  # three tokens, then one
    for _ in range(2):
        write(backend, 3, Sampling(), labels)
    assert NO_CAPTURE not in ids
    assert len(ids) == len(set(ids)) == 4


def test_a_provider_that_is_not_there_or_does_not_start_is_one_sentence(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="pip install onnxruntime-gpu"):
        OnnxRuntimeTextCuda(bundle)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(cuda_provider, "preload_libraries", lambda: "Failed to load libcudnn.so.9")
    with pytest.raises(BackendError, match=r"could not start its CUDA provider.*missing \(Failed to load libcudnn"):
        OnnxRuntimeTextCuda(bundle)


def test_steps_that_cannot_be_captured_run_without_and_it_is_said(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []

    def open_session(path: Path, threads: int, place: Device, *, captures: bool = False) -> ort.InferenceSession:
        opened.append(captures)
        return sessions.open_session(path, threads, CPU)

    monkeypatch.setattr(cuda_provider, "open_session", open_session)
    monkeypatch.setattr(cuda_provider, "host_operators", lambda *_: {"TensorScatter": 4})
    for module in (cuda_provider, onnxruntime_text_cuda):
        monkeypatch.setattr(module, "ready_provider", lambda *_: "")
        monkeypatch.setattr(module, "check_started", lambda *_: None)
    found = OnnxRuntimeTextCuda(bundle, threads=1)
    assert opened == [True, False]
    assert "(4 TensorScatter)" in found.remarks[0]
    assert "steps are not captured as a CUDA graph" in found.remarks[1]


def test_auto_takes_it_where_a_gpu_answers_and_says_why_not_elsewhere(
    bundle: Bundle, backend: OnnxRuntimeTextCuda, monkeypatch: pytest.MonkeyPatch, native_library: None
) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: False)
    choice = choose_backend(bundle, threads=1)
    assert isinstance(choice.backend, CpuText)
    assert [one.name for one in choice.reasons] == ["tensorrt", "cuda", "onnxruntime-cuda"]
    assert "no NVIDIA GPU answers" in choice.passed_over()[0]
    assert isinstance(choose_text_backend(bundle, "onnxruntime"), OnnxRuntimeText)
    with pytest.raises(BackendError, match="the backend cuda cannot run here: its kernels are those of LingoCell"):
        choose_text_backend(bundle, "cuda")
    with pytest.raises(BackendError, match="onnxruntime-cuda cannot run here: no NVIDIA GPU"):
        choose_text_backend(bundle, "onnxruntime-cuda")
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "_gpu_problem", lambda _, name, how: "" if name == "onnxruntime-cuda" else "it is ill.")
    monkeypatch.setattr(onnxruntime_text_cuda, "OnnxRuntimeTextCuda", lambda *_, **__: backend)
    assert choose_text_backend(bundle) is backend
    assert choose_backend(bundle, "onnxruntime").name == "onnxruntime-cuda"


def test_doctor_says_of_it_what_it_says_of_other_bundles(
    c2s_bundle: Path, monkeypatch: pytest.MonkeyPatch, native_library: None
) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: False)
    monkeypatch.setattr(device_facts, "has_gpu", lambda: False)
    facts = dict(doctor.examine(bundle=c2s_bundle).facts)
    assert facts["backend cpu"] == "can run here"
    assert "no NVIDIA GPU" in facts["backend onnxruntime-cuda"]
    assert "reads cells as sentences" in facts["backend cuda"]
    assert facts["device"].startswith("CPU, native")
    assert doctor.examine(bundle=c2s_bundle, backend="cuda").problems[0].startswith("the backend cuda cannot run here")


def test_a_bundle_with_an_encoder_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="reads no sentences"):
        OnnxRuntimeTextCuda(replace(bundle, manifest=replace(bundle.manifest, style=None)), CPU)
