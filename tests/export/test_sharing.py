"""Weights that two graphs have in common are stored once, and both still read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.export.sharing import share_weights


def write(folder: Path, name: str, weights: dict[str, np.ndarray]) -> None:
    """A graph that adds its weights up."""
    shape = list(next(iter(weights.values())).shape)
    total, nodes = "x", []
    for i, weight in enumerate(weights):
        nodes.append(helper.make_node("Add", [total, weight], [f"y{i}"]))
        total = f"y{i}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(total, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, str(folder / name), save_as_external_data=True, location=f"{name}.data", size_threshold=0)


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    a, b, c, d = (random.normal(size=(40, 30)).astype(np.float32) for _ in range(4))
    write(tmp_path, "first.onnx", {"a": a, "b": b, "other": d})
    write(tmp_path, "second.onnx", {"a": a, "b": c, "d": d})
    before = (tmp_path / "second.onnx.data").stat().st_size
    assert share_weights(tmp_path, "first.onnx", "second.onnx") == a.nbytes
    assert before - (tmp_path / "second.onnx.data").stat().st_size >= a.nbytes - 64
    found = onnx_weights(tmp_path / "second.onnx").tensors
    for name, wanted in {"a": a, "b": c, "d": d}.items():
        np.testing.assert_array_equal(found[name], wanted)
    session = ort.InferenceSession(str(tmp_path / "second.onnx"))
    np.testing.assert_allclose(session.run(None, {"x": np.zeros_like(a)})[0], a + c + d, rtol=1e-6)
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "first.onnx", "first.onnx.data", "second.onnx", "second.onnx.data",
    ]  # fmt: skip
