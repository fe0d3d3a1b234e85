"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from building import device_library, emulated_library, has_gpu


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of golden values and real cells; the test is skipped where it is absent."""
    named = os.environ.get("CELLSCRIBE_SHARED")
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(named) if named else beside
    if not (folder / "fixtures").is_dir():
        pytest.skip("no folder of golden values: set CELLSCRIBE_SHARED or put `shared` beside the repository")
    return folder


def _export(tmp_path_factory: pytest.TempPathFactory, **options: str) -> Path:
    """A tiny LingoCell with random weights."""
    pytest.importorskip("torch", reason="the export extra is not installed")
    from cellscribe.export.bundle import export_random

    folder = tmp_path_factory.mktemp("bundles") / "_".join(["tiny", *options.values()])
    export_random("lingocell-tiny", folder, **options)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fp32 bundle, latent cross-attention."""
    return _export(tmp_path_factory, cross_attention="latent")


@pytest.fixture(scope="session")
def tiny_bundle_materialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fp32 bundle, materialised cross-attention."""
    return _export(tmp_path_factory, cross_attention="materialised")


@pytest.fixture(scope="session")
def tiny_bundle_fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fp16 bundle."""
    return _export(tmp_path_factory, cross_attention="latent", precision="fp16")


@pytest.fixture(scope="session")
def tiny_bundle_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with weights of 8 bits."""
    return _export(tmp_path_factory, cross_attention="latent", precision="int8")


@pytest.fixture(scope="session")
def tiny_bundle_int4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with weights of 4 bits and materialised cross-attention."""
    return _export(tmp_path_factory, cross_attention="materialised", precision="int4")


@pytest.fixture(scope="session")
def emulated_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of kernels, compiled for the emulator."""
    return emulated_library(tmp_path_factory.mktemp("kernels") / "emulated.so")


@pytest.fixture(scope="session")
def device_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of kernels, compiled for the GPU of this machine; the test is skipped where there is none."""
    if not has_gpu():
        pytest.skip("needs an NVIDIA GPU")
    return device_library(tmp_path_factory.mktemp("kernels") / "device.so")


@pytest.fixture(scope="session")
def native_library() -> None:
    """Skip the test where the native CPU library was not built, or does not run."""
    from cellscribe.engine.backends.cpu import cpu_problem

    problem = cpu_problem()
    if problem:
        pytest.skip(f"no native CPU library: {problem}")


@pytest.fixture(scope="session")
def c2s_bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the golden GPT-NeoX, whose weights are random and whose context holds 1,024 tokens."""
    pytest.importorskip("torch", reason="the export extra is not installed")
    from cellscribe.export.bundle import export_checkpoint

    out = tmp_path_factory.mktemp("c2s") / "neox"
    export_checkpoint(shared / "fixtures" / "c2s_neox" / "model", out, family="c2s")
    return out
