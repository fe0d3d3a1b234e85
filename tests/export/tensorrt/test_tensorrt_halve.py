from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.inliner import inline_local_functions

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import PlanError
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.export.tensorrt.halve import halve

GRAPHS = [
    ("tiny_bundle", "encoder.onnx"),
    ("tiny_bundle", "decoder.onnx"),
    ("tiny_bundle_materialised", "decoder.onnx"),
    ("tiny_bundle_materialised", "cross.onnx"),
    ("demo", "encoder.onnx"),
    ("demo", "decoder.onnx"),
]
SIZES = {"batch": 2, "tokens": 1, "known": 5, "known + tokens": 6, "capacity": 16, "genes": 9}
DTYPES = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.FLOAT16: np.float16}


def inputs(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    generator, feed = np.random.default_rng(0), {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [SIZES[d.dim_param] if d.dim_param else d.dim_value for d in kind.shape.dim]
        feed[value.name] = {
            "tokens": lambda s=shape: generator.integers(0, 500, s),
            "genes": lambda s=shape: generator.integers(0, 50, s),
            "positions": lambda: np.tile(np.arange(6), (2, 1)),
            "mask": lambda s=shape: np.ones(s, bool) if len(s) == 2 else np.tile(np.tri(6, 16, dtype=bool), (2, 1, 1)),
            "memory_mask": lambda: np.arange(9) < np.array([[9], [4]]),
        }.get(value.name, lambda s=shape: generator.normal(size=s).astype(np.float32))()
    return feed


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    given = {n: a.astype(DTYPES[kinds[n]]) if kinds[n] in DTYPES else a for n, a in feed.items()}
    names = [v.name for v in model.graph.output]
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.parametrize(("bundle", "graph"), GRAPHS)
def test_a_halved_graph_computes_what_the_whole_one_does(
    bundle: str, graph: str, request: pytest.FixtureRequest
) -> None:
    folder = packaged_bundle() if bundle == "demo" else request.getfixturevalue(bundle)
    path = open_bundle(folder).path(graph)
    feed = inputs(onnx.load(str(path)))
    whole, half = run(onnx.load(str(path)), feed), run(halve(onnx.load(str(path))), feed)
    assert list(whole) == list(half)
    for name, value in half.items():
        assert np.isfinite(value).all()
        assert value.dtype == (np.float32 if name in ("logits", "evidence", "attention", "cell") else np.float16)
        np.testing.assert_allclose(value.astype(np.float32), whole[name], atol=0.03, rtol=0.02, err_msg=name)
    if "evidence" in half:
        assert not half["evidence"][1, :, 4:].any()
        np.testing.assert_allclose(half["evidence"].sum(-1), 1, atol=1e-3)


def test_a_halved_graph_has_the_types_of_one_that_was_exported_in_half_precision(
    tiny_bundle: Path, tiny_bundle_fp16: Path
) -> None:
    for graph in ("encoder.onnx", "decoder.onnx"):
        halved = halve(onnx.load(str(tiny_bundle / graph)))
        exported = inline_local_functions(onnx.load(str(tiny_bundle_fp16 / graph)))
        onnx.checker.check_model(halved, full_check=True)
        for one, other in ((halved.graph.input, exported.graph.input), (halved.graph.output, exported.graph.output)):
            assert {v.name: v.type.tensor_type.elem_type for v in one} == {
                v.name: v.type.tensor_type.elem_type for v in other
            }
        assert operators(halved, "Softmax") == operators(exported, "Softmax")
        assert operators(halved, "RMSNormalization") == operators(exported, "RMSNormalization")


def operators(model: onnx.ModelProto, kind: str) -> list[int]:
    """Types of what the nodes of one kind give."""
    found = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*found.value_info, *found.output)}
    return [types[node.output[0]] for node in model.graph.node if node.op_type == kind]


def test_weights_are_rounded_once_and_large_ones_stay_finite() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 24]> g (float[2] x) => (float[2] memory) '
        "<float[2] w = {1e30, 0.1}> { y = Mul(x, w) memory = Relu(y) }"
    )
    half = halve(model)
    (weight,) = half.graph.initializer
    assert onnx.numpy_helper.to_array(weight).tolist() == [65504.0, np.float16(0.1)]


def test_an_unknown_operator_is_refused() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 24]> g (float[2] x) => (float[2] y) { y = Erf(x) }'
    )
    with pytest.raises(PlanError, match=r"operator Erf .* --precision fp16"):
        halve(model)
