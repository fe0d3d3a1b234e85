"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and real cells, or a skip where it is absent."""
    for folder in (os.environ.get("CELLSCRIBE_SHARED", ""), ROOT.parent / "shared", ROOT / "shared"):
        if folder and (Path(folder) / "fixtures").is_dir():
            return Path(folder)
    pytest.skip("needs the golden values: put `shared` beside the repository, or set CELLSCRIBE_SHARED")


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
