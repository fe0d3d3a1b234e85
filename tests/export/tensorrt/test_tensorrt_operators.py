"""Every node of the graphs that plans are built from, against TensorRT's documented operators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from causal_bundles import bundle_of
from onnx import ModelProto, NodeProto, TensorProto

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.bundle.load import DECODER
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.export.tensorrt.graph import prepared

TABLE: dict[str, list[str]] = json.loads(Path(__file__).with_name("operators.json").read_text())["operators"]
NAMES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.INT64: "INT64",
    TensorProto.INT32: "INT32",
    TensorProto.BOOL: "BOOL",
}
# How many of an operator's inputs hold data; the others are indices, shapes, masks with types of their own.
DATA = {"Attention": 3, "TensorScatter": 2, "RotaryEmbedding": 3, "LayerNormalization": 3, "RMSNormalization": 2}
ALL = {"Add", "Concat", "MatMul", "Min", "Mul", "Sub", "Where", "Clip"}


def complaints(model: ModelProto) -> Iterator[str]:
    """Say what TensorRT's documentation does not allow."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values} | {i.name: i.data_type for i in graph.initializer}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values}
    constants = {i.name for i in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    for node in graph.node:
        if node.domain or node.op_type not in TABLE:
            yield f"{node.op_type} is not in the table"
            continue
        count = len(node.input) if node.op_type in ALL else DATA.get(node.op_type, 1)
        for name in (*[n for n in node.input[:count] if n], *node.output):
            kind = NAMES.get(types.get(name, 0), "unknown")
            if kind not in TABLE[node.op_type] and not (name in node.output and node.op_type == "Shape"):
                yield f"{node.op_type} takes no {kind} ({name})"
        yield from restrictions(node, types, ranks, constants)


def restrictions(node: NodeProto, types: dict[str, int], ranks: dict[str, int], constants: set[str]) -> Iterator[str]:
    """The column "Restrictions"."""
    attributes = {a.name: a for a in node.attribute}
    given = list(node.input)
    if node.op_type == "Attention":
        if any(ranks.get(name) != 4 for name in given[:4]) or any(given[4:]) or len(node.output) > 1:
            yield "Attention wants Q, K, V and mask in four dimensions, no past, no lengths, one output"
        if {"softcap", "qk_matmul_output_mode"} & set(attributes):
            yield "Attention has unsupported attributes"
    if node.op_type == "LayerNormalization" and len(node.output) > 1:
        yield "LayerNormalization gives its first output alone"
    if node.op_type == "TensorScatter" and (
        [ranks.get(name) for name in given[:2]] != [4, 4]
        or ("axis" in attributes and attributes["axis"].i != -2)
        or ("mode" in attributes and attributes["mode"].s != b"linear")
    ):
        yield "TensorScatter wants caches in four dimensions, along the last but one, in linear mode"
    if node.op_type == "RotaryEmbedding" and types.get(given[3]) != TensorProto.INT64:
        yield "RotaryEmbedding wants int64 positions"
    if node.op_type in ("ReduceMean", "Squeeze", "Unsqueeze") and given[1:] and given[1] not in constants:
        yield f"{node.op_type} wants constant axes"


@pytest.mark.parametrize("name", ["tiny_bundle_fp16", "tiny_bundle_materialised", "demo"])
def test_every_node_is_one_that_tensorrt_documents(name: str, request: pytest.FixtureRequest) -> None:
    bundle = open_bundle(packaged_bundle() if name == "demo" else request.getfixturevalue(name))
    seen = set()
    for graph_name in (n for n in bundle.manifest.files if n.endswith(".onnx")):
        with prepared(bundle, graph_name, 186) as graph:
            model = ModelProto()
            model.ParseFromString(graph.serialised)
            assert list(complaints(model)) == []
            seen |= {node.op_type for node in model.graph.node}
    assert {"Attention", "TensorScatter", "RotaryEmbedding", "RMSNormalization", "Softmax"} <= seen


@pytest.mark.parametrize(("kind", "built"), [("gpt2", "fp32"), ("neox", "fp16"), ("gemma2", "fp16")])
def test_so_is_every_node_of_a_decoder_without_an_encoder(kind: str, built: str, tmp_path: Path) -> None:
    with prepared(bundle_of(kind, "fp32", tmp_path), DECODER, 208, precision=built) as graph:
        model = ModelProto()
        model.ParseFromString(graph.serialised)
    assert list(complaints(model)) == []
    assert {"Gelu", "GatherElements", "TensorScatter"} <= {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("y = Erf(x)", "Erf is not in the table"),
        ("z = Cast<to = 11>(x) w = Sigmoid(z) y = Cast<to = 1>(w)", "Cast takes no unknown"),
        ("y = Attention(x, x, x)", "Attention wants Q, K, V and mask in four dimensions"),
    ],
)
def test_the_check_finds_what_is_not_documented(body: str, why: str) -> None:
    text = f'<ir_version: 10, opset_import: ["" : 24]> g (float[2,3,4] x) => (float[2,3,4] y) {{ {body} }}'
    assert any(why in one for one in complaints(onnx.parser.parse_model(text)))
