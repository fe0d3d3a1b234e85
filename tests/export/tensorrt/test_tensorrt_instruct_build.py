"""Bundles that follow instructions through the real parser and builder of TensorRT for RTX, for the RTX 4090.

Execution is not tested here: that needs the card.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cellscribe.engine.backends.tensorrt.machine import Machine
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import PlanError, UsageError
from cellscribe.export.tensorrt import build_plans

NO_GPU = Machine(problem="no GPU at all")

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed (the tensorrt extra)"
)


def test_it_builds_for_the_4090(instruct_bundle_fp16: Path, tmp_path: Path) -> None:
    bundle = open_bundle(instruct_bundle_fp16)
    given: dict[str, Any] = {"slots": 8, "prompt_tokens": 128, "max_new_tokens": 32, "output": tmp_path}
    plan = build_plans(bundle, "rtx4090", machine=NO_GPU, **given).plan
    assert set(plan.files) == {"tower.plan", "encoder.plan", "cross.plan", "decoder.plan"}
    recipe = plan.recipe
    assert (recipe.compute_capability, recipe.precision, recipe.slots, recipe.genes) == (89, "fp16", 8, 500)
    assert (recipe.prompt_len, recipe.capacity, recipe.encode_batch) == (128, 48, 16)
    assert not recipe.reads_sentences
    assert build_plans(bundle, "rtx4090", machine=NO_GPU, **given).reused


def test_what_cannot_be_built_is_one_sentence(
    instruct_bundle: Path, instruct_bundle_fp16: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(instruct_bundle_fp16)
    with pytest.raises(PlanError, match="built from fp16 bundles: export it again with --precision fp16"):
        build_plans(open_bundle(instruct_bundle), "rtx4090", output=tmp_path, machine=NO_GPU)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"genes": 501}, r"--genes is 501; the bundle .* reads 500, choose no more"),
        ({"prompt_tokens": 8}, r"--prompt-tokens is 8; .* 8 of them for the cell"),
        ({"prompt_tokens": 4096}, r"--prompt-tokens is 4096; .* up to 2,048"),
        ({"precision": "fp32"}, "plans of bundles that follow instructions are fp16"),
    )
    for changes, message in cases:
        with pytest.raises(UsageError, match=message):
            build_plans(bundle, "rtx4090", output=tmp_path, machine=NO_GPU, **changes)
    assert not list(tmp_path.iterdir())
