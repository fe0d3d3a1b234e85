"""Why a bundle or a machine cannot use the CUDA backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import BackendError

torch = pytest.importorskip("torch", reason="the CUDA backend needs torch")
from cellscribe.engine.backends.cuda import CudaBackend  # noqa: E402
from cellscribe.engine.backends.cuda.backend import shape_problems  # noqa: E402


def test_without_a_gpu_the_reason_is_one_sentence(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"^[^.]*\.[^.]*$|GPU|nvcc"):
        CudaBackend(open_bundle(tiny_bundle))


def test_sizes_that_the_kernels_are_not_built_for_are_named(tiny_bundle: Path, emulated_kernels: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    cross = bundle.manifest.cross_attention
    assert cross is not None
    odd = replace(bundle, manifest=replace(bundle.manifest, cross_attention=replace(cross, d_memory=96, d_head=20)))
    problems = shape_problems(odd)
    assert len(problems) == 2
    assert "20" in problems[0]
    assert "96 wide" in problems[1]
    with pytest.raises(BackendError, match="96 wide"):
        CudaBackend(odd, "cpu", emulated_kernels)
