"""Rewritten graphs: what they hold, and that they compute what the dequantised weights say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cellscribe.engine.bundle.onnx_weights import ALIAS, onnx_weights
from cellscribe.engine.errors import BundleError
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.export.quantize import dequantize
from cellscribe.export.quantize.graph import rewrite

Floats = npt.NDArray[np.float32]


def model_of(weights: dict[str, Floats], nodes: list[tuple[str, list[str], str]], folder: Path) -> Path:
    """An ONNX file with external weights; nodes are (operator, inputs, output), x [2, 64] goes in and y comes out."""
    made = [helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in nodes]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([1, 0], np.int64), "rows"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(made, "g", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 24)], ir_version=10
    )
    helper.set_model_props(model, {f"{ALIAS}other.weight": "a.weight"})
    onnx.save(
        model, str(folder / "source.onnx"), save_as_external_data=True, location="source.onnx.data", size_threshold=0
    )
    return folder / "source.onnx"


def exact(path: Path) -> ort.InferenceSession:
    """Open a graph with its products of quantised weights computed in float32."""
    model = onnx.load(str(path), load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    copy = path.with_name("exact.onnx")
    onnx.save(model, str(copy))
    return ort.InferenceSession(str(copy), providers=["CPUExecutionProvider"])


def run(path: Path, x: Floats) -> Floats:
    (y,) = exact(path).run(["y"], {"x": x})
    found: Floats = y
    return found


def widened(source: Path, rewritten: Path, target: Path) -> ort.InferenceSession:
    """Open the source's own graph in float32, with the numbers that the rewritten weights stand for."""
    model, weights = onnx.load(str(source)), onnx_weights(rewritten)
    for tensor in model.graph.initializer:
        found = weights.quantized(tensor.name)
        if found is not None:
            tensor.CopyFrom(numpy_helper.from_array(dequantize(found, tensor.dims[0]), tensor.name))
        elif (stored := weights.get(tensor.name)) is not None and stored.dtype == np.float16:
            tensor.CopyFrom(numpy_helper.from_array(stored.astype(np.float32), tensor.name))
    onnx.save(model, str(target), save_as_external_data=True, location=f"{target.name}.data")
    return ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])


def feed(session: ort.InferenceSession) -> dict[str, npt.NDArray[np.generic]]:
    """Make inputs for any graph of a bundle."""
    sizes = {"batch": 2, "tokens": 3, "known": 2, "known + tokens": 5, "capacity": 8, "genes": 7}
    made: dict[str, npt.NDArray[np.generic]] = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else sizes[size] for size in value.shape]
        if value.name == "positions":
            made[value.name] = np.tile(np.arange(shape[1]), (shape[0], 1))
        elif value.name == "mask" and len(shape) == 3:
            made[value.name] = np.tile(np.arange(shape[2])[None] <= np.arange(shape[1])[:, None], (shape[0], 1, 1))
        elif value.type == "tensor(bool)":
            made[value.name] = np.ones(shape, bool)
        elif value.type == "tensor(int64)":
            made[value.name] = np.arange(np.prod(shape)).reshape(shape) % 50
        else:
            made[value.name] = drawn(*shape)
    return made


def drawn(*shape: int) -> Floats:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("bits", [4, 8])
def test_equal_weights_stay_one_and_are_found_by_both_names(tmp_path: Path, bits: int) -> None:
    weight, x = drawn(64, 64), drawn(2, 64)
    nodes = [("MatMul", ["x", "a.weight"], "h"), ("MatMul", ["h", "a.weight"], "y")]
    source = model_of({"a.weight": weight}, nodes, tmp_path)
    rewrite(source, tmp_path / "new.onnx", lambda _: bits)
    weights = onnx_weights(tmp_path / "new.onnx")
    assert sorted(name for name in weights.tensors if name != "rows") == ["a.weight.packed", "a.weight.scales"]
    assert weights.get("a.weight") is None
    found, other = weights.quantized("a.weight"), weights.quantized("other.weight")
    assert found is not None
    assert other is not None
    assert found.packed is other.packed
    assert found.bits == bits
    wide = dequantize(found, 64)
    assert np.allclose(run(tmp_path / "new.onnx", x), x @ wide @ wide, rtol=1e-3, atol=1e-3)


