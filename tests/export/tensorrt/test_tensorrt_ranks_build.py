"""Bundles that read ranks through the real parser and builder of TensorRT for RTX, for the RTX 4090, without a GPU.

Execution is not tested here: that needs the card.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from sharing import made_once

from cellscribe.engine.backends.tensorrt.machine import Machine
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import PlanError, UsageError
from cellscribe.export.tensorrt import build_plans

NO_GPU = Machine(problem="no GPU at all")

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed (the tensorrt extra)"
)


@pytest.fixture(scope="module")
def half_langcell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cellscribe.export.bundle import export_random

    return made_once(
        tmp_path_factory, "tiny-langcell-fp16", lambda at: export_random("langcell-tiny", at, precision="fp16")
    )


def test_it_builds_for_the_4090(half_langcell: Path, tmp_path: Path) -> None:
    bundle = open_bundle(half_langcell)
    report = build_plans(bundle, "rtx4090", slots=16, genes=512, output=tmp_path, machine=NO_GPU)
    recipe = report.plan.recipe
    assert set(report.plan.files) == {"encoder.plan", "text.plan", "keys.plan", "match.plan"}
    assert (recipe.compute_capability, recipe.precision, recipe.slots, recipe.genes) == (89, "fp16", 16, 512)
    assert recipe.prompt_len == 256
    assert not recipe.reads_sentences
    assert build_plans(bundle, "rtx4090", slots=16, genes=512, output=tmp_path, machine=NO_GPU).reused


def test_what_cannot_be_built_is_one_sentence(half_langcell: Path, tiny_langcell: Path, tmp_path: Path) -> None:
    bundle = open_bundle(half_langcell)
    with pytest.raises(PlanError, match="built from fp16 bundles: export it again with --precision fp16"):
        build_plans(open_bundle(tiny_langcell), "rtx4090", output=tmp_path, machine=NO_GPU)
    with pytest.raises(UsageError, match=r"--genes is 4096; the bundle .* has 2048 positions"):
        build_plans(bundle, "rtx4090", genes=4096, output=tmp_path, machine=NO_GPU)
    with pytest.raises(UsageError, match=r"--prompt-tokens is 600; the bundle .* has 512 positions"):
        build_plans(bundle, "rtx4090", prompt_tokens=600, output=tmp_path, machine=NO_GPU)
    with pytest.raises(UsageError, match="plans of bundles that read ranks are fp16"):
        build_plans(bundle, "rtx4090", precision="fp32", output=tmp_path, machine=NO_GPU)
    assert not list(tmp_path.iterdir())
