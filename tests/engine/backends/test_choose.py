from __future__ import annotations

from pathlib import Path

import pytest

from cellscribe.engine.backends import choose
from cellscribe.engine.backends.choose import CPU, choose_backend, examine_backends, open_backend
from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import BackendError, BundleError, UsageError

GPU_BACKENDS = ["tensorrt", "cuda", "onnxruntime-cuda"]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_gpu", lambda: False)


class Opened:
    device = "a GPU"


def able(monkeypatch: pytest.MonkeyPatch, *names: str, error: Exception | None = None) -> None:
    """Pretend a GPU on which the named backends can run; opening them fails with `error`."""
    opened = choose._open

    def open_(bundle: Bundle, name: str, threads: int | None, device: int) -> object:
        if name == CPU:
            return opened(bundle, name, threads, device)
        if error is not None:
            raise error
        return Opened()

    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(choose, "_gpu_problem", lambda _, name: "" if name in names else f"{name} is ill.")
    monkeypatch.setattr(choose, "_open", open_)


def test_without_a_gpu_auto_is_the_cpu_and_says_why(bundle: Bundle, no_gpu: None) -> None:
    choice = choose_backend(bundle, threads=2)
    assert isinstance(choice.backend, OnnxRuntimeCpu)
    assert (choice.name, choice.backend.threads) == (CPU, 2)
    assert [one.name for one in choice.reasons] == GPU_BACKENDS
    assert choice.passed_over() == (
        "passed over tensorrt, cuda, onnxruntime-cuda: no NVIDIA GPU answers; install or update its driver, "
        "and look at CUDA_VISIBLE_DEVICES.",
    )
    assert choose_backend(bundle, "onnxruntime").name == CPU
    assert isinstance(open_backend(bundle, CPU), OnnxRuntimeCpu)
    assert {one.name: bool(one.why) for one in examine_backends(bundle)} == {
        **dict.fromkeys(GPU_BACKENDS, True),
        CPU: False,
    }


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
        ([], "auto", CPU),
    ],
)
def test_the_best_that_can_run_is_taken(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, able_ones: list[str], asked: str, taken: str
) -> None:
    able(monkeypatch, *able_ones)
    choice = choose_backend(bundle, asked)
    assert choice.name == taken
    assert all(one.why == f"{one.name} is ill." for one in choice.reasons)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: no kernel\nmore"), ImportError("no torch"), OSError("x")])
def test_auto_survives_whatever_an_optional_backend_raises(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    able(monkeypatch, *GPU_BACKENDS, error=error)
    choice = choose_backend(bundle)
    assert choice.name == CPU
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
    with pytest.raises(BackendError, match="has no TensorRT plan"):
        choose_backend(bundle, "tensorrt")


def test_a_damaged_bundle_is_not_blamed_on_a_backend(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, no_gpu: None
) -> None:
    def damaged(*_: object) -> None:
        raise BundleError("damaged")

    monkeypatch.setattr(choose, "_open", damaged)
    with pytest.raises(BundleError, match="damaged"):
        choose_backend(bundle)
