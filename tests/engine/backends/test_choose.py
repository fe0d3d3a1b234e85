from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cellscribe.engine.backends import choose, cuda, tensorrt
from cellscribe.engine.backends.choose import (
    CPU,
    NATIVE,
    choose_backend,
    examine_backends,
    open_backend,
    precision_of,
    problem_of,
)
from cellscribe.engine.backends.cpu import CpuBackend
from cellscribe.engine.backends.cuda import CudaBackend
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import BackendError, BundleError, UsageError
from cellscribe.kernels.cpu_library import PATH_VARIABLE, SET_VARIABLE

GPU_BACKENDS = ["tensorrt", "cuda", "onnxruntime-cuda"]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: False)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "")


class Opened:
    device = "a GPU"


def able(monkeypatch: pytest.MonkeyPatch, *names: str, error: Exception | None = None) -> None:
    """Pretend a GPU on which the named backends can run; opening them fails with `error`."""
    opened = choose._open

    def open_(bundle: Bundle, name: str, how: Any) -> object:
        if name in (CPU, NATIVE):
            return opened(bundle, name, how)
        if error is not None:
            raise error
        return Opened()

    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "_gpu_problem", lambda _, name, how: "" if name in names else f"{name} is ill.")
    monkeypatch.setattr(choose, "_open", open_)


def test_without_a_gpu_auto_is_our_library_and_says_why(bundle: Bundle, no_gpu: None, native_library: None) -> None:
    choice = choose_backend(bundle, threads=2)
    assert isinstance(choice.backend, CpuBackend)
    assert (choice.name, choice.backend.threads) == (NATIVE, 2)
    assert [one.name for one in choice.reasons] == GPU_BACKENDS
    assert choice.passed_over() == (
        "passed over tensorrt, cuda, onnxruntime-cuda: no NVIDIA GPU answers; install or update its driver, "
        "and look at CUDA_VISIBLE_DEVICES.",
    )
    assert choice.passed_over(with_gpus=False) == ()
    assert choose_backend(bundle, "onnxruntime").name == CPU
    assert isinstance(open_backend(bundle, CPU), OnnxRuntimeCpu)
    assert isinstance(open_backend(bundle, NATIVE), CpuBackend)
    assert {one.name: bool(one.why) for one in examine_backends(bundle)} == {
        **dict.fromkeys(GPU_BACKENDS, True),
        NATIVE: False,
        CPU: False,
    }


def test_without_our_library_auto_is_onnx_runtime_and_says_why(bundle: Bundle, no_gpu: None, no_library: None) -> None:
    choice = choose_backend(bundle, threads=2)
    assert isinstance(choice.backend, OnnxRuntimeCpu)
    assert (choice.name, choice.backend.threads) == (CPU, 2)
    assert [one.name for one in choice.reasons] == [*GPU_BACKENDS, NATIVE]
    said = "passed over cpu: its library is not there; install cellscribe where a C++ compiler is found."
    assert choice.passed_over()[1:] == choice.passed_over(with_gpus=False) == (said,)
    with pytest.raises(BackendError, match="the backend cpu cannot run here: its library is not there; install"):
        choose_backend(bundle, NATIVE)


def test_a_cpu_without_the_instructions_takes_onnx_runtime(
    bundle: Bundle, no_gpu: None, native_library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SET_VARIABLE, "sse2")
    assert choose_backend(bundle).name == CPU
    with pytest.raises(BackendError, match=r"the backend cpu cannot run here: this CPU lacks AVX2\."):
        choose_backend(bundle, NATIVE)


@pytest.mark.parametrize("precision", ["fp16-stored", "int8", "int4"])
def test_our_library_takes_quantised_bundles(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, native_library: None, precision: Any
) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    quantized = replace(bundle, manifest=replace(bundle.manifest, precision=precision))
    choice = choose_backend(quantized)
    assert choice.name == NATIVE
    assert all("which runs on the CPU" in one.why for one in choice.reasons)


def test_our_library_is_not_asked_about_gpus(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, native_library: None
) -> None:
    for is_gpu in (False, True):
        monkeypatch.setattr(choose, "has_gpu", lambda found=is_gpu: found)
        monkeypatch.setattr(choose, "_gpu_problem", lambda *_: "it is ill.")
        assert problem_of(bundle, NATIVE) == ""
        assert choose_backend(bundle).name == NATIVE


@pytest.mark.parametrize("name", GPU_BACKENDS)
def test_a_backend_that_was_asked_for_and_cannot_run_is_one_sentence(bundle: Bundle, no_gpu: None, name: str) -> None:
    with pytest.raises(BackendError, match=f"the backend {name} cannot run here: no NVIDIA GPU answers") as caught:
        choose_backend(bundle, name)
    assert caught.value.exit_code == 3
    with pytest.raises(UsageError, match="backend is 'gpu'; choose one of auto, tensorrt, cuda"):
        choose_backend(bundle, "gpu")


