"""Backends for GPUs do not know quantised bundles, and say so whatever else keeps them from running."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from cellscribe.engine.backends import cuda_provider
from cellscribe.engine.backends.choose import problem_of
from cellscribe.engine.backends.cuda.backend import shape_problems
from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import BackendError, PlanError
from cellscribe.engine.packaged import packaged_bundle

SAID = "is int4, which runs on the CPU; GPUs take its fp16 or fp32 bundle"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    opened = open_bundle(packaged_bundle())
    return replace(opened, manifest=replace(opened.manifest, precision="int4"))


@pytest.mark.parametrize("name", ["tensorrt", "cuda", "onnxruntime-cuda"])
def test_no_gpu_backend_is_chosen(bundle: Bundle, name: str) -> None:
    assert SAID in problem_of(bundle, name)


def test_the_cpu_takes_it(bundle: Bundle, native_library: None) -> None:
    assert problem_of(bundle, "onnxruntime-cpu") == problem_of(bundle, "cpu") == ""


def test_our_kernels_refuse_it(bundle: Bundle) -> None:
    (sentence,) = shape_problems(bundle)
    assert SAID in sentence


def test_onnx_runtime_refuses_it_on_a_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_provider, "ort", SimpleNamespace())  # nothing of it is touched before
    with pytest.raises(BackendError, match=SAID):
        OnnxRuntimeCuda(bundle, threads=1)


def test_no_plan_is_built_of_it(bundle: Bundle) -> None:
    pytest.importorskip("torch", reason="the export extra is not installed")
    pytest.importorskip("onnx", reason="the export extra is not installed")
    from cellscribe.export.tensorrt import build_plans

    with pytest.raises(PlanError, match=SAID):
        build_plans(bundle, "rtx4090")
