"""Bundles through the real parser and builder of TensorRT for RTX, for the RTX 4090, without a GPU.

Execution is not tested here: that needs the card.
"""

from __future__ import annotations

import _thread
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from cellscribe.engine.backends.tensorrt.log import listening, logger_of
from cellscribe.engine.backends.tensorrt.machine import Machine
from cellscribe.engine.backends.tensorrt.products import require
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.load import DECODER, ENCODER
from cellscribe.engine.errors import PlanError
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.export.bundle import export_random
from cellscribe.export.tensorrt import build as building
from cellscribe.export.tensorrt import build_plans
from cellscribe.export.tensorrt.graph import Graph, prepared
from cellscribe.export.tensorrt.network import build_plan, check_network
from cellscribe.export.tensorrt.profiles import profiles, shapes
from cellscribe.export.tensorrt.progress import Watcher, interruptible
from cellscribe.export.tensorrt.target import parse_target

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (the tensorrt extra)")

NO_GPU = Machine(problem="no GPU at all")
SLOTS = 96


@pytest.fixture(scope="module")
def slice_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two layers of lingocell-1.1b in float16, without the reference and prefix that a build does not read."""
    import torch

    from cellscribe.export.describe_manifest import manifest_of
    from cellscribe.export.graphs import DecoderGraph, EncoderGraph
    from cellscribe.export.random_model import random_parts
    from cellscribe.export.trace import trace_decoder, trace_encoder

    folder = tmp_path_factory.mktemp("slice")
    parts = replace(random_parts("lingocell-1.1b-slice", 0), form="latent")
    with torch.no_grad():
        trace_encoder(EncoderGraph(parts.encoder.half()), folder / ENCODER)
        assert parts.decoder is not None
        decoder = parts.decoder.half()
        decoder.restore_tables()
        trace_decoder(DecoderGraph(decoder, "latent").to(torch.float16), folder / DECODER, torch.float16)
    files = {path.name: record(path) for path in folder.iterdir()}
    return Bundle(folder, replace(manifest_of(parts, "fp16", "slice"), files=files), "")


def recipe_of(bundle: Bundle, **changes: Any) -> Any:
    target = parse_target("rtx4090", NO_GPU)
    options = {"slots": SLOTS, "max_new_tokens": 96, "genes": None, "outputs": ("evidence",)} | changes
    return building._recipe(bundle, target, NO_GPU, require("rtx"), *options.values())


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [("evidence",), (), ("evidence", "attention")])
def test_a_slice_of_the_full_size_model_builds_for_the_4090(
    slice_bundle: Bundle, tmp_path: Path, outputs: tuple[str, ...]
) -> None:
    shares: list[tuple[str, float]] = []
    report = build_plans(
        slice_bundle,
        "rtx4090",
        slots=SLOTS,
        outputs=outputs,
        output=tmp_path,
        progress=lambda name, share: shares.append((name, share)),
    )
    recipe = report.plan.recipe
    assert (recipe.compute_capability, recipe.slots, recipe.outputs) == (89, SLOTS, outputs)
    assert set(report.plan.files) == {"encoder.plan", "decoder.plan"}
    assert report.plan.files["decoder.plan"].bytes > 400e6
    decoder = [share for name, share in shares if name == "decoder.plan"]
    assert decoder == sorted(decoder)
    assert len(decoder) > 10
    assert decoder[-1] == 1.0


@pytest.mark.parametrize("outputs", [("evidence",), ()])
def test_the_packaged_bundle_builds_although_it_is_fp32_and_read_only(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    folder = Path(shutil.copytree(packaged_bundle(), tmp_path / "demo"))
    bundle = open_bundle(folder)
    before = {path.name: record(path) for path in folder.iterdir()}
    report = build_plans(bundle, "rtx4090", slots=SLOTS, outputs=outputs, output=tmp_path / "plans")
    assert report.plan.recipe.outputs == outputs
    assert report.plan.folder.parent == tmp_path / "plans"
    assert report.plan.recipe.precision == "fp16"
    assert {path.name: record(path) for path in folder.iterdir()} == before


def test_plans_lie_in_the_bundle_are_reused_and_are_built_anew_when_stale(
    tiny_bundle_fp16: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bundle_fp16, tmp_path / "bundle"))
    bundle = open_bundle(folder)
    first = build_plans(bundle, "sm_89", slots=4)
    genes = bundle.manifest.cells.num_genes + 1
    assert first.plan.folder == folder / "plans" / first.plan.recipe.folder_name
    assert first.plan.folder.name.startswith(f"gpu-sm89-rtx{trt.__version__}-fp16-b4-t96-g{genes}-")
    assert not first.reused
    again = build_plans(open_bundle(folder), "sm_89", slots=4)
    assert again.reused
    assert "up to date" in again.lines()[0]
    longer = build_plans(bundle, "sm_89", slots=4, max_new_tokens=97)
    assert not longer.reused
    assert longer.plan.recipe.max_new_tokens == 97
    (longer.plan.folder / "encoder.plan").write_bytes(b"damaged")
    assert not build_plans(bundle, "sm_89", slots=4, max_new_tokens=97).reused
    assert {path.name for path in (folder / "plans").iterdir()} == {first.plan.folder.name, longer.plan.folder.name}


@pytest.mark.slow
def test_plans_of_two_bundles_share_a_folder(tiny_bundle_fp16: Path, tmp_path: Path) -> None:
    """They have the same sizes, and are told apart by their graphs."""
    home, other = tmp_path / "plans", tmp_path / "other"
    export_random("lingocell-tiny", other, precision="fp16", cross_attention="latent", seed=1)
    bundles = [open_bundle(tiny_bundle_fp16), open_bundle(other)]
    built = [build_plans(bundle, "sm_89", slots=2, output=home) for bundle in bundles]
    assert {path.name for path in home.iterdir()} == {one.plan.folder.name for one in built}
    assert len({one.plan.folder.name for one in built}) == 2
    for bundle, one in zip(bundles, built, strict=True):
        assert f"{one.plan.folder}: " in one.lines()[0]
        again = build_plans(bundle, "sm_89", slots=2, output=home)
        assert again.reused
        assert again.plan == one.plan


@pytest.mark.parametrize("name", ["tiny_bundle", "tiny_bundle_fp16", "tiny_bundle_materialised"])
def test_inputs_and_outputs_of_the_parsed_network_are_the_bundles(name: str, request: pytest.FixtureRequest) -> None:
    bundle = open_bundle(request.getfixturevalue(name))
    for graph_name in (n for n in bundle.manifest.files if n.endswith(".onnx")):
        with prepared(bundle, graph_name, 186) as graph, listening(trt):
            network, _parser = parsed(graph)
            check_network(require("rtx"), network, graph)
            stored = onnx.load(str(bundle.path(graph_name)), load_external_data=False).graph
            assert sorted(graph.inputs) == sorted(v.name for v in stored.input)
            assert sorted(graph.outputs) == sorted(v.name for v in stored.output)
            wide = {n for n, v in (graph.inputs | graph.outputs).items() if v.dtype == "FLOAT"}
            assert wide <= {"values", "cell", "logits", "evidence", "attention"}


def parsed(graph: Graph) -> tuple[Any, Any]:
    network = trt.Builder(logger_of(trt)).create_network(0)
    parser = trt.OnnxParser(network, logger_of(trt))
    assert parser.parse(graph.serialised, str(graph.path))
    return network, parser


def test_profiles_hold_every_batch_up_to_the_slots(tiny_bundle_fp16: Path) -> None:
    bundle = open_bundle(tiny_bundle_fp16)
    recipe = recipe_of(bundle)
    with prepared(bundle, DECODER, recipe.capacity) as graph:
        step, prompt = profiles(DECODER, recipe)
        assert shapes("hidden", graph.inputs["hidden"], step) == ((1, 0, 64), (96, 0, 64), (96, 0, 64))
        known = recipe.prompt_len - 1
        assert shapes("hidden", graph.inputs["hidden"], prompt)[2] == (8, known, 64)
        assert shapes("mask", graph.inputs["mask"], prompt)[2] == (8, known + 1, recipe.capacity)
        assert recipe.capacity % 8 == 0
        assert 0 <= recipe.capacity - (known + 97) < 8
        assert shapes("memory", graph.inputs["memory"], step)[0] == (1, 1, 64)


def test_an_input_that_tensorrt_does_not_use_is_an_error(tiny_bundle_fp16: Path) -> None:
    """The parser drops the lengths of ``nonpad_kv_seqlen``: without this check padding would be attended to."""
    model = onnx.ModelProto()
    bundle = open_bundle(tiny_bundle_fp16)
    recipe = recipe_of(bundle)
    with prepared(bundle, DECODER, recipe.capacity) as graph:
        model.ParseFromString(graph.serialised)
        lengths = onnx.helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["batch"])
        model.graph.input.append(lengths)
        attention = next(node for node in model.graph.node if node.op_type == "Attention")
        attention.input.extend([""] * (6 - len(attention.input)) + ["lengths"])
        inputs = graph.inputs | {"lengths": replace(graph.inputs["tokens"], shape=("batch",))}
        with pytest.raises(PlanError, match=r"unused|cannot read"):
            build_plan(
                require("rtx"), replace(graph, serialised=model.SerializeToString(), inputs=inputs), recipe, Watcher()
            )


def test_a_graph_that_cannot_be_read_is_refused_in_one_sentence(tiny_bundle_fp16: Path) -> None:
    bundle, model = open_bundle(tiny_bundle_fp16), onnx.ModelProto()
    recipe = recipe_of(bundle)
    with prepared(bundle, DECODER, recipe.capacity) as graph:
        model.ParseFromString(graph.serialised)
        next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Nonsense"
        with pytest.raises(
            PlanError, match=r"cannot read decoder.onnx \(Nonsense .*; export the bundle anew"
        ) as caught:
            build_plan(require("rtx"), replace(graph, serialised=model.SerializeToString()), recipe, Watcher())
    assert "\n" not in str(caught.value)


def test_a_build_can_be_stopped(tiny_bundle_fp16: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    seen = []

    def stop(share: float) -> None:
        seen.append(share)
        watcher.cancelled = True

    watcher._report = stop
    bundle = open_bundle(tiny_bundle_fp16)
    recipe = recipe_of(bundle)
    with prepared(bundle, DECODER, recipe.capacity) as graph, pytest.raises(KeyboardInterrupt):
        build_plan(require("rtx"), graph, recipe, watcher)
    assert seen[-1] < 0.5


def test_nothing_is_left_behind_when_a_build_fails(
    tiny_bundle_fp16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "build_plan", fail)
    with pytest.raises(KeyboardInterrupt):
        build_plans(open_bundle(tiny_bundle_fp16), "rtx4090", output=tmp_path / "plans")
    assert list((tmp_path / "plans").iterdir()) == []


def test_an_interrupt_waits_for_the_builder() -> None:
    """Were it raised at once, the process would end under TensorRT's threads and abort."""
    watcher, ended = Watcher(), []

    def work() -> None:
        while not watcher.cancelled:
            time.sleep(0.01)
        time.sleep(0.2)
        ended.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    try:
        threading.Timer(0.1, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            interruptible(work, watcher)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]
