"""Latent cross-attention as one node: what it computes, where it is found, and who else reads the graph."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper

from cellscribe.export.fused import fuse_file, fuse_latent_cross, without_attention
from cellscribe.export.graphs import DecoderGraph
from cellscribe.export.latent_node import DOMAIN, DOMAIN_VERSION, OPERATOR, latent_function, latent_node
from cellscribe.export.random_model import random_parts
from cellscribe.export.trace import trace_decoder
from cellscribe.kernels.reference.latent_cross import latent_cross_attention

Arrays = dict[str, np.ndarray]
CAPACITY, LAYERS = 120, 2


@pytest.fixture(scope="module")
def plain_fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An fp16 decoder as it is traced, not fused."""
    path = tmp_path_factory.mktemp("plain") / "decoder.onnx"
    decoder = random_parts("lingocell-tiny", seed=0).decoder
    assert decoder is not None
    decoder.half().restore_tables()
    trace_decoder(DecoderGraph(decoder, "latent").half(), path, torch.float16)
    return path


def load(path: Path) -> ModelProto:
    return onnx.load(str(path))


def session(model: ModelProto) -> ort.InferenceSession:
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def inputs(model: ModelProto, slots: int, tokens: int, known: int, genes: int) -> Arrays:
    """Draw a value for every input, padding in the memory included."""
    random = np.random.default_rng(0)
    total = known + tokens
    varying = {"batch": slots, "tokens": tokens, "known": known, "genes": genes, "capacity": CAPACITY}
    feed: Arrays = {}
    for value in model.graph.input:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = [d.dim_value or varying.get(d.dim_param, total) for d in value.type.tensor_type.shape.dim]
        feed[value.name] = random.normal(size=shape).astype(kind)
    feed["tokens"] = random.integers(0, 500, (slots, tokens))
    feed["positions"] = np.tile(np.arange(total), (slots, 1))
    feed["mask"] = np.tile(np.arange(CAPACITY) <= np.arange(total)[:, None], (slots, 1, 1))
    feed["memory_mask"] = np.arange(genes) < random.integers(1, genes + 1, (slots, 1))
    return feed