def test_tied_embeddings_are_half_rows_and_a_quantised_product(tmp_path: Path) -> None:
    table, x = drawn(100, 64), drawn(2, 64)
    nodes = [
        ("Gather", ["table", "rows"], "picked"),
        ("Add", ["x", "picked"], "sum"),
        ("Transpose", ["table"], "turned"),
        ("MatMul", ["sum", "turned"], "y"),
    ]
    rewrite(model_of({"table": table}, nodes, tmp_path), tmp_path / "new.onnx", lambda _: 8)
    weights = onnx_weights(tmp_path / "new.onnx")
    found = weights.quantized("table")
    assert found is not None
    assert found.packed.shape == (100, 1, 64)
    assert np.array_equal(weights["table"], table.astype(np.float16))
    expected = (x + table.astype(np.float16).astype(np.float32)[[1, 0]]) @ dequantize(found, 64)
    assert np.allclose(run(tmp_path / "new.onnx", x), expected, rtol=1e-4, atol=1e-4)
    assert kinds(onnx.load(str(tmp_path / "new.onnx"))) == Counter(Gather=1, Cast=1, Add=1, MatMulNBits=1)


def test_what_no_product_reads_alone_keeps_its_numbers(tmp_path: Path) -> None:
    weight, x = drawn(64, 64), drawn(2, 64)
    nodes = [("MatMul", ["x", "w"], "h"), ("ReduceSum", ["w"], "total"), ("Add", ["h", "total"], "y")]
    rewrite(model_of({"w": weight}, nodes, tmp_path), tmp_path / "new.onnx", lambda _: 8)
    weights = onnx_weights(tmp_path / "new.onnx")
    found = weights.quantized("w")
    assert found is not None
    assert np.array_equal(weights["w"], weight)
    assert np.allclose(run(tmp_path / "new.onnx", x), x @ dequantize(found, 64) + weight.sum(), rtol=1e-4, atol=1e-3)


def test_half_storage_casts_each_table_once(tmp_path: Path) -> None:
    weight, x = drawn(64, 64), drawn(2, 64)
    nodes = [("MatMul", ["x", "w"], "h"), ("MatMul", ["h", "w"], "y")]
    rewrite(model_of({"w": weight}, nodes, tmp_path), tmp_path / "new.onnx", lambda _: None)
    half = weight.astype(np.float16).astype(np.float32)
    assert np.allclose(run(tmp_path / "new.onnx", x), x @ half @ half, rtol=1e-4, atol=1e-3)
    assert kinds(onnx.load(str(tmp_path / "new.onnx"))) == Counter(MatMul=2, Cast=1)


@pytest.mark.parametrize(("number", "bits"), [(np.nan, 4), (1e9, 8), (1e6, None)])
def test_a_weight_that_does_not_fit_is_named(tmp_path: Path, number: float, bits: int | None) -> None:
    weight = drawn(64, 64)
    weight[3, 5] = number
    source = model_of({"w": weight}, [("MatMul", ["x", "w"], "y")], tmp_path)
    with pytest.raises(BundleError, match=r"the weight w of .* cannot be quantised"):
        rewrite(source, tmp_path / "new.onnx", lambda _: bits)


@pytest.mark.parametrize("form", ["tiny_bundle", "tiny_bundle_materialised", "packaged"])
def test_every_product_of_every_graph_is_quantised(tmp_path: Path, request: pytest.FixtureRequest, form: str) -> None:
    folder = packaged_bundle() if form == "packaged" else request.getfixturevalue(form)
    for path in folder.glob("*.onnx"):
        rewrite(path, tmp_path / path.name, lambda _: 4)
        before, after = onnx_weights(path), onnx_weights(tmp_path / path.name)
        shapes = {
            name: value.shape
            for name, value in before.tensors.items()
            if value.ndim == 2 and name.endswith(".weight") and "embedding" not in name and value.shape[0] >= 32
        }
        assert shapes
        for name, (k, n) in shapes.items():
            found = after.quantized(name)
            assert found is not None
            assert found.packed.shape == (n, -(-k // 32), 16)
            assert after.get(name) is None
        assert after.aliases == before.aliases
        assert after.epsilons == before.epsilons
        for name, value in before.tensors.items():
            if "norm" in name or name.endswith((".cos", ".sin", "bias")):
                assert np.array_equal(after[name], value)
                assert after[name].dtype == value.dtype


@pytest.mark.parametrize("bits", [4, None])
@pytest.mark.parametrize("form", ["packaged", "tiny_bundle_materialised"])
def test_graphs_compute_what_their_dequantised_weights_do(
    tmp_path: Path, request: pytest.FixtureRequest, form: str, bits: int | None
) -> None:
    folder = packaged_bundle() if form == "packaged" else request.getfixturevalue(form)
    for path in folder.glob("*.onnx"):
        # A tied table has two forms, so no float32 table stands for both; another test has it.
        rewrite(path, tmp_path / path.name, lambda name: None if name == "decoder.embedding.weight" else bits)
        session = widened(path, tmp_path / path.name, tmp_path / f"wide_{path.name}")
        inputs = feed(session)
        for found, expected in zip(
            exact(tmp_path / path.name).run(None, inputs), session.run(None, inputs), strict=True
        ):
            assert np.allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()))
