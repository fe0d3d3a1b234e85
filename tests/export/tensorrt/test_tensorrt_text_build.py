"""Decoders without an encoder through the real parser and builder of TensorRT for RTX, for the RTX 4090, without a GPU.

Execution is not tested here: that needs the card.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from causal_bundles import CONFIGS, bundle_of

from cellscribe.engine.backends.tensorrt.machine import Machine
from cellscribe.engine.backends.tensorrt.plan import text_capacity
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.bundle.load import DECODER
from cellscribe.engine.errors import PlanError, UsageError
from cellscribe.export.tensorrt import build_plans
from cellscribe.export.tensorrt.graph import prepared
from cellscribe.export.tensorrt.profiles import profiles, shapes
from cellscribe.export.trace import cache_names

NO_GPU = Machine(problem="no GPU at all")


def opened_again(bundle: Bundle, capacity: int, precision: str) -> onnx.ModelProto:
    """Return the graph as TensorRT gets it, with its weights."""
    with prepared(bundle, DECODER, capacity, precision=precision) as graph:
        model = onnx.ModelProto()
        model.ParseFromString(graph.serialised)
        onnx.load_external_data_for_model(model, str(graph.path.parent))
    return model


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed (the tensorrt extra)")
@pytest.mark.parametrize(
    ("kind", "stored", "built"),
    [("gpt2", "fp32", "fp16"), ("gpt2", "fp32", "fp32"), ("neox", "fp16", "fp16"), ("gemma2", "fp32", "fp16")],
)
def test_it_builds_for_the_4090(kind: str, stored: str, built: str, tmp_path: Path) -> None:
    bundle = bundle_of(kind, stored, tmp_path / "bundle")
    home = tmp_path / "plans"
    report = build_plans(bundle, "rtx4090", slots=6, max_new_tokens=20, precision=built, output=home, machine=NO_GPU)
    recipe = report.plan.recipe
    assert recipe.reads_sentences
    assert (recipe.compute_capability, recipe.precision, recipe.slots) == (89, built, 6)
    assert (recipe.prompt_len, recipe.max_new_tokens, recipe.capacity) == (140, 20, text_capacity(140, 20))
    assert set(report.plan.files) == {"decoder.plan"}
    again = build_plans(bundle, "rtx4090", slots=6, max_new_tokens=20, precision=built, output=home, machine=NO_GPU)
    assert again.reused


@pytest.mark.parametrize(
    ("kind", "built", "atol"), [("gemma2", "fp32", 2e-5), ("gpt2", "fp32", 2e-5), ("gemma2", "fp16", 0.03)]
)
def test_the_graph_that_tensorrt_gets_computes_what_the_bundles_does(
    kind: str, built: str, atol: float, tmp_path: Path
) -> None:
    """Attention written as single operators, with caps, a window and grouped heads; and all of it rounded."""
    bundle, capacity, config = bundle_of(kind, "fp32", tmp_path / "bundle"), 48, CONFIGS[kind]
    model = opened_again(bundle, capacity, built)
    assert not any(node.op_type == "Attention" for node in model.graph.node)
    random = np.random.default_rng(0)
    caches = {
        name: random.normal(size=(3, config.n_kv_heads, capacity, config.d_head)).astype(np.float32)
        for name in cache_names(config.n_layers)
    }
    positions = np.array([[0, 1, 2], [30, 31, 32], [5, 6, 7]])
    place = np.arange(capacity)
    mask = place <= positions[:, :, None]
    feed = {
        "tokens": random.integers(0, 99, (3, 3)),
        "positions": positions,
        "mask": mask,
        "chosen": np.array([[2]] * 3),
    }
    if config.window:
        feed["near"] = mask & (place > positions[:, :, None] - config.window)
    half = np.float16 if built == "fp16" else np.float32
    wanted = ort.InferenceSession(str(bundle.path(DECODER))).run(["logits", "states", "new_key.1"], feed | caches)
    session = ort.InferenceSession(model.SerializeToString())
    found = session.run(
        ["logits", "states", "new_key.1"], feed | {name: array.astype(half) for name, array in caches.items()}
    )
    assert [one.dtype for one in found] == [np.float32, np.float32, half]
    assert np.abs(wanted[0]).max() > 0.5
    for one, other, scale in zip(found, wanted, (1, 4, 4), strict=True):
        np.testing.assert_allclose(one, other, atol=atol * scale)


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed (the tensorrt extra)")
def test_profiles_hold_steps_of_a_few_tokens_and_pieces_of_one_prompt(tmp_path: Path) -> None:
    bundle = bundle_of("neox", "fp16", tmp_path / "bundle")
    report = build_plans(bundle, "sm_89", slots=5, max_new_tokens=20, prompt_tokens=60, output=tmp_path, machine=NO_GPU)
    recipe = report.plan.recipe
    assert f"-t20-p60-cu13-{recipe.hash[:8]}" in report.plan.folder.name
    step, prompt = profiles(DECODER, recipe)
    with prepared(bundle, DECODER, recipe.capacity) as graph:
        assert shapes("tokens", graph.inputs["tokens"], step) == ((1, 1), (5, 1), (5, 8))
        assert shapes("mask", graph.inputs["mask"], prompt) == ((1, 16, 96), (1, 64, 96), (1, 64, 96))
        assert shapes("chosen", graph.inputs["chosen"], prompt)[2] == (1, 1)
        assert shapes("key.1", graph.inputs["key.1"], step)[2] == (5, 4, 96, 16)


def test_options_of_the_other_kind_of_bundle_are_refused(tmp_path: Path, tiny_bundle_fp16: Path) -> None:
    bundle = bundle_of("neox", "fp16", tmp_path / "bundle")
    for options, said in (
        ({"genes": 100}, "--genes is for bundles with an encoder"),
        ({"precision": "int8"}, "choose fp16 or fp32"),
        ({"prompt_tokens": 150}, "160 positions, too few for a prompt of 150 and 96 new tokens"),
        ({"max_new_tokens": 160}, "too few"),
        ({"slots": 0}, "slots is 0"),
    ):
        with pytest.raises(UsageError, match=said):
            build_plans(bundle, "rtx4090", output=tmp_path, machine=NO_GPU, **options)
    with pytest.raises(PlanError, match="is fp16; fp32 plans are built from fp32 ones"):
        build_plans(bundle, "rtx4090", precision="fp32", output=tmp_path, machine=NO_GPU)
    with pytest.raises(PlanError, match="are built by TensorRT 11"):
        build_plans(bundle, "h100", output=tmp_path, machine=NO_GPU)
    tiny = open_bundle(tiny_bundle_fp16)
    for options in ({"prompt_tokens": 100}, {"precision": "fp32"}):
        with pytest.raises(UsageError, match="is for bundles that read cells as sentences"):
            build_plans(tiny, "rtx4090", output=tmp_path, machine=NO_GPU, **options)
