"""Cells and texts matched through plans, against a TensorRT that computes with ONNX Runtime.

What this proves is the logic, not TensorRT: that needs the card.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_device import FakeDevice
from fake_plans import make_match_plan, open_fake_match

from cellscribe.engine.backends.onnxruntime_match import OnnxRuntimeMatch
from cellscribe.engine.backends.tensorrt.match import TensorRTMatch
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import PlanError

CELLS = [np.concatenate(([25426], np.arange(2 + n, 2 + 2 * n))) for n in (3, 40, 300, 41, 7)]
TEXTS = [np.array([2, *range(5, 5 + n), 3]) for n in (1, 9, 20, 9, 30, 2, 3)]


@pytest.fixture(scope="module")
def bundle(tiny_langcell: Path) -> Bundle:
    return open_bundle(tiny_langcell)


@pytest.fixture(scope="module")
def plans(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> TensorRTMatch:
    return open_fake_match(bundle, make_match_plan(bundle, tmp_path_factory.mktemp("plans")))


def test_vectors_and_matches_are_those_of_the_cpu(bundle: Bundle, plans: TensorRTMatch) -> None:
    cpu = OnnxRuntimeMatch(bundle, 2)
    texts = [one.encode_texts(TEXTS) for one in (cpu, plans)]
    np.testing.assert_allclose(texts[1].vectors, texts[0].vectors, atol=1e-5)
    cells = [list(one.encode_cells(CELLS, keeps_states=True)) for one in (cpu, plans)]
    for mine, theirs in zip(cells[1], cells[0], strict=True):
        np.testing.assert_allclose(mine.vector, theirs.vector, atol=1e-5)
        for chosen in (np.arange(7), np.array([4, 0, 6])):
            found, wanted = plans.match(mine, texts[1], chosen), cpu.match(theirs, texts[0], chosen)
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert plans.device.startswith("a fake device") or plans.device


def test_what_a_plan_does_not_hold_is_one_sentence(bundle: Bundle, plans: TensorRTMatch) -> None:
    with pytest.raises(
        PlanError, match=r"holds 512 tokens per cell and 600 are asked for; build one with .*--genes 600"
    ):
        next(plans.encode_cells([np.arange(600)]))
    with pytest.raises(PlanError, match=r"holds 64 tokens per text and 65 are asked for; .*--prompt-tokens 65"):
        plans.encode_texts([np.arange(65)])


def test_the_largest_plan_is_opened(bundle: Bundle, tmp_path: Path) -> None:
    small = make_match_plan(bundle, tmp_path / "a", genes=256)
    large = make_match_plan(bundle, tmp_path / "b", genes=1024)
    assert open_fake_match(bundle, small, large, device=FakeDevice()).plan == large
