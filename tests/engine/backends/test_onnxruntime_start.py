"""How the portable GPU backend starts: providers, libraries, captures; here on the CPU provider."""

from __future__ import annotations

import sys
from typing import Any

import onnxruntime as ort
import pytest

from cellscribe.engine.backends import cuda_provider, device_slots, sessions
from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.cuda_provider import cuda_provider_problem, left_on_host
from cellscribe.engine.backends.device_arrays import NO_CAPTURE, DeviceRun
from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda
from cellscribe.engine.backends.sessions import CPU, Device, host_operators, preload_libraries
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.types import Sampling


@pytest.fixture(scope="module", params=["tiny_bundle", "tiny_bundle_fp16"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(request.getfixturevalue(request.param))


@pytest.fixture
def backend(bundle: Bundle) -> OnnxRuntimeCuda:
    return OnnxRuntimeCuda(bundle, CPU, threads=2)


def test_without_its_provider_one_sentence_says_what_to_install(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="pip install onnxruntime-gpu"):
        OnnxRuntimeCuda(bundle)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(cuda_provider, "has_gpu", lambda: False)
    assert "no NVIDIA GPU answers" in cuda_provider_problem()
    monkeypatch.setattr(cuda_provider, "has_gpu", lambda: True)  # found by the driver, listed by no tool
    assert cuda_provider_problem() == ""


def test_a_provider_that_does_not_start_is_not_taken_for_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(cuda_provider, "preload_libraries", lambda: "Failed to load libcudnn.so.9")
    with pytest.raises(BackendError, match=r"could not start its CUDA provider.*missing \(Failed to load libcudnn"):
        OnnxRuntimeCuda(bundle)


def test_libraries_of_pip_are_loaded_once_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def preload() -> None:
        calls.append(1)
        sys.stdout.write("Failed to load libcudnn.so.9: gone\nmore")

    preload_libraries.cache_clear()
    monkeypatch.setattr(ort, "preload_dlls", preload, raising=False)
    assert [preload_libraries() for _ in range(2)] == ["Failed to load libcudnn.so.9: gone"] * 2
    assert len(calls) == 1
    preload_libraries.cache_clear()
    monkeypatch.delattr(ort, "preload_dlls")
    assert preload_libraries() == ""
    preload_libraries.cache_clear()
    assert capsys.readouterr().out == ""


def test_every_set_of_slots_has_a_graph_of_its_own(backend: OnnxRuntimeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[str] = []

    class Recorded(DeviceRun):
        def __init__(self, session: Any, inputs: Any, outputs: Any, graph_id: str = NO_CAPTURE) -> None:
            ids.append(graph_id)
            super().__init__(session, inputs, outputs, graph_id)

    monkeypatch.setattr(device_slots, "DeviceRun", Recorded)
    for _ in range(3):
        backend.open_slots(SlotPlan(2, 61, 24, Sampling()))
    assert NO_CAPTURE not in ids
    assert len(set(ids)) == 3


REFUSED = (
    "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as requested by the user as all "
    "compute graph nodes have not been partitioned to the CUDAExecutionProvider"
)


@pytest.mark.parametrize(
    ("version", "refusal", "operators", "tries", "words"),
    [
        ((1, 31), "", {}, [True], ""),
        ((1, 31), REFUSED, {}, [True, False], "keeps a part of them on the CPU"),
        ((1, 31), "", {"TensorScatter": 4}, [True, False], "runs a part of them on the CPU"),
        ((1, 29), "", {}, [False], "is older than 1.30"),
    ],
)
def test_steps_that_cannot_be_captured_run_without_and_it_is_said(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int],
    refusal: str,
    operators: dict[str, int],
    tries: list[bool],
    words: str,
) -> None:
    opened: list[bool] = []

    def open_session(path: Any, threads: int, place: Device, *, captures: bool = False) -> ort.InferenceSession:
        opened.append(captures)
        if captures and refusal:
            raise BundleError("cannot be loaded; export it anew.") from RuntimeError(refusal)
        return sessions.open_session(path, threads, CPU)

    backend = OnnxRuntimeCuda(bundle, CPU, threads=2)
    backend.captures = True
    monkeypatch.setattr(cuda_provider, "open_session", open_session)
    monkeypatch.setattr(cuda_provider, "host_operators", lambda *_: operators)
    monkeypatch.setattr(cuda_provider, "_version", lambda: version)
    _ = backend.decoder
    assert opened == tries
    assert backend.captures == tries[-1]
    monkeypatch.setattr(backend, "place", Device("cuda"))
    said = [one for one in backend.remarks if one.startswith("steps are not captured")]
    assert (words in said[0]) if words else not said


def test_a_decoder_that_does_not_load_is_not_taken_for_one_that_cannot_be_captured(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OnnxRuntimeCuda(bundle, CPU, threads=2)
    backend.captures = True

    def open_session(*_: object, **__: object) -> None:
        raise BundleError("it is damaged.") from RuntimeError("Protobuf parsing failed.")

    monkeypatch.setattr(cuda_provider, "open_session", open_session)
    monkeypatch.setattr(cuda_provider, "_version", lambda: (1, 31))
    with pytest.raises(BundleError, match="it is damaged"):
        _ = backend.decoder


def test_operators_left_on_the_host_are_named(backend: OnnxRuntimeCuda) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    path = backend.bundle.path("decoder.onnx")
    found = host_operators(ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), path)
    assert found["TensorScatter"] == 2 * found["Attention"] > 0
    # Shapes belong on the host; the embedding and the masks do not, though operators of the same names make shapes.
    assert "Shape" not in found
    assert found["Gather"] == 1
    assert found["Slice"] >= 1
    assert "decoder.onnx on the CPU (4 TensorScatter)" in left_on_host("decoder.onnx", {"TensorScatter": 4})
    assert left_on_host("decoder.onnx", {}) == ""
