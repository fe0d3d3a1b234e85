"""Upstream's way in torch must label and embed as the engine does from the same weights, or its times mean nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

pytest.importorskip("torch", reason="the export extra is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from peers.langcell_cells import labels  # noqa: E402
from peers.ours_langcell import OurLangCell  # noqa: E402
from peers.seed_langcell import SeedLangCell  # noqa: E402

from cellscribe.engine.packaged import packaged_cells  # noqa: E402

CELLS = 5


@pytest.fixture(scope="module")
def engines(tiny_langcell: Path) -> tuple[SeedLangCell, OurLangCell]:
    theirs, ours = SeedLangCell(), OurLangCell()
    theirs.do_open("langcell-tiny")
    ours.do_open(str(tiny_langcell), backend="onnxruntime-cpu")
    return theirs, ours


@pytest.mark.parametrize("rerank", ["all", "sure"])
def test_labels_are_the_same(engines: tuple[SeedLangCell, OurLangCell], rerank: str) -> None:
    theirs, ours = engines
    path, names = str(packaged_cells()), labels(12)
    wanted = theirs.do_label(path, CELLS, names, batch=2)
    found = ours.do_label(path, CELLS, names, rerank=rerank)
    for mine, other, lead in zip(found["tokens"], wanted["tokens"], wanted["margins"], strict=True):
        assert mine == other or lead[0] < 1e-5
    if rerank == "all":
        np.testing.assert_allclose(found["scores"], wanted["scores"], atol=1e-5)
    assert len({round(one, 6) for one in wanted["scores"]}) > 1
    assert found["matched"] <= CELLS * len(names)


def test_vectors_are_the_same(engines: tuple[SeedLangCell, OurLangCell], tmp_path: Path) -> None:
    vectors = []
    for i, one in enumerate(engines):
        one.do_embed(str(packaged_cells()), CELLS, batch=2, save=str(tmp_path / f"{i}.npy"))
        vectors.append(np.load(tmp_path / f"{i}.npy"))
    np.testing.assert_allclose(vectors[1], vectors[0], atol=1e-5)


def test_labels_are_as_many_as_asked_for() -> None:
    assert len(set(labels(161))) == 161
    with pytest.raises(ValueError, match="162 labels are asked for"):
        labels(162)