def latent_nodes(model: ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_node_computes_what_the_kernel_must(dtype: type) -> None:
    heads, tokens, kept, genes, width = 3, 4, 2, 9, 64
    shapes = {"query": (2, heads * tokens, width), "memory": (2, genes, width), "mask": (2, genes), "kept": (2, kept)}
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    types = {"query": element, "memory": element, "mask": TensorProto.INT32, "kept": TensorProto.INT64}
    shapes_out = {"mixed": shapes["query"], "mass": (2, kept, genes), "weights": (2, heads, kept, genes)}
    outputs = {name: element if name == "mixed" else TensorProto.FLOAT for name in shapes_out}
    graph = helper.make_graph(
        [latent_node(list(shapes), list(outputs), heads, "latent")],
        "one",
        [helper.make_tensor_value_info(name, types[name], shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, kind, shapes_out[name]) for name, kind in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(
        graph, functions=[latent_function(element, 24, with_weights=True)], opset_imports=opsets, ir_version=10
    )
    random = np.random.default_rng(1)
    feed: Arrays = {name: (random.normal(size=shapes[name]) / 4).astype(dtype) for name in ("query", "memory")}
    feed["mask"] = np.array([[1, 0, 1, 1, 7, -1, 1, 0, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0]], np.int32)
    feed["kept"] = np.zeros(shapes["kept"], np.int64)
    mixed, mass, weights = session(model).run(None, feed)
    by_head = feed["query"].reshape(2, heads, tokens, width)
    expected, scores = latent_cross_attention(by_head, feed["memory"], feed["mask"] != 0)
    tolerance = 1e-6 if dtype == np.float32 else 2e-3
    assert np.abs(mixed.reshape(by_head.shape) - expected).max() < tolerance
    assert weights.shape == (2, heads, kept, genes)
    assert np.abs(weights - scores[:, :, -kept:]).max() < tolerance
    assert np.abs(mass - scores[:, :, -kept:].mean(1)).max() < tolerance


@pytest.mark.parametrize("sizes", [(3, 1, 0, 64), (2, 1, 90, 31), (2, 5, 7, 1)], ids=["step", "prompt", "mixed"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_fused_graph_gives_equal_bits(
    tiny_bundle: Path, plain_fp16: Path, precision: str, sizes: tuple[int, int, int, int]
) -> None:
    model = load(tiny_bundle / "decoder.onnx" if precision == "fp32" else plain_fp16)
    feed = inputs(model, *sizes)
    expected = session(model).run(None, feed)
    assert fuse_latent_cross(model) == LAYERS
    for value, fused in zip(expected, session(model).run(None, feed), strict=True):
        assert (value == fused).all()


def test_an_exported_fp16_bundle_carries_nodes_that_tensorrt_gives_to_the_plugin(tiny_bundle_fp16: Path) -> None:
    model = load(tiny_bundle_fp16 / "decoder.onnx")
    nodes = latent_nodes(model)
    assert len(nodes) == LAYERS
    assert not [node for node in model.graph.node if node.op_type == "Softmax"]
    for node in nodes:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        named = {"plugin_version": b"1", "plugin_namespace": DOMAIN.encode()}
        assert attributes == {"num_heads": 4, "with_weights": 1, **named}
        assert list(node.input[1:]) == ["memory", "memory_mask.int32", "tokens"]
        assert node.op_type == OPERATOR
    graph_names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    function = next(iter(model.functions))
    assert not graph_names.intersection({*function.input, *(name for node in function.node for name in node.output)})


def test_float32_and_materialised_bundles_stay_as_they_were(tiny_bundle: Path, tiny_bundle_materialised: Path) -> None:
    for folder in (tiny_bundle, tiny_bundle_materialised):
        assert not latent_nodes(load(folder / "decoder.onnx"))
    model = load(tiny_bundle_materialised / "decoder.onnx")
    assert fuse_latent_cross(model) == 0
    assert not model.functions


def test_a_file_is_fused_once_and_its_weights_are_not_touched(plain_fp16: Path) -> None:
    weights = plain_fp16.with_name("decoder.onnx.data")
    path = plain_fp16.with_name("copy.onnx")
    path.write_bytes(plain_fp16.read_bytes())
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert fuse_file(path) == LAYERS
    once = path.read_bytes()
    assert fuse_file(path) == 0
    assert path.read_bytes() == once
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == before
    assert len(once) < 2 * len(plain_fp16.read_bytes())


def test_without_attention_no_layer_keeps_its_weights(tiny_bundle_fp16: Path) -> None:
    model = load(tiny_bundle_fp16 / "decoder.onnx")
    feed = inputs(model, 2, 1, 4, 20)
    names = ["logits", "evidence", "new_value.3"]
    expected = session(model).run(names, feed)
    without_attention(model)
    assert "attention" not in {value.name for value in model.graph.output}
    for node in latent_nodes(model):
        assert len(node.output) == 2
        assert next(one.i for one in node.attribute if one.name == "with_weights") == 0
    for value, left in zip(expected, session(model).run(names, feed), strict=True):
        assert (value == left).all()


def test_without_attention_leaves_a_plain_graph_whole(tiny_bundle: Path) -> None:
    model = load(tiny_bundle / "decoder.onnx")
    feed = inputs(model, 2, 1, 4, 20)
    expected = session(model).run(["logits", "evidence"], feed)
    without_attention(model)
    for value, left in zip(expected, session(model).run(["logits", "evidence"], feed), strict=True):
        assert (value == left).all()


def another_width(model: ModelProto) -> None:
    next(v for v in model.graph.input if v.name == "memory").type.tensor_type.shape.dim[2].dim_value = 96


def another_bias(model: ModelProto) -> None:
    where = next(node for node in model.graph.node if node.op_type == "Where")
    one = next(one for one in model.graph.initializer if one.name == where.input[2])
    one.CopyFrom(helper.make_tensor(one.name, TensorProto.FLOAT, [], [-5.0]))


def another_axis(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] == "memory":
            node.attribute[0].CopyFrom(helper.make_attribute("perm", [1, 2, 0]))


@pytest.mark.parametrize("change", [another_width, another_bias, another_axis])
def test_what_is_not_exactly_this_attention_stays(tiny_bundle: Path, change: object) -> None:
    model = load(tiny_bundle / "decoder.onnx")
    assert callable(change)
    change(model)
    before = model.SerializeToString()
    assert fuse_latent_cross(model) == 0
    assert model.SerializeToString() == before


def test_a_graph_made_half_afterwards_is_fused_too(tiny_bundle: Path) -> None:
    halve = pytest.importorskip("cellscribe.export.tensorrt.halve").halve
    model = halve(load(tiny_bundle / "decoder.onnx"))
    feed = inputs(model, 2, 1, 6, 20)
    expected = session(model).run(None, feed)
    assert fuse_latent_cross(model) == LAYERS
    for value, fused in zip(expected, session(model).run(None, feed), strict=True):
        assert (value == fused).all()


def test_tensorrt_for_rtx_inlines_every_node_by_itself(tiny_bundle_fp16: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (the tensorrt extra)")
    path = tiny_bundle_fp16 / "decoder.onnx"
    model = onnx.load(str(path), load_external_data=False)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "capacity":
                dim.dim_value = CAPACITY
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString(), str(path)), parser.get_error(0).desc()
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    made = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    for node in latent_nodes(model):
        product = made[node.output[0]]
        assert product.get_input(1).name == "memory"
        source = product.get_input(0).name
        kinds = []
        while source != node.input[0]:  # probabilities, back to the queries of this node and no other
            kinds.append(made[source].type)
            source = made[source].get_input(0).name
        assert kinds.count(trt.LayerType.SOFTMAX) == kinds.count(trt.LayerType.MATRIX_MULTIPLY) == 1