@pytest.mark.parametrize(
    ("able_ones", "asked", "taken"),
    [
        (GPU_BACKENDS, "auto", "tensorrt"),
        (GPU_BACKENDS[1:], "auto", "cuda"),
        (GPU_BACKENDS[2:], "auto", "onnxruntime-cuda"),
        (GPU_BACKENDS, "onnxruntime", "onnxruntime-cuda"),
        (["tensorrt", "cuda"], "onnxruntime", CPU),
        ([], "auto", NATIVE),
    ],
)
def test_the_best_that_can_run_is_taken(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    native_library: None,
    able_ones: list[str],
    asked: str,
    taken: str,
) -> None:
    able(monkeypatch, *able_ones)
    choice = choose_backend(bundle, asked)
    assert choice.name == taken
    assert all(one.why == f"{one.name} is ill." for one in choice.reasons)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: no kernel\nmore"), ImportError("no torch"), OSError("x")])
def test_auto_survives_whatever_an_optional_backend_raises(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, native_library: None, error: Exception
) -> None:
    able(monkeypatch, *GPU_BACKENDS, error=error)
    choice = choose_backend(bundle)
    assert choice.name == NATIVE
    assert [one.why for one in choice.reasons] == [str(error).split("\n")[0]] * 3
    with pytest.raises(type(error)):
        choose_backend(bundle, "cuda")


def test_a_part_that_is_not_installed_is_a_reason(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "_gpu_problem", missing)
    with pytest.raises(BackendError, match=r"a part of it is not installed \(No module named 'torch'\)"):
        choose_backend(bundle, "cuda")


def test_a_plan_that_is_not_there_is_a_reason(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "torch_problem", lambda: "")
    with pytest.raises(BackendError, match="has no TensorRT plan"):
        choose_backend(bundle, "tensorrt")


def test_a_plan_that_fits_does_not_run_without_a_torch_that_finds_the_gpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "plan_problem", lambda *_: "")
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for built_for, words in ((None, "torch built for CUDA"), ("13.0", "sees no NVIDIA GPU")):
        monkeypatch.setattr(torch.version, "cuda", built_for)
        assert words in problem_of(bundle, "tensorrt")
    monkeypatch.setattr(choose, "find_spec", lambda _: None)
    assert "pip install 'cellscribe[tensorrt]'" in problem_of(bundle, "tensorrt")
    monkeypatch.undo()
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "plan_problem", lambda *_: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert problem_of(bundle, "tensorrt") == ""


def test_device_and_plans_reach_tensorrt(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "torch_problem", lambda: "")
    monkeypatch.setattr(tensorrt.machine, "this_machine", lambda index=0: seen.append(index))
    monkeypatch.setattr(tensorrt.find, "choose_plan", lambda *_, output=None: seen.append(output))
    monkeypatch.setattr(tensorrt, "open_tensorrt", lambda _, **options: seen.append(options) or Opened())
    for name in ("tensorrt", "auto"):
        assert choose_backend(bundle, name, device=1, plans=tmp_path).name == "tensorrt"
    assert seen == [1, tmp_path, {"device": 1, "plans": tmp_path}] * 2


@pytest.mark.parametrize("name", ["cuda", "onnxruntime", "onnxruntime-cuda", NATIVE, CPU])
def test_plans_are_for_tensorrt_alone(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"is for TensorRT and the backend is {name}; leave it out"):
        choose_backend(bundle, name, plans=tmp_path)


@pytest.mark.parametrize("name", ["auto", "tensorrt"])
def test_plans_that_are_not_there_are_refused(bundle: Bundle, tmp_path: Path, no_gpu: None, name: str) -> None:
    with pytest.raises(UsageError, match=r"is .*/nope, which is no folder; name one made by `cellscribe build --out"):
        choose_backend(bundle, name, plans=tmp_path / "nope")


def test_the_gpu_that_was_asked_for_is_the_one_looked_at(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(cuda, "cuda_problems", lambda _, device="cuda": (f"looked at {device}.",))
    assert problem_of(bundle, "cuda", device=1) == "looked at cuda:1."


def test_the_precision_is_the_backends_own_or_the_bundles(bundle: Bundle) -> None:
    assert precision_of(bundle, SimpleNamespace(precision="fp16")) == "fp16"  # type: ignore[arg-type]
    assert precision_of(bundle, OnnxRuntimeCpu(bundle)) == bundle.manifest.precision == "fp32"
    assert CudaBackend.precision.fget(None) == "fp16"  # type: ignore[attr-defined]


def test_a_damaged_bundle_is_not_blamed_on_a_backend(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, no_gpu: None
) -> None:
    def damaged(*_: object) -> None:
        raise BundleError("damaged")

    monkeypatch.setattr(choose, "_open", damaged)
    with pytest.raises(BundleError, match="damaged"):
        choose_backend(bundle)
